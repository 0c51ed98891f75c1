package couchdb

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// errMalformed is an answer that is not the JSON it should be.
var errMalformed = errors.New("couchdb: malformed answer")

func malformed(what string) error {
	return fmt.Errorf("%w: %w: %s", statedb.ErrUnavailable, errMalformed, what)
}

// skipSpace returns the offset of the first byte that is not white space.
func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\r' || data[i] == '\t') {
		i++
	}
	return i
}

// skipString returns the offset behind the string that begins at i, or -1.
func skipString(data []byte, i int) int {
	for i++; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// skipValue returns the offset behind the value that begins at i, or -1. It
// looks at brackets and strings only; whoever reads the value checks it.
func skipValue(data []byte, i int) int {
	depth := 0
	for i < len(data) {
		switch data[i] {
		case '"':
			if i = skipString(data, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return i
			}
			if depth == 0 {
				return i + 1
			}
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	if depth == 0 {
		return i
	}
	return -1
}

// firstField returns the offset of the first field of a JSON object, or of its end.
func firstField(data []byte) (int, error) {
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '{' {
		return 0, malformed("an object is missing")
	}
	return skipSpace(data, i+1), nil
}

// readKey reads the key of the field at i, without its quotes and escapes as they are
// written, and returns the offset of its value. The key is nil at the object's end.
func readKey(data []byte, i int) (key []byte, value int, err error) {
	switch {
	case i >= len(data):
		return nil, 0, malformed("an object does not end")
	case data[i] == '}':
		return nil, 0, nil
	case data[i] != '"':
		return nil, 0, malformed("a key is missing")
	}
	end := skipString(data, i)
	if end < 0 || end > len(data) {
		return nil, 0, malformed("a key does not end")
	}
	key = data[i+1 : end-1]
	i = skipSpace(data, end)
	if i >= len(data) || data[i] != ':' {
		return nil, 0, malformed("a colon is missing")
	}
	return key, skipSpace(data, i+1), nil
}

// nextField returns the offset of the field, or the end, behind a value.
func nextField(data []byte, end int) int {
	i := skipSpace(data, end)
	if i < len(data) && data[i] == ',' {
		i = skipSpace(data, i+1)
	}
	return i
}

// eachField calls do with every field of a JSON object, the key without its
// quotes and escapes as they are written. do returns false to stop.
func eachField(data []byte, do func(key, value []byte) bool) error {
	i, err := firstField(data)
	for err == nil {
		key, value, fault := readKey(data, i)
		if fault != nil || key == nil {
			return fault
		}
		end := skipValue(data, value)
		if end <= value {
			return malformed("a value is missing")
		}
		if !do(key, data[value:end]) {
			return nil
		}
		i = nextField(data, end)
	}
	return err
}

// findField returns the offset of a field's value in a JSON object, which may be cut
// off behind it.
func findField(data []byte, name string) (int, error) {
	i, err := firstField(data)
	for err == nil {
		key, value, fault := readKey(data, i)
		switch {
		case fault != nil:
			return 0, fault
		case key == nil:
			return 0, malformed(name + " are missing")
		case string(key) == name:
			return value, nil
		}
		end := skipValue(data, value)
		if end <= value {
			return 0, malformed("a value is missing")
		}
		i = nextField(data, end)
	}
	return 0, err
}

// eachElementOf calls do with every element of the array that a field of a JSON object
// holds, also when the object is cut off further on; the error comes after them.
func eachElementOf(data []byte, field string, do func(element []byte) error) error {
	at, err := findField(data, field)
	if err != nil {
		return err
	}
	return eachElement(data[at:], do)
}

// eachElement calls do with every element of a JSON array.
func eachElement(data []byte, do func(value []byte) error) error {
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '[' {
		return malformed("an array is missing")
	}
	i = skipSpace(data, i+1)
	for i < len(data) && data[i] != ']' {
		end := skipValue(data, i)
		if end <= i {
			return malformed("an element is missing")
		}
		if err := do(data[i:end]); err != nil {
			return err
		}
		if i = skipSpace(data, end); i < len(data) && data[i] == ',' {
			i = skipSpace(data, i+1)
		}
	}
	if i >= len(data) {
		return malformed("an array does not end")
	}
	return nil
}

// textOf reads a JSON string; "" for anything else.
func textOf(value []byte) string {
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

// mostValues is how many values a document may have to be parsed: what takes 30 bytes
// of memory here may take two there.
const mostValues = 2_000_000

// readDocument takes _id and _rev, and whatever else CouchDB adds, out of a
// document as CouchDB shows it.
func readDocument(data []byte) (statedb.Document, error) {
	d, _, err := readLeaves(data)
	return d, err
}

// readLeaves is readDocument, and lists the revisions in conflict with the one
// that CouchDB shows, where it was asked for them. What others wrote may be too deep or
// too much to be parsed: that it takes as it is, and whoever uses it judges it.
func readLeaves(data []byte) (d statedb.Document, conflicts []string, err error) {
	d.Body = append(make([]byte, 0, len(data)), '{')
	var fault error
	err = eachField(data, func(key, value []byte) bool {
		switch string(key) {
		case "_id":
			d.ID = textOf(value)
		case "_rev":
			d.Rev = textOf(value)
		case "_conflicts":
			fault = eachElement(value, func(rev []byte) error {
				conflicts = append(conflicts, textOf(rev))
				return nil
			})
		}
		if isReserved(string(key)) {
			return fault == nil
		}
		if len(d.Body) > 1 {
			d.Body = append(d.Body, ',')
		}
		d.Body = append(append(append(d.Body, '"'), key...), `":`...)
		d.Body = append(d.Body, value...)
		return true
	})
	switch {
	case cmp.Or(err, fault) != nil:
		return d, nil, malformed("a document is no object")
	case d.ID == "" || d.Rev == "":
		return d, nil, malformed("a document has no _id or _rev")
	}
	d.Body = append(d.Body, '}')
	if tree, err := canonical.ParseWithin(d.Body, canonical.Limits{Depth: canonical.MaxDepth, Values: mostValues}); err == nil {
		d.Body = tree.Bytes() // CouchDB writes numbers in a way of its own
	}
	return d, conflicts, nil
}

// parseBody gives a document as queries see it, with its _id and _rev, and without what
// cannot be parsed.
func parseBody(d statedb.Document) canonical.Value {
	tree, ok := parseSome(d.Body, 0)
	if !ok {
		tree = canonical.ObjectOf()
	}
	return tree.With("_id", canonical.StringOf(d.ID)).With("_rev", canonical.StringOf(d.Rev))
}

// mostLevels is how deep fields are looked for in what cannot be parsed as a whole.
const mostLevels = 10

// parseSome parses a value, an object without those of its fields that cannot be; false
// when nothing is left.
func parseSome(data []byte, level int) (canonical.Value, bool) {
	tree, err := canonical.Parse(data)
	if err == nil {
		return tree, true
	}
	if level == mostLevels {
		return tree, false
	}
	var members []canonical.Member
	err = eachField(data, func(key, value []byte) bool {
		name := textOf(slices.Concat([]byte{'"'}, key, []byte{'"'}))
		if v, ok := parseSome(value, level+1); ok {
			members = append(members, canonical.Member{Key: name, Value: v})
		}
		return true
	})
	return canonical.ObjectOf(members...), err == nil
}
