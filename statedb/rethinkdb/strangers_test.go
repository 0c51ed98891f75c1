package rethinkdb

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

// deep is more than a document may nest. RethinkDB's own time for a range of
// such goes with the square of the depth: at 20,000 it is seconds.
const deep = 2000

// strange are rows as other programs may leave them.
var strange = []string{
	`{"_id":1,"n":1}`, `{"_id":[1,"x"],"n":1}`, `{"_id":true,"n":1}`,
	`{"_id":{"$reql_type$":"TIME","epoch_time":1,"timezone":"+00:00"},"n":1}`,
	`{"_id":"","n":1}`, `{"_id":"_x","n":1}`, `{"_id":"_index/n","definition":7}`, `{"_id":"_index/m","definition":"{"}`,
	`{"_id":"_index/k","definition":"{\"name\":\"k\",\"fields\":[1]}"}`,
	`{"_id":"norev","n":1}`, `{"_id":"oddrev","n":1,"_rev":7}`, `{"_id":"deeprev","n":1,"_rev":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + `}`,
	`{"_id":"emptyrev","n":1,"_rev":""}`, `{"_id":"oldrev","n":1,"_rev":"99999999999999999999-x"}`,
	`{"_id":"notdeleted","n":1,"_deleted":"yes"}`, `{"_id":"deleted","n":1,"_deleted":true}`,
	`{"_id":"time","n":{"$reql_type$":"TIME","epoch_time":1,"timezone":"+00:00"}}`,
	`{"_id":"binary","n":{"$reql_type$":"BINARY","data":"aaaa"}}`,
	`{"_id":"literal","n":{"$reql_type$":"LITERAL","value":1}}`,
	`{"_id":"point","n":{"$reql_type$":"GEOMETRY","type":"Point","coordinates":[1,2]}}`,
	`{"_id":"deep","n":` + strings.Repeat("[", deep) + strings.Repeat("]", deep) + `}`,
	`{"_id":"huge","n":1e308,"_rev":"1-a"}`, `{"_id":"big","n":123456789012345678901234567890}`, `{"_id":"zero","n":-0.0}`,
	`{"_id":"under","_y":1,"n":1}`,
}

// Rows of other programs come out as something and hold up nothing: in pages,
// in feeds, by ids, by an index, and they can be written over.
func TestRowsOfOthers(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	put(t, db, "a", `{"n":1}`, "z", `{"n":2}`)
	for _, row := range strange {
		plant(t, db, row)
	}
	want := []string{"a", "big", "binary", "deep", "deeprev", "emptyrev", "huge", "literal", "norev", "notdeleted", "oddrev", "oldrev", "point", "time", "under", "z", "zero"}

	var ids []string
	r := statedb.Range{Limit: 3}
	for {
		page, err := db.Range(t.Context(), table, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Documents {
			if ids = append(ids, d.ID); d.Rev == "" || d.Body[0] != '{' {
				t.Errorf("%s is %.50s at %q", d.ID, d.Body, d.Rev)
			}
		}
		if r.Bookmark = page.Bookmark; r.Bookmark == "" {
			break
		}
	}
	if !slices.Equal(ids, want) {
		t.Errorf("Range: %v\nwant %v", ids, want)
	}

	rows, _ := follow(t, db, "")
	for _, id := range want {
		if c, ok := rows[id]; !ok || c.Deleted {
			t.Errorf("the feed has %+v of %s", c, id)
		}
	}
	if len(rows) != len(want)+1 || !rows["deleted"].Deleted {
		t.Errorf("the feed has %d rows, want %d and a deletion", len(rows), len(want))
	}

	deploy(t, db, index("n", "n"), index("nd", "n.data"))
	all := []string{}
	for _, id := range want {
		if id != "deep" { // it cannot be read, so it shows without fields
			if id != "deeprev" {
				all = append(all, id)
			}
		}
	}
	for selector, want := range map[string][]string{
		`{"n":{"$exists":true}}`:                    all,
		`{"n":{"$gt":"z"}}`:                         {"binary", "literal", "point", "time"},
		`{"n":{"$type":"object"}}`:                  {"binary", "literal", "point", "time"},
		`{"n.data":{"$gte":""}}`:                    {"binary"},
		`{"n.epoch_time":1}`:                        {"time"},
		`{"n.coordinates.1":2}`:                     {"point"},
		`{"n":0}`:                                   {"zero"},
		`{"n":{"$gt":1e300}}`:                       {"binary", "huge", "literal", "point", "time"},
		`{"n":1,"_y":{"$exists":false}}`:            {"a", "emptyrev", "norev", "notdeleted", "oddrev", "oldrev", "under"},
		`{"n":1,"$nor":[{"n":{"$type":"string"}}]}`: {"a", "emptyrev", "norev", "notdeleted", "oddrev", "oldrev", "under"},
	} {
		for _, limit := range []int{2, 100} {
			got := find(t, db, statedb.Query{Selector: parse(t, selector), Limit: limit})
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s, limit %d: %v\nwant %v", selector, limit, got, want)
			}
		}
	}
	if states, err := db.Indexes(t.Context(), table); err != nil || len(states) != 2 {
		t.Errorf("Indexes: %+v, %v", states, err)
	}

	documents, err := db.Get(t.Context(), table, want)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range documents {
		rev := write(t, db, statedb.Write{ID: d.ID, Rev: d.Rev, Body: []byte(`{"n":5}`)})[0]
		results, err := db.Write(t.Context(), table, []statedb.Write{{ID: d.ID, Rev: d.Rev, Body: []byte(`{}`)}})
		if err != nil || rev == d.Rev || !errors.Is(results[0].Err, statedb.ErrConflict) {
			t.Errorf("%s: a second update of the revision %q: %v, %v", d.ID, d.Rev, results, err)
		}
	}
	if err := db.Remove(t.Context(), table, want); err != nil {
		t.Fatal(err)
	}
	if page, err := db.Range(t.Context(), table, statedb.Range{Limit: 10}); err != nil || len(page.Documents) != 0 {
		t.Errorf("after Remove: %v, %v", page.Documents, err)
	}
}

// Ids that no row can have are an error for just their document.
func TestImpossibleIDs(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	ids := []string{strings.Repeat("x", maxIDBytes), strings.Repeat("x", maxIDBytes+1), "a\x00", "\xff", "_a", "", "$reql_type$", "ok"}
	possible := []bool{true, false, false, false, false, false, true, true}
	var writes []statedb.Write
	for _, id := range ids {
		writes = append(writes, statedb.Write{ID: id, Body: []byte(`{}`)})
	}
	for _, update := range []bool{false, true} {
		results, err := db.Write(t.Context(), table, writes)
		if err != nil {
			t.Fatal(err)
		}
		for i, result := range results {
			if possible[i] != (result.Err == nil) || !possible[i] && !errors.Is(result.Err, statedb.ErrBadDocument) {
				t.Errorf("%.20q, update %v: %v", ids[i], update, result.Err)
			}
			writes[i].Rev = result.Rev
		}
	}
	documents, err := db.Get(t.Context(), table, ids)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range documents {
		if possible[i] != (d.Rev != "") {
			t.Errorf("Get of %.20q: revision %q", ids[i], d.Rev)
		}
	}
	for _, bound := range ids {
		if _, err := db.Range(t.Context(), table, statedb.Range{Start: bound, End: bound + "z", Limit: 5}); err != nil {
			t.Errorf("Range from %.20q: %v", bound, err)
		}
	}
	if err := db.Remove(t.Context(), table, ids); err != nil {
		t.Fatal(err)
	}
}

// Bounds with U+0000 or without UTF-8 lie between ids as any others.
func TestOddBounds(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	put(t, db, "a", `{}`, "a\x01", `{}`, "aa", `{}`, "é", `{}`, "\uFFFD", `{}`, "b", `{}`)
	ids := []string{"a", "a\x01", "aa", "b", "é", "\uFFFD"}
	for _, start := range []string{"", "a", "a\x00", "a\x00z", "a\xff", "\xc3", "\x00", "\uFFFD\xff", "b"} {
		for _, end := range []string{"", "a\x00", "a\x00\x00", "a\x01", "b\xff", "\xff", "a"} {
			want := []string{}
			for _, id := range ids {
				if id >= start && (end == "" || id < end) {
					want = append(want, id)
				}
			}
			page, err := db.Range(t.Context(), table, statedb.Range{Start: start, End: end, Limit: 10})
			got := []string{}
			for _, d := range page.Documents {
				got = append(got, d.ID)
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("from %q to %q: %q, %v; want %q", start, end, got, err, want)
			}
		}
	}
}
