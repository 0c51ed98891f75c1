package rethinkdb

import (
	"errors"
	"fmt"
	"testing"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

// What is left of a deleted document is none: its revision updates nothing, it
// cannot be deleted again, and the id can be created again.
func TestDeletedIsGone(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	rev := write(t, db, statedb.Write{ID: "a", Body: []byte(`{"n":1}`)})[0]
	left := write(t, db, statedb.Write{ID: "a", Rev: rev, Delete: true})[0]
	results, err := db.Write(t.Context(), table, []statedb.Write{
		{ID: "a", Rev: left, Body: []byte(`{"n":2}`)}, {ID: "a", Rev: left, Delete: true},
	})
	if err != nil || !errors.Is(results[0].Err, statedb.ErrConflict) || !errors.Is(results[1].Err, statedb.ErrConflict) {
		t.Errorf("an update and a deletion of what is deleted: %v, %v", results, err)
	}
	deploy(t, db, index("n", "n"))
	for _, selector := range []string{`{}`, `{"n":1}`, `{"_deleted":true}`, `{"_id":"a"}`} {
		if got := find(t, db, statedb.Query{Selector: parse(t, selector), Limit: 5}); len(got) > 0 {
			t.Errorf("%s finds what is deleted: %v", selector, got)
		}
	}
	if page, err := db.Range(t.Context(), table, statedb.Range{Limit: 5}); err != nil || len(page.Documents) > 0 {
		t.Errorf("Range finds what is deleted: %v, %v", page.Documents, err)
	}
	if again := write(t, db, statedb.Write{ID: "a", Body: []byte(`{"n":3}`)})[0]; again == rev || again == left {
		t.Errorf("created again at the revision %s", again)
	}
}

// Of one batch each document has its own outcome: new ones, conflicts, updates
// and deletions, in the order given.
func TestMixedBatch(t *testing.T) {
	opts := optionsFor(rethinktest.Shared(t))
	opts.MaxBatch = 7 // several queries
	db := made(t, opts)
	const n = 60
	var writes []statedb.Write
	for i := range n {
		writes = append(writes, statedb.Write{ID: fmt.Sprintf("d%02d", i), Body: []byte(`{"n":1}`)})
	}
	revs := write(t, db, writes...)
	var mixed []statedb.Write
	for i := range n {
		w := statedb.Write{ID: writes[i].ID, Rev: revs[i], Body: []byte(`{"n":2}`)}
		switch i % 5 {
		case 1:
			w.Delete = true
		case 2:
			w.Rev = "1-other"
		case 3:
			w.Rev = "" // is there
		case 4:
			w = statedb.Write{ID: "new" + w.ID, Body: []byte(`{"n":3}`)}
		}
		mixed = append(mixed, w)
	}
	results, err := db.Write(t.Context(), table, mixed)
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range results {
		conflict := i%5 == 2 || i%5 == 3
		if errors.Is(result.Err, statedb.ErrConflict) != conflict || conflict == (result.Rev != "") {
			t.Errorf("write %d of kind %d: %+v", i, i%5, result)
		}
		d, err := db.Get(t.Context(), table, []string{mixed[i].ID})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{`{"n":2}`, ``, `{"n":1}`, `{"n":1}`, `{"n":3}`}[i%5]
		if string(d[0].Body) != want || !conflict && want != "" && d[0].Rev != result.Rev {
			t.Errorf("after write %d of kind %d: %s at %s", i, i%5, d[0].Body, d[0].Rev)
		}
	}
}
