package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/statedb"
)

// An index is built while the table is written to. From the moment that its
// definition is stored writers keep its keys, as they do those of any index;
// the builder goes over the documents by id and adds the keys of what was there
// before. It takes the table's lock for a few documents at a time, so that it
// never sees a document that is being changed and a writer never waits for
// long. How far it is stands in the definition and changes in one batch with
// the keys: after a crash the next deployment goes on from there.

// build is how far the building of an index is.
type build struct {
	after string       // the last id that was gone over; used by the builder alone
	done  atomic.Int64 // documents gone over
	total atomic.Int64 // documents in the table when the building began
}

// storedBuild is how that is stored.
type storedBuild struct {
	After       string
	Done, Total int64
}

func (s *storedBuild) running() *build {
	b := &build{after: s.After}
	b.done.Store(s.Done)
	b.total.Store(s.Total)
	return b
}

func (b *build) stored() *storedBuild {
	return &storedBuild{After: b.after, Done: b.done.Load(), Total: b.total.Load()}
}

// state tells of an index that is being built and of one that is ready.
func (ix *index) state() statedb.IndexState {
	state := statedb.IndexState{Index: ix.def}
	if ix.build != nil {
		// One is to go until all are there, whatever was written meanwhile.
		done := int(ix.build.done.Load())
		state.Total = max(int(ix.build.total.Load()), done+1)
		state.Pending = state.Total - done
	}
	return state
}

// Indexes lists the table's indexes by name.
func (db *DB) Indexes(ctx context.Context, name string) ([]statedb.IndexState, error) {
	t, err := db.begin(ctx, name)
	if err != nil {
		return nil, err
	}
	defer db.store.end()
	if err := t.exists(); err != nil {
		return nil, err
	}
	return states(t.indexes.Load().indexes), nil
}

