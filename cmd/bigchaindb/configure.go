package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/ledger"
)

func (a *app) configureCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "configure BACKEND | configure --nodes N [BACKEND] DIR",
		Short: "Write a config file with a new key pair",
		Long: "Write a config file with a new key pair, for one of the backends " + strings.Join(configs.Backends, ", ") + ".\nA file that is there is kept beside as .bak.\n\n" +
			"With --nodes N, write the files of N nodes that share one database into the folder DIR, for a federation on this machine:\n" +
			testConfig + "0 and so on, each with the keys of the others in its keyring and a port of its own. Nothing is asked then;\n" +
			"what is in the environment counts for all.",
		ValidArgs: configs.Backends,
		Args: func(cmd *cobra.Command, args []string) error {
			var err error
			if cmd.Flags().Changed(nodesFlag) {
				_, _, err = a.nodesArgs(args)
			} else if len(args) != 1 {
				err = fmt.Errorf("configure takes one backend: %s", strings.Join(configs.Backends, ", "))
			} else {
				err = knownBackend(args[0])
			}
			if err != nil {
				return &usageError{cmd, err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed(nodesFlag) {
				return a.configure(args[0])
			}
			backend, folder, err := a.nodesArgs(args)
			if err != nil {
				return err
			}
			return a.configureNodes(backend, folder)
		},
	}
	cmd.Flags().IntVar(&a.nodes, nodesFlag, 0, "how many nodes of a federation to write config files for")
	return cmd
}

func knownBackend(name string) error {
	if !slices.Contains(configs.Backends, name) {
		return fmt.Errorf("there is no backend %q: choose one of %s", name, strings.Join(configs.Backends, ", "))
	}
	return nil
}

func (a *app) configure(backend string) error {
	toStdout := a.config == "-"
	given := a.config
	if toStdout {
		given = ""
	}
	file, _ := configs.FilePath(given, a.environ)
	if !toStdout {
		if file == "" {
			return errors.New("there is no place for the config file, since HOME is not set: give one with -c")
		}
		_, err := os.Lstat(file)
		if err == nil && !a.yes {
			replace, err := a.confirm(fmt.Sprintf("Config file `%s` exists, do you want to override it? (it is kept as `%s.bak`) [y/N]: ", file, file))
			if err != nil {
				return err
			}
			if !replace {
				a.say("Nothing was written.")
				return nil
			}
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("config file: %w", err)
		}
	}
	settings, err := a.newSettings(backend, given)
	if err != nil {
		return err
	}
	if !a.yes {
		if err := a.askSettings(&settings); err != nil {
			return err
		}
	}
	if toStdout {
		text, err := settings.Encode("-")
		if err != nil {
			return err
		}
		if _, err := a.stdout.Write(text); err != nil {
			return fmt.Errorf("the configuration cannot be written to stdout: %w", err)
		}
	} else {
		backup, err := settings.Save(file, true)
		if err != nil {
			return err
		}
		if backup != "" {
			a.say("The file that was there is kept as %s", backup)
		}
		a.say("Configuration written to %s", file)
	}
	a.say("Ready to go!")
	return nil
}

// newSettings makes the settings of a config file to be written, with a new
// key pair.
func (a *app) newSettings(backend, path string) (configs.Settings, error) {
	settings, warnings, err := configs.New(backend, path, a.environ)
	a.warn(warnings)
	if err != nil {
		return settings, err
	}
	a.say("Generating keypair")
	setKeyPair(&settings, ledger.GenerateKeyPair())
	return settings, nil
}

func setKeyPair(settings *configs.Settings, pair ledger.KeyPair) {
	settings.KeyPair = configs.KeyPair{Public: pair.Public, Private: configs.Secret(pair.Private())}
}

// askSettings asks for each setting until the answer can be taken.
func (a *app) askSettings(settings *configs.Settings) error {
	for _, prompt := range settings.Prompts(a.environ) {
		if prompt.Path == "database.password" && settings.Database.Login == "" {
			continue
		}
		for {
			answer, err := a.askSetting(prompt)
			if err != nil {
				return err
			}
			wrong := settings.Set(prompt.Path, answer, a.environ)
			if wrong == nil {
				break
			}
			a.say("%s: %v", prompt.Path, wrong)
		}
	}
	return nil
}

func (a *app) askSetting(prompt configs.Prompt) (string, error) {
	switch {
	case prompt.Secret:
		return a.askSecret(fmt.Sprintf("%s (preferably not here: leave it empty, and set %s where the node runs): ", prompt.Question, prompt.Env))
	case prompt.Default == "":
		return a.ask(prompt.Question + " (default none): ")
	}
	return a.ask(fmt.Sprintf("%s (default `%s`): ", prompt.Question, prompt.Default))
}

func (a *app) showConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show-config",
		Short: "Show the settings in effect, without their secrets",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			settings, err := a.load()
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(settings.Masked().JSON())
			return err
		},
	}
}

func (a *app) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export-my-pubkey",
		Short: "Write this node's public key to stdout",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			settings, err := a.load()
			if err != nil {
				return err
			}
			if settings.KeyPair.Public == "" {
				return errors.New("this node's public key is not set anywhere, so it cannot be exported; `bigchaindb configure embedded` makes a key pair")
			}
			_, err = fmt.Fprintln(a.stdout, settings.KeyPair.Public)
			return err
		},
	}
}
