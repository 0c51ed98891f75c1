package mongodb

import (
	"errors"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
	"github.com/couchledger/couchledger/statedb/mango"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
)

func extended(t *testing.T, v any) string {
	t.Helper()
	text, err := bson.MarshalExtJSON(v, false, false)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTranslate(t *testing.T) {
	for _, test := range []struct{ selector, want string }{
		{`{"a":1}`, `{"a":{"$eq":1}}`},
		{`{"a":null}`, `{"a":{"$type":["null"]}}`},
		{`{"a":{"b":1}}`, `{"a.b":{"$eq":1}}`},
		{`{"a":[1]}`, `{"a":{"$type":["array"]}}`},
		{`{"a":{"$gt":5}}`, `{"$or":[{"a":{"$type":["string","array","object"]}},{"a":{"$gt":5}}]}`},
		{`{"a":{"$ne":1}}`, `{"a":{"$exists":true}}`},
		{`{"$not":{"a":1}}`, `{"a":{"$exists":true}}`},
		{`{"a":1,"b":{"$regex":"x"}}`, `{"$and":[{"a":{"$eq":1}},{"b":{"$type":["string"]}}]}`},
		{`{"$or":[{"a":1},{"b":2}]}`, `{"$or":[{"a":{"$eq":1}},{"b":{"$eq":2}}]}`},
		{`{"$or":[{"a":1},{"_rev":"x"}]}`, ``},
		{`{"_rev":"x"}`, ``},
		{`{"_other":{"$exists":false}}`, ``},
		{`{"a":{"$exists":false}}`, `{"a":{"$exists":false}}`},
		{`{"a.b":{"$exists":false}}`, `{"a.b":{"$exists":false}}`},
		{`{"a.0.b":{"$exists":false}}`, ``}, // an element may have a key 0
		{`{"a.0":1}`, `{"a.0":{"$eq":1}}`},
		{`{"a.01":1}`, ``}, // to MongoDB that is a key
		{`{"a\\.b":1}`, ``},
		{`{"a.\\$b":1}`, ``},
		{`{"a":{"$in":[1,"x",null]}}`, `{"a":{"$in":[null,1,"x"]}}`},
		{`{"a":{"$in":[{"b":1}]}}`, `{"a":{"$type":["array","object"]}}`},
		{`{"a":{"$in":[1,[2]]}}`, `{"$or":[{"a":{"$type":["array"]}},{"a":{"$in":[1]}}]}`},
		{`{"a":{"$in":[18446744073709551616]}}`, `{"a":{"$type":["int","long","double","array"]}}`},
		{`{"a":{"$in":[]}}`, `{"a":{"$in":[]}}`},
		{`{"_id":"x"}`, `{"_id":{"$eq":"x"}}`},
		{`{"_id":{"$gt":{}}}`, ``}, // all ids are
		{`{"_id":{"$in":["x",1]}}`, `{"_id":{"$in":["x"]}}`},
		{`{"a":{"$elemMatch":{"$ne":1}}}`, `{"a":{"$type":["array"]}}`},
		{`{"a":{"$size":2}}`, `{"a":{"$type":["array"]}}`},
		{`{"a":{"$type":"number"}}`, `{"a":{"$type":["int","long","double"]}}`},
		{`{"a":{"$beginsWith":"x"}}`, `{"a":{"$gte":"x"}}`},
	} {
		s, err := mango.Parse(parse(t, test.selector))
		if err != nil {
			t.Errorf("%s: %v", test.selector, err)
			continue
		}
		got := ""
		if d, ok := translate(s.Tree()); ok {
			got = extended(t, d)
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.selector, got, test.want)
		}
	}
}

