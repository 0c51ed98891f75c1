package mango

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// Plan is how a query is answered: read the keys between two bounds, in one
// direction, and match what the bounds do not say.
type Plan struct {
	// Index is the place of the chosen one in the list given to Plan, or -1
	// for a scan over the documents' ids.
	Index int
	// Lower and Upper bound the keys, Lower <= key < Upper; nil is open. Of an
	// index they are encoded fields, to be compared with those of a document
	// with its id behind them; of a scan, ids.
	Lower, Upper []byte
	// Reverse reads from the end: a descending sort.
	Reverse bool
	// Residual is what still has to be matched, nil when the bounds say all.
	Residual *Selector
	// Served names the fields that the bounds are made of.
	Served []string
	// Constants and Range say the same as Lower and Upper: the values that the
	// selector gives the index's first fields, and conditions on the field
	// after them, or on the id of a scan.
	Constants []canonical.Value
	Range     []Bound

	overlap int // the index's first fields that the selector bounds or has exist
}

// Bound is one side of a range: OpGt, OpGte, OpLt or OpLte, in Mango's order of
// all values, and what it compares with.
type Bound struct {
	Op  Op
	Arg canonical.Value
}

// endOfPrefix is more than any byte that can follow an encoded field, be it the
// rank of another or the beginning of an id, which is UTF-8.
const endOfPrefix = 0xFF

// WholeScan reports whether every document has to be read to answer.
func (p *Plan) WholeScan() bool {
	return p.Index < 0 && p.Lower == nil && p.Upper == nil && p.Residual != nil
}

// Describe gives the sentence of statedb.Plan.Covering.
func (p *Plan) Describe() string {
	var b strings.Builder
	switch {
	case p.Index >= 0 && len(p.Served) > 0:
		b.WriteString("The index serves the conditions on " + strings.Join(p.Served, ", "))
	case p.Index >= 0:
		b.WriteString("The index gives the documents that have its fields, in its order")
	case len(p.Served) > 0:
		b.WriteString("The ids serve the condition on _id")
	case p.Residual == nil:
		return "All documents are asked for."
	default:
		return "No index serves the selector: every document is read and matched."
	}
	if p.Residual != nil {
		b.WriteString("; the documents found are matched against the rest of the selector.")
	} else {
		b.WriteString(", which is the whole selector.")
	}
	return b.String()
}

// NewPlan chooses an index by CouchDB's rules. An index is usable when the
// selector or the sort says that all its fields exist, and when its order is
// the one asked for: the sort's fields are its first ones, where fields that
// the selector holds constant may be left out before them. The ids give the
// order of _id when the selector bounds _id. An index with a partial filter is
// used only by name. Of the usable ones that wins of which the selector bounds
// most of the first fields, then that with the fewest fields, then by design
// document and name.
//
// CouchDB prefers any usable index to the ids. Here one document is always
// read by its id, and without a sort an index is not used when the selector
// bounds none of its first fields: reading all of it costs more than a scan.
//
// Errors wrap statedb.ErrNoIndex or statedb.ErrBadQuery.
func NewPlan(s *Selector, sort []statedb.SortField, indexes []statedb.Index, use string) (*Plan, error) {
	if err := CheckSort(sort); err != nil {
		return nil, err
	}
	terms := s.root.conjuncts(nil)
	bounded := boundedFields(terms)
	var best *Plan
	if use == "" {
		if len(sort) == 0 || len(sort) == 1 && sort[0].Field == "_id" && bounded["_id"] {
			best = scan(terms)
		}
	} else if !slices.ContainsFunc(indexes, func(ix statedb.Index) bool { return ix.Name == use }) {
		return nil, fmt.Errorf("%w: there is no index %q", statedb.ErrNoIndex, use)
	}
	for i, ix := range indexes {
		named := ix.Name == use
		if use != "" && !named || !named && !ix.PartialFilter.IsNull() || !usable(s, ix, sort) {
			continue
		}
		p := overIndex(i, ix, terms)
		p.overlap = overlap(ix, bounded)
		if best == nil || better(p, best, indexes) {
			best = p
		}
	}
	if best == nil {
		if use != "" {
			return nil, fmt.Errorf("%w: the index %q does not fit: the selector must hold a condition on each of its fields, and the sort its order",
				statedb.ErrNoIndex, use)
		}
		return nil, fmt.Errorf("%w: none gives the order asked for", statedb.ErrNoIndex)
	}
	best.Reverse = len(sort) > 0 && sort[0].Descending
	return best, nil
}

// CheckSort refuses what no index can give: field names with an empty part,
// and fields in different directions. Errors wrap statedb.ErrBadQuery.
func CheckSort(sort []statedb.SortField) error {
	for _, f := range sort {
		if slices.Contains(ParsePath(f.Field), "") {
			return fmt.Errorf("%w: sort: the field name %q has an empty part", statedb.ErrBadQuery, f.Field)
		}
		if f.Descending != sort[0].Descending {
			return fmt.Errorf("%w: sort: all fields must ascend or all descend", statedb.ErrBadQuery)
		}
	}
	return nil
}

