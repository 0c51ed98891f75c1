package mango

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// Match reports whether a document matches. _id and _rev are fields of it when
// the selector looks at them.
func (s *Selector) Match(document canonical.Value) bool { return s.root.match(document) }

func (e *expr) match(v canonical.Value) bool {
	switch e.op {
	case OpAnd:
		for _, part := range e.list {
			if !part.match(v) {
				return false
			}
		}
		return true
	case OpOr:
		for _, part := range e.list {
			if part.match(v) {
				return true
			}
		}
		return false
	case OpNot:
		return !e.list[0].match(v)
	case OpField:
		return e.field(v)
	case OpElemMatch, OpAllMatch, OpKeyMapMatch:
		return e.elements(v)
	case OpLt:
		return Compare(v, e.arg) < 0
	case OpLte:
		return Compare(v, e.arg) <= 0
	case OpEq:
		return Compare(v, e.arg) == 0
	case OpNe:
		return Compare(v, e.arg) != 0
	case OpGte:
		return Compare(v, e.arg) >= 0
	case OpGt:
		return Compare(v, e.arg) > 0
	case OpIn:
		return e.in(v)
	case OpNin:
		return !e.in(v)
	case OpAll:
		return e.all(v)
	case OpExists:
		return e.flag
	case OpType:
		return typeName(v) == e.arg.Text()
	case OpSize:
		return v.Kind() == canonical.Array && int64(v.Len()) == e.size
	case OpMod:
		return v.Kind() == canonical.Int && remainder(v.Text(), e.divisor) == e.remainder
	case OpRegex:
		return v.Kind() == canonical.String && e.regex.MatchString(v.Text())
	default: // OpBeginsWith
		return v.Kind() == canonical.String && strings.HasPrefix(v.Text(), e.arg.Text())
	}
}

// field finds the field and asks its condition. A missing one satisfies
// $exists false only, and that only where its parent is an object.
func (e *expr) field(v canonical.Value) bool {
	cond := e.list[0]
	for _, part := range e.path {
		switch v.Kind() {
		case canonical.Object:
			next, ok := v.Get(part)
			if !ok {
				return cond.op == OpExists && !cond.flag
			}
			v = next
		case canonical.Array:
			i, ok := ArrayIndex(part)
			if !ok || i >= v.Len() {
				return false
			}
			v = v.At(i)
		default:
			return false
		}
	}
	return cond.match(v)
}

func (e *expr) elements(v canonical.Value) bool {
	sub := e.list[0]
	switch e.op {
	case OpElemMatch:
		if v.Kind() != canonical.Array {
			return false
		}
		for i := range v.Len() {
			if sub.match(v.At(i)) {
				return true
			}
		}
		return false
	case OpAllMatch:
		if v.Kind() != canonical.Array || v.Len() == 0 {
			return false
		}
		for i := range v.Len() {
			if !sub.match(v.At(i)) {
				return false
			}
		}
		return true
	default: // OpKeyMapMatch
		if v.Kind() != canonical.Object {
			return false
		}
		for i := range v.Len() {
			if sub.match(canonical.StringOf(v.Key(i))) {
				return true
			}
		}
		return false
	}
}

// in looks for the value among the arguments, or for any element of an array.
func (e *expr) in(v canonical.Value) bool {
	if v.Kind() != canonical.Array {
		_, found := slices.BinarySearchFunc(e.args, v, Compare)
		return found
	}
	for i := range v.Len() {
		if _, found := slices.BinarySearchFunc(e.args, v.At(i), Compare); found {
			return true
		}
	}
	return false
}

// all reports whether an array has all the arguments, or equals the only one.
// Elements are looked up among the sorted arguments and not the other way
// round, so that the cost stays near linear. As in CouchDB, 1 is not 1.0 here.
func (e *expr) all(v canonical.Value) bool {
	if v.Kind() != canonical.Array || len(e.args) == 0 {
		return false
	}
	if len(e.given) == 1 && e.given[0].Kind() == canonical.Array && Compare(e.given[0], v) == 0 {
		return true
	}
	seen := make([]bool, len(e.args))
	missing := len(e.args)
	for i := 0; i < v.Len() && missing > 0; i++ {
		element := v.At(i)
		at, _ := slices.BinarySearchFunc(e.args, element, Compare)
		for ; at < len(e.args) && Compare(e.args[at], element) == 0; at++ {
			if !seen[at] && canonical.Equal(e.args[at], element) {
				seen[at] = true
				missing--
			}
		}
	}
	return missing == 0
}

func typeName(v canonical.Value) string {
	switch v.Kind() {
	case canonical.Int, canonical.Float:
		return "number"
	default:
		return v.Kind().String()
	}
}

// remainder divides an integer of any length; the sign is the dividend's.
func remainder(text string, divisor int64) int64 {
	negative := strings.HasPrefix(text, "-")
	text = strings.TrimPrefix(text, "-")
	d := uint64(divisor)
	if divisor < 0 {
		d = -d
	}
	var r uint64
	for _, c := range []byte(text) {
		hi, lo := bits.Mul64(r, 10)
		lo, carry := bits.Add64(lo, uint64(c-'0'), 0)
		_, r = bits.Div64((hi+carry)%d, lo, d)
	}
	if negative {
		return -int64(r)
	}
	return int64(r)
}
