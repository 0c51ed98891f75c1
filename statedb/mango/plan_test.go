package mango

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

func over(name string, fields ...string) statedb.Index {
	ix := statedb.Index{Name: name, DDoc: name}
	for _, f := range fields {
		ix.Fields = append(ix.Fields, statedb.SortField{Field: f})
	}
	return ix
}

func sortBy(fields string) []statedb.SortField {
	var sort []statedb.SortField
	for _, f := range strings.Fields(fields) {
		name, descending := strings.CutPrefix(f, "-")
		sort = append(sort, statedb.SortField{Field: name, Descending: descending})
	}
	return sort
}

func TestPlan(t *testing.T) {
	partial := over("partial", "p")
	partial.PartialFilter = parsed(t, `{"x":1}`)
	indexes := []statedb.Index{over("a", "a"), over("ab", "a", "b"), over("abc", "a", "b", "c"), over("d", "d.e"), partial}
	for _, test := range []struct {
		selector, sort, use string
		index               string // "" for a scan
		residual            bool
		served              string
	}{
		{`{"a":1}`, "", "", "a", false, "a"},
		{`{"a":1,"x":2}`, "", "", "a", true, "a"},
		{`{"a":1,"b":{"$gt":2}}`, "", "", "ab", false, "a,b"},
		{`{"a":{"$gt":1},"b":2}`, "", "", "ab", true, "a"},
		{`{"a":{"$exists":true}}`, "", "", "a", false, ""},
		{`{"$or":[{"a":1}]}`, "", "", "", true, ""},
		{`{"a":1,"b":2,"c":{"$gte":1,"$lt":5}}`, "", "", "abc", false, "a,b,c"},
		{`{"a":1,"b":{"$exists":true}}`, "", "", "ab", false, "a"},
		{`{"a":1,"b":{"$exists":true}}`, "b", "", "ab", false, "a"},
		{`{"d":{"e":5}}`, "", "", "d", false, "d.e"},
		{`{"$and":[{"a":{"$gt":1}},{"a":{"$lt":3}}]}`, "", "", "a", false, "a"},
		{`{"a":{"$beginsWith":"x"}}`, "", "", "a", false, "a"},
		{`{"a":{"$regex":"x"}}`, "", "", "", true, ""},
		{`{"$or":[{"a":1},{"a":2}]}`, "", "", "", true, ""},
		{`{"$or":[{"a":1},{"a":2}]}`, "a", "", "a", true, ""},
		{`{"$or":[{"a":1},{"a":2}]}`, "", "a", "a", true, ""},
		{`{}`, "a", "", "a", false, ""},
		{`{}`, "a b", "", "ab", false, ""},
		{`{"a":1}`, "b", "", "ab", false, "a"},
		{`{"a":1,"b":1}`, "c", "", "abc", false, "a,b"},
		{`{"a":1}`, "-b -c", "", "abc", false, "a"},
		{`{"p":1}`, "", "", "", true, ""},
		{`{"p":1}`, "", "partial", "partial", false, "p"},
		{`{"a":1}`, "", "ab", "error", false, ""},
		{`{"$or":[{"a":1},{"b":2}]}`, "", "a", "error", false, ""},
		{`{"$or":[]}`, "", "a", "error", false, ""},
		{`{"$and":[{"$or":[]},{"c":1}]}`, "", "a", "error", false, ""},
		{`{"a":{"$gt":1}}`, "b", "", "error", false, ""},
		{`{}`, "b", "", "error", false, ""},
		{`{"a":1,"_id":"x"}`, "", "", "", true, "_id"},
		{`{"a":1,"_id":{"$gt":"x"}}`, "", "", "a", true, "a"},
		{`{"_id":{"$gt":"x","$lte":"y"}}`, "-_id", "", "", false, "_id range"},
		{`{"a":1,"_id":{"$gt":null}}`, "_id", "", "", true, ""},
		{`{"a":1}`, "_id", "", "error", false, ""},
		{`{"_id":{"$in":["x"]}}`, "_id", "", "error", false, ""},
	} {
		p, err := NewPlan(selector(t, test.selector), sortBy(test.sort), indexes, test.use)
		if test.index == "error" {
			if !errors.Is(err, statedb.ErrNoIndex) {
				t.Errorf("%s sorted by %q with %q: %v, want ErrNoIndex", test.selector, test.sort, test.use, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s sorted by %q with %q: %v", test.selector, test.sort, test.use, err)
			continue
		}
		name := ""
		if p.Index >= 0 {
			name = indexes[p.Index].Name
		}
		if served := strings.Join(p.Served, ","); name != test.index || (p.Residual != nil) != test.residual || served != test.served {
			t.Errorf("%s sorted by %q: index %q, residual %v, served %s; want %q, %v, %s",
				test.selector, test.sort, name, p.Residual != nil, served, test.index, test.residual, test.served)
		}
		if p.Reverse != strings.HasPrefix(test.sort, "-") {
			t.Errorf("%s sorted by %q: reverse is %v", test.selector, test.sort, p.Reverse)
		}
	}
}

// TestPlanFindsWhatMatches: a document is between the bounds and matches the
// rest exactly when it matches the selector.
func TestPlanFindsWhatMatches(t *testing.T) {
	indexes := []statedb.Index{over("a", "a"), over("ab", "a", "b"), over("bc", "b", "c")}
	rapid.Check(t, func(t *rapid.T) {
		s, err := Parse(conditions.Draw(t, "selector"))
		if err != nil {
			t.Fatal(err)
		}
		p, err := NewPlan(s, nil, indexes, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range append(pairs, documents.Draw(t, "document")) {
			if found := findable(p, indexes, document); found != s.Match(document) {
				t.Fatalf("%s by the plan %+v %v, by matching %v", document.Bytes(), p, found, !found)
			}
		}
	})
}

// TestPlanNarrows: of several bounds the narrowest counts.
func TestPlanNarrows(t *testing.T) {
	indexes := []statedb.Index{over("a", "a")}
	for _, text := range []string{
		`{"a":{"$lt":2,"$lte":1}}`, `{"a":{"$lt":1,"$lte":2}}`, `{"a":{"$gt":0,"$gte":1}}`, `{"a":{"$gt":1,"$gte":0}}`,
		`{"$and":[{"a":{"$lt":"b"}},{"a":{"$lt":2}},{"a":{"$beginsWith":"a"}}]}`, `{"a":{"$gt":2,"$lt":1}}`,
		`{"$and":[{"a":1},{"a":2}]}`, `{"$and":[{"a":1},{"a":{"$gt":0}}]}`,
	} {
		s := selector(t, text)
		p, err := NewPlan(s, nil, indexes, "")
		if err != nil || p.Index != 0 {
			t.Fatalf("%s: %+v, %v", text, p, err)
		}
		for _, document := range pairs {
			if found := findable(p, indexes, document); found != s.Match(document) {
				t.Errorf("%s on %s: by the plan %v", text, document.Bytes(), found)
			}
		}
	}
}

// findable reports whether the plan finds a document.
func findable(p *Plan, indexes []statedb.Index, document canonical.Value) bool {
	if p.Residual != nil && !p.Residual.Match(document) {
		return false
	}
	if p.Index < 0 {
		return true
	}
	var key []byte
	for _, f := range indexes[p.Index].Fields {
		v, ok := ParsePath(f.Field).Lookup(document)
		if !ok {
			return false
		}
		key = AppendKey(key, v)
	}
	key = append(key, "some id"...)
	return bytes.Compare(p.Lower, key) <= 0 && (p.Upper == nil || bytes.Compare(key, p.Upper) < 0)
}

var fewTexts = []string{`null`, `0`, `1`, `1.0`, `1.5`, `2`, `""`, `"a"`, `"ab"`, `"b"`, `[]`, `[1]`, `{}`}

// pairs are documents with every two of the few values under a and b.
var pairs = func() []canonical.Value {
	var all []canonical.Value
	for _, a := range fewTexts {
		for _, b := range fewTexts {
			v, _ := canonical.Parse([]byte(`{"a":` + a + `,"b":` + b + `}`)) // valid as written
			all = append(all, v)
		}
	}
	return all
}()

// few values, so that conditions often meet their bounds.
var few = rapid.OneOf(
	rapid.Map(rapid.SampledFrom(fewTexts),
		func(text string) canonical.Value {
			v, _ := canonical.Parse([]byte(text)) // the texts are valid
			return v
		}),
	values(1),
)

var names = rapid.SampledFrom([]string{"a", "b", "c"})

var documents = rapid.Custom(func(t *rapid.T) canonical.Value {
	document := canonical.ObjectOf()
	for _, name := range rapid.SliceOfN(names, 0, 4).Draw(t, "fields") {
		document = document.With(name, few.Draw(t, "value"))
	}
	return document
})

// conditions draws selectors of comparisons on a, b and c.
var conditions = rapid.Custom(func(t *rapid.T) canonical.Value {
	operators := rapid.SampledFrom([]string{"$eq", "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$exists", "$beginsWith", "$in"})
	query := canonical.ObjectOf()
	for _, name := range rapid.SliceOfN(names, 1, 3).Draw(t, "names") {
		condition := canonical.ObjectOf()
		for _, op := range rapid.SliceOfN(operators, 1, 2).Draw(t, "operators") {
			arg := few.Draw(t, "arg")
			switch op {
			case "$exists":
				arg = canonical.BoolOf(rapid.Bool().Draw(t, "exists"))
			case "$beginsWith":
				arg = canonical.StringOf(words.Draw(t, "prefix"))
			case "$in":
				arg = canonical.ArrayOf(arg)
			}
			condition = condition.With(op, arg)
		}
		query = query.With(name, condition)
	}
	if rapid.IntRange(0, 4).Draw(t, "negate") == 0 {
		return canonical.ObjectOf(canonical.Member{Key: "$not", Value: query})
	}
	return query
})

// TestAdvise: the index advised serves the selector, and where none is advised
// none over a field of the selector would.
func TestAdvise(t *testing.T) {
	for selector, want := range map[string]string{
		`{"a":1}`:                                         "a",
		`{"b":{"$gt":1},"a":1}`:                           "a b",
		`{"a":{"$gt":1},"b":{"$lt":1}}`:                   "a",
		`{"a":{"$gte":1,"$lt":5}}`:                        "a",
		`{"d":{"e":"x"},"c.x":{"$beginsWith":"y"},"b":2}`: "b d.e c.x",
		`{"$and":[{"a":1},{"a":{"$gt":0}},{"b":3}]}`:      "a b",
		`{"$or":[{"a":1},{"b":1}],"c":1}`:                 "c",
		`{"$or":[{"a":1},{"b":1}]}`:                       "",
		`{"a":{"$regex":"x"}}`:                            "",
		`{"a":{"$in":[1,2]}}`:                             "",
		`{"a":{"$exists":true}}`:                          "",
		`{"_id":{"$ne":"x"}}`:                             "",
		`{}`:                                              "",
	} {
		s, err := Parse(parsed(t, selector))
		if err != nil {
			t.Fatal(err)
		}
		got := Advise(s)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, want %q", selector, got, want)
		}
		if len(got) == 0 {
			continue
		}
		plan, err := NewPlan(s, nil, []statedb.Index{over("x", got...)}, "")
		if err != nil || plan.Index != 0 || len(plan.Served) != len(got) {
			t.Errorf("%s: the index advised gives the plan %+v, %v", selector, plan, err)
		}
	}
}

// The end of a prefix is the least string beyond all that begin with it.
func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{
		"a": "b", "az": "a{", "a\U0010FFFF": "b", "\uD7FF": "\uE000", "\uFFFF": "\U00010000", "": "", "\U0010FFFF": "",
	} {
		if got, ok := prefixEnd(prefix); got != want || ok != (want != "") {
			t.Errorf("prefixEnd(%q) = %q, %v; want %q", prefix, got, ok, want)
		}
	}
}
