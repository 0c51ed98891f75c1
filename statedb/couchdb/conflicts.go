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

// mostLeaves is how many revisions are read at once.
const mostLeaves = 20

// readConflicts adds the revisions in conflict to documents. When there is much of
// them only the first have a body.
func (db *DB) readConflicts(ctx context.Context, name string, documents []statedb.Document, leaves []leaf) error {
	size := 0
	for len(leaves) > 0 {
		part := leaves[:min(len(leaves), mostLeaves)]
		bodies := make([][]byte, len(part))
		if size < db.opts.maxAnswer/2 {
			var err error
			if bodies, err = db.readLeafBodies(ctx, name, part); err != nil {
				return err
			}
		}
		for i, body := range bodies {
			size += len(body)
			// One that somebody has removed meanwhile has no body either.
			d := &documents[part[i].place]
			d.Others = append(d.Others, statedb.Revision{Rev: part[i].rev, Body: body})
			// Whoever removes the document is to remove all of it.
			db.revs.take(name, part[i].id)
		}
		leaves = leaves[len(bodies):]
	}
	return nil
}

// ReadRevisions reads revisions by _bulk_get, some at a time.
func (db *DB) ReadRevisions(ctx context.Context, table, id string, revs []string) ([]statedb.Revision, error) {
	name, err := db.database(table)
	if err != nil || len(revs) == 0 {
		return nil, err
	}
	leaves := make([]leaf, min(len(revs), mostLeaves))
	for i := range leaves {
		leaves[i] = leaf{id: id, rev: revs[i]}
	}
	bodies, err := db.readLeafBodies(ctx, name, leaves)
	if err != nil {
		return nil, err
	}
	revisions := make([]statedb.Revision, len(bodies))
	for i, body := range bodies {
		revisions[i] = statedb.Revision{Rev: revs[i], Body: body}
	}
	return revisions, nil
}

// readLeafBodies reads revisions by _bulk_get, the first of them, as many as one answer
// brings: nil for those that are gone.
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
	body = append(body, `]}`...)
	for most := db.opts.maxAnswer / 2; ; most *= 2 {
		answer, err := db.do(ctx, request{method: http.MethodPost, path: path(name, "_bulk_get"), body: body, reads: true, most: most})
		if err != nil {
			return nil, err
		}
		bodies, err := readResults(answer, leaves)
		cut := len(answer) == most
		switch {
		case cut && len(bodies) == 0:
			continue // one revision is as large
		case cut:
			return bodies, nil
		case err == nil && len(bodies) < len(leaves):
			err = malformed("_bulk_get: fewer results than revisions")
		}
		if err != nil {
			return nil, err
		}
		return bodies, nil
	}
}

// readResults reads an answer of _bulk_get for leaves up to where it is cut off, if it
// is; that is an error then.
func readResults(answer []byte, leaves []leaf) (bodies [][]byte, err error) {
	err = eachElementOf(answer, "results", func(result []byte) error {
		if len(bodies) == len(leaves) {
			return malformed("_bulk_get: more results than revisions")
		}
		document, err := documentOf(result)
		if err != nil {
			return err
		}
		var body []byte
		if document != nil {
			d, err := readDocument(document)
			if err != nil {
				return err
			}
			if l := leaves[len(bodies)]; d.ID != l.id || d.Rev != l.rev {
				return malformed("_bulk_get: a result is of another revision")
			}
			if _, deleted := fieldOf(document, "_deleted"); !deleted {
				body = d.Body
			}
		}
		bodies = append(bodies, body)
		return nil
	})
	return bodies, err
}

// documentOf takes the document out of a result of a _bulk_get for one revision; nil
// where there is none.
func documentOf(result []byte) (document []byte, err error) {
	docs, _ := fieldOf(result, "docs")
	err = eachElement(docs, func(doc []byte) error {
		if ok, found := fieldOf(doc, "ok"); found {
			document = ok
		}
		return nil
	})
	return document, err
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
