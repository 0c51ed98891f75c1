package keyset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

func parse(t testing.TB, text string) canonical.Value {
	t.Helper()
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var values = []string{`null`, `false`, `true`, `-1`, `0`, `1`, `1.0`, `9007199254740993`, `""`, `"a"`, `"ab"`, `"b"`, `[]`, `[1]`, `{}`, `{"x":1}`, ``}

// drawRows makes documents with fields a and b of all types, or without them.
func drawRows(t *rapid.T) []Row {
	draw := rapid.SampledFrom(values)
	rows := make([]Row, rapid.IntRange(0, 40).Draw(t, "rows"))
	for i := range rows {
		body := canonical.ObjectOf()
		for _, field := range []string{"a", "b"} {
			if text := draw.Draw(t, field); text != "" {
				v, err := canonical.Parse([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				body = body.With(field, v)
			}
		}
		rows[i] = Row{ID: fmt.Sprintf("id%02d", i), Rev: "1", Body: body}
	}
	return rows
}

func from(rows []Row) Source {
	return func(context.Context) (Row, bool, error) {
		if len(rows) == 0 {
			return Row{}, false, nil
		}
		row := rows[0]
		rows = rows[1:]
		return row, true, nil
	}
}

// TestPagesAreTheWholeInOrder: however the rows are dealt to the sources, and
// whatever else they give, the pages hold each match once and in order.
func TestPagesAreTheWholeInOrder(t *testing.T) {
	index := statedb.IndexState{Index: statedb.Index{Name: "ab", Fields: []statedb.SortField{{Field: "a"}, {Field: "b"}}}}
	selectors := []string{
		`{"a":{"$exists":true},"b":{"$exists":true}}`, `{"a":1,"b":{"$gt":null}}`, `{"a":{"$gt":0},"b":{"$ne":1}}`,
		`{"a":{"$gte":"a","$lt":"b"},"b":{"$type":"number"}}`, `{"a":{"$beginsWith":"a"},"b":{"$exists":true}}`,
	}
	rapid.Check(t, func(t *rapid.T) {
		rows := drawRows(t)
		selector, err := canonical.Parse([]byte(rapid.SampledFrom(selectors).Draw(t, "selector")))
		if err != nil {
			t.Fatal(err)
		}
		descending := rapid.Bool().Draw(t, "descending")
		q := statedb.Query{
			Selector: selector, Sort: []statedb.SortField{{Field: "a", Descending: descending}, {Field: "b", Descending: descending}},
			Limit: rapid.IntRange(1, 7).Draw(t, "limit"),
		}
		parsed, err := mango.Parse(selector)
		if err != nil {
			t.Fatal(err)
		}
		order := func(a, b Row) int {
			c := compareRows(a, b)
			if descending {
				return -c
			}
			return c
		}
		var want []string
		for _, row := range slices.SortedFunc(slices.Values(rows), order) {
			_, a := row.Body.Get("a")
			_, b := row.Body.Get("b")
			if a && b && parsed.Match(row.Body) {
				want = append(want, row.ID)
			}
		}
		var got []string
		for range len(rows) + 1 {
			query, err := Prepare(statedb.Votes, q, []statedb.IndexState{index})
			if err != nil {
				t.Fatal(err)
			}
			var ordered, odd []Row
			for _, row := range rows {
				if rapid.Bool().Draw(t, "odd") {
					odd = append(odd, row)
				} else {
					ordered = append(ordered, row)
				}
			}
			slices.SortFunc(ordered, order)
			page, err := query.Page(t.Context(), q.Limit, from(ordered), query.Collect(q.Limit, from(odd)))
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Documents) > q.Limit {
				t.Fatalf("a page of %d has %d documents", q.Limit, len(page.Documents))
			}
			for _, d := range page.Documents {
				got = append(got, d.ID)
			}
			if q.Bookmark = page.Bookmark; q.Bookmark == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func compareRows(x, y Row) int {
	for _, field := range []string{"a", "b"} {
		a, _ := x.Body.Get(field)
		b, _ := y.Body.Get(field)
		if c := mango.Compare(a, b); c != 0 {
			return c
		}
	}
	if x.ID < y.ID {
		return -1
	}
	return 1
}

// A page that is full does not read the rest of the table to learn whether it
// was the last.
func TestLooksAheadSoFar(t *testing.T) {
	q := statedb.Query{Selector: parse(t, `{"n":1}`), Limit: 2}
	query, err := Prepare(statedb.Votes, q, nil)
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	page, err := query.Page(t.Context(), q.Limit, func(context.Context) (Row, bool, error) {
		read++
		n := 0
		if read <= q.Limit {
			n = 1
		}
		return Row{ID: fmt.Sprintf("%09d", read), Body: parse(t, fmt.Sprintf(`{"n":%d}`, n))}, true, nil
	})
	if err != nil || len(page.Documents) != 2 || page.Bookmark == "" || page.Warning != ScanWarning {
		t.Fatalf("got %d documents, bookmark %q, warning %q, %v", len(page.Documents), page.Bookmark, page.Warning, err)
	}
	if read > 2+LookAhead {
		t.Errorf("%d rows were read", read)
	}
}

// Bookmarks that were sealed by somebody else, of another query, or of an
// index that is another by now.
func TestForeignBookmarks(t *testing.T) {
	ab := statedb.IndexState{Index: statedb.Index{Name: "ab", Fields: []statedb.SortField{{Field: "a"}}}}
	q := statedb.Query{Selector: parse(t, `{"a":{"$gt":0}}`), Limit: 1}
	hash := FindHash(statedb.Votes, q)
	query, err := Prepare(statedb.Votes, q, []statedb.IndexState{ab})
	if err != nil {
		t.Fatal(err)
	}
	good := query.Bookmark(Position{Values: []canonical.Value{canonical.IntOf(1)}, ID: "x"})
	changed := ab
	changed.Fields = []statedb.SortField{{Field: "a"}, {Field: "b"}}
	for name, test := range map[string]struct {
		bookmark string
		indexes  []statedb.IndexState
		fails    bool
	}{
		"good":           {good, []statedb.IndexState{ab}, false},
		"other query":    {Seal([]byte(`["","x"]`), FindHash(statedb.Backlog, q)), nil, true},
		"redefined":      {good, []statedb.IndexState{changed}, true},
		"no index":       {good, nil, true},
		"not JSON":       {Seal([]byte(`[`), hash), nil, true},
		"no array":       {Seal([]byte(`{}`), hash), nil, true},
		"no id":          {Seal([]byte(`["",1]`), hash), nil, true},
		"values of none": {Seal([]byte(`["",1,"x"]`), hash), nil, true},
		"values missing": {Seal([]byte(`["`+Fingerprint(ab.Index)+`","x"]`), hash), []statedb.IndexState{ab}, true},
		"line feed":      {good[:4] + "\n" + good[4:], []statedb.IndexState{ab}, true},
	} {
		again := q
		again.Bookmark = test.bookmark
		if _, err := Prepare(statedb.Votes, again, test.indexes); errors.Is(err, statedb.ErrBadBookmark) != test.fails || err != nil && !test.fails {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestPlanBounds: Constants and Range say the same as the bounds in bytes.
func TestPlanBounds(t *testing.T) {
	indexes := []statedb.Index{{Name: "ab", Fields: []statedb.SortField{{Field: "a"}, {Field: "b"}}}}
	texts := values[:len(values)-1]
	draw := rapid.SampledFrom(append(slices.Clone(texts), `"\uffff"`, `"\ue000"`, `"\ud7ff"`, `"퟿"`, `"\ud83d\ude00"`))
	rapid.Check(t, func(t *rapid.T) {
		value := func(label string) canonical.Value {
			v, err := canonical.Parse([]byte(draw.Draw(t, label)))
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		constant := value("constant")
		near := []canonical.Value{constant}
		condition := canonical.ObjectOf()
		for _, op := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"$gt", "$gte", "$lt", "$lte", "$beginsWith"}), 1, 3, rapid.ID[string]).Draw(t, "ops") {
			arg := value("arg")
			if op == "$beginsWith" && arg.Kind() != canonical.String {
				arg = canonical.StringOf("a")
			}
			condition = condition.With(op, arg)
			near = append(near, arg)
		}
		selector, err := mango.Parse(canonical.ObjectOf().With("a", constant).With("b", condition))
		if err != nil {
			t.Skip(err)
		}
		plan, err := mango.NewPlan(selector, nil, indexes, "")
		if err != nil || plan.Index < 0 {
			t.Skip(err)
		}
		b := rapid.SampledFrom(append(near, value("b"))).Draw(t, "b")
		a := rapid.SampledFrom([]canonical.Value{constant, constant, value("a")}).Draw(t, "a")
		key := string(Position{Values: []canonical.Value{a, b}, ID: "x"}.Key())
		inBytes := (plan.Lower == nil || key >= string(plan.Lower)) && (plan.Upper == nil || key < string(plan.Upper))
		in := len(plan.Constants) == 0 || mango.Compare(a, plan.Constants[0]) == 0
		for _, bound := range plan.Range {
			c := mango.Compare(b, bound.Arg)
			switch bound.Op {
			case mango.OpGt:
				in = in && c > 0
			case mango.OpGte:
				in = in && c >= 0
			case mango.OpLt:
				in = in && c < 0
			case mango.OpLte:
				in = in && c <= 0
			default:
				t.Fatalf("a bound with operator %d", bound.Op)
			}
		}
		if in != inBytes && len(plan.Constants) == 1 {
			t.Fatalf("a %s, b %s: %v by values, %v by bytes; %+v", a.Bytes(), b.Bytes(), in, inBytes, plan.Range)
		}
	})
}
