package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/couchledger/couchledger/statedb"
)

// DeployIndexes makes the database's indexes be those of all, which has them by
// table, and returns when they can be used; others are left. Meanwhile
// progress, unless nil, is told now and then which of a table are being built.
// What breaks off is completed by the next call.
func DeployIndexes(ctx context.Context, db statedb.DB, all map[string][]statedb.Index, progress func(table string, building []statedb.IndexState)) error {
	for _, table := range statedb.Tables {
		tell := func(building []statedb.IndexState) {
			if progress != nil {
				progress(table, building)
			}
		}
		if err := db.DeployIndexes(ctx, table, all[table], tell); err != nil {
			return fmt.Errorf("deploy the indexes of %s: %w", table, err)
		}
	}
	return nil
}

// deployIndexes deploys the node's indexes while it runs. Nothing but queries
// needs them, so the node does not count as degraded while it tries. What
// trying again does not mend is left until the next start.
func (n *Node) deployIndexes(ctx context.Context) error {
	defer n.deployed.Store(true)
	log := n.log.With("component", "indexes")
	report := buildReport{log: log}
	failing := false
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := DeployIndexes(ctx, n.db, n.indexes, func(table string, building []statedb.IndexState) {
			report.tell(time.Now(), table, building)
		})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			if failing {
				log.Info("the indexes can be deployed again")
			}
			report.end(time.Now())
			return nil
		case errors.Is(err, statedb.ErrClosed):
			return err
		case errors.Is(err, statedb.ErrBadQuery) || errors.Is(err, statedb.ErrDenied):
			log.Error("indexes are missing; queries go without them", "error", err)
			return nil
		case !failing:
			failing = true
			log.Warn("the indexes cannot be deployed; trying again until it works", "error", err)
		}
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

// buildReportEvery is how often the log tells how far the building of indexes is.
const buildReportEvery = 10 * time.Second

// buildReport tells the log of indexes that are being built, and nothing where
// none is.
type buildReport struct {
	log   *slog.Logger
	began time.Time // zero while nothing was to be built
	last  time.Time
}

func (r *buildReport) tell(now time.Time, table string, building []statedb.IndexState) {
	names, pending, total := statedb.Building(building)
	if len(names) == 0 {
		return
	}
	if r.began.IsZero() {
		r.began, r.last = now, now
	}
	if now.Sub(r.last) >= buildReportEvery {
		r.last = now
		r.log.Info("building indexes", "table", table, "indexes", strings.Join(names, " "), "documents", total-pending, "of", total)
	}
}

func (r *buildReport) end(now time.Time) {
	if !r.began.IsZero() {
		r.log.Info("the indexes are built", "after", now.Sub(r.began).Round(time.Millisecond))
	}
}
