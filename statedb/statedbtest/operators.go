package statedbtest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// zoo has a document for every corner of the operators.
var zoo = []string{
	"null", `{"v":null}`,
	"false", `{"v":false}`,
	"true", `{"v":true}`,
	"zero", `{"v":0}`,
	"one", `{"v":1}`,
	"two", `{"v":2}`,
	"half", `{"v":2.5}`,
	"minus", `{"v":-7}`,
	"big", `{"v":9007199254740993}`,
	"empty", `{"v":""}`,
	"abc", `{"v":"abc"}`,
	"abd", `{"v":"abd"}`,
	"digits", `{"v":"123"}`,
	"noitems", `{"v":[]}`,
	"items", `{"v":[1,2,3]}`,
	"words", `{"v":["abc","x"]}`,
	"people", `{"v":[{"name":"ann","age":30},{"name":"bob","age":40}]}`,
	"object", `{"v":{"name":"ann","tags":["x","y"]}}`,
	"nothing", `{"v":{}}`,
	"dotted", `{"a.b":1}`,
	"nested", `{"a":{"b":1}}`,
	"none", `{"w":1}`,
}

// operatorTests: the selector and the ids that it finds in zoo.
var operatorTests = []struct {
	selector string
	want     []string
}{
	{`{"v":{"$eq":1}}`, []string{"one"}},
	{`{"v":1}`, []string{"one"}},
	{`{"v":1.0}`, []string{"one"}},
	{`{"v":"abc"}`, []string{"abc"}},
	{`{"v":null}`, []string{"null"}},
	{`{"v":{"$eq":[1,2,3]}}`, []string{"items"}},
	{`{"v":[1,2,3]}`, []string{"items"}},
	{`{"v":{"$eq":{"name":"ann","tags":["x","y"]}}}`, []string{"object"}},
	{`{"v":{}}`, []string{"nothing"}},
	{`{"v":9007199254740993}`, []string{"big"}},
	{`{"v":9007199254740992}`, nil},

	{`{"v":{"$ne":1}}`, []string{"null", "false", "true", "zero", "two", "half", "minus", "big", "empty", "abc", "abd",
		"digits", "noitems", "items", "words", "people", "object", "nothing"}},

	// types sort null, false, true, numbers, strings, arrays, objects
	{`{"v":{"$lt":0}}`, []string{"null", "false", "true", "minus"}},
	{`{"v":{"$lte":0}}`, []string{"null", "false", "true", "minus", "zero"}},
	{`{"v":{"$lt":true}}`, []string{"null", "false"}},
	{`{"v":{"$gt":"abc"}}`, []string{"abd", "noitems", "items", "words", "people", "object", "nothing"}},
	{`{"v":{"$gte":"abd"}}`, []string{"abd", "noitems", "items", "words", "people", "object", "nothing"}},
	{`{"v":{"$gt":0,"$lt":"a"}}`, []string{"one", "two", "half", "big", "empty", "digits"}},
	{`{"v":{"$gte":1,"$lte":2.5}}`, []string{"one", "two", "half"}},
	{`{"v":{"$gt":2,"$lt":3}}`, []string{"half"}},
	{`{"v":{"$gt":9007199254740992,"$lt":9007199254740994}}`, []string{"big"}},
	{`{"v":{"$gt":[1,2]}}`, []string{"items", "words", "people", "object", "nothing"}},
	{`{"v":{"$gt":{}}}`, []string{"object"}},
	{`{"v":{"$gt":null}}`, []string{"false", "true", "zero", "one", "two", "half", "minus", "big", "empty", "abc", "abd",
		"digits", "noitems", "items", "words", "people", "object", "nothing"}},

	{`{"v":{"$exists":false}}`, []string{"dotted", "nested", "none"}},
	{`{"w":{"$exists":true}}`, []string{"none"}},
	{`{"v.name":{"$exists":true}}`, []string{"object"}},
	{`{"v.name":{"$exists":false},"v":{"$type":"object"}}`, []string{"nothing"}},
	{`{"v.name":{"$exists":false},"v":{"$type":"number"}}`, nil},

	{`{"v":{"$type":"null"}}`, []string{"null"}},
	{`{"v":{"$type":"boolean"}}`, []string{"false", "true"}},
	{`{"v":{"$type":"number"}}`, []string{"zero", "one", "two", "half", "minus", "big"}},
	{`{"v":{"$type":"string"}}`, []string{"empty", "abc", "abd", "digits"}},
	{`{"v":{"$type":"array"}}`, []string{"noitems", "items", "words", "people"}},
	{`{"v":{"$type":"object"}}`, []string{"object", "nothing"}},

	{`{"v":{"$in":[1,"abc",null]}}`, []string{"one", "abc", "null", "items", "words"}},
	{`{"v":{"$in":[]}}`, nil},
	{`{"v":{"$nin":[1,"abc",null],"$type":"array"}}`, []string{"noitems", "people"}},
	{`{"v":{"$nin":[0,1],"$type":"number"}}`, []string{"two", "half", "minus", "big"}},
	{`{"w":{"$nin":[2]}}`, []string{"none"}},

	{`{"v":{"$size":0}}`, []string{"noitems"}},
	{`{"v":{"$size":2}}`, []string{"words", "people"}},
	{`{"v":{"$mod":[2,0]}}`, []string{"zero", "two"}},
	{`{"v":{"$mod":[3,-1]}}`, []string{"minus"}},
	{`{"v":{"$mod":[10,3]}}`, []string{"big"}},
	{`{"v":{"$regex":"^ab"}}`, []string{"abc", "abd"}},
	{`{"v":{"$regex":"^[0-9]+$"}}`, []string{"digits"}},
	{`{"v":{"$regex":"b"}}`, []string{"abc", "abd"}},
	{`{"v":{"$beginsWith":"ab"}}`, []string{"abc", "abd"}},
	{`{"v":{"$beginsWith":"abc"}}`, []string{"abc"}},

	{`{"v":{"$all":[1,3]}}`, []string{"items"}},
	{`{"v":{"$all":[1,4]}}`, nil},
	{`{"v":{"$all":[]}}`, nil},
	{`{"v":{"$all":[[1,2,3]]}}`, []string{"items"}},
	{`{"v":{"$elemMatch":{"$eq":2}}}`, []string{"items"}},
	{`{"v":{"$elemMatch":{"$gt":2,"$lt":4}}}`, []string{"items"}},
	{`{"v":{"$elemMatch":{"name":"bob","age":{"$gt":30}}}}`, []string{"people"}},
	{`{"v":{"$elemMatch":{"name":"ann","age":{"$gt":30}}}}`, nil},
	{`{"v":{"$allMatch":{"$type":"number"}}}`, []string{"items"}},
	{`{"v":{"$allMatch":{"age":{"$gte":30}}}}`, []string{"people"}},
	{`{"v":{"$keyMapMatch":{"$eq":"tags"}}}`, []string{"object"}},
	{`{"v":{"$keyMapMatch":{"$regex":"^n"}}}`, []string{"object"}},

	{`{"$and":[{"v":{"$gt":0}},{"v":{"$lt":2}}]}`, []string{"one"}},
	{`{"$or":[{"v":1},{"w":1}]}`, []string{"one", "none"}},
	{`{"$not":{"v":{"$gt":0}}}`, []string{"null", "false", "true", "zero", "minus"}},
	{`{"$nor":[{"v":{"$gt":0}},{"v":{"$type":"boolean"}}]}`, []string{"null", "zero", "minus"}},
	{`{"v":{"$not":{"$gt":0}}}`, []string{"null", "false", "true", "zero", "minus"}},
	{`{"v":{"$not":{"$type":"number"},"$lt":"b"}}`, []string{"null", "false", "true", "empty", "abc", "abd", "digits"}},
	{`{"v":{"$or":[{"$eq":1},{"$eq":2}]}}`, []string{"one", "two"}},
	{`{"$and":[{"$or":[{"v":1},{"v":2}]},{"$not":{"v":2}}]}`, []string{"one"}},

	{`{"v.name":"ann"}`, []string{"object"}},
	{`{"v":{"name":"ann"}}`, []string{"object"}},
	{`{"v.tags.1":"y"}`, []string{"object"}},
	{`{"v.0":1}`, []string{"items"}},
	{`{"v.1.name":"bob"}`, []string{"people"}},
	{`{"v.7":1}`, nil},
	{`{"a.b":1}`, []string{"nested"}},
	{`{"a\\.b":1}`, []string{"dotted"}},
	{`{"_id":"one"}`, []string{"one"}},
	{`{"$or":[]}`, nil},
	{`{"v.01":2}`, []string{"items"}},
	{`{"_id":{"$gt":"two"}}`, []string{"words", "zero"}},
	{`{"_id":{"$in":["one","two"]},"v":{"$gt":1}}`, []string{"two"}},
}

