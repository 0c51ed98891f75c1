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
)

// Check reports what in a document CouchDB does not hold exactly: negative
// zero, numbers nearer to zero than 2^-1022, integers of more than 308 digits,
// and fields at the top that begin with an underscore, which are CouchDB's own.
func (db *DB) Check(document canonical.Value) error { return check(document) }

func check(document canonical.Value) error {
	for i := range document.Len() {
		if document.Kind() == canonical.Object && isReserved(document.Key(i)) {
			return &statedb.UnsupportedError{Path: document.Key(i), Reason: "CouchDB keeps names that begin with _ to itself"}
		}
	}
	if fault := checkValue(document); fault != nil {
		if fault.Path == "" {
			fault.Path = "document"
		}
		return fault
	}
	return nil
}

func isReserved(key string) bool { return key != "" && key[0] == '_' }

// checkValue returns the first fault with its path below v.
func checkValue(v canonical.Value) *statedb.UnsupportedError {
	switch v.Kind() {
	case canonical.Object:
		for i := range v.Len() {
			if fault := checkValue(v.At(i)); fault != nil {
				return below(v.Key(i), fault)
			}
		}
	case canonical.Array:
		for i := range v.Len() {
			if fault := checkValue(v.At(i)); fault != nil {
				return below(strconv.Itoa(i), fault)
			}
		}
	case canonical.Int:
		digits := len(v.Text())
		if v.Text()[0] == '-' {
			digits--
		}
		if digits > maxDigits {
			return &statedb.UnsupportedError{Reason: fmt.Sprintf("CouchDB does not hold an integer of %d digits, %d at most", digits, maxDigits)}
		}
	case canonical.Float:
		f, err := strconv.ParseFloat(v.Text(), 64)
		switch {
		case err != nil:
			return &statedb.UnsupportedError{Reason: "CouchDB does not hold the number " + v.Text()}
		case f == 0 && math.Signbit(f):
			return &statedb.UnsupportedError{Reason: "CouchDB does not hold negative zero"}
		case f != 0 && math.Abs(f) < smallestNormal:
			return &statedb.UnsupportedError{Reason: "CouchDB does not hold a number that near to zero: " + v.Text()}
		}
	}
	return nil
}

func below(key string, fault *statedb.UnsupportedError) *statedb.UnsupportedError {
	if fault.Path != "" {
		key += "." + fault.Path
	}
	fault.Path = key
	return fault
}
