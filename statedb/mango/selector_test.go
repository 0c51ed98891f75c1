package mango

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

func selector(tb testing.TB, text string) *Selector {
	tb.Helper()
	s, err := Parse(parsed(tb, text))
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return s
}

// TestMatch holds the corners that the conformance suite cannot ask of every
// database, as CouchDB 3.5's mango_selector.erl decides them.
func TestMatch(t *testing.T) {
	for _, test := range []struct {
		selector, document string
		want               bool
	}{
		{`{}`, `{"a":1}`, true},
		{`{"$and":[]}`, `{}`, false}, // alone it finds nothing, inside another it matches
		{`{"$or":[]}`, `{}`, false},
		{`{"$nor":[]}`, `{}`, false},
		{`{"$not":{"$or":[]}}`, `{}`, false},
		{`{"$not":{"$not":{"$and":[]}}}`, `{}`, false},
		{`{"a":{"$and":[]}}`, `{"a":1}`, false},
		{`{"a":{"$not":{"$and":[]}}}`, `{"a":1}`, false},
		{`{"$and":[{"$and":[]}]}`, `{}`, true},
		{`{"$or":[{"$or":[]}]}`, `{}`, true},
		{`{"$nor":[{"$nor":[]}]}`, `{}`, true},
		{`{"a":{"$and":[],"$or":[]}}`, `{}`, true},
		{`{"$or":[],"a":1}`, `{"a":1}`, true},
		{`{"$or":[],"a":1}`, `{"a":2}`, false},
		{`{"a":{"$ne":1}}`, `{}`, false},
		{`{"a":{"$nin":[1]}}`, `{}`, false},
		{`{"a":{"$lt":1}}`, `{}`, false},
		{`{"$not":{"a":1}}`, `{}`, false},
		{`{"a":{"$not":{"$regex":"x"}}}`, `{}`, false},
		{`{"a":{"$not":{"$exists":true}}}`, `{}`, true},
		{`{"a":{"$exists":true}}`, `{}`, false},
		{`{"a":{"$exists":false}}`, `{"a":null}`, false},
		{`{"a.b":{"$exists":false}}`, `{"a":{}}`, true},
		{`{"a.b":{"$exists":false}}`, `{"a":1}`, false}, // the path leads nowhere
		{`{"a.5":{"$exists":false}}`, `{"a":[1]}`, false},
		{`{"a.b":{"$ne":1}}`, `{"a":1}`, false},
		{`{"$not":{"$not":{"a":1}}}`, `{"a":1}`, true},
		{`{"$not":{"$nor":[{"a":1},{"b":1}]}}`, `{"b":1}`, true},
		{`{"$not":{"$or":[{"a":1},{"b":1}]}}`, `{"a":2,"b":2}`, true},
		{`{"$not":{"$and":[{"a":1},{"b":1}]}}`, `{"a":1,"b":2}`, true},
		{`{"$nor":[{"a":{"$in":[1]}}]}`, `{"a":2}`, true},
		{`{"a":{"$elemMatch":{"$not":{"b":1}}}}`, `{"a":[{"c":1}]}`, true}, // not moved down in there
		{`{"a":{"$elemMatch":{"$nor":[{"b":1},{"b":2}]}}}`, `{"a":[{"b":3}]}`, true},
		{`{"a":{"$elemMatch":{"$nor":[{"b":1},{"b":3}]}}}`, `{"a":[{"b":3}]}`, false},
		{`{"a":{"$elemMatch":{}}}`, `{"a":[{}]}`, true},
		{`{"a":{"$elemMatch":{}}}`, `{"a":[1]}`, false},
		{`{"a":{"$elemMatch":{"$or":[{"$eq":1},{"$eq":2}]}}}`, `{"a":[2]}`, true},
		{`{"a":{"$elemMatch":{"b":{"$elemMatch":{"$gt":1}}}}}`, `{"a":[{"b":[1]},{"b":[2]}]}`, true},
		{`{"a":{"$not":{"$elemMatch":{"$eq":1}}}}`, `{"a":[2]}`, true},
		{`{"a":{"$allMatch":{"$gt":0}}}`, `{"a":[]}`, false},
		{`{"a":{"$keyMapMatch":{"$eq":"k"}}}`, `{"a":["k"]}`, false},
		{`{"a":{"$in":[[1]]}}`, `{"a":[1]}`, false}, // looks at the elements only
		{`{"a":{"$in":[[1]]}}`, `{"a":[[1]]}`, true},
		{`{"a":{"$in":[3,1.0,2]}}`, `{"a":1}`, true},
		{`{"a":{"$all":[1]}}`, `{"a":[1.0]}`, false},
		{`{"a":{"$all":[1,1.0]}}`, `{"a":[1.0,1]}`, true},
		{`{"a":{"$all":[1,1]}}`, `{"a":[1]}`, true},
		{`{"a":{"$all":[[1.0]]}}`, `{"a":[1]}`, true},
		{`{"a":{"$mod":[2,1]}}`, `{"a":3.0}`, false},
		{`{"a":{"$mod":[-3,1]}}`, `{"a":7}`, true},
		{`{"a":{"$mod":[9223372036854775807,1]}}`, `{"a":9223372036854775808}`, true},
		{`{"a":{"$mod":[9223372036854775807,5]}}`, `{"a":85070591730234615847396907784232501254}`, true},
		{`{"a":{"$beginsWith":""}}`, `{"a":""}`, true},
		{`{"a":{"$beginsWith":"1"}}`, `{"a":1}`, false},
		{`{"a":{"$size":0}}`, `{"a":{}}`, false},
		{`{"a":{"b":{"c":{"$gt":1}}}}`, `{"a":{"b":{"c":2}}}`, true},
		{`{"a":{"b":1,"c":2}}`, `{"a":{"b":1,"c":2,"d":3}}`, true},
		{`{"a":{"$eq":{"b":1,"c":2}}}`, `{"a":{"b":1,"c":2,"d":3}}`, false},
		{`{"a":{"b.c":1}}`, `{"a":{"b":{"c":1}}}`, true},
		{`{"a":{"b\\.c":1}}`, `{"a":{"b.c":1}}`, true},
		{`{"a.0.b":1}`, `{"a":{"0":{"b":1}}}`, true},
		{`{"a.+1":{}}`, `{"a":["9",{}]}`, true},
		{`{"a.01":2}`, `{"a":[1,2]}`, true},
		{`{"a.01":2}`, `{"a":{"1":2}}`, false},
		{`{"a.-0":1}`, `{"a":[1,2]}`, true},
		{`{"a.-1":2}`, `{"a":[1,2]}`, false},
		{`{"a.9223372036854775808":{"$exists":false}}`, `{"a":[1]}`, false},
		{`{"a":{"\\$ne":1}}`, `{"a":{"$ne":1}}`, true},
		{`{"a.\\B":{"$beginsWith":"ze"}}`, `{"a":{"B":"zebra"}}`, true},
		{`{"a\\":1}`, `{"a":1}`, true},
		{`{"_id":{"$gt":null}}`, `{"_id":"x"}`, true},
		{`{"_id":{"$gt":5}}`, `{"_id":"x"}`, true},
		{`{"_id":{"$gte":[]}}`, `{"_id":"x"}`, true}, // ids are greater than all that is no string
		{`{"_id":{"$lt":{}}}`, `{"_id":"x"}`, false},
		{`{"_id":{"$not":{"$lt":{}}}}`, `{"_id":"x"}`, true},
		{`{"_id":{"$ne":[]}}`, `{"_id":"x"}`, true},
		{`{"a":12345678901234567890123456789012345678901234567890}`, `{"a":12345678901234567890123456789012345678901234567891}`, false},
	} {
		if got := selector(t, test.selector).Match(parsed(t, test.document)); got != test.want {
			t.Errorf("%s on %s = %v, want %v", test.selector, test.document, got, test.want)
		}
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	deep := strings.Repeat(`{"a":`, MaxDepth+1) + `1` + strings.Repeat(`}`, MaxDepth+1)
	many := `{"$or":[` + strings.Repeat(`{"a":1},`, MaxTerms) + `{"a":1}]}`
	list := `{"a":{"$in":[` + strings.Repeat(`1,`, MaxTerms) + `1]}}`
	for _, test := range []struct{ text, want string }{
		{`{"asset":{"data":{"$in":5}}}`, "asset.data.$in: needs an array"},
		{`{"$and":[{"a":1},{"b":{"$nope":1}}]}`, "$and.1.b.$nope: there is no operator $nope"},
		{`{"$and":[{"$gt":1}]}`, "$and.0.$gt: a condition needs a field"},
		{`{"$and":[{}]}`, "needs a field"},
		{`{"a":{"$text":"x"}}`, "full-text search index"},
		{`{"a":{"$mod":[0,0]}}`, "divisor is 0"},
		{`{"a":{"$mod":[99999999999999999999,0]}}`, "64 bits"},
		{`{"a":{"$type":"int"}}`, "one of null, boolean"},
		{`{"a":{"$regex":"(?=x)"}}`, "RE2"},
		{`{"a":{"$regex":"` + strings.Repeat("x", MaxRegexBytes+1) + `"}}`, "1001 bytes"},
		{`{"a":{"$elemMatch":{"b":{"$size":-1}}}}`, "a.$elemMatch.b.$size"},
		{`{"a..b":1}`, "empty part"},
		{deep, "nested deeper"},
		{many, "conditions"},
		{list, "at most"},
	} {
		_, err := Parse(parsed(t, test.text))
		if !errors.Is(err, statedb.ErrBadQuery) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.80s: %v, want ErrBadQuery with %q", test.text, err, test.want)
		}
	}
}

