package mango

import (
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// Path is a dotted path taken apart: asset.data.name, tags.0, `a\.b` for a key
// that holds a dot itself, `\$a` for one that is no operator.
type Path []string

// ParsePath splits a dotted path. What follows a backslash is a part of the
// key, be it a dot or another backslash; the backslash itself is not.
func ParsePath(dotted string) Path {
	if !strings.Contains(dotted, `\`) {
		return strings.Split(dotted, ".")
	}
	var path Path
	var part strings.Builder
	for i := 0; i < len(dotted); i++ {
		c := dotted[i]
		switch {
		case c == '\\':
			if i++; i < len(dotted) {
				part.WriteByte(dotted[i])
			}
		case c == '.':
			path = append(path, part.String())
			part.Reset()
		default:
			part.WriteByte(c)
		}
	}
	return append(path, part.String())
}

var pathEscaper = strings.NewReplacer(`\`, `\\`, `.`, `\.`)

// String gives the dotted path; ParsePath reads it back.
func (p Path) String() string {
	parts := make([]string, len(p))
	for i, part := range p {
		parts[i] = pathEscaper.Replace(part)
	}
	return strings.Join(parts, ".")
}

// ArrayIndex reads one element of a path as a position in an array: decimal
// digits, as CouchDB reads them with leading zeros and a sign too.
func ArrayIndex(part string) (int, bool) {
	i, err := strconv.Atoi(part)
	return i, err == nil && i >= 0
}

func (p Path) isID() bool { return len(p) == 1 && p[0] == "_id" }

// Lookup follows the path into v, through objects by key and through arrays by
// position.
func (p Path) Lookup(v canonical.Value) (canonical.Value, bool) {
	for _, part := range p {
		switch v.Kind() {
		case canonical.Object:
			next, ok := v.Get(part)
			if !ok {
				return canonical.Value{}, false
			}
			v = next
		case canonical.Array:
			i, ok := ArrayIndex(part)
			if !ok || i >= v.Len() {
				return canonical.Value{}, false
			}
			v = v.At(i)
		default:
			return canonical.Value{}, false
		}
	}
	return v, true
}
