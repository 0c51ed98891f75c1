package simulator

import (
	"github.com/couchledger/couchledger/node/ledger"
)

// load is what clients post.
type load struct {
	made     []*ledger.Transaction // posted or put into a block by a liar
	known    map[string]bool
	accepted []*ledger.Transaction
	promised map[string]bool
}

// posting is a post that ended.
type posting struct {
	m   *member
	t   *ledger.Transaction
	err error
}

// post has a client post something at a node: mostly new, at times again, often
// in conflict with what others post.
func (w *world) post(m *member) {
	w.posts--
	t := w.newTransaction()
	w.note("post %s at node %d: %s", w.name(t.ID), m.place, w.describe(t))
	ctx, n := m.clients, m.node
	m.stop.Go(func() {
		_, err := n.Submit(ctx, t.Bytes())
		w.mu.Lock()
		defer w.mu.Unlock()
		w.posted = append(w.posted, posting{m, t, err})
	})
}

// newTransaction makes a transaction that a client could.
func (w *world) newTransaction() *ledger.Transaction {
	l := &w.load
	if l.known == nil {
		l.known, l.promised = map[string]bool{}, map[string]bool{}
	}
	if len(l.made) > 0 && w.random.IntN(8) == 0 {
		return l.made[w.random.IntN(len(l.made))]
	}
	outputs := w.outputs()
	if len(outputs) == 0 || w.random.IntN(4) == 0 {
		return w.remember(w.pool.create(w.random.IntN(w.assets)))
	}
	return w.remember(w.pool.transfer(w.some(outputs), w.random.IntN(3)))
}

// outputs lists what the transactions made so far pay: mostly what can be spent,
// as those in valid blocks can.
func (w *world) outputs() (list []spendable) {
	any := w.random.IntN(5) == 0
	for _, t := range w.load.made {
		if any || w.facts.valid[t.ID] != nil {
			for i := range t.Outputs {
				list = append(list, spendable{t, i})
			}
		}
	}
	return list
}

// some chooses one output, at times with another of the asset.
func (w *world) some(outputs []spendable) []spendable {
	// The first ones are spent most often, so that there are conflicts.
	one := outputs[w.random.IntN(1+w.random.IntN(len(outputs)))]
	of := []spendable{one}
	if w.random.IntN(3) == 0 {
		for _, other := range outputs {
			if other.t.Asset == one.t.Asset && other.ref() != one.ref() {
				return append(of, other)
			}
		}
	}
	return of
}

func (w *world) remember(t *ledger.Transaction) *ledger.Transaction {
	if !w.load.known[t.ID] {
		w.load.known[t.ID] = true
		w.load.made = append(w.load.made, t)
	}
	return t
}

// ended takes note of an answer to a client.
func (l *load) ended(w *world, p posting) {
	if p.err != nil {
		w.note("node %d does not take %s: %v", p.m.place, w.name(p.t.ID), p.err)
		return
	}
	w.note("node %d accepted %s", p.m.place, w.name(p.t.ID))
	if !l.promised[p.t.ID] {
		l.promised[p.t.ID] = true
		l.accepted = append(l.accepted, p.t)
	}
}

// describe says what a transaction does.
func (w *world) describe(t *ledger.Transaction) string {
	if w.trace == nil {
		return ""
	}
	text := string(t.Operation)
	for _, ref := range t.Spends() {
		text += " " + w.trace.output(ref)
	}
	return text
}
