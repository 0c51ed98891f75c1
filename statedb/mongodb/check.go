package mongodb

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
	for i := range document.Len() {
		if document.Kind() == canonical.Object && strings.HasPrefix(document.Key(i), "_") {
			return &statedb.UnsupportedError{Path: document.Key(i), Reason: "names that begin with _ are kept for _id and _rev"}
		}
	}
	if fault := checkValue(document, 1, substitute); fault != nil {
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

// checkValue returns the first fault with its path below v, which stands at a
// depth.
func checkValue(v canonical.Value, depth int, substitute bool) *unsupported {
	switch v.Kind() {
	case canonical.Object, canonical.Array:
		if depth > maxDepth {
			return &unsupported{reason: fmt.Sprintf("MongoDB does not hold more than %d levels", maxDepth)}
		}
		for i := range v.Len() {
			key := strconv.Itoa(i)
			if v.Kind() == canonical.Object {
				key = v.Key(i)
				if reason := checkKey(key); reason != "" {
					return (&unsupported{reason: reason}).in(key)
				}
			}
			if fault := checkValue(v.At(i), depth+1, substitute); fault != nil {
				return fault.in(key)
			}
			if substitute && v.Kind() == canonical.Array && v.At(i).Kind() == canonical.Array {
				return (&unsupported{reason: "FerretDB does not hold an array in an array"}).in(key)
			}
		}
	case canonical.Int:
		if _, ok := v.Int64(); !ok {
			return &unsupported{reason: "MongoDB does not hold integers beyond 64 bits"}
		}
		if v.Text() == "-0" {
			return &unsupported{reason: "MongoDB does not hold negative zero as an integer"}
		}
	case canonical.Float:
		f, err := strconv.ParseFloat(v.Text(), 64)
		if err != nil {
			return &unsupported{reason: "MongoDB does not hold the number " + v.Text()}
		}
		if substitute && f == 0 && math.Signbit(f) {
			return &unsupported{reason: "FerretDB does not hold negative zero"}
		}
	}
	return nil
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
