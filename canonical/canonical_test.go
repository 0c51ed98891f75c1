package canonical

import (
	"crypto/sha3"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustParse(tb rapid.TB, text string) Value {
	tb.Helper()
	v, err := Parse([]byte(text))
	if err != nil {
		tb.Fatalf("Parse(%.100q): %v", text, err)
	}
	return v
}

func TestPrint(t *testing.T) {
	digits := strings.Repeat("1234567890", 40)
	for _, c := range []struct{ name, in, want string }{
		{"no spaces", " {\t\"a\" :\r\n[ 1 , 2 ] } ", `{"a":[1,2]}`},
		{"literals", `[null,true,false]`, `[null,true,false]`},
		{"empty", `[{},[],""]`, `[{},[],""]`},
		{"keys sorted", `{"b":1,"a":2,"":3,"B":4,"aa":5}`, `{"":3,"B":4,"a":2,"aa":5,"b":1}`},
		{"keys sorted at every depth", `[{"b":{"d":1,"c":[{"f":1,"e":2}]},"a":1}]`, `[{"a":1,"b":{"c":[{"e":2,"f":1}],"d":1}}]`},
		// In UTF-16, as JavaScript and Java sort, U+1F600 comes before U+FFFD.
		{"keys sorted by code point", `{"😀":1,"\uFFFD":2,"é":3,"z":4}`, `{"z":4,"é":3,"` + "\uFFFD" + `":2,"😀":1}`},
		{"keys sorted by what is escaped", `{"b":1,"\u0061":2}`, `{"a":2,"b":1}`},

		{"quote and backslash", `"\"\\\u0022\u005c"`, `"\"\\\"\\"`},
		{"short escapes", `"\b\f\n\r\t\u0008\u000C\u000a\u000d\u0009"`, `"\b\f\n\r\t\b\f\n\r\t"`},
		{"other controls, upper-case hex", `"\u0000\u0001\u000b\u000e\u001a\u001f"`, `"\u0000\u0001\u000B\u000E\u001A\u001F"`},
		{"never escaped", `"\/\u003c\u003E\u0026\u007f\u2028\u2029\u00e9\u0027"`, `"/<>&` + "\u007f\u2028\u2029é'\""},
		{"controls in keys", `{"\u001f<":1}`, `{"\u001F<":1}`},
		{"beyond ASCII", `"é€😀"`, `"é€😀"`},
		{"surrogate pair", `"\ud83d\uDE00\uD800\uDC00\uDBFF\uDFFF"`, `"😀` + "\U00010000\U0010FFFF\""},
		{"replacement character", `"\ufffd` + "\uFFFD\"", "\"\uFFFD\uFFFD\""},

		{"integers as written", `[0,-1,10,-0,9007199254740993,18446744073709551616]`, `[0,-1,10,-0,9007199254740993,18446744073709551616]`},
		{"integer of 400 digits", digits, digits},
		{"negative integer of 400 digits", "-" + digits, "-" + digits},

		{"floats stay floats", `[1.0,-1.0,0.0,1e0,1E5,1e+2,100e-2]`, `[1.0,-1.0,0.0,1.0,100000.0,100.0,1.0]`},
		{"negative zero", `[-0.0,-0e5,-1e-400]`, `[-0.0,-0.0,-0.0]`},
		{"plain notation", `[100.0,1.5,0.1,-0.25,123456.789]`, `[100.0,1.5,0.1,-0.25,123456.789]`},
		{"smallest plain", `[1e-6,1.25e-6,-9.9e-6]`, `[0.000001,0.00000125,-0.0000099]`},
		{"largest exponent form below", `[1e-7,1.5e-7,9.99e-7]`, `[1e-7,1.5e-7,9.99e-7]`},
		{"largest plain", `[1e20,1.5e20,123456789012345680000.0]`, `[100000000000000000000.0,150000000000000000000.0,123456789012345680000.0]`},
		{"smallest exponent form above", `[1e21,1.5e21,-1E+21,1234567890123456789012.0]`, `[1e21,1.5e21,-1e21,1.2345678901234568e21]`},
		{"points inside and behind the digits", `[1e15,12345678901234567.0,1e16,1e17]`, `[1000000000000000.0,12345678901234568.0,10000000000000000.0,100000000000000000.0]`},
		{"no plus, no padding", `[1e+22,1e-09,2.5E-010]`, `[1e22,1e-9,2.5e-10]`},
		{"shortest digits", `[0.10000000000000000555,5e-324,4.9e-324,1.7976931348623157e308]`, `[0.1,5e-324,5e-324,1.7976931348623157e308]`},
		{"below the smallest", `[1e-400,0e99999999999]`, `[0.0,0.0]`},
	} {
		got := mustParse(t, c.in).Bytes()
		if string(got) != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if again := mustParse(t, string(got)).Bytes(); string(again) != c.want {
			t.Errorf("%s: printed again: %s, want %s", c.name, again, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	nest := func(open, inner, close string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(close, n)
	}
	for _, c := range []struct {
		name, in string
		offset   int
	}{
		{"nothing", "", 0},
		{"white space only", " \n", 2},
		{"byte order mark", "\uFEFF1", 0},
		{"other white space", "\v1", 0},
		{"NUL", "\x00", 0},
		{"two values", "1 2", 2},
		{"NaN", "NaN", 0},
		{"infinity", "-Infinity", 1},
		{"upper-case literal", "True", 0},
		{"cut literal", "nul", 0},
		{"comment", "/**/1", 0},
		{"single quotes", "'a'", 0},

		{"duplicate keys", `{"a":1,"b":2,"a":3}`, 19},
		{"duplicate keys, one escaped", `{"a":1,"\u0061":3}`, 18},
		{"duplicate keys inside", `[{"x":{"":1,"":1}}]`, 17},
		{"key is no string", `{1:2}`, 1},
		{"no colon", `{"a" 1}`, 5},
		{"no value", `{"a":}`, 5},
		{"comma before the end of an object", `{"a":1,}`, 7},
		{"comma before the end of an array", `[1,]`, 3},
		{"no comma", `[1 2]`, 3},
		{"open array", `[1`, 2},
		{"open object", `{"a":1`, 6},
		{"wrong bracket", `[1}`, 2},

		{"invalid UTF-8", "\"a\xff\"", 2},
		{"invalid UTF-8 outside strings", "[1]\x80", 3},
		{"overlong UTF-8", "\"\xc0\x80\"", 1},
		{"UTF-8 of a surrogate", "\"\xed\xa0\x80\"", 1},
		{"after a replacement character", "\"\uFFFD\xff\"", 4},
		{"lone high surrogate", `"\ud83d"`, 7},
		{"lone low surrogate", `"\ude00"`, 7},
		{"swapped surrogates", `"\ude00\ud83d"`, 13},
		{"high surrogate before text", `"\ud83dx"`, 7},
		{"high surrogate before another escape", `"\ud83d\n"`, 7},
		{"two high surrogates", `"\ud83d\ud83d"`, 13},
		{"bad hex", `"\u00g0"`, 2},
		{"short hex", `"\u00"`, 2},
		{"hex with a sign", `"\u+041"`, 2},
		{"unknown escape", `"\x41"`, 2},
		{"upper-case escape", `"\N"`, 2},
		{"control character", "\"a\nb\"", 2},
		{"control character after an escape", "\"\\n\x1f\"", 3},
		{"open string", `"abc`, 4},
		{"open string after a backslash", `"abc\`, 5},
		{"open string after an escape", `"\n`, 3},

		{"leading zero", `01`, 1},
		{"negative leading zero", `-01`, 2},
		{"leading plus", `+1`, 0},
		{"leading point", `.5`, 0},
		{"minus alone", `-`, 1},
		{"no digit after the point", `1.`, 2},
		{"no digit after the point but e", `1.e5`, 2},
		{"no exponent", `1e`, 2},
		{"no exponent after a sign", `1e+`, 3},
		{"hexadecimal", `0x10`, 1},
		{"underscore", `1_000`, 1},
		{"beyond a double", `1e400`, 0},
		{"negative beyond a double", `[-1e309]`, 1},
		{"just beyond a double", `1.7976931348623159e308`, 0},
		{"integer digits beyond a double", digitsOf(400) + ".0", 0},

		{"arrays too deep", nest("[", "", "]", MaxDepth+1), MaxDepth},
		{"objects too deep", nest(`{"a":`, "1", "}", MaxDepth+1), 5 * MaxDepth},
		{"endlessly deep", strings.Repeat("[", 10_000_000), MaxDepth},
	} {
		v, err := Parse([]byte(c.in))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%s: got %.50s, %v; want a *SyntaxError", c.name, v.Bytes(), err)
			continue
		}
		if syntax.Offset != c.offset {
			t.Errorf("%s: offset %d, want %d (%v)", c.name, syntax.Offset, c.offset, err)
		}
	}
}

func digitsOf(n int) string { return strings.Repeat("9", n) }

func TestDepthLimit(t *testing.T) {
	if MaxDepth != 1000 {
		t.Errorf("MaxDepth is %d; nodes must agree on 1000", MaxDepth)
	}
	mustParse(t, strings.Repeat("[", MaxDepth)+strings.Repeat("]", MaxDepth))
	mustParse(t, strings.Repeat(`{"":`, MaxDepth)+"1"+strings.Repeat("}", MaxDepth))
	for _, c := range []struct {
		text  string
		depth int
		ok    bool
	}{{`1`, 0, true}, {`[]`, 0, false}, {`[[1],{}]`, 2, true}, {`[[1],{"a":[]}]`, 2, false}, {`[[],[],[]]`, 2, true}} {
		if _, err := ParseWithin([]byte(c.text), Limits{Depth: c.depth}); (err == nil) != c.ok {
			t.Errorf("%s with depth %d: %v", c.text, c.depth, err)
		}
	}
}

func TestErrorsAreShort(t *testing.T) {
	key := strings.Repeat("é", 1<<20)
	_, err := Parse([]byte(`{"` + key + `":1,"` + key + `":2}`))
	if err == nil || len(err.Error()) > 150 {
		t.Errorf("got a message of %d bytes", len(err.Error()))
	}
}

// Hash of the same words in the wire facts, so that it is FIPS 202's SHA3 that
// the canonical bytes meet.
func TestHash(t *testing.T) {
	sum := sha3.Sum256([]byte("hello world"))
	const want = "644bcc7e564373040999aac89e7622f3ca71fba1d972fd94a31c3bfbf24e3938"
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The ids of the printed transactions and block are hashes of canonical forms.
func TestDocumentIDs(t *testing.T) {
	data, err := os.ReadFile("../testdata/vectors/documents.json")
	if err != nil {
		t.Fatal(err)
	}
	check := func(want string, body Value) {
		sum := sha3.Sum256(body.Bytes())
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("got id %s, want %s", got, want)
		}
	}
	file := mustParse(t, string(data))
	list, _ := file.Get("transactions")
	for i := range list.Len() {
		id, _ := list.At(i).Get("id")
		inputs, _ := list.At(i).Get("inputs")
		unsigned := inputs.At(0).With("fulfillment", Value{})
		check(id.Text(), list.At(i).Without("id").With("inputs", ArrayOf(unsigned)))
	}
	blocks, _ := file.Get("blocks")
	id, _ := blocks.At(0).Get("id")
	body, _ := blocks.At(0).Get("block")
	check(id.Text(), body)
	if list.Len() != 3 {
		t.Errorf("got %d transactions, want 3", list.Len())
	}
}

func TestMake(t *testing.T) {
	for _, c := range []struct {
		name string
		v    Value
		want string
	}{
		{"zero", Value{}, `null`},
		{"bools", ArrayOf(BoolOf(true), BoolOf(false)), `[true,false]`},
		{"integers", ArrayOf(IntOf(math.MinInt64), IntOf(0)), `[-9223372036854775808,0]`},
		{"floats", ArrayOf(FloatOf(1), FloatOf(math.Copysign(0, -1)), FloatOf(math.Inf(1)), FloatOf(math.NaN())), `[1.0,-0.0,null,null]`},
		{"strings", StringsOf([]string{"a", "<\n"}), `["a","<\n"]`},
		{"invalid string", StringOf("a\xff"), `"a` + "\uFFFD\""},
		{"object", ObjectOf(Member{"b", IntOf(1)}, Member{"a", IntOf(2)}, Member{"b", IntOf(3)}), `{"a":2,"b":3}`},
		{"invalid key", ObjectOf(Member{"\xff", IntOf(1)}), "{\"\uFFFD\":1}"},
		{"with new", mustParse(t, `{"a":1,"c":2}`).With("b", IntOf(3)), `{"a":1,"b":3,"c":2}`},
		{"with old", mustParse(t, `{"a":1,"c":2}`).With("c", IntOf(3)), `{"a":1,"c":3}`},
		{"with an invalid key", ObjectOf().With("\xff", IntOf(1)), "{\"\uFFFD\":1}"},
		{"without", mustParse(t, `{"a":1,"b":2,"c":3}`).Without("a", "c", "x"), `{"b":2}`},
	} {
		if got := string(c.v.Bytes()); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		if again := mustParse(t, c.want); !Equal(again, c.v) {
			t.Errorf("%s: what it prints reads as another value", c.name)
		}
	}
	items := []Value{IntOf(1)}
	v := ArrayOf(items...)
	items[0] = IntOf(2)
	if got := string(v.Bytes()); got != `[1]` {
		t.Errorf("a value changed with the slice it was made of: %s", got)
	}
	original := mustParse(t, `{"a":1,"b":[2]}`)
	original.With("a", IntOf(9)).Without("b")
	if got := string(original.Bytes()); got != `{"a":1,"b":[2]}` {
		t.Errorf("With or Without changed their receiver: %s", got)
	}
}

func TestRead(t *testing.T) {
	v := mustParse(t, `{"a":[null,true,7,7.0,"s",{"k":1}],"big":9223372036854775808,"b":-9}`)
	list, ok := v.Get("a")
	if !ok || list.Len() != 6 || v.Key(1) != "b" {
		t.Fatalf("got %s, %v; keys from %q", list.Bytes(), ok, v.Key(1))
	}
	for i, kind := range []Kind{Null, Bool, Int, Float, String, Object} {
		if got := list.At(i).Kind(); got != kind {
			t.Errorf("element %d is of kind %v, want %v", i, got, kind)
		}
	}
	if !list.At(0).IsNull() || !list.At(1).Bool() || list.At(4).Text() != "s" || list.At(3).Text() != "7.0" {
		t.Error("wrong contents")
	}
	if _, ok := v.Get("c"); ok {
		t.Error("Get finds a missing key")
	}
	if _, ok := list.Get("a"); ok {
		t.Error("Get finds a key in an array")
	}
	for text, want := range map[string]int64{"7": 7, "-9": -9, "9223372036854775807": math.MaxInt64} {
		if n, ok := mustParse(t, text).Int64(); !ok || n != want {
			t.Errorf("Int64 of %s: %d, %v", text, n, ok)
		}
	}
	for _, text := range []string{"7.0", "9223372036854775808", `"7"`, "null"} {
		if n, ok := mustParse(t, text).Int64(); ok {
			t.Errorf("Int64 of %s: %d", text, n)
		}
	}
	if Equal(mustParse(t, `1`), mustParse(t, `1.0`)) || Equal(mustParse(t, `[]`), mustParse(t, `{}`)) ||
		!Equal(mustParse(t, `{"a":1,"b":[1e2]}`), mustParse(t, `{"b":[100.0],"a":1}`)) {
		t.Error("Equal is wrong")
	}
}

func TestInsideEncodingJSON(t *testing.T) {
	type wrapper struct{ V Value }
	var w wrapper
	if err := json.Unmarshal([]byte(`{"V": {"b": 1.0, "a": 9007199254740993}}`), &w); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(w)
	if want := `{"V":{"a":9007199254740993,"b":1.0}}`; err != nil || string(out) != want {
		t.Errorf("got %s, %v; want %s", out, err, want)
	}
	if err := json.Unmarshal([]byte(`{"V": {"a":1,"a":2}}`), &w); err == nil {
		t.Error("duplicate keys were taken")
	}
}

func TestValuesLimit(t *testing.T) {
	for _, c := range []struct {
		text   string
		values int
	}{{`1`, 1}, {`[]`, 1}, {`[1,[2,{}],"a"]`, 6}, {`{"a":{"b":null},"c":true}`, 4}} {
		if _, err := ParseWithin([]byte(c.text), Limits{Depth: 10, Values: c.values}); err != nil {
			t.Errorf("%s with %d values allowed: got %v, want it to parse", c.text, c.values, err)
		}
		if _, err := ParseWithin([]byte(c.text), Limits{Depth: 10, Values: c.values - 1}); c.values > 1 && err == nil {
			t.Errorf("%s with %d values allowed: it parses", c.text, c.values-1)
		}
	}
}