func states(indexes []*index) []statedb.IndexState {
	var list []statedb.IndexState
	for _, ix := range indexes {
		list = append(list, ix.state())
	}
	slices.SortFunc(list, func(a, b statedb.IndexState) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// DeployIndexes makes the table's indexes be these, and finishes those that an
// earlier call left half built. An index that is defined anew cannot be used
// until it is built, neither by the old definition nor by the new one. Writers
// go on meanwhile.
func (db *DB) DeployIndexes(ctx context.Context, name string, defs []statedb.Index, progress func([]statedb.IndexState)) error {
	t, err := db.begin(ctx, name)
	if err != nil {
		return err
	}
	defer db.store.end()
	if err := db.take(ctx, t.deploying); err != nil {
		return err
	}
	defer func() { <-t.deploying }()
	if err := db.define(ctx, t, defs); err != nil {
		return fmt.Errorf("embedded: table %s: %w", name, err)
	}
	if err := db.buildIndexes(ctx, t, progress); err != nil {
		return fmt.Errorf("embedded: table %s: build the indexes: %w", name, err)
	}
	return nil
}

// define stores the definitions that are new or changed, to be built.
func (db *DB) define(ctx context.Context, t *table, defs []statedb.Index) error {
	if err := db.acquire(ctx, t); err != nil {
		return err
	}
	if err := t.exists(); err != nil {
		<-t.lock
		return err
	}
	indexes, replaced, err := defined(t.indexes.Load().indexes, defs)
	if err != nil || indexes == nil {
		<-t.lock
		return err
	}
	batch := db.store.pebble.NewBatch()
	err = storeDefinitions(batch, t.code, indexes)
	for _, number := range replaced {
		if err == nil {
			err = clearIndex(batch, t.code, number)
		}
	}
	if err != nil {
		batch.Close()
		<-t.lock
		return err
	}
	// Known before the old keys go, so that no reader finds an index empty
	// that it takes for whole: Find looks at the set again after its snapshot.
	t.indexes.Store(newIndexSet(indexes))
	return db.commit(ctx, t, batch, func() {})
}

// defined gives a table's indexes with the definitions that are not there yet,
// nil when all are, and the numbers of those that they replace.
func defined(indexes []*index, defs []statedb.Index) (all []*index, replaced []uint32, err error) {
	all = slices.Clone(indexes)
	changed := false
	for _, def := range defs {
		number := uint32(1)
		for _, ix := range all {
			number = max(number, ix.number+1)
		}
		at := slices.IndexFunc(all, func(ix *index) bool { return ix.def.Name == def.Name })
		if at >= 0 && all[at].def.Equal(def) {
			continue
		}
		ix, err := newIndex(def, number)
		if err != nil {
			return nil, nil, err
		}
		ix.build = &build{}
		changed = true
		if at < 0 {
			all = append(all, ix)
		} else {
			replaced = append(replaced, all[at].number)
			all[at] = ix
		}
	}
	if !changed {
		return nil, nil, nil
	}
	return all, replaced, nil
}

func storeDefinitions(batch *pebble.Batch, code byte, indexes []*index) error {
	for _, ix := range indexes {
		stored := storedIndex{Number: ix.number, Def: ix.def}
		if ix.build != nil {
			stored.Build = ix.build.stored()
		}
		value, err := json.Marshal(stored)
		if err != nil {
			return err
		}
		if err := batch.Set(definitionKey(code, ix.def.Name), value, nil); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

func clearIndex(batch *pebble.Batch, code byte, number uint32) error {
	prefix := appendIndexKey(nil, code, number)
	if err := batch.DeleteRange(prefix, keyAfter(prefix), nil); err != nil {
		return unavailable(err)
	}
	return nil
}

// commit writes a batch that is no change of documents. Once it is visible it
// calls visible and gives the table's lock back, also when ctx ends before.
func (db *DB) commit(ctx context.Context, t *table, batch *pebble.Batch, visible func()) error {
	if err := db.store.begin(); err != nil {
		batch.Close()
		<-t.lock
		return err
	}
	return db.store.apply(ctx, batch, func() { visible(); <-t.lock }, func() {})
}

// buildIndexes goes over the table once for all indexes that are being built,
// from where the one least far is.
func (db *DB) buildIndexes(ctx context.Context, t *table, progress func([]statedb.IndexState)) error {
	unready := func() []*index {
		return slices.DeleteFunc(slices.Clone(t.indexes.Load().indexes), func(ix *index) bool { return ix.build == nil })
	}
	building := unready()
	if len(building) == 0 {
		return nil
	}
	total, err := db.countDocuments(ctx, t)
	if err != nil {
		return err
	}
	start := slices.MinFunc(building, func(a, b *index) int { return strings.Compare(a.build.after, b.build.after) }).build.stored()
	for _, ix := range building {
		ix.build.after = start.After
		ix.build.done.Store(start.Done)
		ix.build.total.Store(total)
	}
	extract := newExtractor(newIndexSet(building))
	for len(building) > 0 {
		if total > 0 && progress != nil {
			progress(states(building))
		}
		select {
		case <-db.store.done: // Close waits for this
			return statedb.ErrClosed
		default:
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := db.buildStep(ctx, t, extract); err != nil {
			return err
		}
		building = unready()
	}
	return nil
}

// countDocuments counts by the feed, which has a short row for each.
func (db *DB) countDocuments(ctx context.Context, t *table) (n int64, err error) {
	prefix := tableKey(t.code, kindChange)
	iter, err := db.store.pebble.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyAfter(prefix)})
	if err != nil {
		return 0, unavailable(err)
	}
	defer iter.Close()
	rows := 0
	for iter.First(); iter.Valid(); iter.Next() {
		if rows++; rows%checkEvery == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if value := iter.Value(); len(value) > 0 && value[0]&flagDeleted == 0 {
			n++
		}
	}
	if err := iter.Error(); err != nil {
		return 0, unavailable(err)
	}
	return n, nil
}

// Bounds of one step of building, and with it of how long writers wait: some
// milliseconds.
const (
	buildStepRows  = 1000
	buildStepBytes = 1 << 20
)

// buildStep adds the keys of the next documents to the extractor's indexes,
// which are being built, all equally far. With the last documents the indexes
// are ready.
func (db *DB) buildStep(ctx context.Context, t *table, extract *extractor) error {
	if err := db.acquire(ctx, t); err != nil {
		return err
	}
	if err := t.exists(); err != nil {
		<-t.lock
		return err
	}
	batch := db.store.pebble.NewBatch()
	indexes := slices.Clone(t.indexes.Load().indexes)
	next := *extract.set.indexes[0].build.stored()
	last, err := db.addKeys(batch, t, extract, &next)
	if err == nil {
		advance(indexes, &next, last)
		err = storeDefinitions(batch, t.code, indexes)
	}
	if err != nil {
		batch.Close()
		<-t.lock
		return err
	}
	return db.commit(ctx, t, batch, func() {
		if last {
			t.indexes.Store(newIndexSet(indexes))
		}
	})
}

// advance says of the indexes that are being built how far they are, or puts
// ready ones in their place.
func advance(indexes []*index, next *storedBuild, last bool) {
	for i, ix := range indexes {
		switch {
		case ix.build == nil:
		case last:
			ready := *ix
			ready.build, indexes[i] = nil, &ready
		default:
			ix.build.after = next.After
			ix.build.done.Store(next.Done)
		}
	}
}

// addKeys adds the keys of the documents after next.After to a batch, up to the
// bounds of a step, and moves next; last tells that no document is left.
func (db *DB) addKeys(batch *pebble.Batch, t *table, extract *extractor, next *storedBuild) (last bool, err error) {
	prefix := tableKey(t.code, kindDocument)
	lower := prefix
	if next.After != "" {
		lower = append(appendDocumentKey(nil, t.code, next.After), 0)
	}
	iter, err := db.store.pebble.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: keyAfter(prefix)})
	if err != nil {
		return false, unavailable(err)
	}
	defer iter.Close()
	var keys [][]byte
	rows, size := 0, 0
	for iter.First(); iter.Valid(); iter.Next() {
		if rows == buildStepRows || size >= buildStepBytes {
			return false, nil
		}
		r, err := readRecord(iter.Value())
		if err != nil {
			return false, err
		}
		id := string(iter.Key()[idOffset:])
		rows++
		size += len(r.body)
		next.After = id
		if r.deleted {
			continue
		}
		next.Done++
		extract.arena = extract.arena[:0]
		if keys, err = extract.keys(keys[:0], id, r.body); err != nil {
			return false, fmt.Errorf("document %q: %w", id, err)
		}
		for i, key := range keys {
			if key == nil {
				continue
			}
			if err := setIndexKey(batch, t.code, extract.set.indexes[i].number, key, id); err != nil {
				return false, err
			}
		}
	}
	if err := iter.Error(); err != nil {
		return false, unavailable(err)
	}
	return true, nil
}
