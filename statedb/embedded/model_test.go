package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// model is what a table should hold: a map of documents, and for the feed the
// order of each id's last change, deletions among them.
type model struct {
	t         *rapid.T
	fs        *vfs.MemFS
	db        *DB
	documents map[string]statedb.Document
	changed   []string // ids by their last change, removed ones gone
	deleted   map[string]bool
	building  bool // an index is left half built
}

var modelIndexes = []statedb.Index{
	{Name: "a", Fields: []statedb.SortField{{Field: "a"}}},
	{Name: "ab", Fields: []statedb.SortField{{Field: "a"}, {Field: "b.c"}}},
}

// TestAgainstModel does random things to a database and to a map and compares
// answers, the feed and, at the end of each round, every key in the store.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{t: t, fs: vfs.NewMem(), documents: map[string]statedb.Document{}, deleted: map[string]bool{}}
		m.open()
		defer func() { m.db.Close() }()
		if _, err := m.db.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Repeat(map[string]func(*rapid.T){
			"write":          m.write,
			"remove":         m.remove,
			"get":            m.get,
			"range":          m.ranges,
			"find":           m.find,
			"feed":           m.feed,
			"deploy":         m.deploy,
			"deploy in part": m.deployInPart,
			"reopen": func(t *rapid.T) {
				if err := m.db.Close(); err != nil {
					t.Fatal(err)
				}
				m.open()
			},
			"": func(t *rapid.T) { checkStore(t, m.db) },
		})
	})
}

func (m *model) open() {
	var err error
	if m.db, err = Open("model", Options{FS: m.fs}); err != nil {
		m.t.Fatal(err)
	}
}

var modelIDs = rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "é", "a\x01", "b/c"})

var modelBodies = rapid.Custom(func(t *rapid.T) []byte {
	scalar := rapid.SampledFrom([]string{`1`, `2`, `1.5`, `"x"`, `"x\u0000"`, `null`, `[1]`, `9007199254740993`})
	body := fmt.Sprintf(`"b":{"c":%s}`, scalar.Draw(t, "c"))
	if rapid.Bool().Draw(t, "has a") {
		body = fmt.Sprintf(`"a":%s,`, scalar.Draw(t, "a")) + body
	}
	if rapid.IntRange(0, 3).Draw(t, "unusual") == 0 { // for the slow way of checking
		body += `,"B":1e1`
	}
	return []byte("{" + body + "}")
})

func (m *model) write(t *rapid.T) {
	var writes []statedb.Write
	for range rapid.IntRange(1, 5).Draw(t, "writes") {
		w := statedb.Write{ID: modelIDs.Draw(t, "id")}
		if rapid.IntRange(0, 3).Draw(t, "right revision") > 0 {
			w.Rev = m.documents[w.ID].Rev
		} else {
			w.Rev = rapid.SampledFrom([]string{"", "1-x", "7-00000000000000000000000000000000"}).Draw(t, "rev")
		}
		if w.Delete = rapid.IntRange(0, 3).Draw(t, "delete") == 0; !w.Delete {
			w.Body = modelBodies.Draw(t, "body")
		}
		writes = append(writes, w)
	}
	results, err := m.db.Write(t.Context(), statedb.Votes, writes)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range writes {
		old, there := m.documents[w.ID]
		conflict := there != (w.Rev != "") || there && old.Rev != w.Rev || w.Delete && !there
		if got := errors.Is(results[i].Err, statedb.ErrConflict); got != conflict || !conflict && results[i].Err != nil {
			t.Fatalf("write %d of %s at %q over %q: %v, want a conflict: %v", i, w.ID, w.Rev, old.Rev, results[i].Err, conflict)
		}
		if conflict {
			continue
		}
		m.change(w.ID)
		if m.deleted[w.ID] = w.Delete; w.Delete {
			delete(m.documents, w.ID)
		} else {
			m.documents[w.ID] = statedb.Document{ID: w.ID, Rev: results[i].Rev, Body: w.Body}
		}
	}
}

func (m *model) change(id string) {
	m.forget(id)
	m.changed = append(m.changed, id)
}

func (m *model) forget(id string) {
	m.changed = slices.DeleteFunc(m.changed, func(other string) bool { return other == id })
}

func (m *model) remove(t *rapid.T) {
	ids := rapid.SliceOfN(modelIDs, 0, 3).Draw(t, "ids")
	if err := m.db.Remove(t.Context(), statedb.Votes, ids); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		delete(m.documents, id)
		delete(m.deleted, id)
		m.forget(id)
	}
}

func (m *model) get(t *rapid.T) {
	ids := rapid.SliceOfN(modelIDs, 0, 5).Draw(t, "ids")
	got, err := m.db.Get(t.Context(), statedb.Votes, ids)
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		want := m.documents[id]
		if got[i].ID != id || got[i].Rev != want.Rev || string(got[i].Body) != string(want.Body) {
			t.Fatalf("Get %s = %+v, want %+v", id, got[i], want)
		}
	}
}

