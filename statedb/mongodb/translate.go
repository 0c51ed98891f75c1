package mongodb

import (
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb/mango"
)

// A translation finds every document that the selector matches, and may find
// more: what it finds is matched again. MongoDB's conditions look into arrays
// where Mango's do not, which only adds to what they find; so a condition is
// never translated into a negation.
//
// Documents that others wrote with types that JSON does not have are not found
// by conditions on such values.

// translate gives a condition for MongoDB, and false when there is none.
func translate(n mango.Node) (bson.D, bool) {
	switch n.Op {
	case mango.OpAnd:
		var parts []bson.D
		for _, part := range n.List {
			if d, ok := translate(part); ok {
				parts = append(parts, d)
			}
		}
		return allOf(parts)
	case mango.OpOr:
		var parts []bson.D
		for _, part := range n.List {
			d, ok := translate(part)
			if !ok {
				return nil, false
			}
			parts = append(parts, d)
		}
		if len(parts) == 0 {
			return nil, false
		}
		return bson.D{{Key: "$or", Value: parts}}, true
	case mango.OpField:
		return translateField(n.Path, n.List[0])
	}
	return nil, false
}

// allOf joins conditions; false when there are none.
func allOf(parts []bson.D) (bson.D, bool) {
	switch len(parts) {
	case 0:
		return nil, false
	case 1:
		return parts[0], true
	}
	return bson.D{{Key: "$and", Value: parts}}, true
}

// fieldPath gives a path in MongoDB's notation, and whether it means the same
// there: no keys with dots or signs of operators; numbers that are places in
// arrays are written as plain digits. Fields at the top that begin with an
// underscore are not the document's.
func fieldPath(path mango.Path) (string, bool) {
	for i, part := range path {
		if part == "" || checkKey(part) != "" || i == 0 && part[0] == '_' {
			return "", false
		}
		if n, isPlace := mango.ArrayIndex(part); isPlace && strconv.Itoa(n) != part {
			return "", false
		}
	}
	return strings.Join(path, "."), len(path) > 0
}

// throughArrays reports whether a path may lead to an element of an array.
func throughArrays(path mango.Path) bool {
	for _, part := range path {
		if _, isPlace := mango.ArrayIndex(part); isPlace {
			return true
		}
	}
	return false
}

func translateField(path mango.Path, cond mango.Node) (bson.D, bool) {
	if len(path) == 1 && path[0] == fieldID {
		return translateID(cond)
	}
	field, ok := fieldPath(path)
	if !ok {
		return nil, false
	}
	if cond.Op == mango.OpExists && !cond.Flag {
		// Behind a place in an array MongoDB may find what Mango does not.
		if throughArrays(path) {
			return nil, false
		}
		return bson.D{{Key: field, Value: bson.D{{Key: "$exists", Value: false}}}}, true
	}
	switch cond.Op {
	case mango.OpLt, mango.OpLte, mango.OpEq, mango.OpGte, mango.OpGt:
		return spanOf(cond.Op, cond.Arg).filter(field, classAll)
	case mango.OpIn:
		return translateIn(field, cond.Args)
	case mango.OpSize, mango.OpAll, mango.OpElemMatch, mango.OpAllMatch:
		return span{whole: classArray}.filter(field, classAll)
	case mango.OpKeyMapMatch:
		return span{whole: classObject}.filter(field, classAll)
	case mango.OpMod:
		return span{whole: classNumber}.filter(field, classAll)
	case mango.OpRegex:
		return span{whole: classString}.filter(field, classAll)
	case mango.OpBeginsWith:
		return bson.D{{Key: field, Value: bson.D{{Key: "$gte", Value: valueOf(cond.Arg)}}}}, true
	case mango.OpType:
		return span{whole: classNamed(cond.Arg.Text())}.filter(field, classAll)
	}
	// All else holds only where there is a value.
	return bson.D{{Key: field, Value: bson.D{{Key: "$exists", Value: true}}}}, true
}

func classNamed(name string) class {
	switch name {
	case "null":
		return classNull
	case "boolean":
		return classBool
	case "number":
		return classNumber
	case "string":
		return classString
	case "array":
		return classArray
	}
	return classObject
}

// translateIn finds values that are among the arguments, and arrays that have
// one of them.
func translateIn(field string, args []canonical.Value) (bson.D, bool) {
	s := span{}
	list := bson.A{}
	for _, arg := range args {
		switch classOf(arg) {
		case classArray:
			s.whole |= classArray
		case classObject:
			s.whole |= classOdd
		case classNumber:
			v, ok := numberOf(arg)
			if !ok {
				s.whole |= classNumber | classArray
				continue
			}
			list = append(list, v)
		default:
			list = append(list, valueOf(arg))
		}
	}
	parts := s.filters(field, classAll)
	if len(list) > 0 || len(parts) == 0 {
		parts = append(parts, bson.D{{Key: field, Value: bson.D{{Key: "$in", Value: list}}}})
	}
	if len(parts) == 1 {
		return parts[0], true
	}
	return bson.D{{Key: "$or", Value: parts}}, true
}

// translateID translates conditions on ids, which are texts, where they compare
// with texts. Among other types Mango has rules for ids of their own.
func translateID(cond mango.Node) (bson.D, bool) {
	switch cond.Op {
	case mango.OpLt, mango.OpLte, mango.OpEq, mango.OpGte, mango.OpGt:
		if cond.Arg.Kind() == canonical.String {
			return bson.D{{Key: fieldID, Value: bson.D{{Key: operators[cond.Op], Value: valueOf(cond.Arg)}}}}, true
		}
	case mango.OpBeginsWith:
		return bson.D{{Key: fieldID, Value: bson.D{{Key: "$gte", Value: valueOf(cond.Arg)}}}}, true
	case mango.OpIn:
		list := bson.A{}
		for _, arg := range cond.Args {
			if arg.Kind() == canonical.String {
				list = append(list, valueOf(arg))
			}
		}
		return bson.D{{Key: fieldID, Value: bson.D{{Key: "$in", Value: list}}}}, true
	}
	return nil, false
}
