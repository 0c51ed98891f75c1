package node

import (
	"context"
	"strings"

	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// settleRevisions judges all that stands under an id, in order. What is unsound is a
// fault; and where something sound stands beside it, it is removed here, so that the
// database shows the sound one to everybody. What is sound and contradicts another
// stays: it proves something.
func (f *follower) settleRevisions(table string, d statedb.Document, judge func(body []byte) error) error {
	if d.Rev == "" {
		return nil
	}
	var gone []statedb.Write
	all := append([]statedb.Revision{{Rev: d.Rev, Body: d.Body}}, d.Others...)
	for _, r := range all {
		err := judge(r.Body)
		if err == nil {
			continue
		}
		gone = append(gone, statedb.Write{ID: d.ID, Rev: r.Rev, Delete: true})
		if err := f.unsound(table, d.ID, r.Body, err); err != nil {
			return err
		}
	}
	if len(gone) > 0 && len(gone) < len(all) {
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
	for i := range documents {
		d := &documents[i]
		if len(d.Others) == 0 {
			continue
		}
		all := append([]statedb.Revision{{Rev: d.Rev, Body: d.Body}}, d.Others...)
		kept := -1
		sound := make([]bool, len(all))
		for k, r := range all {
			_, sound[k] = n.sameEntry(statedb.Document{ID: d.ID, Rev: r.Rev, Body: r.Body})
			if sound[k] && kept < 0 {
				kept = k
			}
		}
		if kept < 0 {
			continue
		}
		for k, r := range all {
			if k == kept {
				continue
			}
			gone = append(gone, statedb.Write{ID: d.ID, Rev: r.Rev, Delete: true})
			n.metrics.conflicts.Inc()
			if sound[k] {
				continue // two nodes were posted the same
			}
			err := n.fault(journal.Fault{
				Kind: faultNoEntry, Document: document(statedb.Backlog, d.ID), What: "a document in conflict with an entry of the backlog is none",
				Evidence: []string{string(r.Body)},
			})
			if err != nil {
				return err
			}
		}
		*d = statedb.Document{ID: d.ID, Rev: all[kept].Rev, Body: all[kept].Body}
	}
	return n.effects.delete(ctx, statedb.Backlog, gone)
}
