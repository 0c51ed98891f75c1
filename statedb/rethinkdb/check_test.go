package rethinkdb

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"
	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

func ones(n int) string { return "[" + strings.Repeat("1,", n-1) + "1]" }

// refused are documents that Check refuses, with the path that it names.
var refused = map[string]string{
	`{"n":9007199254740993}`:                     "n",
	`{"n":-9007199254740993}`:                    "n",
	`{"n":9007199254740994}`:                     "n",
	`{"n":1152921504606846976}`:                  "n",
	`{"n":` + strings.Repeat("9", 400) + `}`:     "n",
	`{"a":{"b":[1,1.0]}}`:                        "a.b.1",
	`{"a":[[0.0]]}`:                              "a.0.0",
	`{"a":-0}`:                                   "a",
	`{"a":1e3}`:                                  "a",
	`{"a":9007199254740992.0}`:                   "a",
	`{"a":{"$reql_type$":"TIME"}}`:               "a.$reql_type$",
	`{"$reql_type$":1}`:                          "$reql_type$",
	`{"_x":1}`:                                   "_x",
	`{"_deleted":true}`:                          "_deleted",
	`{"a":{"b":` + ones(maxElements+1) + `}}`:    "a.b",
	`{"a":[{"":{"$reql_type$":{"x":[1.0]}}}]}`:   "a.0..$reql_type$",
	`{"a":{"$reql_type$":"BINARY","data":"aa"}}`: "a.$reql_type$",
}

// held are documents that come back as they are.
var held = []string{
	`{}`, `{"":{"":[]}}`, `{"a":{"_x":1,"_id":2,"_rev":[]}}`, `{"a.b":{"$c":1}}`, `{"id":"x","new_val":null,"error":"x","t":1,"r":[]}`,
	`{"n":9007199254740992,"m":-9007199254740992,"k":[0,-1]}`,
	`{"n":[9007199254740994.0,1e16,1e21,1e22,1e23,1e300,-1.7976931348623157e308]}`,
	`{"n":[-0.0,5e-324,-5e-324,2.2250738585072014e-308,2.225073858507201e-308,0.1,1e-7,1.5,-123456.789e-30]}`,
	`{"s":["a\u0000b","\u0000","\u0001","\u001f\u007f","😀","\ue000\uffff","<&>\u2028\u2029","\\\"/"]}`,
	`{"a\u0000b":1,"\u0000":2,"ключ":{"鍵":"値"},"😀":3}`,
	`{"a":` + strings.Repeat("[", 900) + strings.Repeat("]", 900) + `}`,
	`{"a":` + strings.Repeat(`{"a":`, 900) + `1` + strings.Repeat("}", 900) + `}`,
	`{"` + strings.Repeat("k", 100_000) + `":1}`,
	`{"a":` + ones(maxElements) + `}`,
}

func TestCheck(t *testing.T) {
	for body, path := range refused {
		err := check(parse(t, body))
		var unsupported *statedb.UnsupportedError
		if !errors.As(err, &unsupported) || unsupported.Path != path || unsupported.Reason == "" {
			t.Errorf("%.60s: got %v, want a fault at %q", body, err, path)
		}
	}
	for _, body := range held {
		if err := check(parse(t, body)); err != nil {
			t.Errorf("%.60s: %v", body, err)
		}
	}
}

// What Check refuses, RethinkDB refuses or gives back in another form; only
// the names that begin with _ are the adapter's.
func TestRefusedWithReason(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	for body := range refused {
		if strings.HasPrefix(body, `{"_`) {
			continue
		}
		row := `{"_id":"a",` + body[1:]
		done, err := db.one(t.Context(), "plant", db.table(table).Insert(r.JSON(row), r.InsertOpts{Conflict: "replace"}), nil)
		if _, failed := done.Get("first_error"); err != nil || failed {
			continue
		}
		documents, err := db.Get(t.Context(), table, []string{"a"})
		if err != nil {
			t.Fatal(err)
		}
		if string(documents[0].Body) == string(parse(t, body).Bytes()) && !strings.Contains(body, typeKey) {
			t.Errorf("%s is refused and would come back as it is", body)
		}
	}
}

func TestHeldExactly(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	var writes []statedb.Write
	for i, body := range held {
		writes = append(writes, statedb.Write{ID: fmt.Sprintf("d%02d", i), Body: parse(t, body).Bytes()})
	}
	write(t, db, writes...)
	page, err := db.Range(t.Context(), table, statedb.Range{Limit: len(held)})
	if err != nil || len(page.Documents) != len(held) {
		t.Fatalf("%d documents, %v", len(page.Documents), err)
	}
	for i, d := range page.Documents {
		if string(d.Body) != string(writes[i].Body) {
			t.Errorf("%.200s came back as %.200s", writes[i].Body, d.Body)
		}
	}
}