// Advise names the fields, in order, of an index that would spare a scan: those
// that the selector holds constant, then one that it bounds. It is nil where no
// index would help, as for a $regex or an $or alone.
func Advise(s *Selector) []string {
	var constant, bounded []string
	for _, t := range s.root.conjuncts(nil) {
		if t.cond == nil || t.path == "_id" || t.path == "_rev" || slices.Contains(constant, t.path) {
			continue
		}
		switch t.cond.op {
		case OpEq:
			constant = append(constant, t.path)
		case OpLt, OpLte, OpGt, OpGte, OpBeginsWith:
			bounded = append(bounded, t.path)
		}
	}
	for _, path := range bounded {
		if !slices.Contains(constant, path) {
			return append(constant, path)
		}
	}
	return constant
}

func better(a, b *Plan, indexes []statedb.Index) bool {
	if b.Index < 0 { // a scan; one document by its id is not to be beaten
		return a.overlap > 0 && !slices.Equal(b.Served, []string{servedID})
	}
	x, y := indexes[a.Index], indexes[b.Index]
	return cmp.Or(
		cmp.Compare(b.overlap, a.overlap),
		cmp.Compare(len(x.Fields), len(y.Fields)),
		strings.Compare(x.DDoc, y.DDoc),
		strings.Compare(x.Name, y.Name),
	) < 0
}

// term is one of the conditions that all have to match.
type term struct {
	whole *expr
	path  string // dotted, when it is one condition on a field
	cond  *expr
}

func (e *expr) conjuncts(terms []term) []term {
	switch e.op {
	case OpAnd:
		for _, part := range e.list {
			terms = part.conjuncts(terms)
		}
		return terms
	case OpField:
		return append(terms, term{whole: e, path: e.path.String(), cond: e.list[0]})
	}
	return append(terms, term{whole: e})
}

// boundedFields are the fields whose conditions an index can say something of.
func boundedFields(terms []term) map[string]bool {
	fields := map[string]bool{}
	for _, t := range terms {
		if t.cond == nil {
			continue
		}
		switch t.cond.op {
		case OpLt, OpLte, OpEq, OpGte, OpGt, OpBeginsWith, OpExists:
			fields[t.path] = true
		}
	}
	return fields
}

// overlap counts the index's first fields that are bounded.
func overlap(ix statedb.Index, bounded map[string]bool) int {
	for i, f := range ix.Fields {
		if !bounded[ParsePath(f.Field).String()] {
			return i
		}
	}
	return len(ix.Fields)
}

// requires reports whether a document that matches has the field.
func (e *expr) requires(path string) bool {
	switch e.op {
	case OpAnd:
		return slices.ContainsFunc(e.list, func(part *expr) bool { return part.requires(path) })
	case OpOr:
		return len(e.list) > 0 && !slices.ContainsFunc(e.list, func(part *expr) bool { return !part.requires(path) })
	case OpField:
		cond := e.list[0]
		return e.path.String() == path && (cond.op != OpExists || cond.flag)
	}
	return false
}

func usable(s *Selector, ix statedb.Index, sort []statedb.SortField) bool {
	var columns, order []string
	for _, f := range ix.Fields {
		columns = append(columns, ParsePath(f.Field).String())
	}
	for _, f := range sort {
		order = append(order, ParsePath(f.Field).String())
	}
	for _, column := range columns {
		if !slices.Contains(order, column) && !s.root.requires(column) {
			return false
		}
	}
	if len(order) == 0 {
		return true
	}
	terms := s.root.conjuncts(nil)
	for len(columns) > 0 && columns[0] != order[0] {
		if !slices.ContainsFunc(terms, func(t term) bool { return t.path == columns[0] && t.cond.op == OpEq }) {
			return false
		}
		columns = columns[1:]
	}
	return len(columns) >= len(order) && slices.Equal(columns[:len(order)], order)
}

// servedID marks a scan that reads one id.
const servedID = "_id"

// overIndex makes the bounds: constants for the first fields, then a range.
func overIndex(i int, ix statedb.Index, terms []term) *Plan {
	p := &Plan{Index: i}
	var prefix []byte
	done := map[*expr]bool{}
	for _, f := range ix.Fields {
		path := ParsePath(f.Field).String()
		at := slices.IndexFunc(terms, func(t term) bool { return t.path == path && t.cond.op == OpEq })
		if at < 0 {
			r := rangeOf(path, terms, done)
			if r.served {
				p.Served = append(p.Served, path)
				p.Range = r.bounds
				if r.lower != nil {
					p.Lower = append(slices.Clone(prefix), r.lower...)
				}
				if r.upper != nil {
					p.Upper = append(slices.Clone(prefix), r.upper...)
				}
			}
			break
		}
		prefix = AppendKey(prefix, terms[at].cond.arg)
		p.Constants = append(p.Constants, terms[at].cond.arg)
		done[terms[at].whole] = true
		p.Served = append(p.Served, path)
	}
	if len(prefix) > 0 {
		if p.Lower == nil {
			p.Lower = prefix
		}
		if p.Upper == nil {
			p.Upper = append(slices.Clone(prefix), endOfPrefix)
		}
	}
	// That a field exists goes without saying for what is in the index.
	for _, t := range terms {
		exists := t.cond != nil && t.cond.op == OpExists && t.cond.flag
		if exists && slices.ContainsFunc(ix.Fields, func(f statedb.SortField) bool { return ParsePath(f.Field).String() == t.path }) {
			done[t.whole] = true
		}
	}
	p.Residual = rest(terms, done)
	return p
}

