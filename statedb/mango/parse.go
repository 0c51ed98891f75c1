package mango

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// Parse reads a selector. Errors wrap statedb.ErrBadQuery and name the place,
// such as "asset.data.$in: needs an array".
func Parse(selector canonical.Value) (*Selector, error) {
	if selector.Kind() != canonical.Object {
		return nil, fmt.Errorf("%w: the selector is a %s, not an object", statedb.ErrBadQuery, selector.Kind())
	}
	p := parser{}
	root := &expr{op: OpAnd}
	if selector.Len() > 0 {
		var err error
		if root, err = p.object(selector, place{}); err != nil {
			return nil, fmt.Errorf("%w: %w", statedb.ErrBadQuery, err)
		}
		if root.op == OpAnd && len(root.list) == 0 {
			root = &expr{op: OpOr} // CouchDB: as a part it matches, as the whole it does not
		}
	}
	return &Selector{root: root}, nil
}

type parser struct{ terms int }

// place is where in the selector the parser stands.
type place struct {
	path    Path   // of the field whose condition this is
	trail   string // fields and operators from the root on, for messages
	depth   int
	negated bool // an odd number of negations is to be moved down
	inside  bool // of $elemMatch or its kin: operators need no field
}

func (at place) fault(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if at.trail == "" {
		return errors.New(text)
	}
	return errors.New(at.trail + ": " + text)
}

// step goes one name deeper.
func (at place) step(name string) place {
	const most = 60 // bytes of one name in a message
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	if at.trail != "" {
		name = at.trail + "." + name
	}
	at.trail = name
	at.depth++
	return at
}

// count adds a condition.
func (p *parser) count(at place) error {
	if p.terms++; p.terms > MaxTerms {
		return at.fault("the selector has more than %d conditions", MaxTerms)
	}
	if at.depth > MaxDepth {
		return at.fault("the selector is nested deeper than %d", MaxDepth)
	}
	return nil
}

// condition reads what stands after a field or in a list: an object of fields
// and operators, or a value that is to be equal.
func (p *parser) condition(v canonical.Value, at place) (*expr, error) {
	if v.Kind() == canonical.Object && v.Len() > 0 {
		return p.object(v, at)
	}
	return p.leaf(&expr{op: OpEq, arg: v}, at)
}

