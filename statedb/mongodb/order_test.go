package mongodb

import (
	"fmt"
	"slices"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
)

// Every type beside every other in two fields of an index comes in Mango's
// order, once, in pages of any size.
func TestOrderOfAllTypes(t *testing.T) {
	for _, likeMongoDB := range []bool{false, true} {
		t.Run(fmt.Sprintf("like MongoDB %v", likeMongoDB), func(t *testing.T) {
			opts := optionsFor(mongotest.Shared(t))
			opts.likeMongoDB = likeMongoDB
			allTypes(t, made(t, opts))
		})
	}
}

func allTypes(t *testing.T, db *DB) {
	values := []string{`null`, `false`, `true`, `1`, `1.5`, `"a"`, `[]`, `[1,true]`, `{}`, `{"a":1}`}
	var writes []statedb.Write
	var all []keyset.Position
	for i, v := range values {
		for j, w := range values {
			id := fmt.Sprintf("id%02d", (37*(10*i+j))%100)
			writes = append(writes, statedb.Write{ID: id, Body: fmt.Appendf(nil, `{"v":%s,"w":%s}`, v, w)})
			all = append(all, keyset.Position{Values: []canonical.Value{parse(t, v), parse(t, w)}, ID: id})
		}
	}
	if results, err := db.Write(t.Context(), statedb.Votes, writes); err != nil || results[0].Err != nil {
		t.Fatal(results, err)
	}
	ascending := []statedb.SortField{{Field: "v"}, {Field: "w"}}
	descending := []statedb.SortField{{Field: "v", Descending: true}, {Field: "w", Descending: true}}
	if err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{{Name: "vw", DDoc: "d", Fields: ascending}}, nil); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b keyset.Position) int { return slices.Compare(a.Key(), b.Key()) })
	var want []string
	for _, p := range all {
		want = append(want, p.ID)
	}
	reversed := slices.Clone(want)
	slices.Reverse(reversed)
	for _, limit := range []int{3, 17, 100} {
		for _, q := range []statedb.Query{{Sort: ascending}, {Sort: descending}} {
			q.Selector, q.Limit = parse(t, `{}`), limit
			var got []string
			for {
				page, err := db.Find(t.Context(), statedb.Votes, q)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range page.Documents {
					got = append(got, d.ID)
				}
				if q.Bookmark = page.Bookmark; q.Bookmark == "" {
					break
				}
			}
			expected := want
			if q.Sort[0].Descending {
				expected = reversed
			}
			if !slices.Equal(got, expected) {
				t.Errorf("pages of %d, by %v:\n got %v\nwant %v", limit, q.Sort, got, expected)
			}
		}
	}
}
