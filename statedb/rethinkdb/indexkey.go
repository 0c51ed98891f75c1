package rethinkdb

import (
	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb/mango"
)

// An index holds of each document an array: for every field the rank of its
// type, one letter, and its value, 0 where the rank says all; then the id.
// RethinkDB orders such arrays as Mango orders the values, strings by bytes,
// of any length and with any characters, and numbers as doubles, which is all
// that it has.
//
// A document that has all the fields, but an array, an object or something of
// RethinkDB's own in one of them, is odd: the index holds [rankOdd, id] of it,
// behind all the others.
const (
	rankNull   = "a"
	rankFalse  = "b"
	rankTrue   = "c"
	rankNumber = "d"
	rankString = "e"
	rankBehind = "f" // no value has it: behind all scalars
	rankOdd    = "g"
)

// encode gives the elements of the array for one field: two, none when the
// document lacks it, one when it is odd. It fails on no document: RethinkDB
// leaves those out of an index on which its function fails.
func encode(row r.Term, path mango.Path) r.Term {
	return lookUp(row, path, outcomes{
		found:   encodeValue,
		missing: r.Expr([]any{}),
		astray:  r.Expr([]any{}),
		strange: r.Expr([]any{0}),
	})
}

func encodeValue(v r.Term) r.Term {
	return r.Do(v.TypeOf(), func(kind r.Term) r.Term {
		return r.Branch(
			kind.Eq("STRING"), []any{rankString, v},
			kind.Eq("NUMBER"), []any{rankNumber, v}, // to RethinkDB -0 is 0 here, too
			kind.Eq("BOOL"), r.Branch(v, []any{rankTrue, 0}, []any{rankFalse, 0}),
			kind.Eq("NULL"), []any{rankNull, 0},
			[]any{0},
		)
	})
}

// outcomes of following a path. A path that leads through something that is no
// object or array, or beyond the end of an array, goes astray; strange is when
// it leads through what has a type of RethinkDB's own.
type outcomes struct {
	found                    func(r.Term) r.Term
	missing, astray, strange r.Term
}

// lookUp follows a path as mango.Path does.
func lookUp(v r.Term, path mango.Path, o outcomes) r.Term {
	if len(path) == 0 {
		return o.found(v)
	}
	key := path[0]
	inArray := o.astray
	if i, ok := mango.ArrayIndex(key); ok && i < maxElements {
		inArray = r.Branch(v.Count().Gt(i), r.Do(v.Nth(i), func(next r.Term) r.Term { return lookUp(next, path[1:], o) }), o.astray)
	}
	// default takes null for missing, and so keys tells.
	inObject := r.Do(v.Field(key).Default(nil), func(next r.Term) r.Term {
		return r.Branch(r.And(next.Eq(nil), v.Keys().Contains(key).Not()), o.missing, lookUp(next, path[1:], o))
	})
	return r.Branch(isType(v, "OBJECT"), inObject, isType(v, "ARRAY"), inArray, isStrange(v), o.strange, o.astray)
}

func isType(v r.Term, name string) r.Term { return v.TypeOf().Eq(name) }

// isStrange tells times, binary data and the like, which are objects in JSON.
// Their types are called PTYPE<TIME> and so on; no other name begins so.
func isStrange(v r.Term) r.Term { return r.And(v.TypeOf().Ge("PTYPE"), v.TypeOf().Lt("PTYPF")) }

// indexKey is the function of an index: null, which RethinkDB leaves out, for
// a document that is not in it.
func indexKey(row r.Term, paths []mango.Path) r.Term {
	return appendKey(row, paths, r.Expr([]any{}), r.Expr(false))
}

// appendKey goes on with the fields that are left, behind the key so far; odd
// tells whether one of those was.
func appendKey(row r.Term, paths []mango.Path, key, odd r.Term) r.Term {
	id := row.Field(fieldID)
	if len(paths) == 0 {
		return r.Branch(odd, []any{rankOdd, id}, key.Append(id))
	}
	return r.Do(encode(row, paths[0]), func(encoded r.Term) r.Term {
		// A document that lacks a field needs no more work.
		return r.Branch(encoded.IsEmpty(), nil,
			appendKey(row, paths[1:], key.Add(encoded), r.Or(odd, encoded.Count().Eq(1))))
	})
}

// rankOf gives a scalar's rank; "" for an array or an object.
func rankOf(v canonical.Value) string {
	switch v.Kind() {
	case canonical.Null:
		return rankNull
	case canonical.Bool:
		if v.Bool() {
			return rankTrue
		}
		return rankFalse
	case canonical.Int, canonical.Float:
		return rankNumber
	case canonical.String:
		return rankString
	}
	return ""
}
