package rethinkdb

import (
	"fmt"
	"math"
	"strconv"

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
	return statedb.Checker{Reserved: "names that begin with _ are kept for the database", Key: checkKey, Value: checkValue}.Check(document)
}

func isReserved(key string) bool { return key != "" && key[0] == '_' }

func checkKey(key string) string {
	if key == typeKey {
		return "RethinkDB has a meaning of its own for this key"
	}
	return ""
}

// checkValue says why a value by itself is not held exactly, "" when it is.
func checkValue(v canonical.Value, _ canonical.Kind, _ int) string {
	switch v.Kind() {
	case canonical.Array:
		if v.Len() > maxElements {
			return fmt.Sprintf("RethinkDB does not hold an array of %d elements, %d at most", v.Len(), maxElements)
		}
	case canonical.Int:
		switch n, ok := v.Int64(); {
		case !ok || n > maxWhole || n < -maxWhole:
			return "RethinkDB holds integers up to 2^53 only"
		case v.Text() == "-0":
			return "RethinkDB shows negative zero as -0.0"
		}
	case canonical.Float:
		switch f, err := strconv.ParseFloat(v.Text(), 64); {
		case err != nil:
			return "RethinkDB does not hold the number " + v.Text()
		case f == math.Trunc(f) && math.Abs(f) <= maxWhole && (f != 0 || !math.Signbit(f)):
			return "RethinkDB takes " + v.Text() + " for an integer"
		}
	}
	return ""
}
