package rethinkdb

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

// Fields of the adapter's own in a stored document.
const (
	fieldID      = "_id" // the primary key
	fieldRev     = "_rev"
	fieldDeleted = "_deleted" // true: what is left of a deleted document
)

const (
	// strangeRev is the revision of a document without one: another program
	// wrote it. An update may name it as any other.
	strangeRev = "0"
	// rowDepth lets a document nest as deep as canonical lets it, in a row.
	rowDepth = canonical.MaxDepth + 10
	// maxIDBytes is the longest primary key.
	maxIDBytes = 127
)

// checkID refuses ids that no row can have.
func checkID(id string) error {
	if err := statedb.CheckID(id); err != nil {
		return err
	}
	if len(id) > maxIDBytes {
		return fmt.Errorf("%w: the id %q has %d bytes, RethinkDB takes %d", statedb.ErrBadDocument, id, len(id), maxIDBytes)
	}
	return nil
}

// newRev makes a revision: one more than the generation before, and what never
// comes again.
func newRev(old string) string {
	generation, _, _ := strings.Cut(old, "-")
	n, err := strconv.ParseUint(generation, 10, 62)
	if err != nil {
		n = 0 // another program's
	}
	random := make([]byte, 16)
	rand.Read(random)
	return strconv.FormatUint(n+1, 10) + "-" + hex.EncodeToString(random)
}

// revOf is the revision of a row in the language of RethinkDB.
func revOf(row r.Term) r.Term {
	rev := row.Field(fieldRev).Default(nil)
	return r.Branch(r.And(isType(rev, "STRING"), rev.Ne("")), rev, strangeRev)
}

// isDeleted tells rows of deleted documents in the language of RethinkDB.
func isDeleted(row r.Term) r.Term { return row.Field(fieldDeleted).Default(false).Eq(true) }

// readRow reads a stored row; false when it is no document of the ledger: a
// deleted one, or one under an id that the contract does not have.
func readRow(text []byte) (keyset.Row, bool) {
	tree, err := canonical.ParseWithin(text, canonical.Limits{Depth: rowDepth})
	if err != nil {
		tree = outline(text)
	}
	row := keyset.Row{Rev: strangeRev}
	var reserved []string
	for i := range tree.Len() {
		switch key := tree.Key(i); {
		case tree.Kind() != canonical.Object || !isReserved(key):
			continue
		case key == fieldID:
			row.ID = tree.At(i).Text()
			if tree.At(i).Kind() != canonical.String {
				return row, false
			}
		case key == fieldRev && tree.At(i).Kind() == canonical.String && tree.At(i).Text() != "":
			row.Rev = tree.At(i).Text()
		case key == fieldDeleted && tree.At(i).Bool():
			return row, false
		}
		reserved = append(reserved, tree.Key(i))
	}
	if checkID(row.ID) != nil {
		return row, false
	}
	row.Body = tree.Without(reserved...)
	return row, true
}

// outline is what can be told of a document that cannot be read, such as one
// that nests without end: its own fields. It shows as an empty one, so that it
// can be seen and written over.
func outline(text []byte) canonical.Value {
	shown := canonical.ObjectOf()
	fields, err := splitObject(text)
	if err != nil {
		return shown
	}
	for _, name := range []string{fieldID, fieldRev, fieldDeleted} {
		if v, err := canonical.Parse(fields[`"`+name+`"`]); err == nil {
			shown = shown.With(name, v)
		}
	}
	return shown
}

// checkBody says why the body of a Write cannot be stored.
func checkBody(body []byte) error {
	if len(body) > maxDocument {
		return fmt.Errorf("%w: it has %d bytes, at most %d are stored in RethinkDB", statedb.ErrTooLarge, len(body), maxDocument)
	}
	tree, err := canonical.Parse(body)
	if err != nil {
		return fmt.Errorf("%w: %w", statedb.ErrBadDocument, err)
	}
	if tree.Kind() != canonical.Object {
		return fmt.Errorf("%w: the body is no object", statedb.ErrBadDocument)
	}
	if err := check(tree); err != nil {
		return fmt.Errorf("%w: %w", statedb.ErrBadDocument, err)
	}
	return nil
}

// appendRow appends a document as it is stored; body is the text of an object.
func appendRow(dst []byte, id, rev string, body []byte) []byte {
	dst = canonical.AppendString(append(dst, `{"_id":`...), id)
	dst = canonical.AppendString(append(dst, `,"_rev":`...), rev)
	body = bytes.TrimLeft(bytes.TrimSpace(body)[1:], " \n\r\t")
	if body[0] != '}' {
		dst = append(dst, ',')
	}
	return append(dst, body...)
}
