package couchdb

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
)

func TestCheck(t *testing.T) {
	for body, path := range map[string]string{
		`{"a":{"b":[1,-0.0]}}`:                    "a.b.1",
		`{"a":5e-324}`:                            "a",
		`{"a":{"":-1e-310}}`:                      "a.",
		`{"_x":1}`:                                "_x",
		`{"n":` + strings.Repeat("9", 309) + `}`:  "n",
		`{"n":-` + strings.Repeat("9", 309) + `}`: "n",
		`{"n":` + strings.Repeat("9", 308) + `}`:  "",
		`{"a":{"_x":1,"_id":2}}`:                  "",
		`{"a":2.2250738585072014e-308,"b":0.0}`:   "",
	} {
		err := check(mustParse(t, body), false)
		var unsupported *statedb.UnsupportedError
		if got := errors.As(err, &unsupported); got != (path != "") || got && unsupported.Path != path {
			t.Errorf("%.60s: got %v, want a fault at %q", body, err, path)
		}
	}
}

// jsonValue draws any JSON value.
func jsonValue(depth int) *rapid.Generator[canonical.Value] {
	scalars := []*rapid.Generator[canonical.Value]{
		rapid.Map(rapid.StringMatching(`-?(0|[1-9][0-9]{0,320})`), func(s string) canonical.Value {
			v, _ := canonical.Parse([]byte(s))
			return v
		}),
		rapid.Map(rapid.Float64(), canonical.FloatOf),
		rapid.Map(rapid.String(), func(s string) canonical.Value { return canonical.StringOf(strings.ToValidUTF8(s, "?")) }),
		rapid.Map(rapid.Bool(), canonical.BoolOf),
		rapid.Just(canonical.Value{}),
	}
	if depth == 0 {
		return rapid.OneOf(scalars...)
	}
	deeper := rapid.Deferred(func() *rapid.Generator[canonical.Value] { return jsonValue(depth - 1) })
	arrays := rapid.Map(rapid.SliceOfN(deeper, 0, 4), func(v []canonical.Value) canonical.Value { return canonical.ArrayOf(v...) })
	objects := rapid.Map(rapid.MapOfN(rapid.String(), deeper, 0, 4), func(m map[string]canonical.Value) canonical.Value {
		var members []canonical.Member
		seen := map[string]bool{}
		for k, v := range m {
			if k = strings.ToValidUTF8(k, "?"); !seen[k] {
				seen[k] = true
				members = append(members, canonical.Member{Key: k, Value: v})
			}
		}
		return canonical.ObjectOf(members...)
	})
	return rapid.OneOf(append(scalars, arrays, objects)...)
}

// Whatever Check lets through, CouchDB takes and gives back exactly.
func TestHoldsWhatCheckAllows(t *testing.T) {
	db := open(t, optionsFor(couchtest.Shared(t)))
	defer db.Close()
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer db.Drop(t.Context())
	count, allowed := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		body := canonical.ObjectOf(canonical.Member{Key: "v", Value: jsonValue(3).Draw(r, "value")})
		count++
		if db.Check(body) != nil {
			return
		}
		allowed++
		id := fmt.Sprintf("d%d", count)
		results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: id, Body: body.Bytes()}})
		if err != nil || results[0].Err != nil {
			r.Fatalf("%s: %v, %v", body.Bytes(), results, err)
		}
		documents, err := db.Get(t.Context(), statedb.Votes, []string{id})
		if err != nil || string(documents[0].Body) != string(body.Bytes()) {
			r.Fatalf("%s came back as %s, %v", body.Bytes(), documents[0].Body, err)
		}
	})
	if allowed < count/2 {
		t.Errorf("only %d of %d documents were let through", allowed, count)
	}
}
