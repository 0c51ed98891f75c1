package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/statedb"
)

// prepared is what a Write needs beyond itself, worked out before the table's
// lock is taken.
type prepared struct {
	err  error
	hash [16]byte
	keys [][]byte // by index, nil where the document is not in it
}

// prepare checks the writes and makes their revisions' hashes and index keys.
func prepare(set *indexSet, writes []statedb.Write) []prepared {
	all := make([]prepared, len(writes))
	extract := newExtractor(set)
	slab := make([][]byte, 0, len(writes)*len(set.indexes))
	for i := range writes {
		w, p := &writes[i], &all[i]
		if p.err = statedb.CheckID(w.ID); p.err != nil || w.Delete {
			continue
		}
		if len(w.Body) > maxDocumentBytes {
			p.err = fmt.Errorf("%w: %d bytes of at most %d", statedb.ErrTooLarge, len(w.Body), maxDocumentBytes)
			continue
		}
		start := len(slab)
		if slab, p.err = extract.keys(slab, w.ID, w.Body); p.err != nil {
			slab = slab[:start]
			continue
		}
		p.keys = slab[start:len(slab):len(slab)]
		sum := sha256.Sum256(w.Body)
		p.hash = [16]byte(sum[:])
	}
	return all
}

// Write applies all writes that have no error of their own in one atomic
// batch. Bodies are checked in full: those that are not JSON objects, or not
// JSON as package canonical reads it, get ErrBadDocument. A deletion needs the
// revision of a document that is there.
func (db *DB) Write(ctx context.Context, name string, writes []statedb.Write) ([]statedb.Result, error) {
	t, err := db.begin(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := db.store.writable(); err != nil {
		db.store.end()
		return nil, err
	}
	size := batchBytes(writes)
	if size > maxBatchBytes {
		db.store.end()
		return nil, fmt.Errorf("embedded: %w: a batch of %d bytes, at most %d", statedb.ErrTooLarge, size, maxBatchBytes)
	}
	set := t.indexes.Load()
	all := prepare(set, writes)
	if err := db.lockTable(ctx, t); err != nil {
		return nil, err
	}
	if now := t.indexes.Load(); now != set { // an index was deployed meanwhile
		set, all = now, prepare(now, writes)
	}
	b, err := newBatch(db, t, set, size)
	if err != nil {
		return nil, err
	}
	results := make([]statedb.Result, len(writes))
	for i := range writes {
		if results[i].Err = all[i].err; results[i].Err != nil {
			continue
		}
		if err := b.write(&writes[i], &all[i], &results[i]); err != nil {
			b.abandon()
			return nil, err
		}
	}
	if err := b.commit(ctx); err != nil {
		return nil, err
	}
	return results, nil
}

// Remove takes documents and tombstones away. Their rows leave the feed.
func (db *DB) Remove(ctx context.Context, name string, ids []string) error {
	t, err := db.begin(ctx, name)
	if err != nil {
		return err
	}
	if err := db.store.writable(); err != nil {
		db.store.end()
		return err
	}
	if err := db.lockTable(ctx, t); err != nil {
		return err
	}
	b, err := newBatch(db, t, t.indexes.Load(), len(ids)*removeBytes)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := b.remove(id); err != nil {
			b.abandon()
			return err
		}
	}
	return b.commit(ctx)
}

// lockTable takes the table's lock and looks whether it is still there; on an
// error it ends the operation.
func (db *DB) lockTable(ctx context.Context, t *table) error {
	if err := db.acquire(ctx, t); err != nil {
		db.store.end()
		return err
	}
	if err := t.exists(); err != nil {
		<-t.lock
		db.store.end()
		return err
	}
	return nil
}

// maxBatchBytes bounds the memory of one Write.
const maxBatchBytes = 256 << 20

// Guesses at the room that a batch takes, to grow it rarely.
const (
	writeBytes  = 512
	removeBytes = 384
)

func batchBytes(writes []statedb.Write) int {
	size := 0
	for i := range writes {
		size += len(writes[i].Body) + writeBytes
	}
	return size
}

// batch collects the changes of one Write or Remove. It is used with the
// table's lock held.
type batch struct {
	db     *DB
	t      *table
	set    *indexSet
	lookup *lookup
	batch  *pebble.Batch
	seq    uint64 // the last one used
	moved  bool   // a row left the feed

	written map[string]record // what the batch itself put under an id
	extract *extractor        // of the keys of documents that go
	oldKeys [][]byte
}

// newBatch starts a batch; on an error it gives the lock back and ends the
// operation, as abandon does.
func newBatch(db *DB, t *table, set *indexSet, size int) (*batch, error) {
	lookup, err := newLookup(db.store.pebble, t.code)
	if err != nil {
		<-t.lock
		db.store.end()
		return nil, err
	}
	return &batch{
		db: db, t: t, set: set,
		lookup:  lookup,
		batch:   db.store.pebble.NewBatchWithSize(size),
		seq:     t.head.Load(),
		written: map[string]record{},
		extract: newExtractor(set),
	}, nil
}

// current reads what is under an id, as the batch leaves it so far. The body
// is valid until the next call.
func (b *batch) current(id string) (r record, found bool, err error) {
	if r, ok := b.written[id]; ok {
		return r, true, nil
	}
	return b.lookup.get(id)
}