// testOperators asks every question twice: by a scan, and with an index that
// may serve it. The answer must be the same, in one page and in many.
func testOperators(s *suite) {
	db := s.create()
	var held []string // what the database can hold exactly
	for i := 0; i < len(zoo); i += 2 {
		if db.Check(parse(zoo[i+1])) == nil {
			s.put(db, statedb.Transactions, zoo[i], zoo[i+1])
			held = append(held, zoo[i])
		}
	}
	for _, indexed := range []bool{false, true} {
		if indexed {
			s.deploy(db, statedb.Transactions, index("v", "v"), index("name", "v.name"), index("w", "w"))
		}
		for _, test := range operatorTests {
			if err := db.Check(parse(test.selector)); err != nil {
				continue // the database has no such numbers
			}
			for _, limit := range []int{1000, 3} {
				got := s.find(db, statedb.Transactions, statedb.Query{Selector: parse(test.selector), Limit: limit})
				want := slices.DeleteFunc(slices.Clone(test.want), func(id string) bool { return !slices.Contains(held, id) })
				if !same(got, want) {
					s.Errorf("%s with limit %d, index %v:\n got %v\nwant %v", test.selector, limit, indexed, got, want)
				}
			}
		}
	}
	all := s.find(db, statedb.Transactions, statedb.Query{Selector: parse(`{}`), Limit: 5})
	if len(all) != len(held) {
		s.Errorf("the empty selector found %d documents, want all %d", len(all), len(held))
	}
}

