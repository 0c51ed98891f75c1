package rethinkdb

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

const (
	// maxWhole is 2^53: RethinkDB's numbers are doubles. It shows whole ones
	// up to this as integers, and those beyond as floats.
	maxWhole = 1 << 53
	// maxElements of an array that RethinkDB writes to disk.
	maxElements = 100_000
	// typeKey makes an object a type of RethinkDB's own, or an error.
	typeKey = "$reql_type$"
)

// Check reports what in a document RethinkDB does not hold exactly: whole
// numbers that are not written as it shows them, arrays of more than 100,000
// elements, the key $reql_type$, and fields at the top that begin with an
// underscore, which are kept for the adapter.
func (db *DB) Check(document canonical.Value) error { return check(document) }

func check(document canonical.Value) error {
	for i := range document.Len() {
		if document.Kind() == canonical.Object && isReserved(document.Key(i)) {
			return &statedb.UnsupportedError{Path: document.Key(i), Reason: "names that begin with _ are kept for the database"}
		}
	}
	if fault := checkValue(document); fault != nil {
		slices.Reverse(fault.path)
		return &statedb.UnsupportedError{Path: cmp.Or(strings.Join(fault.path, "."), "document"), Reason: fault.reason}
	}
	return nil
}

// unsupported is a fault on the way up to the document.
type unsupported struct {
	path   []string // from the inside out
	reason string
}

func (u *unsupported) in(key string) *unsupported {
	u.path = append(u.path, key)
	return u
}

func isReserved(key string) bool { return key != "" && key[0] == '_' }

// checkValue returns the first fault with its path below v.
func checkValue(v canonical.Value) *unsupported {
	switch v.Kind() {
	case canonical.Object:
		for i := range v.Len() {
			if v.Key(i) == typeKey {
				return (&unsupported{reason: "RethinkDB has a meaning of its own for this key"}).in(typeKey)
			}
			if fault := checkValue(v.At(i)); fault != nil {
				return fault.in(v.Key(i))
			}
		}
	case canonical.Array:
		if v.Len() > maxElements {
			return &unsupported{reason: fmt.Sprintf("RethinkDB does not hold an array of %d elements, %d at most", v.Len(), maxElements)}
		}
		for i := range v.Len() {
			if fault := checkValue(v.At(i)); fault != nil {
				return fault.in(strconv.Itoa(i))
			}
		}
	case canonical.Int:
		switch n, ok := v.Int64(); {
		case !ok || n > maxWhole || n < -maxWhole:
			return &unsupported{reason: "RethinkDB holds integers up to 2^53 only"}
		case v.Text() == "-0":
			return &unsupported{reason: "RethinkDB shows negative zero as -0.0"}
		}
	case canonical.Float:
		switch f, err := strconv.ParseFloat(v.Text(), 64); {
		case err != nil:
			return &unsupported{reason: "RethinkDB does not hold the number " + v.Text()}
		case f == math.Trunc(f) && math.Abs(f) <= maxWhole && (f != 0 || !math.Signbit(f)):
			return &unsupported{reason: "RethinkDB takes " + v.Text() + " for an integer"}
		}
	}
	return nil
}
