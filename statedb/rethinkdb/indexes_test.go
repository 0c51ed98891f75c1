package rethinkdb

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

// An index has every document that has its fields, wherever the path leads,
// in Mango's order, whatever the values.
func TestIndexHoldsAll(t *testing.T) {
	if testing.Short() {
		t.Skip("not tested with -short: one question after the other, which takes long with the race detector")
	}
	db := made(t, optionsFor(rethinktest.Shared(t)))
	var writes []statedb.Write
	bodies := map[string]canonical.Value{}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		x, y := values[random.IntN(len(values))], values[random.IntN(len(values))]
		body := []string{`{"a":%s,"b":%s}`, `{"a":{"b":%s},"b":{"a":%s}}`, `{"a":[%s,{"b":%s}]}`, `{"a":{"0":%s,"b":[%s]}}`, `{"a":[[%s],%s],"b":1}`}[i%5]
		id := fmt.Sprintf("d%03d", i)
		bodies[id] = parse(t, fmt.Sprintf(body, x, y))
		writes = append(writes, statedb.Write{ID: id, Body: bodies[id].Bytes()})
	}
	write(t, db, writes...)
	for i, fields := range [][]string{{"a"}, {"a.b"}, {"a.0"}, {"a.1.b"}, {"a", "b"}, {"b.a", "a.b"}, {"a.b.0"}, {`a\.b`}, {"b", "a", "a.0"}} {
		name := fmt.Sprint("i", i)
		deploy(t, db, index(name, fields...))
		var want []string
		exists := canonical.ObjectOf()
		paths := map[string]mango.Path{}
		var sort []statedb.SortField
		for _, f := range fields {
			exists = exists.With(f, parse(t, `{"$exists":true}`))
			paths[f] = mango.ParsePath(f)
			sort = append(sort, statedb.SortField{Field: f})
		}
		for id, body := range bodies {
			if !slices.ContainsFunc(fields, func(f string) bool { _, ok := paths[f].Lookup(body); return !ok }) {
				want = append(want, id)
			}
		}
		slices.SortFunc(want, func(a, b string) int {
			for _, f := range fields {
				x, _ := paths[f].Lookup(bodies[a])
				y, _ := paths[f].Lookup(bodies[b])
				if c := mango.Compare(x, y); c != 0 {
					return c
				}
			}
			return strings.Compare(a, b)
		})
		for _, descending := range []bool{false, true} {
			for _, limit := range []int{7, 1000} {
				for i := range sort {
					sort[i].Descending = descending
				}
				got := find(t, db, statedb.Query{Selector: exists, Sort: sort, UseIndex: name, Limit: limit})
				if !slices.Equal(got, want) {
					t.Errorf("%v, descending %v, limit %d: %d documents, want %d\n got %v\nwant %v", fields, descending, limit, len(got), len(want), got, want)
				}
			}
			slices.Reverse(want)
		}
	}
}

