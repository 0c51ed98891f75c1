// Package canonical reads and prints JSON exactly.
//
// The ledger hashes and signs the canonical form of a document: UTF-8, no
// spaces, object keys sorted by code point at every depth, integers of any
// size as written, floats in the shortest digits that round-trip. Two nodes
// that disagree on one byte of it disagree on every signature, so numbers
// never pass through float64 unless they were written as floats.
//
// Rules: "JSON Serialization" of the server documents and the section
// "Canonical JSON" of the 0.10 wire facts.
package canonical

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Kind tells what a Value holds.
type Kind uint8

// The kinds of JSON value. Int and Float are told apart by how they were
// written: 1 is an Int, 1.0 and 1e0 are Floats, and they never print alike.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	Array
	Object
)

var kindNames = [...]string{"null", "boolean", "integer", "float", "string", "array", "object"}

// String gives the kind's name as it stands in error messages.
func (k Kind) String() string { return kindNames[k] }

// Value is one immutable JSON value. The zero Value is null.
type Value struct {
	kind  Kind
	flag  bool   // Bool
	text  string // String: the decoded text; Int, Float: the canonical digits
	parts *parts // Array, Object; nil when empty, as documents hold far more scalars
}

type parts struct {
	keys  []string // Object: sorted by code point, no duplicates
	items []Value  // Array: elements; Object: the values of keys
}

func (v Value) items() []Value {
	if v.parts == nil {
		return nil
	}
	return v.parts.items
}

func (v Value) keys() []string {
	if v.parts == nil {
		return nil
	}
	return v.parts.keys
}

// Member is one key of an object with its value.
type Member struct {
	Key   string
	Value Value
}

// BoolOf makes a boolean.
func BoolOf(b bool) Value { return Value{kind: Bool, flag: b} }

// IntOf makes an integer.
func IntOf(n int64) Value { return Value{kind: Int, text: strconv.FormatInt(n, 10)} }

// FloatOf makes a float. NaN and infinities, which JSON does not have, become null.
func FloatOf(f float64) Value {
	text, ok := formatFloat(f)
	if !ok {
		return Value{}
	}
	return Value{kind: Float, text: text}
}

// StringOf makes a string. Bytes that are not UTF-8 become U+FFFD.
func StringOf(s string) Value {
	return Value{kind: String, text: strings.ToValidUTF8(s, "\uFFFD")}
}

// StringsOf makes an array of strings.
func StringsOf(list []string) Value {
	items := make([]Value, len(list))
	for i, s := range list {
		items[i] = StringOf(s)
	}
	return arrayOf(items)
}

// ArrayOf makes an array of the values given.
func ArrayOf(items ...Value) Value { return arrayOf(slices.Clone(items)) }

// arrayOf and objectOf take over their arguments.
func arrayOf(items []Value) Value { return Value{kind: Array, parts: &parts{items: items}} }

func objectOf(keys []string, items []Value) Value {
	return Value{kind: Object, parts: &parts{keys: keys, items: items}}
}

// ObjectOf makes an object. Of two members with one key the later wins. Bytes
// in a key that are not UTF-8 become U+FFFD.
func ObjectOf(members ...Member) Value {
	keys, items := make([]string, 0, len(members)), make([]Value, 0, len(members))
	ascending := true
	for i, m := range members {
		ascending = ascending && utf8.ValidString(m.Key) && (i == 0 || keys[i-1] < m.Key)
		keys, items = append(keys, m.Key), append(items, m.Value)
	}
	if ascending { // as most callers write them
		return objectOf(keys, items)
	}
	sorted := slices.Clone(members)
	for i := range sorted {
		sorted[i].Key = strings.ToValidUTF8(sorted[i].Key, "\uFFFD")
	}
	slices.SortStableFunc(sorted, func(a, b Member) int { return strings.Compare(a.Key, b.Key) })
	keys, items = keys[:0], items[:0]
	for _, m := range sorted {
		if n := len(keys); n > 0 && keys[n-1] == m.Key {
			items[n-1] = m.Value
			continue
		}
		keys, items = append(keys, m.Key), append(items, m.Value)
	}
	return objectOf(keys, items)
}

// Kind tells what v holds.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether v is null.
func (v Value) IsNull() bool { return v.kind == Null }

// Bool returns a boolean's value, and false for any other kind.
func (v Value) Bool() bool { return v.flag }

// Text returns a string's text or a number's canonical digits, and "" for any
// other kind.
func (v Value) Text() string { return v.text }

// Int64 returns an Int that fits 64 bits.
func (v Value) Int64() (int64, bool) {
	if v.kind != Int {
		return 0, false
	}
	n, err := strconv.ParseInt(v.text, 10, 64)
	return n, err == nil
}

// Len returns the number of elements of an array or members of an object, and
// 0 for any other kind.
func (v Value) Len() int { return len(v.items()) }

// At returns element i of an array, or the value of member i of an object in
// key order.
func (v Value) At(i int) Value { return v.parts.items[i] }

// Key returns key i of an object, in code point order.
func (v Value) Key(i int) string { return v.parts.keys[i] }

// Get returns the value under key, and whether v is an object that has it.
func (v Value) Get(key string) (Value, bool) {
	i, ok := slices.BinarySearch(v.keys(), key)
	if !ok {
		return Value{}, false
	}
	return v.parts.items[i], true
}

// With returns a copy of the object v in which key has the value given. Bytes
// in key that are not UTF-8 become U+FFFD.
func (v Value) With(key string, value Value) Value {
	key = strings.ToValidUTF8(key, "\uFFFD")
	i, found := slices.BinarySearch(v.keys(), key)
	keys, items := slices.Clone(v.keys()), slices.Clone(v.items())
	if found {
		items[i] = value
	} else {
		keys, items = slices.Insert(keys, i, key), slices.Insert(items, i, value)
	}
	return objectOf(keys, items)
}

// Without returns a copy of the object v that lacks the keys given.
func (v Value) Without(unwanted ...string) Value {
	keys, items := make([]string, 0, v.Len()), make([]Value, 0, v.Len())
	for i, k := range v.keys() {
		if !slices.Contains(unwanted, k) {
			keys = append(keys, k)
			items = append(items, v.At(i))
		}
	}
	return objectOf(keys, items)
}

// Equal reports whether a and b print alike.
func Equal(a, b Value) bool {
	if a.kind != b.kind || a.flag != b.flag || a.text != b.text || !slices.Equal(a.keys(), b.keys()) {
		return false
	}
	return slices.EqualFunc(a.items(), b.items(), Equal)
}