func testBadQueries(s *suite) {
	db := s.create()
	s.deploy(db, statedb.Votes, index("v", "v"))
	for _, text := range []string{
		`[]`, `1`, `null`, `"v"`,
		`{"v":{"$nosuch":1}}`,
		`{"$and":{}}`, `{"$or":1}`, `{"$nor":{"v":1}}`, `{"$not":[]}`, `{"$gt":1}`,
		`{"v":{"$in":1}}`, `{"v":{"$nin":{}}}`, `{"v":{"$all":1}}`, `{"v":{"$exists":1}}`, `{"v":{"$type":1}}`,
		`{"v":{"$size":-1}}`, `{"v":{"$size":"a"}}`, `{"v":{"$mod":[2]}}`, `{"v":{"$mod":[0,1]}}`, `{"v":{"$mod":[2.5,1]}}`,
		`{"v":{"$regex":"("}}`, `{"v":{"$regex":1}}`, `{"v":{"$beginsWith":1}}`,
		`{"v":{"$elemMatch":1}}`, `{"v":{"$allMatch":[]}}`, `{"v":{"$keyMapMatch":"a"}}`,
		`{"$text":"word"}`, `{"v..w":1}`, `{"":1}`,
	} {
		_, err := db.Find(s.ctx, statedb.Votes, statedb.Query{Selector: parse(text), Limit: 1})
		s.wantErr(err, statedb.ErrBadQuery, "Find %s", text)
		_, err = db.Explain(s.ctx, statedb.Votes, statedb.Query{Selector: parse(text), Limit: 1})
		s.wantErr(err, statedb.ErrBadQuery, "Explain %s", text)
	}
	_, err := db.Find(s.ctx, statedb.Votes, statedb.Query{Selector: parse(`{"v":1}`)})
	s.wantErr(err, statedb.ErrBadQuery, "Find without a limit")
	_, err = db.Find(s.ctx, statedb.Votes, statedb.Query{Selector: parse(`{"v":1}`), Limit: 1, Sort: order("v", "-w")})
	s.wantErr(err, statedb.ErrBadQuery, "Find with a sort in both directions")
	_, err = db.Find(s.ctx, statedb.Votes, statedb.Query{Selector: parse(`{"v":1}`), Limit: 1, Fields: []string{"a..b"}})
	s.wantErr(err, statedb.ErrBadQuery, "Find with a bad field")
}

