package node

import (
	"context"
	"slices"

	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
)

// Where each operator has his own database, an entry leaves only those whose nodes
// take it out: the assignee of one that lost its output to another transaction
// refuses it for himself alone. The others need not wait until it is their turn to
// find out: they watch what the entries of others spend.

// watch keeps what an entry spends; nil ends that.
func (b *backlog) watch(e *entry, spends []ledger.OutputRef) {
	for _, ref := range e.spends {
		delete(b.rivals[ref], e)
		if len(b.rivals[ref]) == 0 {
			delete(b.rivals, ref)
		}
	}
	e.spends = spends
	for _, ref := range spends {
		if b.rivals[ref] == nil {
			b.rivals[ref] = map[*entry]bool{}
		}
		b.rivals[ref][e] = true
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
		for e := range b.rivals[ref] {
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

// takeContested lists the contested entries of others, each once, by id.
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
	slices.Sort(ids)
	return ids
}

// refuseLosers refuses the entries of others that lost an output for good. The rest
// it gives to passOn, unless that is nil.
func (n *Node) refuseLosers(ctx context.Context, ids []string, passOn func(waiting)) error {
	for part := range slices.Chunk(ids, backlogRead) {
		entries, err := n.stillWaiting(ctx, part)
		if err != nil {
			return err
		}
		var refused []journal.Refusal
		for _, w := range entries {
			fault, err := n.faultForGood(w.tx)
			switch {
			case err != nil:
				return err
			case fault != nil:
				refused = append(refused, journal.Refusal{TxID: w.tx.ID, Reason: fault.Error()})
			case passOn != nil:
				passOn(w)
			}
		}
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
