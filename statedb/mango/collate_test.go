package mango

import (
	"bytes"
	"cmp"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
)

func parsed(tb testing.TB, text string) canonical.Value {
	tb.Helper()
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return v
}

// numbers draws numbers that are close to each other more often than chance.
var numbers = rapid.Custom(func(t *rapid.T) canonical.Value {
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return canonical.IntOf(rapid.Int64Range(-3, 3).Draw(t, "small"))
	case 1:
		return canonical.FloatOf(float64(rapid.IntRange(-8, 8).Draw(t, "eighths")) / 4)
	case 2:
		return canonical.FloatOf(rapid.Float64().Draw(t, "any"))
	case 3:
		e := rapid.IntRange(50, 70).Draw(t, "power")
		f := float64(uint64(1)<<min(e, 63)) * rapid.SampledFrom([]float64{1, -1}).Draw(t, "sign")
		return canonical.FloatOf(f)
	}
	e := rapid.IntRange(50, 70).Draw(t, "power")
	n := new(big.Int).Lsh(big.NewInt(1), uint(e))
	n.Add(n, big.NewInt(rapid.Int64Range(-2, 2).Draw(t, "near")))
	if rapid.Bool().Draw(t, "negative") {
		n.Neg(n)
	}
	v, err := canonical.Parse([]byte(n.String()))
	if err != nil {
		t.Fatal(err)
	}
	return v
})

var words = rapid.SampledFrom([]string{"", "a", "ab", "b", "\x00", "\x01", "\x02", "a\x00", "a\x01b", "ü", "😀"})

// values draws any JSON value of a few levels.
func values(depth int) *rapid.Generator[canonical.Value] {
	return rapid.Custom(func(t *rapid.T) canonical.Value {
		most := 6
		if depth == 0 {
			most = 4
		}
		switch rapid.IntRange(0, most).Draw(t, "kind") {
		case 0:
			return canonical.Value{}
		case 1:
			return canonical.BoolOf(rapid.Bool().Draw(t, "bool"))
		case 2, 3:
			return numbers.Draw(t, "number")
		case 4:
			return canonical.StringOf(words.Draw(t, "word"))
		case 5:
			return canonical.ArrayOf(rapid.SliceOfN(values(depth-1), 0, 3).Draw(t, "items")...)
		}
		var members []canonical.Member
		for _, key := range rapid.SliceOfN(words, 0, 3).Draw(t, "keys") {
			members = append(members, canonical.Member{Key: key, Value: values(depth-1).Draw(t, "member")})
		}
		return canonical.ObjectOf(members...)
	})
}

// ratOf is the number as package big reads it.
func ratOf(t *rapid.T, v canonical.Value) *big.Rat {
	r := new(big.Rat)
	if v.Kind() == canonical.Float {
		var f float64
		if _, err := fmt.Sscan(v.Text(), &f); err != nil {
			t.Fatal(err)
		}
		return r.SetFloat64(f)
	}
	if _, ok := r.SetString(v.Text()); !ok {
		t.Fatalf("%s is no number", v.Text())
	}
	return r
}

func TestNumbersCompareExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := numbers.Draw(t, "a"), numbers.Draw(t, "b")
		if got, want := Compare(a, b), ratOf(t, a).Cmp(ratOf(t, b)); got != want {
			t.Fatalf("Compare(%s, %s) = %d, want %d", a.Bytes(), b.Bytes(), got, want)
		}
	})
}

func TestKeysSortAsValuesCompare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := values(2).Draw(t, "a"), values(2).Draw(t, "b")
		x, y := AppendKey(nil, a), AppendKey(nil, b)
		if got, want := bytes.Compare(x, y), Compare(a, b); got != want {
			t.Fatalf("keys of %s and %s compare %d, values %d", a.Bytes(), b.Bytes(), got, want)
		}
		if len(x) < len(y) && bytes.HasPrefix(y, x) {
			t.Fatalf("the key of %s begins that of %s", a.Bytes(), b.Bytes())
		}
		tail := []byte("tail")
		if rest, ok := SkipKey(append(x, tail...)); !ok || !bytes.Equal(rest, tail) {
			t.Fatalf("SkipKey of the key of %s leaves %q, %v", a.Bytes(), rest, ok)
		}
	})
}

func TestOrderOfValues(t *testing.T) {
	ordered := []string{
		`null`, `false`, `true`,
		`-1e300`, `-9007199254740993`, `-9007199254740992`, `-1.5`, `-1`, `-1e-300`, `0`, `5e-324`, `0.1`, `1`, `1.5`, `2`, `10`,
		`9007199254740992`, `9007199254740993`, `9007199254740994`, `1e22`, `10000000000000000000001`,
		`""`, `"A"`, `"a"`, `"a\u0000"`, `"aa"`, `"b"`,
		`[]`, `[null]`, `[1]`, `[1,1]`, `[2]`, `["a"]`, `[[]]`,
		`{}`, `{"a":1}`, `{"a":1,"b":1}`, `{"a":2}`, `{"b":1}`,
	}
	for i, a := range ordered {
		for j, b := range ordered {
			if got, want := Compare(parsed(t, a), parsed(t, b)), cmp.Compare(i, j); got != want {
				t.Errorf("Compare(%s, %s) = %d, want %d", a, b, got, want)
			}
		}
	}
	for _, equal := range [][2]string{{`1`, `1.0`}, {`0`, `-0.0`}, {`0`, `-0`}, {`100`, `1e2`},
		{`1e23`, `99999999999999991611392`}, {`[1,{"a":2}]`, `[1.0,{"a":2.0}]`}} {
		if c := Compare(parsed(t, equal[0]), parsed(t, equal[1])); c != 0 {
			t.Errorf("Compare(%s, %s) = %d, want 0", equal[0], equal[1], c)
		}
	}
}

// TestLongNumbers would take minutes if the cost were quadratic.
func TestLongNumbers(t *testing.T) {
	const digits = 4_000_000
	a := parsed(t, "1"+strings.Repeat("3", digits))
	b := parsed(t, "1"+strings.Repeat("3", digits-1)+"4")
	if Compare(a, b) != -1 || bytes.Compare(AppendKey(nil, a), AppendKey(nil, b)) != -1 {
		t.Error("long numbers compare wrongly")
	}
	s, err := Parse(parsed(t, `{"n":{"$mod":[7,3]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := new(big.Int).Exp(big.NewInt(10), big.NewInt(1000), nil)
	small := canonical.ObjectOf(canonical.Member{Key: "n", Value: parsed(t, want.String())})
	if got := want.Mod(want, big.NewInt(7)).Int64() == 3; s.Match(small) != got {
		t.Errorf("10^1000 mod 7 = 3 is %v", !got)
	}
	s.Match(canonical.ObjectOf(canonical.Member{Key: "n", Value: a}))
}
