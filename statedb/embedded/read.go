package embedded

import (
	"bytes"
	"context"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/statedb"
)

// Get reads documents one by one from one snapshot's worth of memory and cache;
// ids that are not there cost a look at a filter.
func (db *DB) Get(ctx context.Context, name string, ids []string) ([]statedb.Document, error) {
	t, err := db.begin(ctx, name)
	if err != nil {
		return nil, err
	}
	defer db.store.end()
	documents := make([]statedb.Document, len(ids))
	var key []byte
	var newest uint64
	for i, id := range ids {
		documents[i].ID = id
		key = appendDocumentKey(key[:0], t.code, id)
		value, closer, err := db.store.pebble.Get(key)
		if err == pebble.ErrNotFound {
			continue
		}
		if err != nil {
			return nil, unavailable(err)
		}
		r, err := readRecord(value)
		if err == nil && !r.deleted {
			documents[i].Rev = r.rev.String()
			documents[i].Body = slices.Clone(r.body)
			newest = max(newest, r.seq)
		}
		closer.Close()
		if err != nil {
			return nil, err
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
	if r.Limit < 1 {
		return statedb.Page{}, badLimit(r.Limit)
	}
	query := rangeHash(name, r)
	lower := appendDocumentKey(nil, t.code, r.Start)
	upper := keyAfter(tableKey(t.code, kindDocument))
	if r.End != "" {
		upper = appendDocumentKey(nil, t.code, r.End)
	}
	if r.Bookmark != "" {
		last, err := readBookmark(r.Bookmark, query)
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
			page.Bookmark = makeBookmark([]byte(page.Documents[r.Limit-1].ID), query)
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
	page.Examined = len(page.Documents)
	return page, db.settle(ctx, t, newest)
}