func testFieldsKept(s *suite) {
	db := s.create()
	s.put(db, statedb.Votes, "a", `{"asset":{"data":{"x":1,"y":2},"id":"i"},"n":3,"o":4}`)
	for _, test := range []struct {
		fields []string
		want   string
	}{
		{nil, `{"asset":{"data":{"x":1,"y":2},"id":"i"},"n":3,"o":4}`},
		{[]string{"n"}, `{"n":3}`},
		{[]string{"asset.data.x", "asset.id", "missing", "n.deeper"}, `{"asset":{"data":{"x":1},"id":"i"}}`},
		{[]string{"missing"}, `{}`},
	} {
		got := s.findDocuments(db, statedb.Votes, statedb.Query{Selector: parse(`{"n":3}`), Fields: test.fields, Limit: 2})
		if len(got) != 1 || string(got[0].Body) != test.want || got[0].ID != "a" || got[0].Rev == "" {
			s.Errorf("fields %v: %s, want %s", test.fields, got, test.want)
		}
	}
}

// testExactNumbers looks for neighbours that a double cannot tell apart.
func testExactNumbers(s *suite) {
	db := s.create()
	const long = "1000000000000000000000000000000000000000"
	numbers := []string{"9007199254740991", "9007199254740992", "9007199254740993", "9223372036854775807",
		"9223372036854775808", "18446744073709551617", long[:39] + "1", long[:39] + "2"}
	var held []string
	for i, n := range numbers {
		body := fmt.Sprintf(`{"n":%s}`, n)
		if db.Check(parse(body)) != nil {
			continue
		}
		held = append(held, n)
		s.put(db, statedb.Votes, fmt.Sprintf("n%d", i), body)
	}
	if len(held) == 0 {
		s.Fatal("the database holds none of the numbers")
	}
	for _, indexed := range []bool{false, true} {
		if indexed {
			s.deploy(db, statedb.Votes, index("n", "n"))
		}
		for i, n := range held {
			for selector, want := range map[string]int{
				fmt.Sprintf(`{"n":%s}`, n):           1,
				fmt.Sprintf(`{"n":{"$lt":%s}}`, n):   i,
				fmt.Sprintf(`{"n":{"$lte":%s}}`, n):  i + 1,
				fmt.Sprintf(`{"n":{"$gt":%s}}`, n):   len(held) - i - 1,
				fmt.Sprintf(`{"n":{"$in":[%s]}}`, n): 1,
			} {
				if got := s.find(db, statedb.Votes, statedb.Query{Selector: parse(selector), Limit: 100}); len(got) != want {
					s.Errorf("%s (index %v) found %v, want %d documents", selector, indexed, got, want)
				}
			}
		}
	}
}

// sorted is in CouchDB's order of types.
var sorted = []string{
	"a0", `{"v":null,"g":1}`,
	"a1", `{"v":false,"g":1}`,
	"a2", `{"v":true,"g":1}`,
	"a3", `{"v":-10,"g":1}`,
	"a4", `{"v":-2.5,"g":1}`,
	"a5", `{"v":0,"g":1}`,
	"a6", `{"v":2,"g":1}`,
	"a7", `{"v":10,"g":1}`,
	"a8", `{"v":"","g":1}`,
	"b0", `{"v":"a","g":1}`,
	"b1", `{"v":"ab","g":1}`,
	"b2", `{"v":"b","g":1}`,
	"b3", `{"v":[],"g":1}`,
	"b4", `{"v":[1],"g":1}`,
	"b5", `{"v":[1,2],"g":1}`,
	"b6", `{"v":[2],"g":1}`,
	"b7", `{"v":{},"g":1}`,
	"b8", `{"v":{"a":1},"g":1}`,
	"b9", `{"v":{"a":2},"g":1}`,
}

