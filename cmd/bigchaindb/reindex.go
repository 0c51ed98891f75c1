package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/statedb"
)

func (a *app) reindexCommand() *cobra.Command {
	var afterRestore, dryRun bool
	cmd := &cobra.Command{
		Use:   "reindex",
		Short: "Make anew all that is derived from blocks and votes",
		Long: `Make anew all that is derived from blocks and votes: the chainstate, the
documents for queries, the indexes.

If the node runs, it does this beside its work, and this command shows how far
it is; interrupted, the command ends and the node goes on. If none runs, the
command does it by itself.

With --after-restore it brings a ledger in order whose database was restored from
its own dump or snapshot, while all nodes are stopped: it deletes the backlog, the
blocks after the last decided one and their votes, and then makes anew what is
derived. It shows first what it would do, and asks. What it deletes it saves in a
file under the state path.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := a.load()
			if err != nil {
				return err
			}
			if err := requireKeyPair(settings); err != nil {
				return err
			}
			if dryRun && !afterRestore {
				return &usageError{cmd, errors.New("--dry-run goes with --after-restore: without that, only what is derived is changed")}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if afterRestore {
				return a.afterRestore(ctx, settings, dryRun)
			}
			return a.reindex(ctx, settings)
		},
	}
	cmd.Flags().BoolVar(&afterRestore, "after-restore", false, "bring a ledger in order whose database was restored from its own dump")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "with --after-restore: only show what would be done")
	return cmd
}

func (a *app) reindex(ctx context.Context, settings configs.Settings) error {
	progress := a.reindexProgress()
	report, err := askNode(ctx, settings.State.Path, progress.tell)
	switch {
	case errors.Is(err, errNoNode):
		err = a.withStopped(ctx, settings, func(o node.Options) error {
			report, err = node.Reindex(ctx, o, progress.tell)
			return err
		})
		progress.leave()
		if err != nil && ctx.Err() != nil {
			return errors.New("interrupted; the chainstate is as it was, called again it begins anew")
		}
	case err != nil && ctx.Err() != nil:
		progress.leave()
		a.say("The node goes on with it; call this again to see how far it is.")
		return nil
	default:
		progress.leave()
	}
	if err != nil {
		return err
	}
	a.sayReindexed(report)
	return nil
}

// sayReindexed tells what a rebuild did.
func (a *app) sayReindexed(report *node.Reindexed) {
	a.say("Chainstate: %d blocks with %d transactions followed.", report.Blocks, report.Transactions)
	a.say("Documents for queries: %d right, %d mended, %d written, %d removed.", report.Right, report.Mended, report.Written, report.Removed)
	if report.Unknown > 0 {
		a.say("%d documents could not be judged, as their block is gone or damaged: `bigchaindb verify` tells more.", report.Unknown)
	}
	if report.RowsAdded+report.RowsRemoved > 0 {
		a.say("Indexes: %d rows added, %d removed.", report.RowsAdded, report.RowsRemoved)
	}
	if report.Pause > 0 {
		a.say("The node decided nothing for %s while it changed over.", report.Pause.Round(time.Millisecond))
	}
	a.say("Done in %s.", report.Took.Round(time.Millisecond))
}

// withStopped calls work with the options of a node that does not run, on its
// database, which must be there.
func (a *app) withStopped(ctx context.Context, settings configs.Settings, work func(node.Options) error) error {
	tuneMemory()
	return a.withLogger(settings, func(logger *slog.Logger) (err error) {
		db, err := openExisting(ctx, settings, logger)
		if err == nil {
			defer func() { err = errors.Join(err, db.Close()) }()
			var o node.Options
			if o, err = nodeOptions(settings, db, logger); err == nil {
				err = work(o)
			}
		}
		switch {
		case errors.Is(err, statedb.ErrLocked):
			return fmt.Errorf("the database in %s is open in another process: %w", settings.Database.Path, err)
		case errors.Is(err, kv.ErrLocked):
			return fmt.Errorf("the state in %s is in use by another process, perhaps a node that is starting or stopping: %w", settings.State.Path, err)
		case errors.Is(err, statedb.ErrNoDatabase) || errors.Is(err, node.ErrNotInitialized):
			return noLedger(settings)
		}
		return err
	})
}

// reindexProgress shows how far a rebuild is.
type reindexProgress struct {
	progressLine
	step  string
	since time.Time
	first int
}

func (a *app) reindexProgress() *reindexProgress {
	p := &reindexProgress{progressLine: a.progressLine()}
	p.began = p.now()
	return p
}

func (p *reindexProgress) tell(now node.ReindexProgress) {
	if now.Name != p.step {
		p.step, p.since, p.first = now.Name, p.now(), now.Done
	}
	if !p.due() {
		return
	}
	text := fmt.Sprintf("Step %d of %d, %s", now.Step, now.Steps, now.Name)
	rate := float64(now.Done-p.first) / p.now().Sub(p.since).Seconds()
	if now.Total > 0 {
		text += fmt.Sprintf(": %.0f %%", 100*float64(now.Done)/float64(now.Total))
	}
	if now.Done > 0 {
		text += fmt.Sprintf(", %d %s", now.Done, now.Unit)
	}
	if rate > 0 {
		text += fmt.Sprintf(", %.0f/s", rate)
		if left := float64(now.Total - now.Done); left > 0 {
			text += fmt.Sprintf(", %s to go", max(time.Duration(left/rate*float64(time.Second)).Round(time.Second), time.Second))
		}
	}
	p.line(text)
}