// The commands for a page: each type of the first field after the other, and
// behind a row first what is equal in most fields.
func TestChain(t *testing.T) {
	index := statedb.Index{Name: "i", Fields: []statedb.SortField{{Field: "g"}, {Field: "v"}, {Field: "w"}}}
	shapeOf := func(f *finder) shape {
		return shape{
			index: &deployed{keys: []string{"g", "v", "w"}}, variable: []string{"v", "w"}, within: everything,
			constants: []bson.D{{{Key: "g", Value: 1}}}, rest: f.rest(),
		}
	}
	q := statedb.Query{Selector: parse(t, `{"g":1,"v":{"$exists":true},"w":{"$exists":true}}`), Limit: 1}
	first, err := keyset.Prepare("votes", q, []statedb.IndexState{{Index: index}})
	if err != nil {
		t.Fatal(err)
	}
	pattern := []class{classPlain | classBool, classPlain}
	const plain = `{"w":{"$type":["null","int","long","double","string"]}}`
	expect := func(f *finder, want ...string) {
		t.Helper()
		got := f.chain(shapeOf(f), pattern)
		for i, s := range got {
			if text := extended(t, s.filter); i >= len(want) || text != want[i] {
				t.Errorf("command %d of %d: %s, want %s", i, len(got), text, append(want, "none")[min(i, len(want))])
			}
		}
		if len(got) < len(want) {
			t.Errorf("%d commands, want %d", len(got), len(want))
		}
	}
	expect(&finder{query: first},
		`{"$and":[{"g":1},{"v":{"$type":["null"]}},`+plain+`]}`,
		`{"$and":[{"g":1},{"v":{"$type":["bool"]}},`+plain+`]}`,
		`{"$and":[{"g":1},{"v":{"$type":["int","long","double"]}},`+plain+`]}`,
		`{"$and":[{"g":1},{"v":{"$type":["string"]}},`+plain+`]}`)
	first.After = &keyset.Position{Values: []canonical.Value{parse(t, `1`), parse(t, `5`), parse(t, `"x"`)}, ID: "id"}
	expect(&finder{query: first},
		`{"$and":[{"g":1},{"v":{"$eq":5}},{"w":{"$eq":"x"}},{"_id":{"$gt":"id"}}]}`,
		`{"$and":[{"g":1},{"v":{"$eq":5}},{"w":{"$gt":"x"}}]}`,
		`{"$and":[{"g":1},{"v":{"$gt":5}},`+plain+`]}`,
		`{"$and":[{"g":1},{"v":{"$type":["string"]}},`+plain+`]}`)
	// Behind an array only arrays and objects follow; the last field may differ.
	first.After.Values[2] = parse(t, `[1]`)
	expect(&finder{query: first},
		`{"$and":[{"g":1},{"v":{"$gt":5}},`+plain+`]}`,
		`{"$and":[{"g":1},{"v":{"$type":["string"]}},`+plain+`]}`)
	first.Plan.Reverse = true
	expect(&finder{query: first},
		`{"$and":[{"g":1},{"v":{"$eq":5}},{"w":{"$type":["string"]}}]}`,
		`{"$and":[{"g":1},{"v":{"$eq":5}},{"w":{"$type":["int","long","double"]}}]}`,
		`{"$and":[{"g":1},{"v":{"$eq":5}},{"w":{"$type":["null"]}}]}`,
		`{"$and":[{"g":1},{"v":{"$lt":5}},`+plain+`]}`,
		`{"$and":[{"g":1},{"v":{"$type":["bool"]}},`+plain+`]}`,
		`{"$and":[{"g":1},{"v":{"$type":["null"]}},`+plain+`]}`)
}