func testSort(s *suite) {
	db := s.create()
	s.deploy(db, statedb.Votes, index("v", "v"), index("gv", "g", "v"))
	var want []string
	for i := len(sorted) - 2; i >= 0; i -= 2 { // written against the order
		s.put(db, statedb.Votes, sorted[i], sorted[i+1])
		want = append(want, sorted[i])
	}
	s.put(db, statedb.Votes, "without", `{"w":1}`, "onlyg", `{"g":1}`)
	reversed := slices.Clone(want)
	slices.Reverse(want)
	for _, limit := range []int{1, 4, 100} {
		for _, selector := range []string{`{}`, `{"g":{"$gt":0}}`, `{"v":{"$exists":true}}`} {
			got := s.find(db, statedb.Votes, statedb.Query{Selector: parse(selector), Sort: order("v"), Limit: limit})
			if !slices.Equal(got, want) {
				s.Errorf("%s ascending, limit %d:\n got %v\nwant %v", selector, limit, got, want)
			}
			got = s.find(db, statedb.Votes, statedb.Query{Selector: parse(selector), Sort: order("-v"), Limit: limit})
			if !slices.Equal(got, reversed) {
				s.Errorf("%s descending, limit %d:\n got %v\nwant %v", selector, limit, got, reversed)
			}
		}
	}
	got := s.find(db, statedb.Votes, statedb.Query{Selector: parse(`{"v":{"$gte":0,"$lt":"b"}}`), Sort: order("-v"), Limit: 2})
	if part := []string{"b1", "b0", "a8", "a7", "a6", "a5"}; !slices.Equal(got, part) {
		s.Errorf("a range descending: %v, want %v", got, part)
	}
	got = s.find(db, statedb.Votes, statedb.Query{Selector: parse(`{"_id":{"$gte":"a5","$lt":"b1"}}`), Sort: order("-_id"), Limit: 2})
	if part := []string{"b0", "a8", "a7", "a6", "a5"}; !slices.Equal(got, part) {
		s.Errorf("ids descending: %v, want %v", got, part)
	}
}

func testSortOmitsConstants(s *suite) {
	db := s.create()
	s.deploy(db, statedb.Votes, index("gv", "g", "v"))
	s.put(db, statedb.Votes, "a", `{"g":1,"v":3}`, "b", `{"g":2,"v":1}`, "c", `{"g":1,"v":1}`, "d", `{"g":1,"v":2}`)
	got := s.find(db, statedb.Votes, statedb.Query{Selector: parse(`{"g":1}`), Sort: order("v"), Limit: 2})
	if want := []string{"c", "d", "a"}; !slices.Equal(got, want) {
		s.Errorf("sorted by the second field: %v, want %v", got, want)
	}
	got = s.find(db, statedb.Votes, statedb.Query{Selector: parse(`{"g":{"$gt":0}}`), Sort: order("-g", "-v"), Limit: 3})
	if want := []string{"b", "a", "d", "c"}; !slices.Equal(got, want) {
		s.Errorf("sorted by both fields descending: %v, want %v", got, want)
	}
	_, err := db.Find(s.ctx, statedb.Votes, statedb.Query{Selector: parse(`{"g":{"$gt":0}}`), Sort: order("v"), Limit: 3})
	s.wantErr(err, statedb.ErrNoIndex, "a sort by the second field where the first is not constant")
}

func testNoIndex(s *suite) {
	db := s.create()
	s.deploy(db, statedb.Votes, index("v", "v"))
	s.put(db, statedb.Votes, "a", `{"v":1,"w":1}`)
	for _, q := range []statedb.Query{
		{Selector: parse(`{"w":1}`), Sort: order("w")},
		{Selector: parse(`{"v":1}`), Sort: order("v", "w")},
		{Selector: parse(`{"v":1}`), Sort: order("_id")}, // without a bound on _id
		{Selector: parse(`{"v":1}`), UseIndex: "nosuch"},
		{Selector: parse(`{"w":1}`), UseIndex: "v"},
	} {
		q.Limit = 1
		_, err := db.Find(s.ctx, statedb.Votes, q)
		s.wantErr(err, statedb.ErrNoIndex, "%s sorted by %v with index %q", q.Selector.Bytes(), q.Sort, q.UseIndex)
	}
	page, err := db.Find(s.ctx, statedb.Votes, statedb.Query{Selector: parse(`{"w":1}`), Limit: 5})
	if err != nil || len(page.Documents) != 1 || page.Warning == "" {
		s.Errorf("a scan gave %+v, %v; want the document and a warning", page, err)
	}
	_, err = db.Find(s.ctx, statedb.Votes, statedb.Query{Selector: parse(`{"w":1}`), Limit: 5, NoScan: true})
	s.wantErr(err, statedb.ErrScan, "a scan that is not allowed")
	page, err = db.Find(s.ctx, statedb.Votes, statedb.Query{Selector: parse(`{"v":1}`), Limit: 5, NoScan: true})
	if err != nil || len(page.Documents) != 1 || page.Warning != "" {
		s.Errorf("an index gave %+v, %v; want the document and no warning", page, err)
	}
	if page.Stats.Documents != 1 && page.Stats.Documents != -1 {
		s.Errorf("examined %d documents to find the only one", page.Stats.Documents)
	}
}

