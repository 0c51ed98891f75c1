package node

import (
	"context"
	"strings"

	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// settleRevisions judges all that stands under an id, in order. What is unsound is a
// fault; and where something stands beside it, it is removed here, so that the
// database shows a sound one to everybody, and is not to be read again whenever a
// peer adds to it. What is sound and contradicts another stays: it proves something.
func (f *follower) settleRevisions(ctx context.Context, table string, d statedb.Document, judge func(body []byte) error) error {
	var gone []statedb.Write
	sound := false
	for r, err := range f.revisions(ctx, table, d) {
		if err != nil {
			return err
		}
		why := judge(r.Body)
		if why == nil {
			sound = true
			continue
		}
		gone = append(gone, statedb.Write{ID: d.ID, Rev: r.Rev, Delete: true})
		if err := f.unsound(table, d.ID, r.Body, why); err != nil {
			return err
		}
	}
	if !sound && len(gone) > 0 {
		gone = gone[1:]
	}
	if len(gone) > 0 {
		f.observer.garbage(table, gone)
	}
	return nil
}

// unsound reports what stands under an id and is not what that says.
func (f *follower) unsound(table, id string, body []byte, why error) error {
	x := journal.Fault{Document: document(table, id)}
	switch {
	case table == statedb.Votes:
		x.Kind, x.What = faultNoVote, "a document is not a vote: "+why.Error()
	case strings.HasPrefix(id, ledger.StatementPrefix):
		x.Kind, x.What = faultStatement, "a document is no statement about the federation: "+why.Error()
	default:
		x.Kind, x.What = faultNoBlock, "a document is not a block: "+why.Error()
	}
	return f.fault(x, body)
}

// settleConflicts makes one revision of each entry of the backlog: replication
// brings several where a client posted to several nodes, or a peer wrote garbage.
// The first sound one stays, beginning with that which the database shows, and which
// all databases show alike once they have met. Where none is sound they are left, to be
// refused one after the other.
func (n *Node) settleConflicts(ctx context.Context, documents []statedb.Document) error {
	var gone []statedb.Write
	for i, d := range documents {
		if len(d.Others) == 0 {
			continue
		}
		kept, losers, garbage, err := n.settleEntry(ctx, d)
		if err != nil {
			return err
		}
		if kept.Rev == "" {
			continue
		}
		documents[i] = kept
		n.metrics.conflicts.Add(float64(len(losers)))
		for _, rev := range losers {
			gone = append(gone, statedb.Write{ID: d.ID, Rev: rev, Delete: true})
		}
		if garbage == nil {
			continue // two nodes were posted the same
		}
		err = n.fault(journal.Fault{
			Kind: faultNoEntry, Document: document(statedb.Backlog, d.ID), What: "a document in conflict with an entry of the backlog is none",
			Evidence: []string{string(garbage)},
		})
		if err != nil {
			return err
		}
	}
	return n.effects.delete(ctx, statedb.Backlog, gone)
}

// settleEntry finds the first sound revision of an entry, none when kept has no Rev,
// and lists the others. garbage is the first that is not sound.
func (n *Node) settleEntry(ctx context.Context, d statedb.Document) (kept statedb.Document, losers []string, garbage []byte, err error) {
	for r, err := range n.revisions(ctx, statedb.Backlog, d) {
		if err != nil {
			return kept, nil, nil, err
		}
		one := statedb.Document{ID: d.ID, Rev: r.Rev, Body: r.Body}
		_, sound := n.sameEntry(one)
		if sound && kept.Rev == "" {
			kept = one
			continue
		}
		losers = append(losers, r.Rev)
		if !sound && garbage == nil {
			garbage = r.Body
		}
	}
	return kept, losers, garbage, nil
}
