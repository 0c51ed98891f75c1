package mongodb

import (
	"math"
	"slices"
	"strconv"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb/mango"
)

// class is a set of types of JSON. Mango orders values by type: null, false,
// true, numbers, strings, arrays, objects; a comparison finds values of other
// types too. MongoDB compares within one type, and sorts null, numbers,
// strings, objects, arrays, booleans.
type class uint8

const (
	classNull class = 1 << iota
	classBool
	classNumber
	classString
	classArray
	classObject

	// classPlain are the types that both sort alike, and next to each other.
	classPlain = classNull | classNumber | classString
	// classOdd are those of which an index of MongoDB holds the parts, or whose
	// equality hangs on the order of keys.
	classOdd = classArray | classObject
	classAll = classPlain | classBool | classOdd
)

// classes in Mango's order, with MongoDB's names for their types.
var classes = []struct {
	class class
	types []string
}{
	{classNull, []string{"null"}},
	{classBool, []string{"bool"}},
	{classNumber, []string{"int", "long", "double"}},
	{classString, []string{"string"}},
	{classArray, []string{"array"}},
	{classObject, []string{"object"}},
}

func classOf(v canonical.Value) class {
	switch v.Kind() {
	case canonical.Bool:
		return classBool
	case canonical.Int, canonical.Float:
		return classNumber
	case canonical.String:
		return classString
	case canonical.Array:
		return classArray
	case canonical.Object:
		return classObject
	default:
		return classNull
	}
}

// span is what a comparison, or several at once, finds: all values of some
// types, and of others those that conditions of MongoDB's hold for.
type span struct {
	whole class // all values of these types
	part  class // of these only what the conditions find
	// conditions of the types in part, which must all hold; they find nothing of
	// any other type but arrays that have such an element.
	bools, numbers, strings []bson.D
}

// everything is the span without a comparison.
var everything = span{whole: classAll}

// has reports whether the span has values of any of the types.
func (s span) has(c class) bool { return (s.whole|s.part)&c != 0 }

// spanOf is what compares with arg as op says. It may have more than that, for
// arrays and objects, and for numbers that BSON does not have.
func spanOf(op mango.Op, arg canonical.Value) span {
	own := classOf(arg)
	var s span
	for _, c := range classes {
		// Classes are bits in Mango's order.
		below := (op == mango.OpLt || op == mango.OpLte) && c.class < own
		above := (op == mango.OpGt || op == mango.OpGte) && c.class > own
		if below || above {
			s.whole |= c.class
		}
	}
	switch own {
	case classNull:
		if op != mango.OpLt && op != mango.OpGt {
			s.whole |= own
		}
	case classArray, classObject:
		s.whole |= own
	case classBool:
		s.boolean(op, arg)
	case classString:
		s.part |= own
		s.strings = []bson.D{{{Key: operators[op], Value: valueOf(arg)}}}
	case classNumber:
		s.part |= own
		s.numbers = []bson.D{numberCondition(op, arg)}
	}
	return s
}

// boolean adds the booleans that compare with arg as op says.
func (s *span) boolean(op mango.Op, arg canonical.Value) {
	var found []bool
	for _, b := range []bool{false, true} {
		c := mango.Compare(canonical.BoolOf(b), arg)
		if c == 0 && op != mango.OpLt && op != mango.OpGt ||
			c < 0 && (op == mango.OpLt || op == mango.OpLte) || c > 0 && (op == mango.OpGt || op == mango.OpGte) {
			found = append(found, b)
		}
	}
	switch len(found) {
	case 1:
		s.part |= classBool
		s.bools = []bson.D{{{Key: "$eq", Value: found[0]}}}
	case 2:
		s.whole |= classBool
	}
}

// operators are MongoDB's names of comparisons.
var operators = map[mango.Op]string{
	mango.OpEq: "$eq", mango.OpLt: "$lt", mango.OpLte: "$lte", mango.OpGt: "$gt", mango.OpGte: "$gte",
}

// numberCondition compares with a number. An integer that does not fit 64 bits
// is taken for the doubles beside it.
func numberCondition(op mango.Op, arg canonical.Value) bson.D {
	if v, ok := numberOf(arg); ok {
		return bson.D{{Key: operators[op], Value: v}}
	}
	f, _ := strconv.ParseFloat(arg.Text(), 64) // infinite when it is too large
	var d bson.D
	if op != mango.OpLt && op != mango.OpLte {
		d = append(d, bson.E{Key: "$gte", Value: math.Nextafter(f, math.Inf(-1))})
	}
	if op != mango.OpGt && op != mango.OpGte {
		d = append(d, bson.E{Key: "$lte", Value: math.Nextafter(f, math.Inf(1))})
	}
	return d
}

// numberOf is a number as BSON has it, and whether it does.
func numberOf(v canonical.Value) (bson.RawValue, bool) {
	data, t, err := appendValue(nil, v)
	return bson.RawValue{Type: t, Value: data}, err == nil
}

// valueOf is a text, a boolean or null as BSON has it.
func valueOf(v canonical.Value) bson.RawValue {
	data, t, _ := appendValue(nil, v) // these all can be encoded
	return bson.RawValue{Type: t, Value: data}
}

// and is what both spans find.
func (s span) and(other span) span {
	return span{
		whole:   s.whole & other.whole,
		part:    s.part&(other.whole|other.part) | other.part&s.whole,
		bools:   slices.Concat(s.bools, other.bools),
		numbers: slices.Concat(s.numbers, other.numbers),
		strings: slices.Concat(s.strings, other.strings),
	}
}

// filters give conditions on a path of which one holds for every value of the
// span that is of one of the types. None means that there is no such value.
func (s span) filters(path string, of class) []bson.D {
	var all []bson.D
	var types []string
	for _, c := range classes {
		if s.whole&of&c.class != 0 {
			types = append(types, c.types...)
		}
	}
	if len(types) > 0 {
		all = append(all, bson.D{{Key: path, Value: bson.D{{Key: "$type", Value: types}}}})
	}
	for _, part := range []struct {
		class      class
		conditions []bson.D
	}{{classBool, s.bools}, {classNumber, s.numbers}, {classString, s.strings}} {
		if s.part&of&part.class == 0 {
			continue
		}
		var conditions []bson.D
		for _, c := range part.conditions {
			conditions = append(conditions, bson.D{{Key: path, Value: c}})
		}
		d, _ := allOf(conditions) // there is at least one
		all = append(all, d)
	}
	return all
}

// filter is filters as one condition; false when there is no such value.
func (s span) filter(path string, of class) (bson.D, bool) {
	all := s.filters(path, of)
	switch len(all) {
	case 0:
		return nil, false
	case 1:
		return all[0], true
	}
	return bson.D{{Key: "$or", Value: all}}, true
}