func (m *model) ranges(t *rapid.T) {
	r := statedb.Range{Start: modelIDs.Draw(t, "start"), Limit: rapid.IntRange(1, 4).Draw(t, "limit")}
	if rapid.Bool().Draw(t, "bounded") {
		r.End = modelIDs.Draw(t, "end")
	}
	var want, got []string
	for _, id := range slices.Sorted(maps.Keys(m.documents)) {
		if id >= r.Start && (r.End == "" || id < r.End) {
			want = append(want, id)
		}
	}
	for {
		page, err := m.db.Range(t.Context(), statedb.Votes, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Documents {
			got = append(got, d.ID)
		}
		if r.Bookmark = page.Bookmark; r.Bookmark == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("Range %+v = %q, want %q", r, got, want)
	}
}

// find asks with and without a sort and compares with matching every document.
func (m *model) find(t *rapid.T) {
	arg := rapid.SampledFrom([]string{`1`, `1.5`, `2.0`, `"x"`, `null`, `[]`, `9007199254740992`})
	op := rapid.SampledFrom([]string{"$eq", "$gt", "$gte", "$lt", "$lte", "$ne", "$beginsWith"})
	condition := func(name string) string {
		o, a := op.Draw(t, "operator"), arg.Draw(t, "argument")
		if o == "$beginsWith" {
			a = `"x"`
		}
		return fmt.Sprintf(`%q:{%q:%s}`, name, o, a)
	}
	text := "{" + condition("a") + "}"
	switch rapid.IntRange(0, 2).Draw(t, "form") {
	case 0:
		text = "{" + condition("a") + "," + condition("b.c") + "}"
	case 1:
		text = "{" + condition("b.c") + "}"
	}
	query, err := canonical.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	selector, err := mango.Parse(query)
	if err != nil {
		t.Fatal(err)
	}
	q := statedb.Query{Selector: query, Limit: rapid.IntRange(1, 4).Draw(t, "limit")}
	sorted := m.indexed() && strings.Contains(text, `"a"`) && rapid.Bool().Draw(t, "sorted")
	if sorted {
		q.Sort = []statedb.SortField{{Field: "a", Descending: rapid.Bool().Draw(t, "descending")}}
	}
	var got []string
	for {
		page, err := m.db.Find(t.Context(), statedb.Votes, q)
		if errors.Is(err, statedb.ErrBuilding) && m.building {
			return
		}
		if err != nil {
			t.Fatalf("Find %s: %v", text, err)
		}
		for _, d := range page.Documents {
			got = append(got, d.ID)
			if want := m.documents[d.ID]; d.Rev != want.Rev || string(d.Body) != string(want.Body) {
				t.Fatalf("Find %s has %+v, want %+v", text, d, want)
			}
		}
		if q.Bookmark = page.Bookmark; q.Bookmark == "" {
			break
		}
	}
	m.compareFound(t, text, selector, got, q.Sort)
}

func (m *model) indexed() bool {
	return len(m.db.ledger.Load().tables[statedb.Votes].indexes.Load().indexes) > 0
}

func (m *model) compareFound(t *rapid.T, text string, selector *mango.Selector, got []string, sort []statedb.SortField) {
	fieldA := map[string]canonical.Value{}
	var want []string
	for id, d := range m.documents {
		v, err := canonical.Parse(d.Body)
		if err != nil {
			t.Fatal(err)
		}
		if selector.Match(v) {
			want = append(want, id)
			fieldA[id], _ = v.Get("a")
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Fatalf("Find %s = %q, want %q", text, got, want)
	}
	for i := 1; i < len(got) && len(sort) > 0; i++ {
		c := mango.Compare(fieldA[got[i-1]], fieldA[got[i]])
		if sort[0].Descending {
			c = -c
		}
		if c > 0 {
			t.Fatalf("Find %s sorted by %v = %q: %q are out of order", text, sort, got, got[i-1:i+1])
		}
	}
}

func (m *model) feed(t *rapid.T) {
	feed, err := m.db.Changes(t.Context(), statedb.Votes, "")
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	batch, err := feed.Next(t.Context())
	if err != nil || !batch.CaughtUp {
		t.Fatalf("Next = %+v, %v; want all at once", batch, err)
	}
	var got []string
	for _, c := range batch.Changes {
		got = append(got, c.ID)
		if c.Deleted != m.deleted[c.ID] || !c.Deleted && c.Rev != m.documents[c.ID].Rev {
			t.Fatalf("the feed has %+v, the model %+v, deleted %v", c, m.documents[c.ID], m.deleted[c.ID])
		}
	}
	if !slices.Equal(got, m.changed) {
		t.Fatalf("the feed has %q, want %q", got, m.changed)
	}
}

// deploy makes the indexes, and on every other turn changes the second.
func (m *model) deploy(t *rapid.T) {
	if err := m.db.DeployIndexes(t.Context(), statedb.Votes, m.definitions(t), nil); err != nil {
		t.Fatal(err)
	}
	m.building = false
}

// deployInPart breaks off before the first document is gone over.
func (m *model) deployInPart(t *rapid.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := m.db.DeployIndexes(ctx, statedb.Votes, m.definitions(t), func([]statedb.IndexState) { cancel() })
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	m.building = err != nil
	states, err := m.db.Indexes(t.Context(), statedb.Votes)
	if err != nil || m.building != slices.ContainsFunc(states, func(s statedb.IndexState) bool { return s.Pending > 0 }) {
		t.Fatalf("Indexes = %+v, %v after a deployment that was broken off: %v", states, err, m.building)
	}
}

func (m *model) definitions(t *rapid.T) []statedb.Index {
	defs := slices.Clone(modelIndexes)
	if rapid.Bool().Draw(t, "changed") {
		defs[1].Fields = []statedb.SortField{{Field: "b.c"}}
	}
	return defs
}
