package rethinkdb

import (
	"math"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb/mango"
)

// A selector is translated into a filter that lets through every document that
// matches, and perhaps others. It must fail on no document, or the query fails:
// so types are looked at before values, and what is strange is let through.

const (
	// translatedDepth bounds how deep terms stand inside each other.
	translatedDepth = 12
	// translatedTerms bounds the length of a filter. The rest is matched here.
	translatedTerms = 500
)

// verdict is a translated condition.
type verdict struct {
	term r.Term
	// known says that the verdict is the same for every value: is.
	known, is bool
	// exact says that the term is true for no other values than the condition
	// is: only then may it be negated.
	exact bool
}

var (
	perhaps = verdict{known: true, is: true} // no translation
	never   = verdict{known: true, exact: true}
)

func exactly(term r.Term) verdict { return verdict{term: term, exact: true} }
func loosely(term r.Term) verdict { return verdict{term: term} }

// asTerm is what stands in a query.
func (v verdict) asTerm() r.Term {
	if v.known {
		return r.Expr(v.is)
	}
	return v.term
}

func not(v verdict) verdict {
	switch {
	case !v.exact:
		return perhaps
	case v.known:
		return verdict{known: true, is: !v.is, exact: true}
	}
	return exactly(v.term.Not())
}

// all is a conjunction: what cannot be translated is left out.
func all(parts ...verdict) verdict {
	exact := true
	var terms []any
	for _, part := range parts {
		if part.known && !part.is {
			return never
		}
		exact = exact && part.exact
		if !part.known {
			terms = append(terms, part.term)
		}
	}
	if len(terms) == 0 {
		return verdict{known: true, is: true, exact: exact}
	}
	return verdict{term: r.And(terms...), exact: exact}
}

// some is a disjunction: one part that cannot be translated spoils it.
func some(parts ...verdict) verdict {
	exact := true
	var terms []any
	for _, part := range parts {
		if part.known && part.is {
			return part
		}
		exact = exact && part.exact
		if !part.known {
			terms = append(terms, part.term)
		}
	}
	if len(terms) == 0 {
		return verdict{known: true, exact: exact}
	}
	return verdict{term: r.Or(terms...), exact: exact}
}

// translator counts what it translates.
type translator struct{ terms int }

// superset is the filter for a row.
func superset(row r.Term, selector mango.Node) r.Term {
	t := &translator{}
	return t.node(row, selector, 0).asTerm()
}

// node translates a part of a selector that looks at v. Depth 0 is the
// document itself.
func (t *translator) node(v r.Term, n mango.Node, depth int) verdict {
	if t.terms++; t.terms > translatedTerms || depth > translatedDepth {
		return perhaps
	}
	switch n.Op {
	case mango.OpAnd, mango.OpOr:
		var parts []verdict
		for _, part := range n.List {
			parts = append(parts, t.node(v, part, depth+1))
		}
		if n.Op == mango.OpOr {
			return some(parts...)
		}
		return all(parts...)
	case mango.OpNot:
		return not(t.node(v, n.List[0], depth+1))
	case mango.OpField:
		return t.field(v, n, depth)
	}
	return t.condition(v, n, depth)
}

// field follows a path. The document's own fields that begin with an
// underscore are not part of what matches, but for its id.
func (t *translator) field(v r.Term, n mango.Node, depth int) verdict {
	if isReserved(n.Path[0]) && (n.Path[0] != fieldID || len(n.Path) > 1) || len(n.Path) > translatedDepth {
		return perhaps
	}
	condition := n.List[0]
	if condition.Op == mango.OpExists {
		return loosely(lookUp(v, n.Path, outcomes{
			found:   func(r.Term) r.Term { return r.Expr(condition.Flag) },
			missing: r.Expr(!condition.Flag), astray: r.Expr(false), strange: r.Expr(true),
		}))
	}
	// Whether there is a translation at all is known without a value.
	if known := t.node(v, condition, depth+1); known.known && known.is && !known.exact {
		return perhaps
	}
	return loosely(lookUp(v, n.Path, outcomes{
		found: func(v r.Term) r.Term {
			return r.Or(isStrange(v), t.node(v, condition, depth+1).asTerm())
		},
		missing: r.Expr(false), astray: r.Expr(false), strange: r.Expr(true),
	}))
}

// condition translates a condition on a value that is not strange.
func (t *translator) condition(v r.Term, n mango.Node, depth int) verdict {
	switch n.Op {
	case mango.OpEq:
		return equal(v, n.Arg)
	case mango.OpNe:
		return not(equal(v, n.Arg))
	case mango.OpLt:
		return ordered(v, n.Arg, true, false)
	case mango.OpLte:
		return ordered(v, n.Arg, true, true)
	case mango.OpGt:
		return ordered(v, n.Arg, false, false)
	case mango.OpGte:
		return ordered(v, n.Arg, false, true)
	case mango.OpIn:
		return in(v, n.Args)
	case mango.OpNin:
		return not(in(v, n.Args))
	case mango.OpType:
		return exactly(isType(v, typeNames[n.Arg.Text()]))
	case mango.OpSize:
		return all(exactly(isType(v, "ARRAY")), exactly(v.Count().Eq(n.Size)))
	case mango.OpMod:
		return modulo(v, n)
	case mango.OpRegex:
		return matches(v, n.Pattern)
	case mango.OpBeginsWith:
		return beginsWith(v, n.Arg.Text())
	case mango.OpAll:
		return containsAll(v, n.Args)
	case mango.OpElemMatch, mango.OpAllMatch, mango.OpKeyMapMatch:
		return t.elements(v, n, depth)
	}
	return perhaps
}