// keyRange is Lower <= key < Upper over one encoded field; nil is open.
type keyRange struct {
	lower, upper []byte
	served       bool
	bounds       []Bound
}

// rangeOf narrows the range of a field by all its conditions that can, and
// marks them done.
func rangeOf(path string, terms []term, done map[*expr]bool) keyRange {
	var r keyRange
	for _, t := range terms {
		if t.path != path {
			continue
		}
		key := AppendKey(nil, t.cond.arg)
		switch t.cond.op {
		case OpGt:
			r.raise(append(key, endOfPrefix))
		case OpGte:
			r.raise(key)
		case OpLt:
			r.cut(key)
		case OpLte:
			r.cut(append(key, endOfPrefix))
		case OpBeginsWith:
			start := key[:len(key)-1] // without the end of the string
			r.raise(start)
			r.cut(append(slices.Clone(start), endOfPrefix))
		default:
			continue
		}
		r.served = true
		r.bounds = appendBounds(r.bounds, t.cond)
		done[t.whole] = true
	}
	return r
}

// appendBounds adds what a condition says of its field, for OpEq and
// OpBeginsWith as a range.
func appendBounds(bounds []Bound, cond *expr) []Bound {
	switch cond.op {
	case OpEq:
		return append(bounds, Bound{OpGte, cond.arg}, Bound{OpLte, cond.arg})
	case OpBeginsWith:
		bounds = append(bounds, Bound{OpGte, cond.arg})
		if end, ok := prefixEnd(cond.arg.Text()); ok {
			return append(bounds, Bound{OpLt, canonical.StringOf(end)})
		}
		return append(bounds, Bound{OpLt, canonical.ArrayOf()}) // what comes after all strings
	}
	return append(bounds, Bound{cond.op, cond.arg})
}

// prefixEnd returns the least string that is greater than all that begin with
// a prefix; false when all greater strings do, or the prefix is empty.
func prefixEnd(prefix string) (string, bool) {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch {
		case last == utf8.MaxRune: // none follows; the one before decides
		case last == surrogates-1:
			return prefix + string(rune(afterSurrogates)), true
		default:
			return prefix + string(last+1), true
		}
	}
	return "", false
}

// No string has characters from surrogates to afterSurrogates.
const (
	surrogates      = 0xD800
	afterSurrogates = 0xE000
)

func (r *keyRange) raise(key []byte) {
	if r.lower == nil || bytes.Compare(key, r.lower) > 0 {
		r.lower = key
	}
}

func (r *keyRange) cut(key []byte) {
	if r.upper == nil || bytes.Compare(key, r.upper) < 0 {
		r.upper = key
	}
}

// rest makes a selector of the terms that are not done.
func rest(terms []term, done map[*expr]bool) *Selector {
	var left []*expr
	for _, t := range terms {
		if !done[t.whole] {
			left = append(left, t.whole)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return &Selector{root: &expr{op: OpAnd, list: left}}
}

// scan reads documents by id, bounded by what the selector says of _id.
func scan(terms []term) *Plan {
	p := &Plan{Index: -1}
	done := map[*expr]bool{}
	for _, t := range terms {
		if t.path != "_id" || t.cond.arg.Kind() != canonical.String {
			continue
		}
		id := []byte(t.cond.arg.Text())
		after := append(slices.Clone(id), 0)
		r := keyRange{lower: p.Lower, upper: p.Upper}
		switch t.cond.op {
		case OpEq:
			r.raise(id)
			r.cut(after)
			p.Served = []string{servedID}
		case OpGt:
			r.raise(after)
		case OpGte:
			r.raise(id)
		case OpLt:
			r.cut(id)
		case OpLte:
			r.cut(after)
		case OpBeginsWith:
			r.raise(id)
			r.cut(append(slices.Clone(id), endOfPrefix))
		default:
			continue
		}
		p.Lower, p.Upper = r.lower, r.upper
		p.Range = appendBounds(p.Range, t.cond)
		done[t.whole] = true
		if len(p.Served) == 0 {
			p.Served = []string{"_id range"}
		}
	}
	p.Residual = rest(terms, done)
	return p
}
