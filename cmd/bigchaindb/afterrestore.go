package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node"
)

// afterRestore brings a ledger in order whose database was restored from its
// own dump. No node may run on the state.
func (a *app) afterRestore(ctx context.Context, settings configs.Settings, dryRun bool) error {
	path, release, err := socketPath(settings.State.Path)
	if err == nil {
		running := isListening(ctx, path)
		if err := release(); err != nil {
			return err
		}
		if running {
			return fmt.Errorf("a node runs with the state in %s; stop it first, and all others of this ledger", settings.State.Path)
		}
	}
	progress := a.reindexProgress()
	return a.withStopped(ctx, settings, func(o node.Options) error {
		done, err := node.AfterRestore(ctx, o, progress.tell, func(plan *node.RestorePlan) (bool, error) {
			progress.leave()
			a.showPlan(settings, plan)
			if dryRun || a.yes {
				return !dryRun, nil
			}
			return a.confirm("Do you want to do this? [y/n]: ")
		})
		progress.leave()
		switch {
		case err != nil && ctx.Err() != nil:
			return errors.New("interrupted; call `bigchaindb reindex --after-restore` again before the node starts")
		case err != nil:
			return err
		case done.Rebuilt == nil:
			a.say("Nothing was changed.")
			return nil
		}
		if done.File != "" {
			a.say("What was removed is in %s.", done.File)
		}
		a.sayReindexed(done.Rebuilt)
		return nil
	})
}

// showPlan tells what would be done.
func (a *app) showPlan(settings configs.Settings, plan *node.RestorePlan) {
	last := "the genesis block " + plan.Genesis
	if plan.Last != "" {
		last = plan.Last
	}
	a.say("The database `%s` holds %d valid blocks; the last decided one is %s.", settings.Database.Name, plan.Valid, last)
	if plan.Undecided > 0 {
		a.say("%d undecided blocks stay, as members voted on them before they voted on decided ones.", plan.Undecided)
	}
	if len(plan.Return) > 0 {
		a.say("To be given back: %d votes that this node's journal has and the database lacks.", len(plan.Return))
	}
	a.say("To be deleted: %d entries of the backlog, %d blocks after the last decided one, %d votes.", plan.Backlog, len(plan.Blocks), len(plan.Votes))
	a.say("To be made anew: the chainstate, the documents for queries, the indexes.")
	a.say("All nodes of this ledger must be stopped now. Do this for each of them, one after the other, before any starts.")
}
