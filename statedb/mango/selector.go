package mango

import (
	"errors"

	"github.com/couchledger/couchledger/canonical"
)

// Selector is a parsed selector.
type Selector struct{}

// Parse reads a selector.
func Parse(v canonical.Value) (*Selector, error) { return nil, errors.New("mango: not yet") }

// Match reports whether the document matches.
func (s *Selector) Match(v canonical.Value) bool { return false }