// elements translates conditions on the elements of an array, or the keys of
// an object.
func (t *translator) elements(v r.Term, n mango.Node, depth int) verdict {
	kind, list := "ARRAY", v
	if n.Op == mango.OpKeyMapMatch {
		kind, list = "OBJECT", v.Keys()
	}
	of := loosely(isType(v, kind))
	if known := t.node(v, n.List[0], depth+1); known.known && known.is && !known.exact {
		return of
	}
	matching := func(e r.Term) r.Term {
		return r.Or(isStrange(e), t.node(e, n.List[0], depth+1).asTerm())
	}
	if n.Op == mango.OpAllMatch {
		others := v.Contains(func(e r.Term) r.Term { return matching(e).Not() })
		return all(of, loosely(v.IsEmpty().Not()), loosely(others.Not()))
	}
	return all(of, loosely(list.Contains(matching)))
}

// typeNames are RethinkDB's names of JSON's types.
var typeNames = map[string]string{
	"null": "NULL", "boolean": "BOOL", "number": "NUMBER", "string": "STRING", "array": "ARRAY", "object": "OBJECT",
}

// equal compares exactly: RethinkDB tells types apart, and doubles are all the
// numbers that it has.
func equal(v r.Term, arg canonical.Value) verdict {
	switch {
	case isDouble(arg):
		return exactly(v.Eq(literal(arg)))
	case rankOf(arg) == rankNumber:
		return never
	}
	return perhaps // a number inside that is none, or $reql_type$
}

// ordered compares in Mango's order, which goes by types first: less or
// greater, or equal too.
func ordered(v r.Term, arg canonical.Value, less, orEqual bool) verdict {
	// The types before that of the argument, in order, and those behind it.
	order := []string{"NULL", "BOOL", "NUMBER", "STRING", "ARRAY", "OBJECT"}
	at := map[canonical.Kind]int{canonical.Bool: 1, canonical.Int: 2, canonical.Float: 2, canonical.String: 3, canonical.Array: 4, canonical.Object: 5}[arg.Kind()]
	types := order[at+1:]
	if less {
		types = order[:at]
	}
	parts := []verdict{never}
	for _, name := range types {
		parts = append(parts, exactly(isType(v, name)))
	}
	same := exactly(isType(v, order[at]))
	switch arg.Kind() {
	case canonical.Null:
		if orEqual {
			parts = append(parts, same)
		}
	case canonical.Array, canonical.Object:
		same.exact = false
		parts = append(parts, same)
	case canonical.Int, canonical.Float:
		parts = append(parts, all(same, orderedNumber(v, arg, less, orEqual)))
	default:
		parts = append(parts, all(same, exactly(compared(v, literal(arg), less, orEqual))))
	}
	return some(parts...)
}

func compared(v, arg r.Term, less, orEqual bool) r.Term {
	switch {
	case less && orEqual:
		return v.Le(arg)
	case less:
		return v.Lt(arg)
	case orEqual:
		return v.Ge(arg)
	}
	return v.Gt(arg)
}

// orderedNumber puts a neighbour in the place of a number that is no double.
func orderedNumber(v r.Term, arg canonical.Value, less, orEqual bool) verdict {
	below, above := doublesAround(arg)
	bound := above // what is greater than arg is this or more
	if less {
		bound = below
	}
	if math.IsInf(bound, 0) {
		return never // beyond all doubles
	}
	return exactly(compared(v, double(bound), less, orEqual || below != above))
}

// in looks for the value, or for an element of an array, among the arguments.
func in(v r.Term, args []canonical.Value) verdict {
	var list []canonical.Value
	for _, arg := range args {
		switch {
		case isDouble(arg):
			list = append(list, arg)
		case rankOf(arg) != rankNumber:
			return perhaps
		}
	}
	among := literal(canonical.ArrayOf(list...))
	return exactly(r.Branch(isType(v, "ARRAY"),
		v.Contains(func(e r.Term) r.Term { return among.Contains(equals(e)) }),
		among.Contains(equals(v))))
}

// equals is a predicate: Contains takes a function for one, and so it would a
// value that is a function of the server's.
func equals(v r.Term) func(r.Term) r.Term {
	return func(other r.Term) r.Term { return other.Eq(v) }
}

// modulo has whole numbers up to 2^53 only, which all that RethinkDB shows as
// integers are.
func modulo(v r.Term, n mango.Node) verdict {
	number := isType(v, "NUMBER")
	if n.Divisor > maxWhole || n.Divisor < -maxWhole {
		return loosely(number)
	}
	return loosely(r.And(number, v.Ge(-maxWhole), v.Le(maxWhole), v.Floor().Eq(v), v.Mod(n.Divisor).Eq(n.Remainder)))
}

// containsAll demands the scalars among the arguments; the rest, and that 1 is
// not 1.0 here, is left to the match.
func containsAll(v r.Term, args []canonical.Value) verdict {
	if len(args) == 0 {
		return never
	}
	parts := []verdict{loosely(isType(v, "ARRAY"))}
	for _, arg := range args {
		if rankOf(arg) != "" && isDouble(arg) {
			parts = append(parts, loosely(v.Contains(equals(literal(arg)))))
		}
	}
	return all(parts...)
}
