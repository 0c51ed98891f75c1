package couchdb

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
	for i := range document.Len() {
		if document.Kind() == canonical.Object && isReserved(document.Key(i)) {
			return &statedb.UnsupportedError{Path: document.Key(i), Reason: "CouchDB keeps names that begin with _ to itself"}
		}
	}
	if fault := checkValue(document, doubles); fault != nil {
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
func checkValue(v canonical.Value, doubles bool) *unsupported {
	switch v.Kind() {
	case canonical.Object:
		for i := range v.Len() {
			if fault := checkValue(v.At(i), doubles); fault != nil {
				return fault.in(v.Key(i))
			}
		}
	case canonical.Array:
		for i := range v.Len() {
			if fault := checkValue(v.At(i), doubles); fault != nil {
				return fault.in(strconv.Itoa(i))
			}
		}
	case canonical.Int:
		digits := len(v.Text())
		if v.Text()[0] == '-' {
			digits--
		}
		if n, ok := v.Int64(); doubles && (!ok || n > maxSafe || n < -maxSafe) {
			return &unsupported{reason: "the server holds integers up to 2^53 only"}
		}
		if v.Text() == "-0" {
			return &unsupported{reason: "CouchDB does not hold negative zero"}
		}
		if digits > maxDigits {
			return &unsupported{reason: fmt.Sprintf("CouchDB does not hold an integer of %d digits, %d at most", digits, maxDigits)}
		}
	case canonical.Float:
		f, err := strconv.ParseFloat(v.Text(), 64)
		switch {
		case err != nil:
			return &unsupported{reason: "CouchDB does not hold the number " + v.Text()}
		case doubles && f == math.Trunc(f):
			return &unsupported{reason: "the server takes " + v.Text() + " for an integer"}
		case f == 0 && math.Signbit(f):
			return &unsupported{reason: "CouchDB does not hold negative zero"}
		case f != 0 && math.Abs(f) < smallestNormal:
			return &unsupported{reason: "CouchDB does not hold a number that near to zero: " + v.Text()}
		}
	}
	return nil
}
