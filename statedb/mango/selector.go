// Package mango reads Mango selectors, the query language of CouchDB, matches
// documents against them and plans how an index serves them. It is pure: no
// I/O, no database.
//
// It follows CouchDB 3.5, its corners included: a condition on a missing field
// never matches, but for {"$exists": false}; a path that leads through
// something that is no object or array matches nothing at all; $in looks into
// arrays; an empty $or matches as a part and finds nothing as the whole; ids
// are greater than anything that is no string. Package differential holds it
// against a real CouchDB. It differs from it in this:
//
//   - strings compare by bytes, not by ICU, to which some different strings
//     are equal, such as a and a\u0000 or two spellings of é; members of
//     objects compare in the order of their keys, not as they were written
//   - $regex is RE2 as package regexp has it, not PCRE: no look-around, no
//     back references, no possessive or atomic groups; it sees characters, not
//     bytes; \d and \w are ASCII; $ is the very end, not also before a last
//     newline; matching takes linear time
//   - a backslash before a backslash in a path stands for one, so that keys
//     with a backslash can be reached; CouchDB drops them all
//   - refused with an error that names the place, where CouchDB answers with
//     something odd or fails: conditions that have no field in $and, $or and
//     $nor, {} among them, which it compares with the whole document; an
//     unknown $type; a $mod by zero or beyond 64 bits; fields without a name
//     wherever they stand; a selector beyond the limits below
//   - $nor inside $elemMatch, $allMatch and $keyMapMatch works
//   - an _id inside $elemMatch or $allMatch compares as any other field
//   - $beginsWith on _id finds ids that go on with a character beyond U+FFFF
//   - ids are greater than arrays and objects in every bound; to CouchDB they
//     are less when it looks for the range that several bounds leave
//   - an empty $or makes no index usable that leaves documents out
//   - equality with null or arrays inside of arrays, and with objects of
//     several members, works where there are indexes; CouchDB 3.5.0 fails
//   - $text needs a search index, which no database here has, and is refused;
//     CouchDB refuses it under a field only
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

// Op is an operator of the normal form.
type Op uint8

// The operators. OpNot is of one expression that is not negated any further;
// OpField leads to the one condition on a field.
const (
	OpAnd Op = iota
	OpOr
	OpNot
	OpField
	OpLt
	OpLte
	OpEq
	OpNe
	OpGte
	OpGt
	OpIn
	OpNin
	OpExists
	OpType
	OpSize
	OpMod
	OpRegex
	OpBeginsWith
	OpAll
	OpElemMatch
	OpAllMatch
	OpKeyMapMatch
)

// opposites are the comparisons that a negation turns into another.
var opposites = map[Op]Op{
	OpLt: OpGte, OpGte: OpLt, OpLte: OpGt, OpGt: OpLte,
	OpEq: OpNe, OpNe: OpEq, OpIn: OpNin, OpNin: OpIn,
}

// expr is a selector in normal form: conjunctions and disjunctions of fields
// with one condition each. Negations are moved down to the conditions, so that
// they do not match where the field is missing; inside $elemMatch and its
// kin they stay where they are written, as in CouchDB.
type expr struct {
	op   Op
	list []*expr // OpAnd, OpOr: the parts; OpNot, OpField and the matches: one

	path Path // OpField

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
	if e.op == OpField {
		return len(e.path) > 0 && e.path[0] == field
	}
	for _, part := range e.list {
		if part.uses(field) {
			return true
		}
	}
	return false
}
