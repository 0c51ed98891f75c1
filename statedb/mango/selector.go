// Package mango reads Mango selectors, the query language of CouchDB, matches
// documents against them and plans how an index serves them. It is pure: no
// I/O, no database.
//
// It follows CouchDB 3.5, its corners included: a condition on a missing field
// never matches, but for {"$exists": false}; a path that leads through
// something that is no object or array matches nothing at all; $in looks into
// arrays; an empty $or matches. It differs from it in this:
//
//   - strings compare by bytes, not by ICU, and members of objects in the
//     order of their keys
//   - $regex is RE2 as package regexp has it, not PCRE: no look-around, no
//     back references, no possessive or atomic groups, \d and \w are ASCII,
//     and so is $; matching takes linear time
//   - refused with an error that names the place, where CouchDB answers with
//     nothing or fails: operators that have no field, an unknown $type, a
//     $mod by zero or beyond 64 bits, a selector beyond the limits below
//   - $nor inside $elemMatch, $allMatch and $keyMapMatch works
//   - $text needs a search index, which no database here has, and is refused
package mango

import (
	"regexp"

	"github.com/couchledger/couchledger/canonical"
)

// Limits of a selector, so that matching a document stays cheap.
const (
	// MaxDepth is how many operators and fields may stand inside each other.
	MaxDepth = 64
	// MaxTerms is how many conditions a selector may have, and how many values
	// one $in, $nin or $all.
	MaxTerms = 2000
	// MaxRegexBytes is the longest pattern of a $regex.
	MaxRegexBytes = 1000
)

// Selector is a parsed selector. It may be used by many goroutines.
type Selector struct {
	root *expr
}

// op is an operator of the normal form.
type op uint8

const (
	opAnd op = iota
	opOr
	opNot // of one expression that is not negated any further
	opField
	opLt
	opLte
	opEq
	opNe
	opGte
	opGt
	opIn
	opNin
	opExists
	opType
	opSize
	opMod
	opRegex
	opBeginsWith
	opAll
	opElemMatch
	opAllMatch
	opKeyMapMatch
)

// opposites are the comparisons that a negation turns into another.
var opposites = map[op]op{
	opLt: opGte, opGte: opLt, opLte: opGt, opGt: opLte,
	opEq: opNe, opNe: opEq, opIn: opNin, opNin: opIn,
}

// expr is a selector in normal form: conjunctions and disjunctions of fields
// with one condition each. Negations are moved down to the conditions, so that
// they do not match where the field is missing; inside $elemMatch and its
// kin they stay where they are written, as in CouchDB.
type expr struct {
	op   op
	list []*expr // opAnd, opOr: the parts; opNot, opField and the matches: one

	path Path // opField

	arg       canonical.Value   // comparisons, $type, $beginsWith
	args      []canonical.Value // $in, $nin, $all: in the order of Compare
	given     []canonical.Value // $all: as written
	flag      bool              // $exists
	size      int64             // $size
	divisor   int64             // $mod
	remainder int64
	regex     *regexp.Regexp
}

// Uses reports whether the selector looks at the field, such as _rev.
func (s *Selector) Uses(field string) bool { return s.root.uses(field) }

func (e *expr) uses(field string) bool {
	if e.op == opField {
		return len(e.path) > 0 && e.path[0] == field
	}
	for _, part := range e.list {
		if part.uses(field) {
			return true
		}
	}
	return false
}
