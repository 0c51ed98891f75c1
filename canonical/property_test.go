package canonical

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func drawText(t *rapid.T) string {
	return rapid.OneOf(
		rapid.StringOfN(rapid.RuneFrom([]rune("ab\"\\/\x00\x1f\x7f\n\u2028é\uFFFD😀")), 0, 6, -1),
		rapid.String(),
	).Draw(t, "text")
}

func drawFloat(t *rapid.T) float64 {
	f := math.Float64frombits(rapid.Uint64().Draw(t, "bits"))
	if rapid.Bool().Draw(t, "near the notation's bounds") {
		f = rapid.Float64Range(-10, 10).Draw(t, "digits") *
			math.Pow10(rapid.SampledFrom([]int{-8, -7, -6, -5, 0, 15, 16, 17, 19, 20, 21, 22}).Draw(t, "exponent"))
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

func drawValue(t *rapid.T, depth int) Value {
	kinds := 5
	if depth > 0 {
		kinds = 7
	}
	switch Kind(rapid.IntRange(0, kinds-1).Draw(t, "kind")) {
	case Bool:
		return BoolOf(rapid.Bool().Draw(t, "bool"))
	case Int:
		return mustParse(t, rapid.StringMatching(`-?(0|[1-9][0-9]{0,30})`).Draw(t, "int"))
	case Float:
		return FloatOf(drawFloat(t))
	case String:
		return StringOf(drawText(t))
	case Array:
		items := make([]Value, rapid.IntRange(0, 4).Draw(t, "items"))
		for i := range items {
			items[i] = drawValue(t, depth-1)
		}
		return ArrayOf(items...)
	case Object:
		members := make([]Member, rapid.IntRange(0, 20).Draw(t, "members"))
		for i := range members {
			members[i] = Member{drawText(t), drawValue(t, depth-2)}
		}
		return ObjectOf(members...)
	}
	return Value{}
}

// loose prints v in one of the many other ways: members in any order, spaces,
// escapes where none are needed.
func loose(v Value, r *rand.Rand) string {
	space := func() string { return []string{"", "", " ", "\n\t", "\r"}[r.IntN(5)] }
	text := func(s string) string {
		var b strings.Builder
		b.WriteByte('"')
		for _, c := range s {
			switch {
			case c < 0x10000 && (c < 0x20 || c == '"' || c == '\\' || r.IntN(3) == 0):
				h := strconv.FormatUint(uint64(c), 16)
				b.WriteString(`\u` + strings.Repeat("0", 4-len(h)) + h)
			default:
				b.WriteRune(c)
			}
		}
		return b.String() + `"`
	}
	var parts []string
	open, end := "[", "]"
	switch v.Kind() {
	case String:
		return text(v.Text())
	case Array:
		for i := range v.Len() {
			parts = append(parts, space()+loose(v.At(i), r)+space())
		}
	case Object:
		open, end = "{", "}"
		for _, i := range r.Perm(v.Len()) {
			parts = append(parts, space()+text(v.Key(i))+space()+":"+space()+loose(v.At(i), r)+space())
		}
	default:
		return string(v.Bytes())
	}
	return open + space() + strings.Join(parts, ",") + end
}

func TestParseIsTheInverseOfPrint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawValue(t, 4)
		printed := v.Bytes()
		back := mustParse(t, string(printed))
		if !Equal(back, v) {
			t.Fatalf("%s reads as another value", printed)
		}
		if again := back.Bytes(); !bytes.Equal(again, printed) {
			t.Fatalf("got %s, want %s", again, printed)
		}
	})
}

func TestPrintIsFreeOfOrderAndSpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawValue(t, 4)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		text := loose(v, r)
		if got, want := mustParse(t, text).Bytes(), v.Bytes(); !bytes.Equal(got, want) {
			t.Fatalf("%s prints as %s, want %s", text, got, want)
		}
	})
}

func TestFloatsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFloat(t)
		text := FloatOf(f).Text()
		back, err := strconv.ParseFloat(text, 64)
		if err != nil || math.Float64bits(back) != math.Float64bits(f) {
			t.Fatalf("%v prints as %s, which reads as %v, %v", f, text, back, err)
		}
		if !strings.ContainsAny(text, ".e") {
			t.Fatalf("%v prints as the integer %s", f, text)
		}
		digits := func(s string) string {
			mantissa, _, _ := strings.Cut(strings.TrimLeft(s, "-"), "e")
			return strings.Trim(strings.Replace(mantissa, ".", "", 1), "0")
		}
		if shortest := strconv.FormatFloat(f, 'e', -1, 64); digits(text) != digits(shortest) {
			t.Fatalf("%v prints as %s, not with the digits of %s", f, text, shortest)
		}
		if plain, size := !strings.Contains(text, "e"), math.Abs(f); plain != (size == 0 || size >= 1e-6 && size < 1e21) {
			t.Fatalf("%v prints as %s, in the wrong notation", f, text)
		}
	})
}

// encoding/json agrees on the grammar, and takes what refusedBeyondGrammar lists.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "null", " [1, -0, 1.0, 1e5, 1E-400, 1e400]", `{"b":1,"a":[true,false]}`, `{"a":1,"\u0061":2}`,
		`"\ud83d\ude00"`, `"\ud83d"`, "\"\xff\"", `"\u001F\/"`, "[[[[[[]]]]]]", "01", "1.", "\"\x7f\u2028\"", "12345678901234567890123",
	} {
		f.Add([]byte(s))
	}
	f.Add(documentTransaction(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse(data)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Offset < 0 || syntax.Offset > len(data) {
				t.Fatalf("%q: error %v", data, err)
			}
			if json.Valid(data) && !refusedBeyondGrammar(syntax.Reason) {
				t.Fatalf("%q is JSON, but: %v", data, err)
			}
			return
		}
		if !json.Valid(data) {
			t.Fatalf("%q is not JSON", data)
		}
		printed := v.Bytes()
		if !json.Valid(printed) || !utf8.Valid(printed) {
			t.Fatalf("%q prints as %q, which is not JSON", data, printed)
		}
		back, err := Parse(printed)
		if err != nil || !Equal(back, v) || !bytes.Equal(back.Bytes(), printed) {
			t.Fatalf("%q prints as %q, which reads as %q, %v", data, printed, back.Bytes(), err)
		}
		sameAsEncodingJSON(t, data, printed)
	})
}

// refusedBeyondGrammar tells the reasons that are rules of this package.
func refusedBeyondGrammar(reason string) bool {
	for _, r := range []string{"duplicate key", "invalid UTF-8", "surrogate", "range of a double", "nested too deep"} {
		if strings.Contains(reason, r) {
			return true
		}
	}
	return false
}

// sameAsEncodingJSON compares what encoding/json reads from both texts.
func sameAsEncodingJSON(t *testing.T, data, printed []byte) {
	var a, b any
	errA, errB := json.Unmarshal(data, &a), json.Unmarshal(printed, &b)
	if errA != nil || errB != nil {
		if (errA == nil) != (errB == nil) { // integers beyond a double fail in both
			t.Fatalf("%q: %v, printed %q: %v", data, errA, printed, errB)
		}
		return
	}
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	if errA != nil || errB != nil || !bytes.Equal(x, y) {
		t.Fatalf("%q and its canonical form %q differ: %s and %s", data, printed, x, y)
	}
}