func testPartialFilter(s *suite) {
	db := s.create()
	partial := index("open", "n")
	partial.PartialFilter = parse(`{"status":{"$ne":"done"}}`)
	s.put(db, statedb.Votes, "a", `{"n":1,"status":"done"}`, "b", `{"n":2,"status":"new"}`)
	s.deploy(db, statedb.Votes, partial)
	revs := s.put(db, statedb.Votes, "c", `{"n":3,"status":"done"}`, "d", `{"n":4,"status":"new"}`, "e", `{"n":5}`)
	named := statedb.Query{Selector: parse(`{"n":{"$gt":0}}`), UseIndex: "open", Limit: 2}
	if got := s.find(db, statedb.Votes, named); !same(got, []string{"b", "d"}) {
		s.Errorf("by the partial index: %v, want b and d", got)
	}
	s.write(db, statedb.Votes, statedb.Write{ID: "d", Rev: revs[1], Body: []byte(`{"n":4,"status":"done"}`)},
		statedb.Write{ID: "c", Rev: revs[0], Body: []byte(`{"n":3,"status":"new"}`)})
	if got := s.find(db, statedb.Votes, named); !same(got, []string{"b", "c"}) {
		s.Errorf("by the partial index after updates: %v, want b and c", got)
	}
	plain := statedb.Query{Selector: parse(`{"n":{"$gt":0}}`), Limit: 2}
	if got := s.find(db, statedb.Votes, plain); !same(got, []string{"a", "b", "c", "d", "e"}) {
		s.Errorf("without naming it: %v, want all", got)
	}
	plan, err := db.Explain(s.ctx, statedb.Votes, plain)
	if err != nil || plan.Index != "" {
		s.Errorf("Explain = %+v, %v; a partial index must not be used unasked", plan, err)
	}
}

func testIndexOnExisting(s *suite) {
	db := s.create()
	var writes []statedb.Write
	for i := range 300 {
		writes = append(writes, statedb.Write{ID: fmt.Sprintf("id%04d", i), Body: []byte(fmt.Sprintf(`{"m":%d,"n":%d}`, i%7, i))})
	}
	revs := s.write(db, statedb.Transactions, writes...)
	s.write(db, statedb.Transactions, statedb.Write{ID: "id0003", Rev: revs[3], Delete: true})
	s.deploy(db, statedb.Transactions, index("mn", "m", "n"))
	got := s.find(db, statedb.Transactions, statedb.Query{Selector: parse(`{"m":3}`), Sort: order("-n"), Limit: 10})
	var want []string
	for i := 297; i > 3; i -= 7 {
		want = append(want, fmt.Sprintf("id%04d", i))
	}
	if !slices.Equal(got, want) {
		s.Errorf("found %v, want %v", got, want)
	}
}

func testIndexRedefined(s *suite) {
	db := s.create()
	s.put(db, statedb.Votes, "a", `{"x":1,"y":2}`, "b", `{"x":2,"y":1}`)
	s.deploy(db, statedb.Votes, index("other", "z"), index("i", "x"))
	s.deploy(db, statedb.Votes, index("i", "x")) // the same again
	s.deploy(db, statedb.Votes, index("i", "y"))
	got := s.find(db, statedb.Votes, statedb.Query{Selector: parse(`{"y":{"$gt":0}}`), Sort: order("y"), Limit: 5})
	if want := []string{"b", "a"}; !slices.Equal(got, want) {
		s.Errorf("by the new definition: %v, want %v", got, want)
	}
	_, err := db.Find(s.ctx, statedb.Votes, statedb.Query{Selector: parse(`{"x":{"$gt":0}}`), Sort: order("x"), Limit: 5})
	s.wantErr(err, statedb.ErrNoIndex, "a sort by the old definition")
	s.put(db, statedb.Votes, "c", `{"z":1}`)
	if got := s.find(db, statedb.Votes, statedb.Query{Selector: parse(`{"z":1}`), Sort: order("z"), Limit: 5}); !same(got, []string{"c"}) {
		s.Errorf("by an index that was not listed: %v, want [c]", got)
	}
}

