package couchdb

import (
	"context"
	"net/http"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// leaf is one of several revisions that stand under an id.
type leaf struct {
	place   int // of the document in an answer
	id, rev string
}

// mostLeaves is how many revisions are read at once: of blocks, one has up to 8 MB.
const mostLeaves = 20

// readConflicts adds the revisions in conflict to documents.
func (db *DB) readConflicts(ctx context.Context, name string, documents []statedb.Document, leaves []leaf) error {
	for len(leaves) > 0 {
		part := leaves[:min(len(leaves), mostLeaves)]
		leaves = leaves[len(part):]
		bodies, err := db.readLeafBodies(ctx, name, part)
		if err != nil {
			return err
		}
		for i, l := range part {
			if bodies[i] != nil { // else somebody has removed it meanwhile
				d := &documents[l.place]
				d.Others = append(d.Others, statedb.Revision{Rev: l.rev, Body: bodies[i]})
			}
		}
		// Whoever removes the document is to remove all of it.
		for _, l := range part {
			db.revs.take(name, l.id)
		}
	}
	return nil
}

// readLeafBodies reads revisions by _bulk_get; nil for those that are gone.
func (db *DB) readLeafBodies(ctx context.Context, name string, leaves []leaf) ([][]byte, error) {
	body := []byte(`{"docs":[`)
	for i, l := range leaves {
		if i > 0 {
			body = append(body, ',')
		}
		body = canonical.AppendString(append(body, `{"id":`...), l.id)
		body = canonical.AppendString(append(body, `,"rev":`...), l.rev)
		body = append(body, '}')
	}
	answer, err := db.do(ctx, request{method: http.MethodPost, path: path(name, "_bulk_get"), body: append(body, `]}`...), reads: true})
	if err != nil {
		return nil, err
	}
	bodies := make([][]byte, len(leaves))
	at := 0
	err = eachResult(answer, func(document []byte) error {
		if at == len(leaves) {
			return malformed("_bulk_get: more results than revisions")
		}
		l, place := leaves[at], at
		at++
		if document == nil {
			return nil
		}
		d, err := readDocument(document)
		if err != nil {
			return err
		}
		if d.ID != l.id || d.Rev != l.rev {
			return malformed("_bulk_get: a result is of another revision")
		}
		if _, deleted := fieldOf(document, "_deleted"); !deleted {
			bodies[place] = d.Body
		}
		return nil
	})
	if err == nil && at != len(leaves) {
		err = malformed("_bulk_get: fewer results than revisions")
	}
	return bodies, err
}

// eachResult calls do with the document of each result of a _bulk_get for one
// revision, nil where there is none.
func eachResult(answer []byte, do func(document []byte) error) error {
	results, found := fieldOf(answer, "results")
	if !found {
		return malformed("_bulk_get: results are missing")
	}
	return eachElement(results, func(result []byte) error {
		var document []byte
		docs, _ := fieldOf(result, "docs")
		err := eachElement(docs, func(doc []byte) error {
			if ok, found := fieldOf(doc, "ok"); found {
				document = ok
			}
			return nil
		})
		if err != nil {
			return err
		}
		return do(document)
	})
}

// fieldOf finds a field of a JSON object.
func fieldOf(object []byte, name string) (value []byte, found bool) {
	_ = eachField(object, func(key, v []byte) bool {
		if string(key) == name {
			value, found = v, true
		}
		return !found
	})
	return value, found
}
