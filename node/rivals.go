package node

import (
	"context"
	"slices"

	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// Where each operator has his own database, an entry leaves only those whose nodes
// take it out: the assignee of one that lost its output to another transaction
// refuses it for himself alone. The others need not wait until it is their turn to
// find out: they watch what the entries of others spend.

// watch keeps what an entry spends; nil ends that.
func (b *backlog) watch(e *entry, spends []ledger.OutputRef) {
	for _, ref := range e.spends {
		rest := slices.DeleteFunc(b.rivals[ref], func(other *entry) bool { return other == e })
		if len(rest) == 0 {
			delete(b.rivals, ref)
		} else {
			b.rivals[ref] = rest
		}
	}
	e.spends = spends
	for _, ref := range spends {
		b.rivals[ref] = append(b.rivals[ref], e)
	}
}

// watchSpends keeps what a tracked entry spends. lost says that it lost an output
// already.
func (b *backlog) watchSpends(t *ledger.Transaction, lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.entries[t.ID]; ok {
		b.watch(e, t.Spends())
		e.contested = e.contested || lost
		b.signalContest(e)
	}
}

// contestRivals notes that an entry became valid.
func (b *backlog) contestRivals(winner *entry) {
	for _, ref := range winner.spends {
		for _, e := range b.rivals[ref] {
			if e != winner {
				e.contested = true
				b.signalContest(e)
			}
		}
	}
}

// signalContest has a contested entry looked at, as soon as it is another's.
func (b *backlog) signalContest(e *entry) {
	if !e.contested || e.state != foreign {
		return
	}
	b.contested = append(b.contested, e)
	select {
	case b.contest <- struct{}{}:
	default:
	}
}

// takeContested lists the contested entries of others, each once.
func (b *backlog) takeContested() (ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.contested {
		if e.contested && e.state == foreign && b.entries[e.id] == e {
			e.contested = false
			ids = append(ids, e.id)
		}
	}
	b.contested = nil
	return ids
}

// refuseContested refuses the entries of others that lost an output for good.
func (n *Node) refuseContested(ctx context.Context, ids []string) error {
	for part := range slices.Chunk(ids, backlogRead) {
		documents, err := n.fetch(ctx, statedb.Backlog, part)
		if err != nil {
			return err
		}
		var refused []journal.Refusal
		var gone []string
		for _, d := range documents {
			if d.Rev == "" {
				gone = append(gone, d.ID)
				continue
			}
			t, _, err := readBacklogDocument(d)
			if err != nil {
				continue // the backlog feed refuses what it cannot read
			}
			fault, err := n.faultForGood(t)
			if err != nil {
				return err
			}
			if fault != nil {
				refused = append(refused, journal.Refusal{TxID: t.ID, Reason: fault.Error()})
			}
		}
		n.backlog.forget(gone)
		if err := n.refuse(ctx, refused); err != nil {
			return err
		}
	}
	return nil
}

// faultForGood returns what is wrong with a transaction and will not pass; nil for
// nothing.
func (n *Node) faultForGood(t *ledger.Transaction) (*ledger.ValidationError, error) {
	proof, fault := n.check(t)
	if fault == nil {
		view := n.state.View()
		defer view.Close()
		if fault = n.rules.CheckSpends(t, proof, liveView(view, nil)); fault == nil {
			return nil, nil
		}
		if _, passes, err := n.mayPass(t, fault, noMore); passes || err != nil {
			return nil, err
		}
	}
	invalid, ok := asInvalid(fault)
	if !ok {
		return nil, fault
	}
	return invalid, nil
}

// lost reports whether a valid transaction spends what another one does.
func (n *Node) lost(t *ledger.Transaction) (bool, error) {
	_, passes, err := n.mayPass(t, &ledger.ValidationError{Kind: ledger.DoubleSpend}, noMore)
	return !passes, err
}

// noMore is of those who know of no spends but those of the chainstate.
func noMore(ledger.OutputRef) []string { return nil }