// Keys that are longer than what RethinkDB compares in its tree are in order
// all the same, and pages go on among them.
func TestLongKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("not tested with -short: one question after the other, which takes long with the race detector")
	}
	db := made(t, optionsFor(rethinktest.Shared(t)))
	type row struct{ value, id string }
	var rows []row
	var writes []statedb.Write
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 400 {
		row := row{strings.Repeat("x", random.IntN(300)), fmt.Sprintf("%0*d", 1+random.IntN(100), i)}
		if i%2 == 0 {
			row.value = strings.Repeat("y", 200) + []string{"", "\x00", "a", "\x01", "é"}[random.IntN(5)]
			row.id = strings.Repeat("i", 100) + row.id[max(0, len(row.id)-20):]
		}
		rows = append(rows, row)
		writes = append(writes, statedb.Write{ID: row.id, Body: canonical.ObjectOf(canonical.Member{Key: "v", Value: canonical.StringOf(row.value)}).Bytes()})
	}
	write(t, db, writes...)
	deploy(t, db, index("v", "v"))
	slices.SortFunc(rows, func(a, b row) int {
		if c := strings.Compare(a.value, b.value); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	for _, limit := range []int{3, 50, 1000} {
		for _, from := range []string{"", strings.Repeat("x", 150), strings.Repeat("y", 200), strings.Repeat("y", 200) + "\x00"} {
			var want []string
			for _, row := range rows {
				if row.value > from {
					want = append(want, row.id)
				}
			}
			q := statedb.Query{Selector: parse(t, `{}`).With("v", canonical.ObjectOf(canonical.Member{Key: "$gt", Value: canonical.StringOf(from)})),
				Sort: []statedb.SortField{{Field: "v"}}, Limit: limit}
			if got := find(t, db, q); !slices.Equal(got, want) {
				t.Errorf("limit %d, from %.10q (%d bytes): %d documents, want %d in order", limit, from, len(from), len(got), len(want))
			}
			slices.Reverse(want)
			q.Sort[0].Descending = true
			if got := find(t, db, q); !slices.Equal(got, want) {
				t.Errorf("limit %d, from %.10q (%d bytes), descending: %d documents, want %d in order", limit, from, len(from), len(got), len(want))
			}
		}
	}
}

// Another node defines an index anew while this one knows the old.
func TestRedefinedByAnother(t *testing.T) {
	one := made(t, optionsFor(rethinktest.Shared(t)))
	other := open(t, one.opts)
	defer other.Close()
	put(t, one, "a", `{"x":1,"y":2}`, "b", `{"x":2,"y":1}`)
	deploy(t, one, index("i", "x"), index("j", "y"))
	byX := statedb.Query{Selector: parse(t, `{"x":{"$gt":0}}`), Sort: []statedb.SortField{{Field: "x"}}, Limit: 1}
	first, err := one.Find(t.Context(), table, byX)
	if err != nil || first.Bookmark == "" {
		t.Fatal(first, err)
	}
	deploy(t, other, index("i", "y", "x"))
	if _, err := one.Find(t.Context(), table, byX); !errors.Is(err, statedb.ErrNoIndex) {
		t.Errorf("a sort that no index gives any more: %v", err)
	}
	byX.Bookmark = first.Bookmark
	if _, err := one.Find(t.Context(), table, byX); !errors.Is(err, statedb.ErrBadBookmark) {
		t.Errorf("a bookmark of the index that was replaced: %v", err)
	}
	byY := statedb.Query{Selector: parse(t, `{"x":{"$gt":0},"y":{"$gt":0}}`), Sort: []statedb.SortField{{Field: "y"}}, UseIndex: "i", Limit: 5}
	if got := find(t, one, byY); !slices.Equal(got, []string{"b", "a"}) {
		t.Errorf("by the new definition: %v", got)
	}
	// Nothing is left of the old one.
	list, err := one.one(t.Context(), "test", one.table(table).IndexList(), nil)
	if err != nil || list.Len() != 2 {
		t.Errorf("RethinkDB has the indexes %s, %v", list.Bytes(), err)
	}
}

// Names of indexes may be anything; those that operators made are listed and
// not used.
func TestIndexNames(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	put(t, db, "a", `{"n":1}`)
	var want []string
	for _, name := range []string{"a b", "a$b", "a", `"x"`, "_id", "über", "a$0123456789abcdef1", "x/y", strings.Repeat("n", 100)} {
		deploy(t, db, index(name, "n"))
		want = append(want, name)
		if got := find(t, db, statedb.Query{Selector: parse(t, `{"n":1}`), UseIndex: name, Limit: 1}); !slices.Equal(got, []string{"a"}) {
			t.Errorf("by the index %q: %v", name, got)
		}
	}
	deploy(t, db, index("a", "n", "m")) // and not a$b
	if err := db.DeployIndexes(t.Context(), table, []statedb.Index{index(strings.Repeat("n", 130), "n")}, nil); !errors.Is(err, statedb.ErrBadQuery) {
		t.Errorf("a name that is too long: %v", err)
	}
	for _, of := range []string{"byhand", "n"} {
		if _, err := db.run(t.Context(), "test", db.table(table).IndexCreate(of), nil); err != nil {
			t.Fatal(err)
		}
		want = append(want, of)
	}
	states, err := db.Indexes(t.Context(), table)
	var got []string
	for _, state := range states {
		got = append(got, state.Name)
	}
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Indexes: %q, %v\nwant %q", got, err, want)
	}
	plan, err := db.Explain(t.Context(), table, statedb.Query{Selector: parse(t, `{"z":1}`), Limit: 1})
	if err != nil || plan.Index != "" {
		t.Errorf("a query that no index serves: %+v, %v", plan, err)
	}
}

