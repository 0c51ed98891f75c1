package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

var _ statedb.IndexMender = (*DB)(nil)

// mender compares the rows of a table's indexes with its documents, as many at
// a time under the table's lock as the builder does. Readers see the indexes
// throughout, with fewer faults from step to step.
type mender struct {
	db             *DB
	t              *table
	extract        *extractor
	tell           func(done int)
	done           int // rows and documents looked at
	added, removed int
}

// MendIndexes adds the rows that documents should have and have not, and takes
// out those that are of no document. Indexes that are being built are left.
func (db *DB) MendIndexes(ctx context.Context, name string, progress func(done int)) (added, removed int, err error) {
	t, err := db.begin(ctx, name)
	if err != nil {
		return 0, 0, err
	}
	defer db.store.end()
	if err := db.take(ctx, t.deploying); err != nil { // so that the indexes stay
		return 0, 0, err
	}
	defer func() { <-t.deploying }()
	ready := slices.DeleteFunc(slices.Clone(t.indexes.Load().indexes), func(ix *index) bool { return ix.build != nil })
	if len(ready) == 0 {
		return 0, 0, nil
	}
	m := &mender{db: db, t: t, extract: newExtractor(newIndexSet(ready)), tell: progress}
	err = m.walk(ctx, tableKey(t.code, kindDocument), m.document)
	for i, ix := range ready {
		if err == nil {
			err = m.walk(ctx, appendIndexKey(nil, t.code, ix.number), func(batch *pebble.Batch, k, _ []byte) (int, error) {
				return 0, m.row(batch, i, k)
			})
		}
	}
	if err != nil {
		err = fmt.Errorf("embedded: table %s: mend the indexes: %w", name, err)
	}
	return m.added, m.removed, err
}

// walk calls visit for all that stands under a prefix, in steps. visit returns
// how many bytes it read.
func (m *mender) walk(ctx context.Context, prefix []byte, visit func(batch *pebble.Batch, k, v []byte) (int, error)) error {
	for lower := prefix; lower != nil; {
		select {
		case <-m.db.store.done: // Close waits for this
			return statedb.ErrClosed
		default:
		}
		m.tell(m.done)
		if err := m.db.acquire(ctx, m.t); err != nil {
			return err
		}
		if err := m.t.exists(); err != nil {
			<-m.t.lock
			return err
		}
		batch := m.db.store.pebble.NewBatch()
		next, err := m.step(batch, lower, keyAfter(prefix), visit)
		if err != nil || batch.Empty() {
			<-m.t.lock
			err = errors.Join(err, batch.Close())
		} else {
			err = m.db.commit(ctx, m.t, batch, func() {})
		}
		if err != nil {
			return err
		}
		lower = next
	}
	return nil
}

// step visits what stands from lower on, up to the bounds of one step; next is
// nil when that was all.
func (m *mender) step(batch *pebble.Batch, lower, upper []byte, visit func(batch *pebble.Batch, k, v []byte) (int, error)) (next []byte, err error) {
	iter, err := m.db.store.pebble.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, unavailable(err)
	}
	defer iter.Close()
	size := 0
	rows := 0
	for iter.First(); iter.Valid(); iter.Next() {
		if rows == buildStepRows || size >= buildStepBytes {
			return bytes.Clone(iter.Key()), nil
		}
		read, err := visit(batch, iter.Key(), iter.Value())
		if err != nil {
			return nil, err
		}
		size += read
		m.done++
		rows++
	}
	if err := iter.Error(); err != nil {
		return nil, unavailable(err)
	}
	return nil, nil
}

// document adds the rows that a document lacks.
func (m *mender) document(batch *pebble.Batch, k, v []byte) (int, error) {
	r, err := readRecord(v)
	if err != nil || r.deleted {
		return 0, err
	}
	id := string(k[idOffset:])
	keys, err := m.keys(id, r.body)
	if err != nil {
		return 0, err
	}
	for i, key := range keys {
		if key == nil {
			continue
		}
		row := append(append(appendIndexKey(nil, m.t.code, m.extract.set.indexes[i].number), key...), id...)
		_, closer, err := m.db.store.pebble.Get(row)
		if err == nil {
			err = closer.Close()
		} else if errors.Is(err, pebble.ErrNotFound) {
			m.added++
			err = batch.Set(row, nil, nil)
		}
		if err != nil {
			return 0, unavailable(err)
		}
	}
	return len(r.body), nil
}

func (m *mender) keys(id string, body []byte) ([][]byte, error) {
	m.extract.arena = m.extract.arena[:0]
	keys, err := m.extract.keys(nil, id, body)
	if err != nil {
		return nil, fmt.Errorf("document %q: %w", id, err)
	}
	return keys, nil
}

// row takes out a row that is of no document as it is now.
func (m *mender) row(batch *pebble.Batch, at int, k []byte) error {
	ix := m.extract.set.indexes[at]
	rest := k[indexOffset:]
	whole := true
	for range ix.paths {
		if whole {
			rest, whole = mango.SkipKey(rest)
		}
	}
	if whole {
		value, err := m.db.read(appendDocumentKey(nil, m.t.code, string(rest)))
		if err != nil {
			return err
		}
		if value != nil {
			r, err := readRecord(value)
			if err != nil {
				return err
			}
			if !r.deleted {
				keys, err := m.keys(string(rest), r.body)
				if err != nil {
					return err
				}
				if keys[at] != nil && bytes.Equal(keys[at], k[indexOffset:len(k)-len(rest)]) {
					return nil
				}
			}
		}
	}
	m.removed++
	if err := batch.Delete(bytes.Clone(k), nil); err != nil {
		return unavailable(err)
	}
	return nil
}