// object reads the members of an object, which all have to match.
func (p *parser) object(v canonical.Value, at place) (*expr, error) {
	var parts []*expr
	for i := range v.Len() {
		part, err := p.member(v.Key(i), v.At(i), at)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	return combine(parts, OpAnd, at.negated), nil
}

// combine joins parts that are negated already when the whole is.
func combine(parts []*expr, o Op, negated bool) *expr {
	if negated && o == OpAnd {
		o = OpOr
	} else if negated {
		o = OpAnd
	}
	return &expr{op: o, list: parts}
}

func (p *parser) member(key string, v canonical.Value, at place) (*expr, error) {
	at = at.step(key)
	if err := p.count(at); err != nil {
		return nil, err
	}
	if strings.HasPrefix(key, "$") {
		return p.operator(key, v, at)
	}
	path := ParsePath(key)
	if slices.Contains(path, "") {
		return nil, at.fault("the field name %q has an empty part", key)
	}
	at.path = append(slices.Clip(at.path), path...)
	return p.condition(v, at)
}

func (p *parser) operator(name string, v canonical.Value, at place) (*expr, error) {
	switch name {
	case "$and":
		return p.list(v, OpAnd, at)
	case "$or":
		return p.list(v, OpOr, at)
	case "$nor":
		if at.inside {
			whole, err := p.list(v, OpOr, at)
			if err != nil || v.Len() == 0 {
				return whole, err
			}
			return &expr{op: OpNot, list: []*expr{whole}}, nil
		}
		at.negated = !at.negated
		return p.list(v, OpOr, at)
	case "$not":
		if v.Kind() != canonical.Object {
			return nil, at.fault("needs an object, not a %s", v.Kind())
		}
		if at.inside {
			part, err := p.condition(v, at)
			return &expr{op: OpNot, list: []*expr{part}}, err
		}
		at.negated = !at.negated
		return p.condition(v, at)
	}
	e, err := p.terminal(name, v, at)
	if err != nil {
		return nil, err
	}
	return p.leaf(e, at)
}

func (p *parser) list(v canonical.Value, o Op, at place) (*expr, error) {
	if v.Kind() != canonical.Array {
		return nil, at.fault("needs an array of selectors, not a %s", v.Kind())
	}
	if v.Len() == 0 {
		return &expr{op: OpAnd}, nil // CouchDB: an empty list matches
	}
	var parts []*expr
	for i := range v.Len() {
		inner := at.step(strconv.Itoa(i))
		if err := p.count(inner); err != nil {
			return nil, err
		}
		part, err := p.condition(v.At(i), inner)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return combine(parts, o, at.negated), nil
}

// leaf puts a condition under its field, negated when it has to be.
func (p *parser) leaf(e *expr, at place) (*expr, error) {
	if len(at.path) == 0 && !at.inside {
		return nil, at.fault("a condition needs a field")
	}
	if !at.inside && at.path.isID() && isRange(e.op) && (e.arg.Kind() == canonical.Array || e.arg.Kind() == canonical.Object) {
		e.arg = canonical.Value{} // CouchDB: ids are greater than anything that is no string
	}
	if at.negated {
		if o, ok := opposites[e.op]; ok {
			e.op = o
		} else if e.op == OpExists {
			e.flag = !e.flag
		} else {
			e = &expr{op: OpNot, list: []*expr{e}}
		}
	}
	if len(at.path) == 0 {
		return e, nil
	}
	return &expr{op: OpField, path: at.path, list: []*expr{e}}, nil
}

var comparisons = map[string]Op{
	"$lt": OpLt, "$lte": OpLte, "$eq": OpEq, "$ne": OpNe, "$gte": OpGte, "$gt": OpGt,
}

func isRange(o Op) bool { return o == OpLt || o == OpLte || o == OpGt || o == OpGte }

var lists = map[string]Op{"$in": OpIn, "$nin": OpNin, "$all": OpAll}

var matches = map[string]Op{
	"$elemMatch": OpElemMatch, "$allMatch": OpAllMatch, "$keyMapMatch": OpKeyMapMatch,
}

var typeNames = []string{"null", "boolean", "number", "string", "array", "object"}

// terminal reads an operator below which no field of the document stands.
func (p *parser) terminal(name string, v canonical.Value, at place) (*expr, error) {
	if o, ok := comparisons[name]; ok {
		return &expr{op: o, arg: v}, nil
	}
	if o, ok := lists[name]; ok {
		return p.values(v, o, at)
	}
	if o, ok := matches[name]; ok {
		if v.Kind() != canonical.Object {
			return nil, at.fault("needs an object, not a %s", v.Kind())
		}
		sub, err := p.condition(v, place{trail: at.trail, depth: at.depth, inside: true})
		return &expr{op: o, list: []*expr{sub}}, err
	}
	switch name {
	case "$exists":
		if v.Kind() != canonical.Bool {
			return nil, at.fault("needs true or false, not a %s", v.Kind())
		}
		return &expr{op: OpExists, flag: v.Bool()}, nil
	case "$type":
		if v.Kind() != canonical.String || !slices.Contains(typeNames, v.Text()) {
			return nil, at.fault("needs one of %s", strings.Join(typeNames, ", "))
		}
		return &expr{op: OpType, arg: v}, nil
	case "$size":
		n, ok := v.Int64()
		if !ok || n < 0 {
			return nil, at.fault("needs a non-negative integer")
		}
		return &expr{op: OpSize, size: n}, nil
	case "$mod":
		return modulo(v, at)
	case "$regex":
		return pattern(v, at)
	case "$beginsWith":
		if v.Kind() != canonical.String {
			return nil, at.fault("needs a string, not a %s", v.Kind())
		}
		return &expr{op: OpBeginsWith, arg: v}, nil
	case "$text":
		return nil, at.fault("needs a full-text search index, which this database does not have")
	}
	return nil, at.fault("there is no operator %s", name)
}

func (p *parser) values(v canonical.Value, o Op, at place) (*expr, error) {
	if v.Kind() != canonical.Array {
		return nil, at.fault("needs an array, not a %s", v.Kind())
	}
	if v.Len() > MaxTerms {
		return nil, at.fault("has %d values, at most %d are allowed", v.Len(), MaxTerms)
	}
	e := &expr{op: o}
	for i := range v.Len() {
		e.given = append(e.given, v.At(i))
	}
	e.args = slices.Clone(e.given)
	slices.SortStableFunc(e.args, Compare)
	return e, nil
}

func modulo(v canonical.Value, at place) (*expr, error) {
	e := &expr{op: OpMod}
	var divisor, remainder bool
	if v.Kind() == canonical.Array && v.Len() == 2 {
		e.divisor, divisor = v.At(0).Int64()
		e.remainder, remainder = v.At(1).Int64()
	}
	switch {
	case !divisor || !remainder:
		return nil, at.fault("needs [divisor, remainder], two integers of at most 64 bits")
	case e.divisor == 0:
		return nil, at.fault("the divisor is 0")
	}
	return e, nil
}

func pattern(v canonical.Value, at place) (*expr, error) {
	if v.Kind() != canonical.String {
		return nil, at.fault("needs a string, not a %s", v.Kind())
	}
	if len(v.Text()) > MaxRegexBytes {
		return nil, at.fault("the pattern has %d bytes, at most %d are allowed", len(v.Text()), MaxRegexBytes)
	}
	re, err := regexp.Compile(v.Text())
	if err != nil {
		return nil, at.fault("%v (patterns are RE2)", err)
	}
	return &expr{op: OpRegex, regex: re}, nil
}