// write applies one write or sets its outcome's error. An error of its own
// is the whole batch's.
func (b *batch) write(w *statedb.Write, p *prepared, result *statedb.Result) error {
	old, found, err := b.current(w.ID)
	if err != nil {
		return err
	}
	live := found && !old.deleted
	if live != (w.Rev != "") || live && !old.rev.equal(w.Rev) || w.Delete && !live {
		result.Err = statedb.ErrConflict
		return nil
	}
	b.seq++
	next := record{
		deleted: w.Delete,
		seq:     b.seq,
		rev:     revision{gen: old.rev.gen + 1, hash: p.hash},
	}
	if !w.Delete {
		next.body = w.Body
	}
	if found {
		b.dropChange(old.seq)
	}
	if live {
		if err := b.replaceKeys(w.ID, &old, p.keys); err != nil {
			return err
		}
	} else if err := b.putKeys(w.ID, p.keys); err != nil {
		return err
	}
	if err := b.put(w.ID, &next); err != nil {
		return err
	}
	b.written[w.ID] = next
	result.Rev = next.rev.String()
	return nil
}

// put writes a record and its row in the feed.
func (b *batch) put(id string, r *record) error {
	op := b.batch.SetDeferred(idOffset+len(id), recordHeader+len(r.body))
	op.Key[0], op.Key[1] = b.t.code, kindDocument
	copy(op.Key[idOffset:], id)
	r.put(op.Value)
	if err := op.Finish(); err != nil {
		return unavailable(err)
	}
	op = b.batch.SetDeferred(seqOffset+8, changeHeader+len(id))
	op.Key[0], op.Key[1] = b.t.code, kindChange
	binary.BigEndian.PutUint64(op.Key[seqOffset:], r.seq)
	r.putChange(op.Value, id)
	if err := op.Finish(); err != nil {
		return unavailable(err)
	}
	return nil
}

func (b *batch) dropChange(seq uint64) {
	b.moved = true
	op := b.batch.DeleteDeferred(seqOffset + 8)
	op.Key[0], op.Key[1] = b.t.code, kindChange
	binary.BigEndian.PutUint64(op.Key[seqOffset:], seq)
	op.Finish() // fails for a batch with an index only
}

func (b *batch) putKeys(id string, keys [][]byte) error {
	for i, key := range keys {
		if key == nil {
			continue
		}
		if err := setIndexKey(b.batch, b.t.code, b.set.indexes[i].number, key, id); err != nil {
			return err
		}
	}
	return nil
}

// replaceKeys changes the index keys of a document that goes to those of the
// one that comes, nil when none does.
func (b *batch) replaceKeys(id string, old *record, keys [][]byte) error {
	if len(b.set.indexes) == 0 {
		return nil
	}
	var err error
	b.extract.arena = b.extract.arena[:0]
	if b.oldKeys, err = b.extract.keys(b.oldKeys[:0], id, old.body); err != nil {
		return fmt.Errorf("embedded: the stored document %q is damaged: %w", id, err)
	}
	for i, oldKey := range b.oldKeys {
		var key []byte
		if keys != nil {
			key = keys[i]
		}
		if oldKey != nil && key != nil && bytes.Equal(oldKey, key) {
			continue
		}
		number := b.set.indexes[i].number
		if oldKey != nil {
			if err := deleteIndexKey(b.batch, b.t.code, number, oldKey, id); err != nil {
				return err
			}
		}
		if key != nil {
			if err := setIndexKey(b.batch, b.t.code, number, key, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *batch) remove(id string) error {
	old, found, err := b.current(id)
	if err != nil || !found {
		return err
	}
	b.dropChange(old.seq)
	if !old.deleted {
		if err := b.replaceKeys(id, &old, nil); err != nil {
			return err
		}
	}
	op := b.batch.DeleteDeferred(idOffset + len(id))
	op.Key[0], op.Key[1] = b.t.code, kindDocument
	copy(op.Key[idOffset:], id)
	if err := op.Finish(); err != nil {
		return unavailable(err)
	}
	return nil
}

func (b *batch) abandon() {
	b.lookup.close()
	b.batch.Close()
	<-b.t.lock
	b.db.store.end()
}

// commit makes the batch visible, gives the table's lock back, and waits for
// the disk.
//
// A batch that changes nothing waits as well, for what it has seen: a conflict
// with a document that a crash could still undo would mislead.
func (b *batch) commit(ctx context.Context) error {
	t := b.t
	if b.batch.Empty() {
		b.abandon()
		return b.db.waitSeen(ctx, t)
	}
	if b.moved && b.seq == t.head.Load() { // a Remove takes a number for itself
		b.seq++
	}
	head := binary.BigEndian.AppendUint64(nil, b.seq)
	if err := b.batch.Set(tableKey(t.code, kindHead), head, nil); err != nil {
		b.abandon()
		return unavailable(err)
	}
	b.lookup.close()
	t.head.Store(b.seq)
	if b.moved {
		t.moved.Store(b.seq)
	}
	return b.db.store.apply(ctx, b.batch, func() { <-t.lock }, func() { t.synced(b.seq) })
}

// waitSeen waits until all that is visible now is on disk.
func (db *DB) waitSeen(ctx context.Context, t *table) error {
	return db.waitDurable(ctx, t, t.head.Load())
}
