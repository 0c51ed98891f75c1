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
		err = n.rules.CheckSpends(t, proof, liveView(d.view, d.spenders))
	}
	if err == nil {
		d.block = append(d.block, t)
		for _, ref := range t.Spends() {
			d.spent[ref] = t.ID
		}
		return nil
	}
	invalid, ok := asInvalid(err)
	if !ok {
		return err
	}
	if on, err := n.lagsBehind(t, invalid, d.spenders); err != nil || on != "" {
		if err == nil {
			n.backlog.wait(e, on, func() bool { return !n.isDecided(on) })
		}
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

// lagsBehind tells whether a fault may pass, and the transaction whose
// decision it waits for; "" when it is there for good. An input that is not
// decided, or not here yet, may become valid; a spend in a block that is not
// decided may come to nothing.
func (n *Node) lagsBehind(t *ledger.Transaction, invalid *ledger.ValidationError, extra func(ledger.OutputRef) []string) (string, error) {
	for _, ref := range t.Spends() {
		output, spends, err := n.state.Output(ref)
		if err != nil {
			return "", err
		}
		switch invalid.Kind {
		case ledger.TransactionNotInValidBlock:
			if output.Status == consensus.Undecided || output.Status == consensus.Disputed {
				return ref.TxID, nil
			}
		case ledger.InputDoesNotExist:
			if output.Status != consensus.Unknown {
				continue
			}
			// The transaction may be there though it has no such output.
			if status, _, err := n.state.TransactionStatus(ref.TxID); err != nil || status == consensus.Unknown {
				return ref.TxID, err
			}
		case ledger.DoubleSpend:
			on, final := "", false
			for _, s := range spends {
				status, err := n.state.BlockStatus(s.BlockID)
				if err != nil {
					return "", err
				}
				final = final || status == consensus.Valid && s.TxID != t.ID
				if s.TxID != t.ID {
					on = s.TxID
				}
			}
			for _, tx := range extra(ref) {
				if tx != t.ID {
					on = tx
				}
			}
			if final {
				return "", nil
			}
			if on != "" {
				return on, nil
			}
		}
	}
	return "", nil
}

// isDecided reports whether a transaction is valid, or in no block at all, so
// that there is nothing to wait for.
func (n *Node) isDecided(tx string) bool {
	status, _, err := n.state.TransactionStatus(tx)
	return err == nil && status == consensus.Valid
}
