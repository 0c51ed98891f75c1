package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/couchledger/couchledger/configs"
)

const (
	// protocolVersion is the BigchainDB Server release whose documents the
	// node follows.
	protocolVersion = "0.10.0"
	// ownVersion is couchledger's own.
	ownVersion = "0.1.0"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	// exitUnchecked is verify's when it cannot tell whether the ledger is
	// sound; exitFailure means there that it is not.
	exitUnchecked = 2
)

// usageError is a command line that cannot be followed.
type usageError struct {
	command *cobra.Command
	reason  error
}

func (e *usageError) Error() string { return e.reason.Error() }

// app is one call of the command. As BigchainDB has it, stdout is for results
// that another program may read, stderr for everything else.
type app struct {
	environ  []string
	stdin    *bufio.Reader
	terminal *os.File // stdin when it is a terminal, else nil
	stdout   io.Writer
	stderr   io.Writer

	config      string // -c, "" when not given
	yes         bool
	logLevel    string // -l in lower case, "" when not given
	tempKeypair bool
	rethinkDB   bool // --dev-start-rethinkdb
	nodes       int  // of configure --nodes
}

// run is the whole command: args without the program's name, environ in the
// form of os.Environ. It returns the exit code.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{environ: environ, stdin: bufio.NewReader(stdin), stdout: stdout, stderr: stderr}
	if file, ok := stdin.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		a.terminal = file
	}
	root := a.root()
	root.SetArgs(slices.Concat([]string{}, args)) // nil would stand for os.Args
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	var unchecked *uncheckedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &unchecked):
		a.say("bigchaindb: %v", err)
		return exitUnchecked
	case errors.As(err, &usage):
		a.say("bigchaindb: %v", err)
		a.say("Usage: %s", usage.command.UseLine())
		a.say("`%s --help` tells more.", usage.command.CommandPath())
		return exitUsage
	}
	a.say("bigchaindb: %v", err)
	return exitFailure
}

// say writes a line to stderr.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.stderr, format+"\n", args...)
}

const tempKeypairFlag = "dev-allow-temp-keypair"

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "bigchaindb [options] COMMAND",
		Short:             "Control your ledger node.",
		Long:              "Control your ledger node: couchledger, which speaks the BigchainDB Server 0.10 protocol.\nOptions may stand before or after the command.",
		Version:           protocolVersion,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              noArgs, // else cobra judges unknown commands itself, with its own exit code
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: a.checkFlags,

		DisableFlagsInUseLine:      true,
		SuggestionsMinimumDistance: 2,
	}
	root.SetVersionTemplate("bigchaindb {{.Version}}\ncouchledger " + ownVersion + "\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd, err} })
	flags := root.PersistentFlags()
	flags.StringVarP(&a.config, "config", "c", "", "the config `file`; with configure, - for stdout (default $"+configs.EnvFile+", else $HOME/.bigchaindb)")
	flags.BoolVarP(&a.yes, "yes", "y", false, "take every default and ask nothing (also --yes-please)")
	flags.StringVarP(&a.logLevel, "log-level", "l", "", "the console's log `level`: "+strings.Join(cliLevels, ", "))
	// They belong to start, but scripts write them before the command too,
	// where only the root's flags are understood.
	flags.BoolVar(&a.tempKeypair, tempKeypairFlag, false, "with start: run with a key pair made for this run when none is set")
	flags.BoolVar(&a.rethinkDB, devRethinkDBFlag, false, "with start: run a RethinkDB found on PATH beside the node, unless one runs already")
	root.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "yes-please" { // BigchainDB's other name for it
			name = "yes"
		}
		return pflag.NormalizedName(name)
	})
	root.AddCommand(a.configureCommand(), a.showConfigCommand(), a.exportCommand(),
		a.initCommand(), a.dropCommand(), a.startCommand(), a.indexesCommand(), a.verifyCommand(), a.backupCommand(), a.restoreCommand(),
		a.reindexCommand(), a.benchCommand(), a.tokenCommand(),
		a.setShardsCommand(), a.setReplicasCommand(), a.addReplicasCommand(), a.removeReplicasCommand(),
		a.replicasCommand(), a.allowPeerCommand(), a.forbidPeerCommand())
	return root
}

// cliLevels are the levels that -l takes, in any case.
var cliLevels = []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}

// checkFlags judges the flags before any command runs.
func (a *app) checkFlags(cmd *cobra.Command, _ []string) error {
	flags := cmd.Flags()
	if flags.Changed("log-level") && !slices.Contains(cliLevels, strings.ToUpper(a.logLevel)) {
		return &usageError{cmd, fmt.Errorf("--log-level: expected one of %s, got %q", strings.Join(cliLevels, ", "), a.logLevel)}
	}
	a.logLevel = strings.ToLower(a.logLevel)
	for name, given := range map[string]bool{tempKeypairFlag: a.tempKeypair, devRethinkDBFlag: a.rethinkDB} {
		if given && cmd.Name() != "start" {
			return &usageError{cmd, fmt.Errorf("--%s is an option of start", name)}
		}
	}
	if a.config == "-" && cmd.Name() != "configure" {
		return &usageError{cmd, errors.New("--config -: only configure writes to stdout; give the path of a config file")}
	}
	return nil
}

// noArgs refuses arguments; after what has commands they are unknown ones.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		reason := fmt.Sprintf("there is no command %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			reason += "; did you mean " + strings.Join(near, " or ") + "?"
		}
		return &usageError{cmd, errors.New(reason)}
	}
	return &usageError{cmd, fmt.Errorf("%s takes no arguments, got %q", cmd.Name(), args[0])}
}

// load reads the settings for the commands that write no file, with -l
// applied, and shows the warnings. A file that was asked for with -c must be
// there. One that only BIGCHAINDB_CONFIG_PATH names need not: images set it,
// and their nodes may be set up by the environment alone.
func (a *app) load() (configs.Settings, error) {
	settings, warnings, err := configs.Load(a.config, a.environ)
	a.warn(warnings)
	if err != nil {
		return settings, err
	}
	if a.config != "" && !settings.FileExists {
		return settings, fmt.Errorf("config file %s does not exist; `bigchaindb -c %s configure embedded` makes it", settings.File, settings.File)
	}
	if _, chosen := configs.FilePath("", a.environ); chosen && !settings.FileExists {
		a.warn([]string{fmt.Sprintf("config file %s (%s) does not exist: the environment and the defaults count", settings.File, configs.EnvFile)})
	}
	return settings, a.applyLogLevel(&settings)
}

// applyLogLevel puts -l in the place of the levels that the console shows.
func (a *app) applyLogLevel(settings *configs.Settings) error {
	for _, path := range []string{"log.level_console", "server.loglevel"} {
		if err := settings.Set(path, a.logLevel, a.environ); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) warn(warnings []string) {
	for _, line := range warnings {
		a.say("bigchaindb: warning: %s", line)
	}
}
