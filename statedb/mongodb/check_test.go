package mongodb

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
)

func TestCheck(t *testing.T) {
	levels := func(n int) string { // of objects in all
		return strings.Repeat(`{"a":`, n-1) + `{}` + strings.Repeat(`}`, n-1)
	}
	for _, test := range []struct {
		document   string
		path       string // of the fault; "" for none
		substitute string // the same on FerretDB
	}{
		{`{"a":[1,{"b":"x"}]}`, "", ""},
		{`{"a":9223372036854775807}`, "", ""},
		{`{"a":[0,9223372036854775808]}`, "a.1", "a.1"},
		{`{"a":{"b":-9223372036854775809}}`, "a.b", "a.b"},
		{`{"a":-0}`, "a", "a"},
		{`{"a":-0.0}`, "", "a"},
		{`{"a":[[1]]}`, "", "a.0"},
		{`{"a":[{"b":[1]}]}`, "", ""},
		{`{"a":{"$b":1}}`, "a.$b", "a.$b"},
		{`{"a":{"b$":1}}`, "", ""},
		{`{"a":{"b.c":1}}`, "a.b.c", "a.b.c"},
		{`{"a":{"b\u0000":1}}`, "a.b\x00", "a.b\x00"},
		{`{"a":"\u0000"}`, "", ""},
		{`{"_a":1}`, "_a", "_a"},
		{`{"a":{"_id":1}}`, "", ""},
		{`{"":1}`, "", ""},
		{levels(100), "", ""},
		{levels(101), strings.Repeat("a.", 99) + "a", strings.Repeat("a.", 99) + "a"},
	} {
		for _, substitute := range []bool{false, true} {
			want := test.path
			if substitute {
				want = test.substitute
			}
			err := check(parse(t, test.document), substitute)
			var unsupported *statedb.UnsupportedError
			switch {
			case want == "" && err != nil, want != "" && (!errors.As(err, &unsupported) || unsupported.Path != want || unsupported.Reason == ""):
				t.Errorf("%.60s, FerretDB %v: %v, want a fault at %q", test.document, substitute, err, want)
			}
		}
	}
}

// drawValue draws values near the edges of BSON.
func drawValue(r *rapid.T, depth int) canonical.Value {
	kinds := 7
	if depth == 0 {
		kinds = 5
	}
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "\x00", "a\x00b", "\uFFFF", "$a", "é", "1", "😀"}))
	switch rapid.IntRange(0, kinds-1).Draw(r, "kind") {
	case 0:
		return canonical.StringOf(text.Draw(r, "text"))
	case 1:
		edges := []int64{0, 1, -1, math.MaxInt32, math.MaxInt32 + 1, math.MinInt32, math.MinInt32 - 1, math.MaxInt64, math.MinInt64, 1 << 53, 1<<53 + 1}
		return canonical.IntOf(rapid.OneOf(rapid.Int64(), rapid.SampledFrom(edges)).Draw(r, "integer"))
	case 2:
		edges := []float64{0, math.Copysign(0, -1), 1, 1e15, 1e16, 1e22, 1 << 53, 5e-324, math.MaxFloat64, 0x1p-1022, 0.1}
		return canonical.FloatOf(rapid.OneOf(rapid.Float64(), rapid.SampledFrom(edges)).Draw(r, "float"))
	case 3:
		return canonical.BoolOf(rapid.Bool().Draw(r, "boolean"))
	case 4:
		return canonical.Value{}
	case 5:
		var items []canonical.Value
		for range rapid.IntRange(0, 3).Draw(r, "elements") {
			items = append(items, drawValue(r, depth-1))
		}
		return canonical.ArrayOf(items...)
	default:
		var members []canonical.Member
		key := rapid.OneOf(text, rapid.SampledFrom([]string{"a", "_id", "_rev", "id", "0", "a.b", " ", "$", "A"}))
		for range rapid.IntRange(0, 3).Draw(r, "members") {
			members = append(members, canonical.Member{Key: key.Draw(r, "key"), Value: drawValue(r, depth-1)})
		}
		return canonical.ObjectOf(members...)
	}
}

// Whatever Check lets through comes back from the server to the byte.
func TestExact(t *testing.T) {
	db := made(t, optionsFor(mongotest.Shared(t)))
	values := rapid.Custom(func(r *rapid.T) canonical.Value { return drawValue(r, 4) })
	var writes []statedb.Write
	levels := parse(t, strings.Repeat(`{"a":[`, 49)+`{}`+strings.Repeat(`]}`, 49))
	for seed := 0; len(writes) < 1000; seed++ {
		body := canonical.ObjectOf(canonical.Member{Key: "v", Value: values.Example(seed)}, canonical.Member{Key: "w", Value: values.Example(-seed)})
		if seed == 0 {
			body = levels
		}
		if db.Check(body) == nil {
			writes = append(writes, statedb.Write{ID: fmt.Sprintf("id%05d", seed), Body: body.Bytes()})
		}
	}
	results, err := db.Write(t.Context(), statedb.Votes, writes)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i, w := range writes {
		ids = append(ids, w.ID)
		if results[i].Err != nil {
			t.Errorf("%s was refused: %v", w.Body, results[i].Err)
		}
	}
	documents, err := db.Get(t.Context(), statedb.Votes, ids)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range documents {
		if results[i].Err == nil && !bytes.Equal(d.Body, writes[i].Body) {
			t.Errorf("%s came back as %s", writes[i].Body, d.Body)
		}
	}
}
