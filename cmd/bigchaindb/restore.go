package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/archive"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/verify"
)

// restoreCall is one call of restore.
type restoreCall struct {
	a       *app
	scratch string
	aside   bool
	asJSON  bool
}

func (a *app) restoreCommand() *cobra.Command {
	c := &restoreCall{a: a}
	cmd := &cobra.Command{
		Use:   "restore FILE...",
		Short: "Make a ledger of backup files, in an empty database",
		Long: `Make a ledger of backup files, in the database of the settings, which must not
hold anything. The full file comes first, then those that follow it; with the
last one alone the others are looked for beside it.

The files are read and verified as verify does before anything is written, and
what was written is compared with them. Until all is done no node starts on the
database. Interrupted, it goes on when it is called again with the same files.

The node must be stopped. What its state path holds of the ledger is rebuilt when
it starts. If its journal knows of votes that the backup does not hold, restore
refuses: see --set-journal-aside and docs/operations.md.`,
		Args: someFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			err := c.run(ctx, args)
			if err != nil && ctx.Err() != nil {
				return errors.New("interrupted; called again it goes on")
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&c.aside, "set-journal-aside", false, "move the node's journal away if it knows of votes that the backup does not hold: others may have seen these")
	flags.StringVar(&c.scratch, "scratch", "", "the `folder` for what it keeps on disk while it verifies (default: that of the system)")
	flags.BoolVar(&c.asJSON, "json", false, "print the summary as JSON")
	return cmd
}

// someFiles takes at least one argument.
func someFiles(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &usageError{cmd, fmt.Errorf("%s takes the backup FILE to read", cmd.Name())}
	}
	return nil
}

func (c *restoreCall) run(ctx context.Context, paths []string) (err error) {
	tuneMemory()
	begin := time.Now()
	settings, err := c.a.load()
	if err != nil {
		return err
	}
	chain, err := archive.OpenChain(paths...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chain.Close()) }()
	if err := c.a.checkFiles(ctx, chain); err != nil {
		return err
	}
	report, err := c.verify(ctx, chain, verify.Options{Ledger: chain.String()})
	if err != nil {
		return err
	}
	var done archive.Restored
	err = c.a.withLogger(settings, func(logger *slog.Logger) (err error) {
		done, err = c.restore(ctx, settings, logger, chain)
		return err
	})
	if err != nil {
		return err
	}
	if done.JournalAside != "" {
		c.a.say("The journal was moved to %s.", done.JournalAside)
	}
	if c.asJSON {
		return json.NewEncoder(c.a.stdout).Encode(struct {
			archive.Summary
			archive.Restored
			Checked *verify.Report `json:"checked"`
			Into    string         `json:"into"`
			Seconds float64        `json:"seconds"`
		}{chain.Summary(), done, report, nameOf(settings.Database), time.Since(begin).Seconds()})
	}
	if err := printSummary(c.a.stdout, "restored", chain.String(), chain.Summary(), time.Since(begin)); err != nil {
		return err
	}
	w := &lines{out: c.a.stdout}
	w.add("into          %s", nameOf(settings.Database))
	w.add("blocks        %s; %d transactions in valid blocks", countsOf(report.Blocks), report.Transactions)
	if rules, err := consensus.Lookup(settings.ConsensusPlugin); err != nil || rules.Name() != report.Rules {
		w.add("\nThe ledger decides by the rules %q: set consensus_plugin to that. Then `bigchaindb start` runs a node on it.", report.Rules)
		return w.err
	}
	w.add("\n`bigchaindb start` runs a node on it.")
	return w.err
}

// verify makes sure that the files hold a sound ledger.
func (c *restoreCall) verify(ctx context.Context, chain *archive.Chain, o verify.Options) (*verify.Report, error) {
	progress := c.a.stepProgress()
	shown, settled := 0, 0
	o.Progress = progress.tell
	if c.scratch != "" {
		o.Scratch = verifyIn(c.scratch)
	}
	o.Finding = func(f verify.Finding) error {
		if f.Rule.Settled() {
			settled++
		}
		if shown++; shown <= shownFindings {
			c.a.say("  %s: %s/%s %s", f.Rule, f.Table, f.ID, f.Seen)
		}
		return nil
	}
	report, err := verify.Run(ctx, chain, o)
	progress.leave()
	if err == nil {
		if found := report.Findings - settled; found > 0 {
			err = fmt.Errorf("%s does not hold a sound ledger: %d findings, see `bigchaindb verify %s`; nothing was written", chain, found, chain.Last().Path)
		}
	}
	return report, err
}

func (c *restoreCall) restore(ctx context.Context, settings configs.Settings, logger *slog.Logger, chain *archive.Chain) (done archive.Restored, err error) {
	db, err := openDatabase(ctx, settings, logger, nil)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	progress := c.a.stepProgress()
	done, err = archive.Restore(ctx, db, chain, archive.RestoreOptions{
		StatePath: settings.State.Path, SetJournalAside: c.aside, Progress: progress.tell,
	})
	progress.leave()
	if errors.Is(err, archive.ErrJournalAhead) {
		err = fmt.Errorf("%w; other members may have seen these votes, and a node that gives others contradicts itself. "+
			"When this node is the only member, or all members restore this backup, --set-journal-aside moves the journal away and goes on", err)
	}
	return done, err
}
