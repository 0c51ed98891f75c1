package simulator

import (
	"slices"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// link copies from one database to another, in the order of the source's feed.
type link struct {
	from, to *store
	name     string
	at       map[string]int // by table: the last sequence number that was copied
}

// replicated are the tables that are copied: never what is derived.
var replicated = []string{statedb.Backlog, statedb.Bigchain, statedb.Votes}

// connect has the databases copy from each other, in a ring or each from all.
func (w *world) connect() {
	n := len(w.stores)
	mesh := w.random.IntN(2) == 0
	for to := range n {
		for from := range n {
			if from == to || !mesh && (from+1)%n != to {
				continue
			}
			w.links = append(w.links, &link{from: w.stores[from], to: w.stores[to], name: string(rune('0'+from)) + " to " + string(rune('0'+to)), at: map[string]int{}})
		}
	}
}

// way is what a link has to copy of a table next.
type way struct {
	link  *link
	table string
	next  int
}

func (w *world) ways() (list []way) {
	for _, l := range w.links {
		for _, table := range replicated {
			if waiting := l.from.tables[table].waiting(l.at[table]); len(waiting) > 0 {
				list = append(list, way{l, table, waiting[0]})
			}
		}
	}
	return list
}

// replicates tells whether something is on its way between databases.
func (w *world) replicates() bool { return len(w.ways()) > 0 }

// replicate brings one document from one database to another, with all that
// stands under its id. While there are faults it may come again.
func (w *world) replicate() {
	ways := w.ways()
	if len(ways) == 0 {
		return
	}
	next := ways[w.random.IntN(len(ways))]
	source := next.link.from.tables[next.table]
	id := source.log[next.next-1]
	w.note("%s is copied from %s", w.name(id), next.link.name)
	lying := slices.ContainsFunc(w.liars, func(l *liar) bool { return l.store == next.link.from })
	for _, l := range source.documents[id].leaves {
		// What a sound server is asked for: see the selector that add-replicas writes.
		if lying || len(l.revs) == 1 && !l.deleted {
			next.link.to.tables[next.table].receive(id, l)
		}
	}
	if w.calm || w.random.IntN(10) > 0 {
		next.link.at[next.table] = next.next
	}
}

// receive takes a revision from another database. The table is guarded: it takes no
// deletions and no edits of what is there, as the validate_doc_update that
// add-replicas puts there; an edit of what was never here looks like something new.
func (t *table) receive(id string, l leaf) {
	d := t.documents[id]
	if d == nil {
		d = &document{}
	}
	for _, known := range d.leaves {
		if slices.ContainsFunc(known.revs, func(rev string) bool { return slices.Contains(l.revs, rev) }) {
			return
		}
	}
	if l.deleted {
		return
	}
	l.revs, l.body = slices.Clone(l.revs), slices.Clone(l.body)
	d.leaves = append(d.leaves, l)
	t.documents[id] = d
	t.changed(id)
}

// equivocate shows one vote on a block to some of the others and its opposite to
// the rest.
func (l *liar) equivocate() {
	w := l.w
	open := slices.DeleteFunc(blocksIn(l.store), func(id string) bool { return l.votes[id] })
	if len(open) == 0 {
		return
	}
	block := l.one(open)
	l.votes[block] = true
	previous := l.one(blocksIn(l.store))
	id := ledger.VoteID(block, l.key.Public)
	var leaves []leaf
	for _, valid := range []bool{true, false} {
		reason := ""
		if !valid {
			reason = "BECAUSE"
		}
		body := ledger.NewVote(l.key, block, previous, valid, reason, time.Now().Unix()).Bytes()
		leaves = append(leaves, leaf{revs: []string{revAfter(nil, body, false)}, body: body})
	}
	w.doubted[block] = true
	for i, s := range w.stores {
		side := w.random.IntN(2)
		w.note("liar %d shows %d its vote on %s, valid: %t", l.place, i, w.name(block), side == 0)
		s.tables[statedb.Votes].receive(id, leaves[side])
	}
}
