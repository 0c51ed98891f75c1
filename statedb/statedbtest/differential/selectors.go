package differential

import (
	"slices"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// generator draws selectors about documents: most of what it asks for is in
// one of them.
type generator struct {
	source
	documents []canonical.Value
}

// target is what a condition is about: a path, or the elements of an array.
type target struct {
	path string // "" for the elements
	kind kind
	// samples are values that are there in some documents.
	samples []canonical.Value
	inside  bool // of $elemMatch or its kin
}

func (g *generator) target() target {
	if g.chance(5) {
		return target{path: "_id", samples: []canonical.Value{canonical.StringOf(id(g.IntN(len(g.documents))))},
			kind: kind{strings: valuesOf(`"a"`, `"b0"`, `"c00"`, `"e"`, `"z"`), keys: plainKeys}}
	}
	t := target{}
	if g.chance(60) {
		f := pick(g.source, fields)
		t.path, t.kind = f.path, f.kind
	} else {
		b := pick(g.source, below)
		t.path, t.kind = b.path, b.kind
	}
	for range 20 {
		if v, ok := lookup(pick(g.source, g.documents), t.path); ok {
			t.samples = append(t.samples, v)
			if len(t.samples) == 4 {
				break
			}
		}
	}
	return t
}

// lookup follows a path whose parts are as written, but for a dot in a key.
func lookup(v canonical.Value, path string) (canonical.Value, bool) {
	const dot = "\x00"
	for _, part := range strings.Split(strings.ReplaceAll(path, `\.`, dot), ".") {
		part = strings.NewReplacer(dot, ".", `\`, "").Replace(part)
		switch i, err := strconv.Atoi(part); {
		case v.Kind() == canonical.Object:
			next, ok := v.Get(part)
			if !ok {
				return v, false
			}
			v = next
		case v.Kind() == canonical.Array && err == nil && i >= 0 && i < v.Len():
			v = v.At(i)
		default:
			return v, false
		}
	}
	return v, true
}

// sample draws an argument: mostly a value that is there, or one like it.
func (g *generator) sample(t target) canonical.Value {
	if len(t.samples) > 0 && g.chance(75) {
		return pick(g.source, t.samples)
	}
	return t.kind.any(g.source, 1)
}

// element draws an argument for an element of an array, or for what is none.
func (g *generator) element(t target) canonical.Value {
	v := g.sample(t)
	if v.Kind() == canonical.Array && v.Len() > 0 && g.chance(85) {
		return v.At(g.IntN(v.Len()))
	}
	return v
}

// bound draws an argument of a range; where orders of strings differ, one that
// no string stands behind.
func (g *generator) bound(t target) canonical.Value {
	if t.path == "_id" { // CouchDB is of two minds about arrays and objects here
		return pick(g.source, append(t.samples, append(singles, t.kind.strings...)...))
	}
	if !t.kind.wild {
		return g.sample(t)
	}
	if g.chance(60) {
		return pick(g.source, numbers)
	}
	return pick(g.source, valuesOf(`null`, `true`, `[]`, `{}`, `""`))
}

// text draws a string that is there.
func (g *generator) text(t target) string {
	for range 4 {
		if v := g.element(t); v.Kind() == canonical.String {
			return v.Text()
		}
	}
	return pick(g.source, t.kind.strings).Text()
}

// Selector draws a selector, whose parts lie at most depth deep.
func (g *generator) selector(depth int) canonical.Value {
	n := g.IntN(100)
	if depth == 0 {
		n = 0
	}
	switch {
	case n < 58:
		s := canonical.ObjectOf()
		for range 1 + g.IntN(2)*g.IntN(2) {
			t := g.target()
			s = s.With(t.path, g.condition(t, 2))
		}
		return s
	case n < 66:
		return object("$and", g.selectors(depth, 2))
	case n < 80:
		return object("$or", g.selectors(depth, 3))
	case n < 86:
		return object("$nor", g.selectors(depth, 2))
	case n < 94:
		return object("$not", g.selector(depth-1))
	case n < 97:
		return g.selector(depth-1).With("$or", g.selectors(depth, 3))
	default:
		return object(pick(g.source, []string{"$and", "$or", "$nor"}), canonical.ArrayOf())
	}
}

func (g *generator) selectors(depth, most int) canonical.Value {
	var list []canonical.Value
	for range 1 + g.IntN(most) {
		list = append(list, g.selector(depth-1))
	}
	return canonical.ArrayOf(list...)
}

// condition draws what stands after a field.
func (g *generator) condition(t target, depth int) canonical.Value {
	n := g.IntN(100)
	if depth == 0 {
		n %= 75
	}
	switch {
	case n < 20:
		// An object that is not empty would be conditions on its members.
		if v := g.sample(t); v.Kind() != canonical.Object || !t.kind.wild {
			return v
		}
		return g.condition(t, depth)
	case n < 62:
		return g.operators(t, 1)
	case n < 75:
		return g.operators(t, 2)
	case n < 84:
		return object("$not", g.operators(t, 1))
	case n < 88:
		return object("$and", canonical.ArrayOf(g.condition(t, depth-1), g.condition(t, depth-1)))
	case n < 92:
		return object("$or", canonical.ArrayOf(g.condition(t, depth-1), g.condition(t, depth-1)))
	case n < 94 && !t.inside: // which CouchDB never matches in there
		return object("$nor", canonical.ArrayOf(g.condition(t, depth-1), g.condition(t, depth-1)))
	case n < 96:
		return canonical.ObjectOf()
	default:
		return g.member(t, depth)
	}
}

// member draws a condition on a field inside the target.
func (g *generator) member(t target, depth int) canonical.Value {
	key := pick(g.source, []string{"a", "b", "level", "amount", "public_keys", "id", "0", "1", "a.b", "public_keys.0"})
	inner := target{path: key, kind: t.kind, inside: t.inside}
	for _, v := range t.samples {
		if found, ok := lookup(v, key); ok {
			inner.samples = append(inner.samples, found)
		}
	}
	return object(key, g.condition(inner, depth-1))
}

func (g *generator) operators(t target, n int) canonical.Value {
	condition := canonical.ObjectOf()
	for condition.Len() < n {
		if name := pick(g.source, operators); g.chance(15) || t.suits(name) {
			condition = condition.With(name, g.argument(name, t))
		}
	}
	return condition
}

// suits reports whether the operator can find one of the samples. What cannot
// is drawn more seldom, since it finds nothing.
func (t target) suits(operator string) bool {
	var needs []canonical.Kind
	switch operator {
	case "$size", "$all", "$elemMatch", "$allMatch":
		needs = []canonical.Kind{canonical.Array}
	case "$keyMapMatch":
		needs = []canonical.Kind{canonical.Object}
	case "$mod":
		needs = []canonical.Kind{canonical.Int, canonical.Float}
	case "$regex", "$beginsWith":
		needs = []canonical.Kind{canonical.String}
	default:
		return true
	}
	return slices.ContainsFunc(t.samples, func(v canonical.Value) bool { return slices.Contains(needs, v.Kind()) })
}

// operators are weighted by how often they stand here.
var operators = strings.Fields(`$eq $eq $ne $ne $lt $lt $lte $lte $gt $gt $gte $gte $exists $exists $type $type $in $in $in $nin $nin
	$all $all $all $size $size $mod $mod $regex $regex $beginsWith $beginsWith $elemMatch $elemMatch $elemMatch $elemMatch
	$allMatch $allMatch $allMatch $keyMapMatch $keyMapMatch`)

func (g *generator) argument(operator string, t target) canonical.Value {
	switch operator {
	case "$lt", "$lte", "$gt", "$gte":
		return g.bound(t)
	case "$exists":
		return canonical.BoolOf(g.chance(60))
	case "$type":
		return pick(g.source, valuesOf(`"null"`, `"boolean"`, `"number"`, `"string"`, `"array"`, `"object"`))
	case "$in", "$nin", "$all":
		return g.list(operator, t)
	case "$size":
		return canonical.IntOf(int64(g.IntN(4)))
	case "$mod":
		return pick(g.source, valuesOf(`[2,0]`, `[2,1]`, `[-2,1]`, `[2,-1]`, `[3,1]`, `[5,0]`, `[1,0]`, `[1099511627776,1]`, `[-7,0]`, `[2,5]`))
	case "$regex":
		return pick(g.source, valuesOf(`"^a"`, `"b$"`, `"^[a-c]+$"`, `"1"`, `"x[0-9]"`, `"(?i)alpha"`, `"a|z"`, `"^$"`, `"^[^a]"`, `"E$"`, `"ber"`, `""`))
	case "$beginsWith":
		runes := []rune(g.text(t))
		return canonical.StringOf(string(runes[:min(len(runes), g.IntN(3))]))
	case "$elemMatch", "$allMatch":
		return g.elements(t)
	case "$keyMapMatch":
		return g.keys(t)
	default: // $eq, $ne
		return g.sample(t)
	}
}

func (g *generator) list(operator string, t target) canonical.Value {
	if operator == "$all" && g.chance(25) {
		return canonical.ArrayOf(g.sample(t)) // of one array, which may be the whole value
	}
	var list []canonical.Value
	most := 5
	if operator == "$all" {
		most = 3
	}
	for range g.IntN(most) {
		list = append(list, g.element(t))
	}
	return canonical.ArrayOf(list...)
}

// elements draws the selector of $elemMatch and $allMatch.
func (g *generator) elements(t target) canonical.Value {
	inner := target{kind: t.kind, inside: true}
	for _, v := range t.samples {
		for i := 0; v.Kind() == canonical.Array && i < v.Len(); i++ {
			inner.samples = append(inner.samples, v.At(i))
		}
	}
	switch n := g.IntN(100); {
	case n < 60:
		return g.operators(inner, 1+g.IntN(2))
	case n < 85:
		return g.member(inner, 1)
	case n < 92:
		return object("$not", g.operators(inner, 1))
	case n < 97:
		return object("$or", canonical.ArrayOf(g.operators(inner, 1), object("$eq", g.sample(inner))))
	default:
		return canonical.ObjectOf()
	}
}

// keys draws the selector of $keyMapMatch.
func (g *generator) keys(t target) canonical.Value {
	inner := target{kind: t.kind, inside: true}
	for _, v := range t.samples {
		for i := 0; v.Kind() == canonical.Object && i < v.Len(); i++ {
			inner.samples = append(inner.samples, canonical.StringOf(v.Key(i)))
		}
	}
	inner.samples = append(inner.samples, canonical.StringOf(pick(g.source, t.kind.keys)))
	name := pick(g.source, []string{"$eq", "$eq", "$ne", "$in", "$nin", "$beginsWith", "$regex", "$gt", "$lte", "$type"})
	return object(name, g.argument(name, inner))
}
