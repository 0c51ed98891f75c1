package embedded

import (
	"bytes"
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

// lookup reads records by id from one snapshot. It seeks with one iterator
// rather than calling Pebble's Get, which does not ask the filters of the
// lowest level: most ids that a Write asks for are not there.
type lookup struct {
	iter *pebble.Iterator
	code byte
	key  []byte
}

func newLookup(from pebble.Reader, code byte) (*lookup, error) {
	prefix := tableKey(code, kindDocument)
	iter, err := from.NewIter(&pebble.IterOptions{
		LowerBound: prefix, UpperBound: keyAfter(prefix), UseL6Filters: true,
	})
	if err != nil {
		return nil, unavailable(err)
	}
	return &lookup{iter: iter, code: code}, nil
}

// get returns what is under an id; the body is valid until the next call.
func (l *lookup) get(id string) (r record, found bool, err error) {
	l.key = appendDocumentKey(l.key[:0], l.code, id)
	if !l.iter.SeekPrefixGE(l.key) {
		if err := l.iter.Error(); err != nil {
			return record{}, false, unavailable(err)
		}
		return record{}, false, nil
	}
	data, err := l.iter.ValueAndErr()
	if err != nil {
		return record{}, false, unavailable(err)
	}
	r, err = readRecord(data)
	return r, err == nil, err
}

func (l *lookup) close() { l.iter.Close() }

// Get reads documents by id from one snapshot; ids that are not there cost a
// look at filters.
func (db *DB) Get(ctx context.Context, name string, ids []string) ([]statedb.Document, error) {
	t, err := db.begin(ctx, name)
	if err != nil {
		return nil, err
	}
	defer db.store.end()
	lookup, err := newLookup(db.store.pebble, t.code)
	if err != nil {
		return nil, err
	}
	defer lookup.close()
	documents := make([]statedb.Document, len(ids))
	var newest uint64
	for i, id := range ids {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		documents[i].ID = id
		r, found, err := lookup.get(id)
		if err != nil {
			return nil, err
		}
		if found && !r.deleted {
			documents[i].Rev = r.rev.String()
			documents[i].Body = slices.Clone(r.body)
			newest = max(newest, r.seq)
		}
	}
	return documents, db.settle(ctx, t, newest)
}

// settle ends a read: it waits until the newest document it found is on disk,
// and notices that the table was dropped meanwhile.
func (db *DB) settle(ctx context.Context, t *table, newest uint64) error {
	if err := db.waitDurable(ctx, t, newest); err != nil {
		return err
	}
	return t.exists()
}

// checkEvery is how many rows a scan reads between looks at its context.
const checkEvery = 256

// Range reads documents in the order of their ids' bytes.
func (db *DB) Range(ctx context.Context, name string, r statedb.Range) (statedb.Page, error) {
	t, err := db.begin(ctx, name)
	if err != nil {
		return statedb.Page{}, err
	}
	defer db.store.end()
	if err := keyset.CheckLimit(r.Limit); err != nil {
		return statedb.Page{}, err
	}
	query := keyset.RangeHash(name, r)
	lower := appendDocumentKey(nil, t.code, r.Start)
	upper := keyAfter(tableKey(t.code, kindDocument))
	if r.End != "" {
		upper = appendDocumentKey(nil, t.code, r.End)
	}
	if r.Bookmark != "" {
		last, err := keyset.Open(r.Bookmark, query)
		if err != nil {
			return statedb.Page{}, err
		}
		lower = append(appendDocumentKey(nil, t.code, string(last)), 0)
	}
	if bytes.Compare(lower, upper) >= 0 {
		return statedb.Page{}, t.exists()
	}
	iter, err := db.store.pebble.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return statedb.Page{}, unavailable(err)
	}
	defer iter.Close()
	var page statedb.Page
	var newest uint64
	rows := 0
	for iter.First(); iter.Valid(); iter.Next() {
		if rows++; rows%checkEvery == 0 && ctx.Err() != nil {
			return statedb.Page{}, ctx.Err()
		}
		record, err := readRecord(iter.Value())
		if err != nil {
			return statedb.Page{}, err
		}
		if record.deleted {
			continue
		}
		if len(page.Documents) == r.Limit { // there is one more
			page.Bookmark = keyset.Seal([]byte(page.Documents[r.Limit-1].ID), query)
			break
		}
		page.Documents = append(page.Documents, statedb.Document{
			ID:   string(iter.Key()[idOffset:]),
			Rev:  record.rev.String(),
			Body: slices.Clone(record.body),
		})
		newest = max(newest, record.seq)
	}
	if err := iter.Error(); err != nil {
		return statedb.Page{}, unavailable(err)
	}
	page.Stats = statedb.Stats{Keys: rows, Documents: len(page.Documents)}
	return page, db.settle(ctx, t, newest)
}
