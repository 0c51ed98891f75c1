package node

import (
	"context"
	"errors"
	"time"

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
			if err := n.refuseContested(ctx, n.backlog.takeContested()); err != nil {
				return err
			}
			continue
		case <-tick.C:
		}
		stale := n.backlog.stale(n.delay)
		if n.replicated.Load() {
			// What lost its output to a transaction that was never in this backlog
			// is found out here.
			err := n.refuseContested(ctx, idsOfEntries(stale))
			if err == nil {
				err = n.passOn(ctx, stale)
			}
			if err != nil {
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
	documents, err := n.fetch(ctx, statedb.Backlog, idsOfEntries(entries))
	if err != nil {
		return err
	}
	members := n.federation().Members
	now := n.clock().Unix()
	var writes []statedb.Write
	var gone []string
	for _, d := range documents {
		if d.Rev == "" {
			gone = append(gone, d.ID)
			continue
		}
		t, assignee, err := readBacklogDocument(d)
		if err != nil {
			continue // the backlog feed refuses what it cannot read
		}
		next := nextAssignee(members, t, assignee)
		writes = append(writes, statedb.Write{ID: d.ID, Rev: d.Rev, Body: backlogDocument(t, next, now)})
	}
	n.backlog.forget(gone)
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

// passOn gives entries to the next member as far as this node is concerned, and
// writes nothing. Peers take no edits from each other, so to write would tell
// nobody; they all go through the same order, each by its own clock.
func (n *Node) passOn(ctx context.Context, entries []*entry) error {
	for len(entries) > 0 {
		part := entries[:min(len(entries), backlogRead)]
		entries = entries[len(part):]
		documents, err := n.fetch(ctx, statedb.Backlog, idsOfEntries(part))
		if err != nil {
			return err
		}
		members := n.federation().Members
		var gone []string
		for _, d := range documents {
			if d.Rev == "" {
				gone = append(gone, d.ID)
			} else if t, _, err := readBacklogDocument(d); err == nil {
				n.backlog.passOn(d.ID, func(assignee string) string { return nextAssignee(members, t, assignee) })
			}
		}
		n.backlog.forget(gone)
		n.metrics.reassigned.Add(float64(len(documents) - len(gone)))
	}
	return nil
}

func idsOfEntries(entries []*entry) []string {
	ids := make([]string, len(entries))
	for i, e := range entries {
		ids[i] = e.id
	}
	return ids
}
