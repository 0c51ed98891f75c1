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
// A document that has all the fields, with an array, an object or something of
// RethinkDB's own in one of them, is in the odd index, under its id.
const (
	rankNull   = "a"
	rankFalse  = "b"
	rankTrue   = "c"
	rankNumber = "d"
	rankString = "e"
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
			kind.Eq("NUMBER"), []any{rankNumber, v.Add(0)}, // -0 becomes 0
			kind.Eq("BOOL"), r.Branch(v, []any{rankTrue, 0}, []any{rankFalse, 0}),
			kind.Eq("NULL"), []any{rankNull, 0},
			[]any{0},
		)
	})
}

// outcomes of following a path. A path that leads through something that is no
// object or array, or beyond the end of an array, goes astray; strange is what
// has a type of RethinkDB's own.
type outcomes struct {
	found                    func(r.Term) r.Term
	missing, astray, strange r.Term
}

// lookUp follows a path as mango.Path does.
func lookUp(v r.Term, path mango.Path, o outcomes) r.Term {
	if len(path) == 0 {
		return r.Do(v, func(v r.Term) r.Term {
			return r.Branch(isStrange(v), o.strange, o.found(v))
		})
	}
	key := path[0]
	return r.Do(v, func(v r.Term) r.Term {
		inArray := o.astray
		if i, ok := mango.ArrayIndex(key); ok && i < maxElements {
			inArray = r.Branch(v.Count().Gt(i), lookUp(v.Nth(i), path[1:], o), o.astray)
		}
		// default takes null for missing, and so keys tells.
		inObject := r.Do(v.Field(key).Default(nil), func(next r.Term) r.Term {
			return r.Branch(r.And(next.Eq(nil), v.Keys().Contains(key).Not()), o.missing, lookUp(next, path[1:], o))
		})
		return r.Branch(
			v.TypeOf().Eq("OBJECT"), inObject,
			v.TypeOf().Eq("ARRAY"), inArray,
			isStrange(v), o.strange,
			o.astray,
		)
	})
}

// isStrange tells times, binary data and the like, which are objects in JSON.
func isStrange(v r.Term) r.Term {
	return r.Expr([]any{"NULL", "BOOL", "NUMBER", "STRING", "ARRAY", "OBJECT"}).Contains(v.TypeOf()).Not()
}

// encodeAll calls do with the encodings of all fields, one after the other.
func encodeAll(row r.Term, paths []mango.Path, done []r.Term, do func([]r.Term) r.Term) r.Term {
	if len(paths) == len(done) {
		return do(done)
	}
	return r.Do(encode(row, paths[len(done)]), func(encoded r.Term) r.Term {
		// None is added: what is missing is in no index, and needs no more work.
		return r.Branch(encoded.IsEmpty(), nil, encodeAll(row, paths, append(done[:len(done):len(done)], encoded), do))
	})
}

// hasOdd tells whether one of the encodings is of something odd.
func hasOdd(encoded []r.Term) r.Term {
	var odd []any
	for _, e := range encoded {
		odd = append(odd, e.Count().Eq(1))
	}
	return r.Or(odd...)
}

// indexKey is the function of an index: null, which RethinkDB leaves out, for
// a document that is not in it.
func indexKey(row r.Term, paths []mango.Path) r.Term {
	return encodeAll(row, paths, nil, func(encoded []r.Term) r.Term {
		var parts []any
		for _, e := range encoded[1:] {
			parts = append(parts, e)
		}
		key := encoded[0].Add(append(parts, []any{row.Field(fieldID)})...)
		return r.Branch(hasOdd(encoded), nil, key)
	})
}

// oddKey is the function of the index of odd documents.
func oddKey(row r.Term, paths []mango.Path) r.Term {
	return encodeAll(row, paths, nil, func(encoded []r.Term) r.Term {
		return r.Branch(hasOdd(encoded), row.Field(fieldID), nil)
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
