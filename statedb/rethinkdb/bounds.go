package rethinkdb

import (
	"math"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb/keyset"
	"github.com/couchledger/couchledger/statedb/mango"
)

// keyBounds are two arrays between which the keys of an index lie, lower <=
// key <= upper; a nil one is open.
type keyBounds struct{ lower, upper []any }

// boundsOf turns a plan's constants and range, and the place where the page
// before ended, into bounds of an index's keys. They let through all keys that
// the plan asks for, and some others; false when there are none.
func boundsOf(q *keyset.Query) (keyBounds, bool) {
	var prefix []any
	for _, v := range q.Plan.Constants {
		part, ok := keyOf(v)
		if !ok {
			return keyBounds{}, false // an array or object: odd
		}
		prefix = append(prefix, part...)
	}
	b := keyBounds{lower: prefix, upper: behind(prefix)}
	var lower, upper *mango.Bound
	for i, bound := range q.Plan.Range {
		switch c := &q.Plan.Range[i]; bound.Op {
		case mango.OpGt, mango.OpGte:
			if lower == nil || mango.Compare(bound.Arg, lower.Arg) > 0 {
				lower = c
			}
		case mango.OpLt, mango.OpLte:
			if upper == nil || mango.Compare(bound.Arg, upper.Arg) < 0 {
				upper = c
			}
		}
	}
	if lower != nil {
		part, ok := keyOf(lower.Arg)
		if !ok {
			return keyBounds{}, false // only arrays and objects are greater
		}
		b.lower = extend(prefix, part...)
	}
	if upper != nil {
		if part, ok := ceilingKey(upper.Arg); ok {
			b.upper = extend(prefix, append(part, r.MaxVal)...)
		}
	}
	if q.After != nil {
		after := positionKey(*q.After)
		if q.Plan.Reverse {
			b.upper = after
		} else {
			b.lower = after
		}
	}
	return b, true
}

func extend(prefix []any, parts ...any) []any {
	return append(prefix[:len(prefix):len(prefix)], parts...)
}

// behind is greater than all keys that begin so, and less than those of odd
// documents.
func behind(prefix []any) []any {
	if len(prefix) == 0 {
		return []any{rankBehind}
	}
	return extend(prefix, r.MaxVal)
}

// keyOf is the part of a key that a scalar makes; false for an array or an
// object. A number that is no double has the one below it: nothing equals it,
// and what is greater is behind. ceilingKey has the one above.
func keyOf(v canonical.Value) ([]any, bool) {
	if rankOf(v) == rankNumber {
		below, above := doublesAround(v)
		return []any{rankNumber, double(finite(below, above))}, true
	}
	return scalarKey(v)
}

func ceilingKey(v canonical.Value) ([]any, bool) {
	if rankOf(v) == rankNumber {
		below, above := doublesAround(v)
		return []any{rankNumber, double(finite(above, below))}, true
	}
	return scalarKey(v)
}

// finite gives the first unless it is infinite.
func finite(f, or float64) float64 {
	if math.IsInf(f, 0) {
		return or
	}
	return f
}

func scalarKey(v canonical.Value) ([]any, bool) {
	switch rank := rankOf(v); rank {
	case "":
		return nil, false
	case rankString:
		return []any{rank, v.Text()}, true
	default:
		return []any{rank, 0}, true
	}
}

// oddBounds are those of all odd documents.
var oddBounds = keyBounds{lower: []any{rankOdd}, upper: []any{rankOdd, r.MaxVal}}

// positionKey is the key of a row, or for an odd one the place among the keys
// where it would be: behind all that have a scalar in the field.
func positionKey(p keyset.Position) []any {
	var key []any
	for _, v := range p.Values {
		part, ok := keyOf(v)
		if !ok {
			return behind(key)
		}
		key = append(key, part...)
	}
	return append(key, p.ID)
}