func TestPaths(t *testing.T) {
	for text, want := range map[string][]string{
		`a`: {"a"}, `a.b`: {"a", "b"}, `a\.b`: {"a.b"}, `a\\.b`: {`a\`, "b"}, `a.b\.c.d`: {"a", "b.c", "d"}, `a\b`: {"ab"}, `\$a`: {"$a"}, `a\`: {"a"},
	} {
		p := ParsePath(text)
		if fmt.Sprint([]string(p)) != fmt.Sprint(want) || len(p) != len(want) {
			t.Errorf("ParsePath(%s) = %q, want %q", text, p, want)
		}
		if again := ParsePath(p.String()); fmt.Sprint(again) != fmt.Sprint(p) {
			t.Errorf("%s prints as %s, which reads as %q", text, p, again)
		}
	}
}

func TestProject(t *testing.T) {
	document := parsed(t, `{"a":{"b":1,"c":[{"d":2}]},"e":3}`)
	for _, test := range []struct{ fields, want string }{
		{"a.b", `{"a":{"b":1}}`},
		{"a.b e", `{"a":{"b":1},"e":3}`},
		{"a.c.0.d", `{"a":{"c":{"0":{"d":2}}}}`},
		{"a a.b", `{"a":{"b":1,"c":[{"d":2}]}}`},
		{"x e.y", `{}`},
	} {
		paths, err := ParseFields(strings.Fields(test.fields))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(Project(document, paths).Bytes()); got != test.want {
			t.Errorf("%s: %s, want %s", test.fields, got, test.want)
		}
	}
}

// FuzzSelector matches any selector against any document: it must not panic,
// and what matches must match what a plan leaves of the selector.
func FuzzSelector(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"a":{"$gt":1,"$lt":"x"}}`, `{"a":5}`},
		{`{"$or":[{"a.b":1},{"c":{"$in":[1,"x"]}}]}`, `{"a":{"b":1.0},"c":["x"]}`},
		{`{"$nor":[{"a":{"$not":{"$elemMatch":{"$mod":[3,1]}}}}]}`, `{"a":[1,2,3]}`},
		{`{"a":{"$all":[1,[2]],"$size":2,"$type":"array","$regex":"^a+$","$beginsWith":"a"}}`, `{"a":[[2],1]}`},
		{`{"a":{"$keyMapMatch":{"$eq":"b"},"$allMatch":{"$exists":true}}}`, `{"a":{"b":null}}`},
		{`{"a\\.b":{"$nin":[1e300,-5e-324]}}`, `{"a.b":123456789012345678901234567890}`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, query, document []byte) {
		q, err := canonical.Parse(query)
		if err != nil {
			return
		}
		d, err := canonical.Parse(document)
		if err != nil {
			return
		}
		s, err := Parse(q)
		if err != nil {
			if !errors.Is(err, statedb.ErrBadQuery) {
				t.Fatalf("%s: %v is no ErrBadQuery", query, err)
			}
			return
		}
		matched := s.Match(d)
		if matched != s.Match(d) {
			t.Fatal("the same question had two answers")
		}
		if _, err := NewPlan(s, nil, nil, ""); err != nil {
			t.Fatalf("a scan serves every selector: %v", err)
		}
		plan, err := NewPlan(s, nil, []statedb.Index{{Name: "a", Fields: []statedb.SortField{{Field: "a"}}}}, "")
		if err != nil {
			t.Fatal(err)
		}
		if matched && plan.Residual != nil && !plan.Residual.Match(d) {
			t.Fatalf("%s matches %s, the rest of its plan does not", query, document)
		}
	})
}

// TestPathsReadBack: whatever the keys, a path that is printed reads as itself.
func TestPathsReadBack(t *testing.T) {
	key := rapid.StringOfN(rapid.SampledFrom([]rune(`ab.\$0é`)), 1, 4, -1)
	rapid.Check(t, func(t *rapid.T) {
		p := Path(rapid.SliceOfN(key, 1, 4).Draw(t, "keys"))
		if again := ParsePath(p.String()); !slices.Equal(p, again) {
			t.Fatalf("%q prints as %s, which reads as %q", p, p, again)
		}
	})
}
