package simulator

import (
	"context"
	"fmt"
	"slices"

	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// facts are what the honest nodes have said, and what must hold of it.
type facts struct {
	asked   context.Context // with which nodes are asked and nobody waits
	looked  int             // versions of the stores that were looked at
	order   []string        // blocks, as they were first seen
	blocks  map[string]*blockFacts
	spent   map[ledger.OutputRef]string   // by which valid transaction
	rivals  map[ledger.OutputRef][]string // all that ever were, also in blocks that are disputed now
	in      map[string]string             // valid transaction → block
	valid   map[string]*ledger.Transaction
	answers map[string]string // node and block → what it said last

	held      int // transactions that silent members hold up
	unsettled string
}

// blockFacts are what is known of one block.
type blockFacts struct {
	block   *ledger.Block // nil where it does not parse
	decided map[int]string
	valid   bool // at some node
	split   bool // nodes decided it differently
}

func (f *facts) begin(w *world) {
	f.asked = context.WithValue(context.Background(), direct{}, true)
	f.blocks, f.spent, f.in = map[string]*blockFacts{}, map[ledger.OutputRef]string{}, map[string]string{}
	f.rivals = map[ledger.OutputRef][]string{}
	f.valid, f.answers = map[string]*ledger.Transaction{}, map[string]string{}
}

// findBlocks takes note of blocks that came to a database.
func (f *facts) findBlocks(w *world) {
	version := 0
	for _, s := range w.stores {
		version += s.tables[statedb.Bigchain].version
	}
	if version == f.looked {
		return
	}
	f.looked = version
	for _, s := range w.stores {
		t := s.tables[statedb.Bigchain]
		for _, id := range blocksIn(s) {
			if f.blocks[id] != nil && f.blocks[id].block != nil {
				continue
			}
			l, _ := t.there(id)
			b, err := ledger.ParseBlock(l.body)
			if err != nil || b.ID != id {
				b = nil
			}
			if f.blocks[id] == nil {
				f.order = append(f.order, id)
				f.blocks[id] = &blockFacts{decided: map[int]string{}}
			}
			f.blocks[id].block = b
		}
	}
}

// look compares what the nodes that did something say with what they said.
func (f *facts) look(w *world) {
	f.findBlocks(w)
	for _, m := range w.nodes {
		if m.node == nil || m.line == nil || !m.moved {
			continue
		}
		m.moved = false
		for _, id := range f.order {
			b := f.blocks[id]
			status, _ := m.node.BlockStatus(f.asked, id)
			if status != consensus.Valid.String() && status != consensus.Invalid.String() && status != consensus.Disputed.String() {
				continue // a node may forget what it has not synced
			}
			if status == consensus.Disputed.String() && !w.doubted[id] {
				w.fail("block %s is disputed at node %d, and nobody voted both ways on it", w.name(id), m.place)
			}
			switch before := b.decided[m.place]; {
			case before == "":
				b.decided[m.place] = status
				w.note("node %d decided %s %s", m.place, w.name(id), status)
				f.compare(w, m, id)
			case before != status && w.doubted[id]:
				b.decided[m.place] = status
				w.note("node %d decided %s %s, and before %s", m.place, w.name(id), status, before)
				f.compare(w, m, id)
			case before != status:
				w.fail("node %d decided block %s %s, and now it is %s", m.place, w.name(id), before, status)
			}
		}
	}
}

// compare checks a decision against all others.
func (f *facts) compare(w *world, m *member, id string) {
	b := f.blocks[id]
	status := b.decided[m.place]
	for _, other := range w.nodes {
		if at := b.decided[other.place]; at != "" && at != status {
			if b.split = w.doubted[id]; b.split {
				continue // until the votes have met; see last
			}
			w.fail("block %s is %s at node %d, and %s at node %d", w.name(id), status, m.place, at, other.place)
			return
		}
	}
	if b.valid || status != consensus.Valid.String() {
		return
	}
	b.valid = true
	if b.block == nil {
		w.fail("block %s is valid at node %d and is none", w.name(id), m.place)
		return
	}
	for _, t := range b.block.Transactions {
		f.admit(w, id, t)
	}
}

// admit checks a transaction that became valid.
func (f *facts) admit(w *world, block string, t *ledger.Transaction) {
	doubted := w.doubted[block]
	if other := f.in[t.ID]; other != "" && (doubted || w.doubted[other]) {
		if doubted {
			return
		}
	} else if other != "" {
		w.fail("transaction %s is in two valid blocks, %s and %s", w.name(t.ID), w.name(other), w.name(block))
		return
	}
	f.in[t.ID], f.valid[t.ID] = block, t
	for _, ref := range t.Spends() {
		f.rivals[ref] = append(f.rivals[ref], t.ID)
		if other := f.spent[ref]; other != "" && other != t.ID && !doubted && !w.doubted[f.in[other]] {
			w.fail("transactions %s and %s, in blocks %s and %s, are valid and both spend output %d of %s",
				w.name(other), w.name(t.ID), w.name(f.in[other]), w.name(block), ref.Index, w.name(ref.TxID))
			return
		}
		f.spent[ref] = t.ID
	}
	if t.Operation == ledger.Genesis {
		if block != w.pool.firstBlock(w.members, w.ruleName()).ID {
			w.fail("block %s is valid and holds a GENESIS", w.name(block))
		}
		return
	}
	if w.pool.unsound[string(t.Bytes())] {
		w.fail("transaction %s was made unsound, and is valid in block %s", w.name(t.ID), w.name(block))
		return
	}
	proof, known := w.pool.proofs[string(t.Bytes())]
	if !known {
		var err error
		if proof, err = w.rules.CheckTransaction(t); err != nil {
			w.fail("transaction %s is valid in block %s: %v", w.name(t.ID), w.name(block), err)
			return
		}
	}
	if len(w.doubted) > 0 {
		return // what it rests on is looked at in the end
	}
	if err := w.rules.CheckSpends(t, proof, f); err != nil {
		w.fail("transaction %s is valid in block %s: %v", w.name(t.ID), w.name(block), err)
	}
}

// Output makes the facts a View.
func (f *facts) Output(ref ledger.OutputRef) (consensus.Output, error) {
	t := f.valid[ref.TxID]
	if t == nil || ref.Index >= len(t.Outputs) {
		return consensus.Output{}, nil
	}
	o := t.Outputs[ref.Index]
	out := consensus.Output{Status: consensus.Valid, Asset: t.Asset, ConditionURI: o.ConditionURI, PublicKeys: o.PublicKeys, Amount: o.Amount}
	if by := f.spent[ref]; by != "" {
		out.SpentBy = []string{by}
	}
	return out, nil
}

// settled tells whether all that was accepted is decided at every node.
func (f *facts) settled(w *world) bool {
	f.unsettled, f.held = "", 0
	for _, m := range w.nodes {
		if m.gone {
			continue
		}
		if m.node == nil || m.node.Ready() != nil {
			f.unsettled = fmt.Sprintf("node %d is not ready", m.place)
			return false
		}
		for _, t := range w.load.accepted {
			if !f.decided(w, m, t) && !f.heldUp(w, t) {
				f.unsettled = fmt.Sprintf("transaction %s is not decided at node %d", w.name(t.ID), m.place)
				return false
			}
		}
		for _, id := range f.order { // also what only a liar made
			if !f.blocks[id].valid || w.doubted[id] {
				continue
			}
			if status, _ := m.node.BlockStatus(f.asked, id); status != consensus.Valid.String() {
				f.unsettled = fmt.Sprintf("block %s is valid, and %s at node %d", w.name(id), status, m.place)
				return false
			}
		}
	}
	return true
}

// decided tells whether a node has a transaction valid, or one in conflict with it.
func (f *facts) decided(w *world, m *member, t *ledger.Transaction) bool {
	if status, _ := m.node.TransactionStatus(f.asked, t.ID); status == consensus.Valid.String() {
		return true
	}
	return slices.ContainsFunc(t.Spends(), func(ref ledger.OutputRef) bool {
		return slices.ContainsFunc(f.rivals[ref], func(by string) bool {
			status, _ := m.node.TransactionStatus(f.asked, by)
			return by != t.ID && status == consensus.Valid.String()
		})
	})
}

// heldUp tells whether members that are silent leave a transaction undecided, or
// one in conflict with it: all that are up have voted on its block and disagree,
// so that it takes another vote to decide it. No rule that counts votes once can
// prevent that.
func (f *facts) heldUp(w *world, t *ledger.Transaction) bool {
	for _, id := range f.order {
		b := f.blocks[id]
		if b.block == nil || len(b.decided) > 0 || !slices.ContainsFunc(b.block.Transactions, func(other *ledger.Transaction) bool {
			return other.ID == t.ID || slices.ContainsFunc(other.Spends(), func(ref ledger.OutputRef) bool { return slices.Contains(t.Spends(), ref) })
		}) {
			continue
		}
		if w.leftOpen(id) {
			f.held++
			return true
		}
	}
	return false
}

// leftOpen tells whether all honest members that are up have voted on a block,
// some of them valid, and others have not.
func (w *world) leftOpen(block string) bool {
	verdicts := map[bool]int{}
	for i := range w.members {
		v, err := ledger.ParseVote(w.stores[i%len(w.stores)].tables[statedb.Votes].get(ledger.VoteID(block, w.pool.members[i].Public)).Body)
		if err == nil && v.Verify() && v.BlockID == block {
			verdicts[v.Valid]++
			continue
		}
		for _, m := range w.nodes {
			if m.place == i && !m.gone {
				return false
			}
		}
	}
	return verdicts[true] > 0 && verdicts[false] > 0 && verdicts[true]+verdicts[false] < w.members
}

// last checks what must hold in the end.
func (f *facts) last(w *world) {
	for _, m := range w.nodes {
		m.moved = true
	}
	f.look(w)
	for _, id := range f.order {
		b := f.blocks[id]
		said := map[string]bool{}
		for _, m := range w.nodes {
			if m.gone {
				continue
			}
			status, _ := m.node.BlockStatus(f.asked, id)
			said[status] = true
			if b.valid && status != consensus.Valid.String() && !w.doubted[id] {
				w.fail("block %s is valid, and %s at node %d in the end", w.name(id), status, m.place)
			}
			if status == consensus.Disputed.String() && !f.tells(m, id) {
				w.fail("node %d does not tell that block %s is disputed", m.place, w.name(id))
			}
		}
		if b.split && (len(said) > 1 || !said[consensus.Disputed.String()]) {
			w.fail("block %s was decided differently, and is %v in the end", w.name(id), said)
		}
		// Nobody waits for a node to have read what decides nothing.
		delete(said, consensus.Unknown.String())
		delete(said, consensus.Undecided.String())
		if len(said) > 1 {
			w.fail("block %s is %v at different nodes in the end", w.name(id), said)
		}
	}
	if len(w.doubted) > 0 {
		f.whole(w)
	}
	f.accusations(w)
	f.chains(w)
}

// chains checks that each honest member's votes are one chain: no two follow the same.
func (f *facts) chains(w *world) {
	for _, m := range w.nodes {
		votes := m.store.tables[statedb.Votes]
		after := map[string]string{}
		for _, id := range votes.ids() {
			v, err := ledger.ParseVote(votes.get(id).Body)
			if err != nil || v.NodePubkey != m.key.Public || !v.StandsAt(id) || ledger.IsProofID(id) || !v.Verify() {
				continue
			}
			if other := after[v.PreviousBlock]; other != "" {
				w.fail("node %d voted on %s and on %s, each time after %s", m.place, w.name(other), w.name(v.BlockID), w.name(v.PreviousBlock))
			}
			after[v.PreviousBlock] = v.BlockID
		}
	}
}

// accusations checks that no node accuses an honest one.
func (f *facts) accusations(w *world) {
	for _, m := range w.nodes {
		if m.gone {
			continue
		}
		list, _, _ := m.node.Faults(f.asked, node.Page{Limit: 10_000})
		for _, x := range list {
			if slices.ContainsFunc(w.nodes, func(other *member) bool { return other.key.Public == x.Node }) {
				w.fail("node %d accuses an honest member: %s: %s", m.place, x.Kind, x.What)
			}
		}
	}
}

// tells reports whether a node lists a disputed block among its faults.
func (f *facts) tells(m *member, block string) bool {
	list, _, _ := m.node.Faults(f.asked, node.Page{Limit: 10_000})
	return slices.ContainsFunc(list, func(x journal.Fault) bool { return x.Kind == "disputed-block" && x.Block == block })
}

// whole checks all that is valid in the end together, as blocks that were valid at
// some nodes may be so no more.
func (f *facts) whole(w *world) {
	var m *member
	for _, other := range w.nodes {
		if !other.gone {
			m = other
		}
	}
	f.in, f.spent, f.valid = map[string]string{}, map[ledger.OutputRef]string{}, map[string]*ledger.Transaction{}
	for _, id := range f.order {
		b := f.blocks[id]
		if status, _ := m.node.BlockStatus(f.asked, id); b.block == nil || status != consensus.Valid.String() {
			continue
		}
		for _, t := range b.block.Transactions {
			if other := f.in[t.ID]; other != "" {
				w.fail("transaction %s is in two valid blocks in the end, %s and %s", w.name(t.ID), w.name(other), w.name(id))
			}
			f.in[t.ID], f.valid[t.ID] = id, t
			for _, ref := range t.Spends() {
				if other := f.spent[ref]; other != "" {
					w.fail("transactions %s and %s are valid in the end, and both spend output %d of %s", w.name(other), w.name(t.ID), ref.Index, w.name(ref.TxID))
				}
				f.spent[ref] = t.ID
			}
		}
	}
	for id, t := range f.valid {
		for _, ref := range t.Spends() {
			if f.valid[ref.TxID] == nil {
				w.fail("transaction %s is valid in the end, and spends of %s, which is not", w.name(id), w.name(ref.TxID))
			}
		}
	}
}
