package simulator

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/statedb"
)

// store is one database server, in memory: tables of documents with CouchDB's
// revisions. Only the scheduler touches it, while all nodes stand still.
type store struct {
	tables map[string]*table
}

type table struct {
	documents map[string]*document
	log       []string       // ids; a change's sequence number is its place, from 1
	at        map[string]int // id → sequence number of its latest change
	version   int            // counts all that happened
}

// document has one leaf for each revision that none follows. The first is the
// winner. A store that nobody replicates to never has two.
type document struct {
	leaves []leaf
}

type leaf struct {
	revs    []string // from the first to this one
	body    []byte
	deleted bool
}

func (l leaf) rev() string { return l.revs[len(l.revs)-1] }

func newStore() *store {
	s := &store{tables: map[string]*table{}}
	for _, name := range statedb.Tables {
		s.tables[name] = &table{documents: map[string]*document{}, at: map[string]int{}, version: 1}
	}
	return s
}

// revAfter makes a revision as CouchDB does: the same edit made in two places
// is the same revision.
func revAfter(before []string, body []byte, deleted bool) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%v %t %s", before, deleted, body))
	return fmt.Sprintf("%d-%x", len(before)+1, sum[:6])
}

// there returns the winner, and false where there is no document or a deleted one.
func (t *table) there(id string) (leaf, bool) {
	d := t.documents[id]
	if d == nil || d.leaves[0].deleted {
		return leaf{}, false
	}
	return d.leaves[0], true
}

func (t *table) changed(id string) {
	d := t.documents[id]
	slices.SortFunc(d.leaves, func(a, b leaf) int {
		switch {
		case a.deleted != b.deleted && a.deleted:
			return 1
		case a.deleted != b.deleted:
			return -1
		case len(a.revs) != len(b.revs):
			return len(b.revs) - len(a.revs)
		}
		return strings.Compare(b.rev(), a.rev())
	})
	t.log = append(t.log, id)
	t.at[id] = len(t.log)
	t.version++
}

func (t *table) write(w statedb.Write) statedb.Result {
	body := slices.Clone(w.Body)
	d := t.documents[w.ID]
	if w.Rev == "" {
		if _, there := t.there(w.ID); there || w.Delete {
			return statedb.Result{Err: fmt.Errorf("%w: %s", statedb.ErrConflict, w.ID)}
		}
		if d == nil {
			d = &document{leaves: []leaf{{}}}
			t.documents[w.ID] = d
		}
		return statedb.Result{Rev: t.follow(w.ID, &d.leaves[0], body, false)}
	}
	if d != nil {
		for i := range d.leaves {
			if l := &d.leaves[i]; !l.deleted && l.rev() == w.Rev {
				return statedb.Result{Rev: t.follow(w.ID, l, body, w.Delete)}
			}
		}
	}
	return statedb.Result{Err: fmt.Errorf("%w: %s", statedb.ErrConflict, w.ID)}
}

// follow puts a revision after a leaf.
func (t *table) follow(id string, l *leaf, body []byte, deleted bool) string {
	if deleted {
		body = []byte("{}")
	}
	rev := revAfter(l.revs, body, deleted)
	*l = leaf{revs: append(slices.Clone(l.revs), rev), body: body, deleted: deleted}
	t.changed(id)
	return rev
}

// remove purges: nothing is left of the document, not even a row in the feed.
func (t *table) remove(id string) {
	delete(t.documents, id)
	delete(t.at, id)
	t.version++
}

func (t *table) get(id string) statedb.Document {
	l, there := t.there(id)
	if !there {
		return statedb.Document{ID: id}
	}
	d := statedb.Document{ID: id, Rev: l.rev(), Body: slices.Clone(l.body)}
	for _, other := range t.documents[id].leaves[1:] {
		if !other.deleted {
			r := statedb.Revision{Rev: other.rev()}
			if len(d.Others) == 0 { // the rest is to be asked for
				r.Body = slices.Clone(other.body)
			}
			d.Others = append(d.Others, r)
		}
	}
	return d
}

// revision reads one revision; it has no body when it is gone.
func (t *table) revision(id, rev string) statedb.Revision {
	r := statedb.Revision{Rev: rev}
	if d := t.documents[id]; d != nil {
		for _, l := range d.leaves {
			if !l.deleted && l.rev() == rev {
				r.Body = slices.Clone(l.body)
			}
		}
	}
	return r
}

// waiting lists the sequence numbers behind one, each document's at its latest.
func (t *table) waiting(behind int) (list []int) {
	for i := behind; i < len(t.log); i++ {
		if t.at[t.log[i]] == i+1 {
			list = append(list, i+1)
		}
	}
	return list
}

func (t *table) change(sequence int) statedb.Change {
	id := t.log[sequence-1]
	l := t.documents[id].leaves[0]
	return statedb.Change{ID: id, Rev: l.rev(), Deleted: l.deleted}
}

// ids lists the documents that are there, sorted.
func (t *table) ids() (list []string) {
	for id := range t.documents {
		if _, there := t.there(id); there {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}
