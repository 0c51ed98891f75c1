package couchdb

import (
	"encoding/json"
	"errors"
	"fmt"

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

// eachField calls do with every field of a JSON object, the key without its
// quotes and escapes as they are written. do returns false to stop.
func eachField(data []byte, do func(key, value []byte) bool) error {
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '{' {
		return malformed("an object is missing")
	}
	i = skipSpace(data, i+1)
	for i < len(data) && data[i] != '}' {
		if data[i] != '"' {
			return malformed("a key is missing")
		}
		end := skipString(data, i)
		if end < 0 {
			return malformed("a key does not end")
		}
		key := data[i+1 : end-1]
		i = skipSpace(data, end)
		if i >= len(data) || data[i] != ':' {
			return malformed("a colon is missing")
		}
		i = skipSpace(data, i+1)
		if end = skipValue(data, i); end <= i {
			return malformed("a value is missing")
		}
		if !do(key, data[i:end]) {
			return nil
		}
		if i = skipSpace(data, end); i < len(data) && data[i] == ',' {
			i = skipSpace(data, i+1)
		}
	}
	if i >= len(data) {
		return malformed("an object does not end")
	}
	return nil
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

// readDocument takes _id and _rev, and whatever else CouchDB adds, out of a
// document as CouchDB shows it.
func readDocument(data []byte) (statedb.Document, error) {
	d, _, err := readLeaves(data)
	return d, err
}

// readLeaves is readDocument, and lists the revisions in conflict with the one
// that CouchDB shows, where it was asked for them.
func readLeaves(data []byte) (d statedb.Document, conflicts []string, err error) {
	tree, err := canonical.Parse(data)
	if err != nil || tree.Kind() != canonical.Object {
		return d, nil, malformed("a document is no object")
	}
	id, _ := tree.Get("_id")
	rev, _ := tree.Get("_rev")
	if id.Kind() != canonical.String || rev.Kind() != canonical.String {
		return d, nil, malformed("a document has no _id or _rev")
	}
	var reserved []string
	for i := range tree.Len() {
		key := tree.Key(i)
		if key != "" && key[0] == '_' {
			reserved = append(reserved, key)
		}
		if key == "_conflicts" {
			for _, other := range elements(tree.At(i)) {
				conflicts = append(conflicts, other.Text())
			}
		}
	}
	return statedb.Document{ID: id.Text(), Rev: rev.Text(), Body: tree.Without(reserved...).Bytes()}, conflicts, nil
}