// testIndexes lists definitions as they were deployed.
func testIndexes(s *suite) {
	db := s.create()
	partial := index("open", "n")
	partial.PartialFilter = parse(`{"status":{"$ne":"done"}}`)
	descending := statedb.Index{Name: "down", DDoc: "ddoc", Fields: order("-g", "-v.name")}
	want := []statedb.Index{descending, partial}
	told := 0
	err := db.DeployIndexes(s.ctx, statedb.Votes, want, func(states []statedb.IndexState) {
		told++
		for _, state := range states {
			if state.Name == "" || state.Pending < 0 || state.Pending > state.Total {
				s.Errorf("progress tells %+v", state)
			}
		}
	})
	if err != nil {
		s.Fatal(err)
	}
	got, err := db.Indexes(s.ctx, statedb.Votes)
	if err != nil || len(got) != len(want) {
		s.Fatalf("Indexes = %+v, %v; want %+v", got, err, want)
	}
	for i, state := range got {
		if state.Name != want[i].Name || state.DDoc != want[i].DDoc || !slices.Equal(state.Fields, want[i].Fields) ||
			!canonical.Equal(state.PartialFilter, want[i].PartialFilter) || state.Pending != 0 {
			s.Errorf("index %d is %+v, want %+v ready", i, state, want[i])
		}
	}
	if got, err := db.Indexes(s.ctx, statedb.Bigchain); err != nil || len(got) != 0 {
		s.Errorf("Indexes of a table without any = %+v, %v", got, err)
	}
}

func testIndexFollowsChanges(s *suite) {
	db := s.create()
	s.deploy(db, statedb.Backlog, index("n", "n"))
	revs := s.put(db, statedb.Backlog, "a", `{"n":1}`, "b", `{"n":1}`, "c", `{"n":1}`, "d", `{"n":1}`)
	s.write(db, statedb.Backlog,
		statedb.Write{ID: "a", Rev: revs[0], Body: []byte(`{"n":2}`)},
		statedb.Write{ID: "b", Rev: revs[1], Body: []byte(`{"m":1}`)},
		statedb.Write{ID: "c", Rev: revs[2], Delete: true})
	for selector, want := range map[string][]string{`{"n":1}`: {"d"}, `{"n":2}`: {"a"}, `{"n":{"$gt":0}}`: {"a", "d"}} {
		q := statedb.Query{Selector: parse(selector), UseIndex: "n", Limit: 10}
		if got := s.find(db, statedb.Backlog, q); !same(got, want) {
			s.Errorf("%s found %v, want %v", selector, got, want)
		}
	}
}

func testExplain(s *suite) {
	db := s.create()
	s.deploy(db, statedb.Votes, index("gv", "g", "v"), index("w", "w"))
	for _, test := range []struct {
		query statedb.Query
		index string
	}{
		{statedb.Query{Selector: parse(`{"g":1,"v":{"$gt":2}}`)}, "gv"},
		{statedb.Query{Selector: parse(`{"w":1,"other":{"$regex":"x"}}`)}, "w"},
		{statedb.Query{Selector: parse(`{"w":{"$gt":null}}`), Sort: order("w")}, "w"},
		{statedb.Query{Selector: parse(`{"g":1}`)}, ""}, // v may be missing
		{statedb.Query{Selector: parse(`{"other":1}`)}, ""},
	} {
		test.query.Limit = 1
		plan, err := db.Explain(s.ctx, statedb.Votes, test.query)
		if err != nil || plan.Index != test.index || plan.Covering == "" {
			s.Errorf("Explain %s = %+v, %v; want the index %q", test.query.Selector.Bytes(), plan, err, test.index)
		}
		if plan.Scan != (test.index == "") {
			s.Errorf("Explain %s: Scan is %v with the index %q", test.query.Selector.Bytes(), plan.Scan, plan.Index)
		}
		if test.index == "gv" && !slices.Equal(plan.Fields, []string{"g", "v"}) {
			s.Errorf("Explain names the fields %v, want g and v", plan.Fields)
		}
	}
	_, err := db.Explain(s.ctx, statedb.Votes, statedb.Query{Selector: parse(`{"w":1}`), UseIndex: "nosuch", Limit: 1})
	if !errors.Is(err, statedb.ErrNoIndex) {
		s.Errorf("Explain with an unknown index: %v, want ErrNoIndex", err)
	}
}
