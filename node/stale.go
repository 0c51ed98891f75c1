package node

import (
	"context"
	"errors"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// staleChecks is how often within the reassign delay the backlog is looked
// through.
const staleChecks = 4

// watchStale gives entries that lie too long with one node to the next. The
// time is this node's own, by its monotonic clock: what others write into an
// entry is not to be trusted, and their clocks may be wrong.
func (n *Node) watchStale(ctx context.Context) error {
	tick := time.NewTicker(max(n.delay/staleChecks, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.backlog.contest:
			if err := n.refuseLosers(ctx, n.backlog.takeContested(), nil); err != nil {
				return err
			}
			continue
		case <-tick.C:
		}
		stale := n.backlog.stale(n.delay)
		if n.replicated.Load() {
			// What lost its output to a transaction that was never in this backlog
			// is found out here.
			if err := n.refuseLosers(ctx, idsOfEntries(stale), n.passOn); err != nil {
				return err
			}
			continue
		}
		for len(stale) > 0 {
			part := stale[:min(len(stale), n.db.Limits().MaxBatch, backlogRead)]
			stale = stale[len(part):]
			if err := n.reassign(ctx, part); err != nil {
				return err
			}
		}
	}
}

// reassign writes the next assignee into entries of other nodes. Whoever
// writes first wins; the others' writes conflict, and the feed tells them.
func (n *Node) reassign(ctx context.Context, entries []*entry) error {
	list, err := n.stillWaiting(ctx, idsOfEntries(entries))
	if err != nil {
		return err
	}
	members := n.federation().Members
	now := n.clock().Unix()
	var writes []statedb.Write
	for _, w := range list {
		next := nextAssignee(members, w.tx, w.assignee)
		writes = append(writes, statedb.Write{ID: w.tx.ID, Rev: w.rev, Body: backlogDocument(w.tx, next, now)})
	}
	if len(writes) == 0 {
		return nil
	}
	err = n.retry(ctx, "stale", func() error {
		results, err := n.db.Write(ctx, statedb.Backlog, writes)
		for _, r := range results {
			if r.Err != nil && !errors.Is(r.Err, statedb.ErrConflict) {
				err = errors.Join(err, r.Err)
			}
		}
		return err
	})
	if err == nil {
		n.metrics.reassigned.Add(float64(len(writes)))
	}
	return err
}

// passOn gives an entry to the next member as far as this node is concerned, and
// writes nothing. Peers take no edits from each other, so to write would tell
// nobody; they all go through the same order, each by its own clock.
func (n *Node) passOn(w waiting) {
	members := n.federation().Members
	n.backlog.passOn(w.tx.ID, func(assignee string) string { return nextAssignee(members, w.tx, assignee) })
	n.metrics.reassigned.Inc()
}

// waiting is an entry as the database has it.
type waiting struct {
	tx            *ledger.Transaction
	rev, assignee string
}

// stillWaiting reads tracked entries, and forgets those that are gone. What is no
// entry it leaves out: the backlog feed refuses that.
func (n *Node) stillWaiting(ctx context.Context, ids []string) (list []waiting, err error) {
	var gone []string
	err = n.each(ctx, statedb.Backlog, ids, func(_ int, d statedb.Document) error {
		if d.Rev == "" {
			gone = append(gone, d.ID)
		} else if t, assignee, err := readBacklogDocument(d); err == nil {
			list = append(list, waiting{t, d.Rev, assignee})
		}
		return nil
	})
	n.backlog.forget(gone)
	return list, err
}

func idsOfEntries(entries []*entry) []string {
	ids := make([]string, len(entries))
	for i, e := range entries {
		ids[i] = e.id
	}
	return ids
}
