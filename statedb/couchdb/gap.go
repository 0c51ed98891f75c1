package couchdb

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// gapTries is how often a page behind a gap is read again because others
// write at that very place.
const gapTries = 20

// pageBehindGap reads a page when the document that the one before ended with
// has changed or is gone. The index itself tells which row comes first from
// that place on; _find leaves that one out, so it is put back.
func (db *DB) pageBehindGap(ctx context.Context, q *query) (found, error) {
	for range gapTries {
		first, err := db.firstRow(ctx, q)
		if err != nil || first == nil {
			return found{}, err
		}
		lost, err := q.lost(first)
		if err != nil {
			return found{}, err
		}
		f, err := db.findBehind(ctx, q, first, lost)
		if err != nil {
			return found{}, err
		}
		again, err := db.firstRow(ctx, q)
		if err != nil {
			return found{}, err
		}
		if again != nil && again.id == first.id && string(again.document) == string(first.document) {
			return f, nil
		}
	}
	return found{}, fmt.Errorf("%w: documents change faster at this place than a page can be read", statedb.ErrUnavailable)
}

// firstRow reads the first row of the query's index at or behind the place
// where the page before ended; nil when there is none.
func (db *DB) firstRow(ctx context.Context, q *query) (*row, error) {
	query := url.Values{"include_docs": {"true"}, "limit": {"1"}, "startkey": {string(q.from.Key)}}
	view := path(q.name, "_all_docs")
	if q.index != nil {
		view = path(q.name, "_design", q.index.DDoc, "_view", q.index.Name)
		query.Set("startkey_docid", q.from.ID)
		query.Set("reduce", "false")
	}
	if q.plan.Reverse || len(q.Sort) > 0 && q.Sort[0].Descending {
		query.Set("descending", strconv.FormatBool(true))
	}
	answer, err := db.do(ctx, request{method: http.MethodGet, path: view, query: query, reads: true})
	if status := statusOf(err); status == http.StatusBadRequest || status == http.StatusRequestURITooLong {
		// Whoever makes a bookmark up can put any key into it.
		return nil, fmt.Errorf("%w: %w", statedb.ErrBadBookmark, err)
	}
	if err != nil {
		return nil, err
	}
	var first *row
	err = eachRow(answer, func(r row) error {
		first = &r
		return nil
	})
	return first, err
}

// lost returns the document of a row that _find leaves out and should not.
func (q *query) lost(r *row) (*statedb.Document, error) {
	if r.id == q.from.ID || isReserved(r.id) || r.document == nil {
		return nil, nil
	}
	d, err := readDocument(r.document)
	if err != nil {
		return nil, err
	}
	if !q.matches(d) {
		return nil, nil
	}
	return &d, nil
}

// findBehind reads what _find gives, with the lost document before it.
func (db *DB) findBehind(ctx context.Context, q *query, first *row, lost *statedb.Document) (found, error) {
	if lost == nil {
		return db.find(ctx, q, q.Limit, q.from.Native, 0)
	}
	if q.Limit == 1 {
		key, err := canonical.Parse(first.key)
		if err != nil {
			return found{}, malformed("a row's key")
		}
		return found{
			documents: []statedb.Document{*lost}, full: true, native: nativeBookmark(key, first.id),
			stats: statedb.Stats{Keys: 1, Documents: 1},
		}, nil
	}
	f, err := db.find(ctx, q, q.Limit-1, q.from.Native, 0)
	if err != nil {
		return f, err
	}
	if !slices.ContainsFunc(f.documents, func(d statedb.Document) bool { return d.ID == lost.ID }) {
		f.documents = slices.Insert(f.documents, 0, *lost)
		if len(f.documents) == 1 {
			f.native = "" // the page is not full: nothing follows
		}
	}
	return f, nil
}