// The definition of a partial index keeps its numbers.
func TestDefinitions(t *testing.T) {
	ix := index("p", "a.b", `c\.d`)
	ix.DDoc, ix.Fields[1].Descending = "other", true
	ix.PartialFilter = parse(t, `{"n":{"$gt":1.0,"$lt":9007199254740993},"s":{"$ne":"x\u0000"}}`)
	got, ok := readDefinition(string(definitionOf(ix).Bytes()))
	if !ok || !got.Equal(ix) {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{"", "[", "7", "{}", `{"name":"x"}`, `{"name":"x","fields":[]}`, `{"name":"x","fields":["a"]}`, `{"fields":[["a","asc"]]}`} {
		if got, ok := readDefinition(bad); ok {
			t.Errorf("%s was read as %+v", bad, got)
		}
	}
}

// A page by an index reads little more than it shows: the bounds are the
// server's work.
func TestBoundsAreTight(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	put(t, db, "odd", `{"n":[1]}`, "none", `{}`)
	for i := range 50 {
		put(t, db, fmt.Sprintf("d%02d", i), fmt.Sprintf(`{"n":%d,"m":%d}`, i, i%5))
	}
	ixs := []statedb.Index{index("n", "n"), index("mn", "m", "n")}
	deploy(t, db, ixs...)
	for _, test := range []struct {
		selector, index string
		want            int
	}{
		{`{"n":7}`, "n", 1}, {`{"n":{"$gt":40}}`, "n", 9}, {`{"n":{"$gte":40,"$lt":42.5}}`, "n", 3}, {`{"n":{"$lt":3}}`, "n", 3},
		{`{"n":{"$lte":3}}`, "n", 4}, {`{"n":{"$gt":9007199254740993}}`, "n", 0}, {`{"n":{"$lt":9007199254740993}}`, "n", 50},
		{`{"n":{"$gt":-1` + strings.Repeat("0", 400) + `}}`, "n", 50}, {`{"n":{"$lt":1` + strings.Repeat("0", 400) + `}}`, "n", 50},
		{`{"n":{"$gt":1` + strings.Repeat("0", 400) + `}}`, "n", 0}, {`{"n":{"$lt":-1` + strings.Repeat("0", 400) + `}}`, "n", 0},
		{`{"n":{"$gt":null,"$lt":true}}`, "n", 0}, {`{"n":{"$gt":"a"}}`, "n", 0}, {`{"n":[1]}`, "n", 0}, {`{"n":{"$gte":[]}}`, "n", 0}, {`{"n":{"$exists":true}}`, "n", 50},
		{`{"m":2,"n":{"$exists":true}}`, "mn", 10}, {`{"m":2,"n":{"$gt":20,"$lte":32}}`, "mn", 3}, {`{"m":2,"n":7}`, "mn", 1}, {`{"m":{"$lt":1},"n":{"$exists":true}}`, "mn", 10},
	} {
		q, err := db.prepare(t.Context(), table, statedb.Query{Selector: parse(t, test.selector), UseIndex: test.index, Limit: 1})
		if err != nil {
			t.Fatal(test.selector, err)
		}
		got := 0
		if b, some := boundsOf(q); some {
			count, err := db.one(t.Context(), "test", db.keys(table, q, b).Count(), nil)
			if err != nil {
				t.Fatal(test.selector, err)
			}
			n, _ := count.Int64()
			got = int(n)
		}
		if got != test.want {
			t.Errorf("%s by %s: %d rows lie between the bounds, want %d", test.selector, test.index, got, test.want)
		}
		odd, err := db.one(t.Context(), "test", db.keys(table, q, oddBounds).Field("_id").CoerceTo("array"), nil)
		if err != nil || test.index == "n" && string(odd.Bytes()) != `["odd"]` || test.index == "mn" && odd.Len() > 0 {
			t.Errorf("odd documents of %s: %s, %v", test.index, odd.Bytes(), err)
		}
	}
}
