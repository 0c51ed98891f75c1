package statedb

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// Checker says what a database cannot hold, for an adapter's Check.
type Checker struct {
	// Reserved is why fields at the top whose names begin with an underscore
	// are refused.
	Reserved string
	// Key says why a name inside the document cannot be held, "" when it can;
	// nil takes all.
	Key func(key string) string
	// Value says why a value by itself cannot be held, "" when it can: a scalar,
	// or an array or object less what is in it. within is the kind of what it
	// stands in, Null for the document, whose depth is 1.
	Value func(v canonical.Value, within canonical.Kind, depth int) string
}

// Check returns nil, or an *UnsupportedError for the first fault.
func (c Checker) Check(document canonical.Value) error {
	if document.Kind() == canonical.Object {
		for i := range document.Len() {
			if key := document.Key(i); strings.HasPrefix(key, "_") {
				return &UnsupportedError{Path: key, Reason: c.Reserved}
			}
		}
	}
	if fault := c.value(document, canonical.Null, 1); fault != nil {
		slices.Reverse(fault.path)
		return &UnsupportedError{Path: cmp.Or(strings.Join(fault.path, "."), "document"), Reason: fault.reason}
	}
	return nil
}

// unheld is a fault on the way up to the document.
type unheld struct {
	path   []string // from the inside out
	reason string
}

func (u *unheld) in(key string) *unheld {
	u.path = append(u.path, key)
	return u
}

func (c Checker) value(v canonical.Value, within canonical.Kind, depth int) *unheld {
	if reason := c.Value(v, within, depth); reason != "" {
		return &unheld{reason: reason}
	}
	switch v.Kind() {
	case canonical.Object:
		for i := range v.Len() {
			if c.Key != nil {
				if reason := c.Key(v.Key(i)); reason != "" {
					return (&unheld{reason: reason}).in(v.Key(i))
				}
			}
			if fault := c.value(v.At(i), v.Kind(), depth+1); fault != nil {
				return fault.in(v.Key(i))
			}
		}
	case canonical.Array:
		for i := range v.Len() {
			if fault := c.value(v.At(i), v.Kind(), depth+1); fault != nil {
				return fault.in(strconv.Itoa(i))
			}
		}
	}
	return nil
}
