package differential

import (
	"fmt"
	"math/rand/v2"

	"github.com/couchledger/couchledger/canonical"
)

// source draws everything from one seed, so that a run can be repeated.
type source struct{ *rand.Rand }

func newSource(seed uint64, stream uint64) source {
	return source{rand.New(rand.NewPCG(seed, stream))}
}

// chance is true in percent of a hundred cases.
func (r source) chance(percent int) bool { return r.IntN(100) < percent }

func pick[T any](r source, from []T) T { return from[r.IntN(len(from))] }

// value is a canonical.Value written as JSON; the texts are this package's own.
func value(text string) canonical.Value {
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		panic(fmt.Sprintf("differential: %s: %v", text, err))
	}
	return v
}

func valuesOf(texts ...string) []canonical.Value {
	var values []canonical.Value
	for _, text := range texts {
		values = append(values, value(text))
	}
	return values
}

func object(key string, v canonical.Value) canonical.Value {
	return canonical.ObjectOf(canonical.Member{Key: key, Value: v})
}

// The pools are small, so that what a selector asks for is often there.
var (
	// plainStrings are in the same order by bytes and by ICU.
	plainStrings = valuesOf(`""`, `"0"`, `"10"`, `"9"`, `"a"`, `"ab"`, `"abc"`, `"abd"`, `"b"`, `"ba"`, `"x1"`, `"x2"`, `"z"`)
	// wildStrings are not, but no two of them are equal to ICU.
	wildStrings = valuesOf(`""`, `"7"`, `"Alpha"`, `"alpha"`, `"ALPHA"`, `"Zebra"`, `"zebra"`, `"über"`, `"Über"`, `"ubER"`, `"naïve"`,
		`"日本"`, `"😀"`, `"a😀"`, `"ß"`, `"ss"`, `"a b"`, `"a-b"`, `"ab"`, `"null"`, `"$ne"`, `"a.b"`)
	numbers = valuesOf(`-7`, `-1.5`, `-1`, `0`, `0.5`, `1`, `1.0`, `2`, `2.0`, `2.5`, `3`, `10`, `100`, `1e2`, `7.0`,
		`1e-7`, `0.1`, `-9007199254740993`, `9007199254740991`, `9007199254740992`, `9007199254740993`, `9007199254740992.0`,
		`9223372036854775807`, `9223372036854775808`, `18446744073709551615`, `18446744073709551616`, `18446744073709551617`,
		`-18446744073709551617`, `123456789012345678901234567890`, `1e30`, `1e23`, `99999999999999991611392`)
	fewNumbers = numbers[:12]
	singles    = valuesOf(`null`, `false`, `true`)

	plainKeys = []string{"a", "b", "c", "id", "name", "level"}
	wildKeys  = []string{"a", "b", "A", "a.b", "", "0", "über", "$ne", "a b"}
)

// kind is what the values under a path are like.
type kind struct {
	strings []canonical.Value
	keys    []string
	wild    bool // byte order and ICU's differ on them
}

var (
	plain = kind{strings: plainStrings, keys: plainKeys}
	wild  = kind{strings: wildStrings, keys: wildKeys, wild: true}
)

// any draws a value of a few levels.
func (k kind) any(r source, depth int) canonical.Value {
	n := r.IntN(100)
	switch {
	case n < 10:
		return pick(r, singles)
	case n < 40:
		return pick(r, numbers)
	case n < 65 || depth == 0:
		return pick(r, k.strings)
	case n < 85:
		return k.array(r, depth)
	default:
		return k.object(r, depth)
	}
}

func (k kind) array(r source, depth int) canonical.Value {
	var items []canonical.Value
	few := r.chance(60) // of one kind, as data mostly are
	for range r.IntN(4) {
		switch {
		case few:
			items = append(items, pick(r, fewNumbers))
		case r.chance(40):
			items = append(items, pick(r, k.strings))
		default:
			items = append(items, k.any(r, depth-1))
		}
	}
	return canonical.ArrayOf(items...)
}

func (k kind) object(r source, depth int) canonical.Value {
	v := canonical.ObjectOf()
	for range r.IntN(4) {
		v = v.With(pick(r, k.keys), k.any(r, depth-1))
	}
	return v
}
