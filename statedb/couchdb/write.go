package couchdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// maxRequestBytes is about how much one bulk write carries; what is more goes
// in several.
const maxRequestBytes = 16 << 20

// Write sends the writes as _bulk_docs. CouchDB refuses a whole batch because
// of one document that it cannot hold; such a batch is halved until the rest
// is stored and the one has its error.
func (db *DB) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	name, err := db.database(table)
	if err != nil {
		return nil, err
	}
	results := make([]statedb.Result, len(writes))
	if err := db.checkThere(ctx, name, writes, results); err != nil {
		return nil, err
	}
	b := batch{db: db, name: name, writes: writes, results: results, purged: table == statedb.Backlog}
	for i, w := range writes {
		if results[i].Err != nil {
			continue
		}
		document, err := db.encode(w)
		if err != nil {
			results[i].Err = err
			continue
		}
		if len(b.order) == db.opts.MaxBatch || b.size+len(document) > maxRequestBytes && len(b.order) > 0 {
			if err := b.flush(ctx); err != nil {
				return nil, err
			}
		}
		b.order = append(b.order, i)
		b.documents = append(b.documents, document)
		b.size += len(document)
	}
	if err := b.flush(ctx); err != nil {
		return nil, err
	}
	return results, nil
}

// checkThere makes updates and deletions of documents that are not there
// conflicts: CouchDB would take an update as a document's first revision. Only
// a document purged in the moment between is still made anew.
func (db *DB) checkThere(ctx context.Context, name string, writes []statedb.Write, results []statedb.Result) error {
	var ids []string
	var places []int
	for i, w := range writes {
		if w.Rev != "" && statedb.CheckID(w.ID) == nil {
			ids = append(ids, w.ID)
			places = append(places, i)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	revs, err := db.currentRevs(ctx, name, ids)
	if err != nil {
		return err
	}
	for i, rev := range revs {
		if rev == "" {
			results[places[i]].Err = fmt.Errorf("%w: %s is not there", statedb.ErrConflict, ids[i])
		}
	}
	return nil
}

// encode makes the document as _bulk_docs takes it.
func (db *DB) encode(w statedb.Write) ([]byte, error) {
	if err := statedb.CheckID(w.ID); err != nil {
		return nil, err
	}
	if w.Delete && w.Rev == "" {
		return nil, fmt.Errorf("%w: a deletion needs a revision", statedb.ErrConflict)
	}
	body := w.Body
	if w.Delete {
		body = []byte(`{"_deleted":true}`)
	} else if err := db.checkBody(body); err != nil {
		return nil, err
	}
	document := make([]byte, 0, len(w.ID)+len(w.Rev)+len(body)+24)
	document = append(document, `{"_id":`...)
	document = canonical.AppendString(document, w.ID)
	if w.Rev != "" {
		document = append(document, `,"_rev":`...)
		document = canonical.AppendString(document, w.Rev)
	}
	rest := body[1+skipSpace(body[1:], 0):]
	if rest[0] != '}' {
		document = append(document, ',')
	}
	return append(document, rest...), nil
}

func (db *DB) checkBody(body []byte) error {
	if most := db.Limits().MaxDocumentBytes; len(body) > most {
		return fmt.Errorf("%w: it has %d bytes, CouchDB takes %d", statedb.ErrTooLarge, len(body), most)
	}
	tree, err := canonical.Parse(body)
	if err != nil {
		return fmt.Errorf("%w: %w", statedb.ErrBadDocument, err)
	}
	if tree.Kind() != canonical.Object {
		return fmt.Errorf("%w: the body is no object", statedb.ErrBadDocument)
	}
	for i := range tree.Len() {
		if isReserved(tree.Key(i)) {
			return fmt.Errorf("%w: the field %s is CouchDB's own", statedb.ErrBadDocument, tree.Key(i))
		}
	}
	return nil
}

// batch is what goes into one request.
type batch struct {
	db        *DB
	name      string
	writes    []statedb.Write
	results   []statedb.Result
	purged    bool     // Remove will want the revisions
	order     []int    // places in writes
	documents [][]byte // as encoded
	size      int
}

func (b *batch) flush(ctx context.Context) error {
	defer func() { b.order, b.documents, b.size = b.order[:0], b.documents[:0], 0 }()
	if len(b.order) == 0 {
		return nil
	}
	return b.send(ctx, b.order, b.documents)
}

// send writes a part of the batch.
func (b *batch) send(ctx context.Context, order []int, documents [][]byte) error {
	err := b.request(ctx, order, documents)
	if err == nil || !refusesBatch(err) {
		return err
	}
	if len(order) == 1 {
		if statusOf(err) >= http.StatusInternalServerError {
			return err // of a document alone this says nothing
		}
		b.results[order[0]].Err = refusal(err)
		return nil
	}
	return b.halve(ctx, order, documents)
}

// halve sends the two halves of a batch that was refused as a whole. When the
// server fails with 500 for both, it is the server's fault; when for one only,
// a document's.
func (b *batch) halve(ctx context.Context, order []int, documents [][]byte) error {
	middle := len(order) / 2
	first := b.send(ctx, order[:middle], documents[:middle])
	if first != nil && !refusesBatch(first) {
		return first
	}
	second := b.send(ctx, order[middle:], documents[middle:])
	switch {
	case first == nil && second == nil:
		return nil
	case first != nil && second != nil, second != nil && !refusesBatch(second):
		return errors.Join(first, second)
	case first != nil:
		return b.poisoned(ctx, order[:middle], documents[:middle], first)
	default:
		return b.poisoned(ctx, order[middle:], documents[middle:], second)
	}
}

// poisoned names the document that the server fails on, or gives the error up
// where several fail. It is tried again first: a server that fails now and then
// is no document's fault.
func (b *batch) poisoned(ctx context.Context, order []int, documents [][]byte, err error) error {
	if len(order) > 1 {
		return err
	}
	for range poisonTries {
		if err := b.db.pause(ctx, firstPause); err != nil {
			return err
		}
		if err = b.request(ctx, order, documents); err == nil || !refusesBatch(err) {
			return err
		}
	}
	b.results[order[0]].Err = refusal(err)
	return nil
}

// poisonTries is how often a document is tried again alone before it is named.
const poisonTries = 2

func refusal(err error) error {
	if errors.Is(err, statedb.ErrTooLarge) {
		return err
	}
	return fmt.Errorf("%w: %w", statedb.ErrBadDocument, err)
}

// refusesBatch reports whether an error can be one document's fault. CouchDB
// answers 400 to a reserved name, 413 to a large document, 500 to a number
// that it cannot compute with. No answer at all is nobody's fault.
func refusesBatch(err error) bool {
	var answer *serverError
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusInternalServerError:
		return true
	}
	return false
}

// request sends one _bulk_docs. An error says that the outcome is unknown, or
// that all were refused.
func (b *batch) request(ctx context.Context, order []int, documents [][]byte) error {
	size := 0
	for _, d := range documents {
		size += len(d) + 1
	}
	body := bytes.NewBuffer(make([]byte, 0, size+16))
	body.WriteString(`{"docs":[`)
	for i, d := range documents {
		if i > 0 {
			body.WriteByte(',')
		}
		body.Write(d)
	}
	body.WriteString(`]}`)
	answer, err := b.db.do(ctx, request{method: http.MethodPost, path: path(b.name, "_bulk_docs"), body: body.Bytes()})
	if err != nil {
		return err
	}
	var rows []bulkRow
	if err := json.Unmarshal(answer, &rows); err != nil || len(rows) != len(order) {
		return malformed("_bulk_docs")
	}
	for i, row := range rows {
		place := order[i]
		if row.ID != b.writes[place].ID {
			return malformed("_bulk_docs: the outcomes are of other documents")
		}
		result := &b.results[place]
		switch row.Error {
		case "":
			result.Rev = row.Rev
			if b.purged && !b.writes[place].Delete { // of a deletion, another revision may be left
				b.db.revs.put(b.name, row.ID, row.Rev)
			}
		case "conflict":
			result.Err = fmt.Errorf("%w: %s", statedb.ErrConflict, row.ID)
		case "forbidden", "unauthorized", "doc_validation":
			result.Err = fmt.Errorf("%w: CouchDB refuses %s: %s", statedb.ErrBadDocument, row.ID, row.Reason)
		default:
			return fmt.Errorf("%w: %s: %s: %s", statedb.ErrUnavailable, row.ID, row.Error, row.Reason)
		}
	}
	return nil
}

type bulkRow struct {
	ID     string `json:"id"`
	Rev    string `json:"rev"`
	Error  string `json:"error"`
	Reason string `json:"reason"`
}
