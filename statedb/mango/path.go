package mango

import (
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// Path is a dotted path taken apart: asset.data.name, tags.0, `a\.b` for a key
// that holds a dot itself.
type Path []string

// ParsePath splits a dotted path. A backslash before a dot or another backslash
// makes it a part of the key.
func ParsePath(dotted string) Path {
	if !strings.Contains(dotted, `\`) {
		return strings.Split(dotted, ".")
	}
	var path Path
	var part strings.Builder
	for i := 0; i < len(dotted); i++ {
		c := dotted[i]
		switch {
		case c == '\\' && i+1 < len(dotted) && (dotted[i+1] == '.' || dotted[i+1] == '\\'):
			i++
			part.WriteByte(dotted[i])
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
// digits without sign or leading zero.
func ArrayIndex(part string) (int, bool) {
	if part == "" || len(part) > 9 || len(part) > 1 && part[0] == '0' {
		return 0, false
	}
	for _, c := range []byte(part) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	i, err := strconv.Atoi(part)
	return i, err == nil
}

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
