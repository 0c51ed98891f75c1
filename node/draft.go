package node

import (
	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
)

// draft is a block in the making.
type draft struct {
	m       *maker
	view    *chainstate.View
	block   []*ledger.Transaction
	spent   map[ledger.OutputRef]string
	refused []journal.Refusal
}

// newDraft begins a block. Own blocks that are decided from here on hold
// against it until endDraft: its view of the chainstate may not show them.
func (m *maker) newDraft() *draft {
	m.mu.Lock()
	m.drafting = true
	m.mu.Unlock()
	return &draft{m: m, view: m.n.state.View(), spent: map[ledger.OutputRef]string{}}
}

func (m *maker) endDraft(d *draft) {
	d.view.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drafting = false
	for _, b := range m.retired {
		m.forget(b)
	}
	m.retired = nil
}

// forget drops what a block holds against a draft. It is called with mu held.
func (m *maker) forget(b *ledger.Block) {
	for _, t := range b.Transactions {
		if m.included[t.ID] == b.ID {
			delete(m.included, t.ID)
		}
		for _, ref := range t.Spends() {
			if m.spent[ref] == t.ID {
				delete(m.spent, ref)
			}
		}
	}
}

// add puts a transaction into the block, or sees to what else becomes of it.
func (d *draft) add(e *entry, t *ledger.Transaction) error {
	n := d.m.n
	status, _, err := d.view.TransactionStatus(t.ID)
	switch {
	case err != nil:
		return err
	case status == consensus.Valid:
		n.backlog.decided([]string{t.ID})
		n.effects.clear(t.ID)
		return nil
	case status == consensus.Undecided || d.m.includes(t.ID):
		n.backlog.entered([]string{t.ID})
		return nil
	}
	proof, err := n.check(t)
	if err == nil {
		if err = n.rules.CheckSpends(t, proof, liveView(d.view, d.spenders)); err == nil {
			d.block = append(d.block, t)
			for _, ref := range t.Spends() {
				d.spent[ref] = t.ID
			}
			return nil
		}
		if on, passes, err := n.mayPass(t, err, d.spenders); err != nil {
			return err
		} else if passes {
			n.backlog.wait(e, on, func() bool { return on != "" && !n.isDecided(on) })
			return nil
		}
	}
	invalid, ok := asInvalid(err)
	if !ok {
		return err
	}
	d.refused = append(d.refused, journal.Refusal{TxID: t.ID, Reason: invalid.Error()})
	return nil
}

func (d *draft) spenders(ref ledger.OutputRef) []string {
	by := d.m.spenders(ref)
	if tx, ok := d.spent[ref]; ok {
		by = append(by, tx)
	}
	return by
}

func (m *maker) includes(tx string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.included[tx] != ""
}

// mayPass tells whether a fault of a transaction's inputs may pass, and the
// transaction whose decision it waits for; "" when it has passed meanwhile, as the
// ledger goes on while it is looked at. An input that is not decided, or not here
// yet, may become valid; a spend in a block that is not decided may come to nothing.
// It is there for good only if the ledger shows so now.
func (n *Node) mayPass(t *ledger.Transaction, fault error, extra func(ledger.OutputRef) []string) (on string, passes bool, err error) {
	invalid, ok := asInvalid(fault)
	if !ok {
		return "", false, fault
	}
	if invalid.Kind != ledger.TransactionNotInValidBlock && invalid.Kind != ledger.InputDoesNotExist && invalid.Kind != ledger.DoubleSpend {
		return "", false, nil
	}
	for _, ref := range t.Spends() {
		output, spends, err := n.state.Output(ref)
		if err != nil {
			return "", false, err
		}
		switch invalid.Kind {
		case ledger.TransactionNotInValidBlock:
			if output.Status == consensus.Undecided || output.Status == consensus.Disputed {
				on = ref.TxID
			}
		case ledger.InputDoesNotExist:
			if output.Status != consensus.Unknown {
				continue
			}
			status, _, err := n.state.TransactionStatus(ref.TxID)
			if err != nil {
				return "", false, err
			}
			if status != consensus.Unknown { // it is there and has no such output
				return "", false, nil
			}
			on = ref.TxID
		case ledger.DoubleSpend:
			for _, s := range spends {
				if s.TxID == t.ID {
					continue
				}
				status, err := n.state.BlockStatus(s.BlockID)
				if err != nil {
					return "", false, err
				}
				if status == consensus.Valid {
					return "", false, nil
				}
				on = s.TxID
			}
			for _, tx := range extra(ref) {
				if tx != t.ID {
					on = tx
				}
			}
		}
	}
	return on, true, nil
}

// isDecided reports whether a transaction is valid, or in no block at all, so
// that there is nothing to wait for.
func (n *Node) isDecided(tx string) bool {
	status, _, err := n.state.TransactionStatus(tx)
	return err == nil && status == consensus.Valid
}
