package couchdb

import (
	"fmt"
	"math"
	"strconv"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

const (
	// maxDigits of an integer: from 1.8e308 on CouchDB answers 500 to the
	// whole batch.
	maxDigits = 308
	// smallestNormal is 2^-1022; what is smaller than this and not zero may
	// come back as zero.
	smallestNormal = 0x1p-1022
	// maxSafe is the largest integer of a server whose numbers are doubles.
	maxSafe = 1<<53 - 1
)

// Check reports what in a document CouchDB does not hold exactly: negative
// zero, numbers nearer to zero than 2^-1022, integers of more than 308 digits,
// and fields at the top that begin with an underscore, which are CouchDB's own.
func (db *DB) Check(document canonical.Value) error {
	return check(document, db.server.substitute)
}

// check is Check; doubles tells that all numbers are JavaScript's.
func check(document canonical.Value, doubles bool) error {
	return statedb.Checker{
		Reserved: "CouchDB keeps names that begin with _ to itself",
		Value:    func(v canonical.Value, _ canonical.Kind, _ int) string { return checkNumber(v, doubles) },
	}.Check(document)
}

func isReserved(key string) bool { return key != "" && key[0] == '_' }

// checkNumber says why a number is not held exactly, "" when it is.
func checkNumber(v canonical.Value, doubles bool) string {
	switch v.Kind() {
	case canonical.Int:
		digits := len(v.Text())
		if v.Text()[0] == '-' {
			digits--
		}
		if n, ok := v.Int64(); doubles && (!ok || n > maxSafe || n < -maxSafe) {
			return "the server holds integers up to 2^53 only"
		}
		if v.Text() == "-0" {
			return "CouchDB does not hold negative zero"
		}
		if digits > maxDigits {
			return fmt.Sprintf("CouchDB does not hold an integer of %d digits, %d at most", digits, maxDigits)
		}
	case canonical.Float:
		f, err := strconv.ParseFloat(v.Text(), 64)
		switch {
		case err != nil:
			return "CouchDB does not hold the number " + v.Text()
		case doubles && f == math.Trunc(f):
			return "the server takes " + v.Text() + " for an integer"
		case f == 0 && math.Signbit(f):
			return "CouchDB does not hold negative zero"
		case f != 0 && math.Abs(f) < smallestNormal:
			return "CouchDB does not hold a number that near to zero: " + v.Text()
		}
	}
	return ""
}