// An index whose building was cut off is not used, until a deployment has
// ended it. One that somebody dropped is made again.
func TestUnfinishedIndex(t *testing.T) {
	db := made(t, optionsFor(mongotest.Shared(t)))
	put(t, db, statedb.Votes, "a", "", `{"n":1}`)
	index := statedb.Index{Name: "n", DDoc: "n", Fields: []statedb.SortField{{Field: "n"}}}
	if err := db.store(t.Context(), statedb.Votes, index, false); err != nil {
		t.Fatal(err)
	}
	q := statedb.Query{Selector: parse(t, `{"n":1}`), Sort: index.Fields, Limit: 5}
	if _, err := db.Find(t.Context(), statedb.Votes, q); !errors.Is(err, statedb.ErrBuilding) {
		t.Errorf("Find by an index that is not ready: %v", err)
	}
	for _, what := range []string{"a deployment of what was begun", "a deployment after a drop"} {
		if err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{index}, nil); err != nil {
			t.Fatal(err)
		}
		if page, err := db.Find(t.Context(), statedb.Votes, q); err != nil || len(page.Documents) != 1 {
			t.Errorf("Find after %s: %+v, %v", what, page, err)
		}
		if err := db.mongo.Collection(statedb.Votes).Indexes().DropOne(t.Context(), "n"); err != nil {
			t.Errorf("the index is not there after %s: %v", what, err)
		}
		if states, err := db.Indexes(t.Context(), statedb.Votes); err != nil || len(states) != 0 {
			t.Errorf("Indexes after a drop: %+v, %v", states, err)
		}
	}
}

// Indexes that an operator made are used, where Mango has words for them, and
// definitions with the same fields share one.
func TestOtherIndexes(t *testing.T) {
	opts := optionsFor(mongotest.Shared(t))
	opts.likeMongoDB = true
	db := made(t, opts)
	put(t, db, statedb.Votes, "a", "", `{"n":1,"m":2}`)
	for name, key := range map[string]bson.D{
		"up": {{Key: "m", Value: 1}, {Key: "n", Value: 1}}, "down": {{Key: "m", Value: -1}}, "mine": {{Key: "k", Value: 1}},
	} {
		err := db.mongo.RunCommand(t.Context(), bson.D{{Key: "createIndexes", Value: statedb.Votes}, {Key: "indexes", Value: bson.A{
			bson.D{{Key: "key", Value: key}, {Key: "name", Value: name}},
		}}}).Err()
		if err != nil {
			t.Fatal(err)
		}
	}
	n := []statedb.SortField{{Field: "n"}}
	partial := statedb.Index{Name: "partial", DDoc: "d", Fields: n, PartialFilter: parse(t, `{"m":2}`)}
	// mine is there with other fields, and gives way to its definition.
	ours := []statedb.Index{{Name: "n", DDoc: "d", Fields: n}, partial, {Name: "mine", DDoc: "d", Fields: []statedb.SortField{{Field: "x"}}}}
	if err := db.DeployIndexes(t.Context(), statedb.Votes, ours, nil); err != nil {
		t.Fatal(err)
	}
	states, err := db.Indexes(t.Context(), statedb.Votes)
	var names []string
	for _, state := range states {
		names = append(names, state.Name)
	}
	if err != nil || len(names) != 4 || names[0] != "mine" || names[1] != "n" || names[2] != "partial" || names[3] != "up" {
		t.Errorf("Indexes: %v, %v", names, err)
	}
	for _, sort := range [][]statedb.SortField{n, {{Field: "m"}, {Field: "n"}}} {
		page, err := db.Find(t.Context(), statedb.Votes, statedb.Query{Selector: parse(t, `{"n":{"$gt":0},"m":{"$gt":0}}`), Sort: sort, Limit: 5})
		if err != nil || len(page.Documents) != 1 {
			t.Errorf("sorted by %v: %+v, %v", sort, page, err)
		}
	}
	ours[0].Fields = []statedb.SortField{{Field: "y"}}
	if err := db.DeployIndexes(t.Context(), statedb.Votes, ours[:1], nil); err != nil {
		t.Fatal(err)
	}
	page, err := db.Find(t.Context(), statedb.Votes, statedb.Query{Selector: parse(t, `{"n":1}`), UseIndex: "partial", Limit: 5})
	if err != nil || len(page.Documents) != 1 {
		t.Errorf("the index that shared its fields with a changed one: %+v, %v", page, err)
	}
}
