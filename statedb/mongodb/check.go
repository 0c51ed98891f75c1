package mongodb

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// maxDepth is how many levels of documents and arrays MongoDB takes inside each
// other, the document itself included.
const maxDepth = 100

// Check reports what in a document MongoDB does not hold exactly: integers
// beyond 64 bits; integers written -0; more than 100 levels; keys with U+0000;
// and those that begin with $ or have a dot inside. Some versions store the
// latter, and none can find or update them: they are how its query language
// writes operators and paths. Fields at the top that begin with an underscore
// are this package's own.
//
// FerretDB over SQLite holds less; see fieldsOfFerretDB.
func (db *DB) Check(document canonical.Value) error { return check(document, db.server.substitute) }

// check is Check; substitute tells that the server is FerretDB.
func check(document canonical.Value, substitute bool) error {
	return statedb.Checker{
		Reserved: "names that begin with _ are kept for _id and _rev",
		Key:      checkKey,
		Value: func(v canonical.Value, within canonical.Kind, depth int) string {
			return checkValue(v, within, depth, substitute)
		},
	}.Check(document)
}

// checkValue says why a value by itself cannot be held, "" when it can.
func checkValue(v canonical.Value, within canonical.Kind, depth int, substitute bool) string {
	switch v.Kind() {
	case canonical.Object, canonical.Array:
		if depth > maxDepth {
			return fmt.Sprintf("MongoDB does not hold more than %d levels", maxDepth)
		}
		if substitute && v.Kind() == canonical.Array && within == canonical.Array {
			return "FerretDB does not hold an array in an array"
		}
	case canonical.Int:
		if _, ok := v.Int64(); !ok {
			return "MongoDB does not hold integers beyond 64 bits"
		}
		if v.Text() == "-0" {
			return "MongoDB does not hold negative zero as an integer"
		}
	case canonical.Float:
		f, err := strconv.ParseFloat(v.Text(), 64)
		if err != nil {
			return "MongoDB does not hold the number " + v.Text()
		}
		if substitute && f == 0 && math.Signbit(f) {
			return "FerretDB does not hold negative zero"
		}
	}
	return ""
}

// checkKey says why a key cannot be stored, "" when it can.
func checkKey(key string) string {
	switch {
	case strings.IndexByte(key, 0) >= 0:
		return "MongoDB does not hold U+0000 in keys"
	case strings.HasPrefix(key, "$"):
		return "to MongoDB a key that begins with $ is an operator"
	case strings.Contains(key, "."):
		return "to MongoDB a key with a dot is a path"
	}
	return ""
}
