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
		part, ok := lowerPart(*lower)
		if !ok {
			return keyBounds{}, false
		}
		b.lower = extend(prefix, part...)
	}
	if upper != nil {
		if part, ok := upperPart(*upper); ok {
			b.upper = extend(prefix, part...)
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

// lowerPart is what a lower bound puts behind the prefix: what is greater than
// a value is behind all keys that go on from it. False when only arrays and
// objects are greater.
func lowerPart(b mango.Bound) ([]any, bool) {
	part, ok := keyOf(b.Arg)
	if !ok {
		return nil, false
	}
	if rankOf(b.Arg) == rankNumber {
		below, above := doublesAround(b.Arg)
		if math.IsInf(below, 0) { // the least of all numbers is greater
			return []any{rankNumber}, true
		}
		if below != above {
			return []any{rankNumber, double(below), r.MaxVal}, true
		}
	}
	if b.Op == mango.OpGt {
		part = extend(part, r.MaxVal)
	}
	return part, true
}

// upperPart is lowerPart for an upper bound; false when all scalars are less.
func upperPart(b mango.Bound) ([]any, bool) {
	part, ok := keyOf(b.Arg)
	if !ok {
		return nil, false
	}
	if rankOf(b.Arg) == rankNumber {
		below, above := doublesAround(b.Arg)
		if math.IsInf(above, 0) { // the greatest of all numbers is less
			return []any{rankNumber, r.MaxVal}, true
		}
		if below != above {
			return []any{rankNumber, double(above)}, true
		}
	}
	if b.Op == mango.OpLte {
		part = extend(part, r.MaxVal)
	}
	return part, true
}

// keyOf is the part of a key that a scalar makes; false for an array or an
// object. Of a number that is no double it is a neighbour's: nothing equals it.
func keyOf(v canonical.Value) ([]any, bool) {
	switch rank := rankOf(v); rank {
	case "":
		return nil, false
	case rankString:
		return []any{rank, v.Text()}, true
	case rankNumber:
		below, above := doublesAround(v)
		if math.IsInf(below, 0) {
			below = above
		}
		return []any{rank, double(below)}, true
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
