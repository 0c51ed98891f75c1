package rethinkdb

import (
	"math"
	"strconv"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb/mango"
)

// numberOf is a number as a double, the nearest one; 0 for what is none.
func numberOf(v canonical.Value) float64 {
	f, _ := strconv.ParseFloat(v.Text(), 64) // beyond all doubles it is infinite
	return f
}

// doublesAround gives the greatest double that is not more than a number, and
// the least that is not less: both the same when it is a double itself. They
// are infinite where a number is beyond all doubles.
func doublesAround(v canonical.Value) (below, above float64) {
	f := numberOf(v)
	if math.IsInf(f, 1) {
		return math.MaxFloat64, f
	}
	if math.IsInf(f, -1) {
		return f, -math.MaxFloat64
	}
	switch c := mango.Compare(canonical.FloatOf(f), v); {
	case c < 0:
		return f, math.Nextafter(f, math.Inf(1))
	case c > 0:
		return math.Nextafter(f, math.Inf(-1)), f
	}
	return f + 0, f + 0 // -0 becomes 0
}

// double is a number in a query, in digits that give exactly this one.
func double(f float64) r.Term {
	return r.RawQuery(strconv.AppendFloat(nil, f, 'g', -1, 64))
}

// isDouble reports whether all numbers in a value are doubles, and nothing in
// it has a meaning to RethinkDB, so that literal gives just it.
func isDouble(v canonical.Value) bool {
	switch v.Kind() {
	case canonical.Int, canonical.Float:
		below, above := doublesAround(v)
		return below == above
	case canonical.Array, canonical.Object:
		for i := range v.Len() {
			if v.Kind() == canonical.Object && v.Key(i) == typeKey || !isDouble(v.At(i)) {
				return false
			}
		}
	}
	return true
}