// The largest documents are stored, whatever is in them, several in one batch.
func TestLargestDocuments(t *testing.T) {
	if testing.Short() {
		t.Skip("not tested with -short: one question after the other, which takes long with the race detector")
	}
	db := made(t, optionsFor(rethinktest.Shared(t)))
	var writes []statedb.Write
	for i, part := range []string{"<", `\"`, `\u0000`, "é", "\u2028"} {
		frame := len(`{"a":""}`)
		body := `{"a":"` + strings.Repeat(part, (maxDocument-frame)/len(part)) + `"}`
		writes = append(writes, statedb.Write{ID: fmt.Sprint("l", i), Body: parse(t, body).Bytes()})
	}
	for i := range 3 { // in one query
		body := []byte(`{"a":"` + strings.Repeat("<", maxRequestBytes/3-100) + `"}`)
		writes = append(writes, statedb.Write{ID: fmt.Sprint("m", i), Body: body})
	}
	revs := write(t, db, writes...)
	for i := range writes {
		writes[i].Rev = revs[i]
	}
	write(t, db, writes...) // a replace carries them in another form
	for _, w := range writes {
		if d, err := db.Get(t.Context(), table, []string{w.ID}); err != nil || string(d[0].Body) != string(w.Body) {
			t.Errorf("%.20s, %d bytes: %d came back, %v", w.Body, len(w.Body), len(d[0].Body), err)
		}
	}
}

// jsonValue draws any JSON value.
func jsonValue(depth int) *rapid.Generator[canonical.Value] {
	text := rapid.Map(rapid.String(), func(s string) string { return strings.ToValidUTF8(s, "?") })
	scalars := []*rapid.Generator[canonical.Value]{
		rapid.Map(rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})`), func(s string) canonical.Value {
			v, _ := canonical.Parse([]byte(s))
			return v
		}),
		rapid.Map(rapid.Int64Range(-maxWhole-9, maxWhole+9), canonical.IntOf),
		rapid.Map(rapid.Float64(), canonical.FloatOf),
		rapid.Map(text, canonical.StringOf),
		rapid.Map(rapid.Bool(), canonical.BoolOf),
		rapid.Just(canonical.Value{}),
	}
	if depth == 0 {
		return rapid.OneOf(scalars...)
	}
	deeper := rapid.Deferred(func() *rapid.Generator[canonical.Value] { return jsonValue(depth - 1) })
	arrays := rapid.Map(rapid.SliceOfN(deeper, 0, 4), func(v []canonical.Value) canonical.Value { return canonical.ArrayOf(v...) })
	objects := rapid.Map(rapid.MapOfN(text, deeper, 0, 4), func(m map[string]canonical.Value) canonical.Value {
		var members []canonical.Member
		for k, v := range m {
			members = append(members, canonical.Member{Key: k, Value: v})
		}
		return canonical.ObjectOf(members...)
	})
	return rapid.OneOf(append(scalars, arrays, objects)...)
}

// Whatever Check lets through, RethinkDB takes and gives back exactly.
func TestHoldsWhatCheckAllows(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	count, allowed := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		var writes []statedb.Write
		for _, value := range rapid.SliceOfN(jsonValue(3), 20, 20).Draw(rt, "values") {
			body := canonical.ObjectOf(canonical.Member{Key: "v", Value: value})
			count++
			if db.Check(body) == nil {
				allowed++
				writes = append(writes, statedb.Write{ID: fmt.Sprintf("d%d", count), Body: body.Bytes()})
			}
		}
		results, err := db.Write(t.Context(), table, writes)
		if err != nil {
			rt.Fatal(err)
		}
		var ids []string
		for i, w := range writes {
			if results[i].Err != nil {
				rt.Fatalf("%s: %v", w.Body, results[i].Err)
			}
			ids = append(ids, w.ID)
		}
		documents, err := db.Get(t.Context(), table, ids)
		if err != nil {
			rt.Fatal(err)
		}
		for i, d := range documents {
			if string(d.Body) != string(writes[i].Body) {
				rt.Fatalf("%s came back as %s", writes[i].Body, d.Body)
			}
		}
	})
	if allowed < count/2 {
		t.Errorf("only %d of %d documents were let through", allowed, count)
	}
}
