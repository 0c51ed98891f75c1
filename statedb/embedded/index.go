package embedded

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// indexSet is a table's indexes with what it takes to find their fields in a
// document. It is replaced, never changed.
type indexSet struct {
	indexes []*index
	root    *pathNode // nil when there are no indexes
	slots   int
	slow    bool // a path has a position that a scanner would not find
}

// index is one index. A document is in it when it has all the fields and
// matches the filter, if there is one.
type index struct {
	def    statedb.Index
	number uint32 // in its keys; a new one whenever it is built anew
	paths  []mango.Path
	slots  []int
	filter *mango.Selector
}

// storedIndex is how a definition is stored.
type storedIndex struct {
	Number uint32
	Def    statedb.Index
}

func newIndex(def statedb.Index, number uint32) (*index, error) {
	if def.Name == "" || len(def.Fields) == 0 {
		return nil, fmt.Errorf("%w: an index needs a name and fields", statedb.ErrBadQuery)
	}
	ix := &index{def: def, number: number}
	for _, f := range def.Fields {
		if f.Field == "" {
			return nil, fmt.Errorf("%w: index %s has a field without a name", statedb.ErrBadQuery, def.Name)
		}
		if f.Field[0] == '_' {
			return nil, fmt.Errorf("%w: index %s: %s cannot be indexed; ids are in order anyway", statedb.ErrBadQuery, def.Name, f.Field)
		}
		ix.paths = append(ix.paths, mango.ParsePath(f.Field))
	}
	if !def.PartialFilter.IsNull() {
		filter, err := mango.Parse(def.PartialFilter)
		if err != nil {
			return nil, fmt.Errorf("index %s: partial_filter_selector: %w", def.Name, err)
		}
		ix.filter = filter
	}
	return ix, nil
}

func newIndexSet(indexes []*index) *indexSet {
	set := &indexSet{indexes: indexes}
	if len(indexes) == 0 {
		return set
	}
	set.root = &pathNode{slot: -1}
	for _, ix := range indexes {
		ix.slots = ix.slots[:0:0]
		for _, path := range ix.paths {
			set.slow = set.slow || slices.ContainsFunc(path, oddPosition)
			slot := set.root.add(path, set.slots)
			if slot == set.slots {
				set.slots++
			}
			ix.slots = append(ix.slots, slot)
		}
	}
	return set
}

// oddPosition reports whether a part of a path is a position in an array that
// can be written otherwise too: 01 and +1 are 1, and need not be the same node.
func oddPosition(part string) bool {
	at, ok := mango.ArrayIndex(part)
	return ok && strconv.Itoa(at) != part
}

// extractor checks bodies and makes the index keys of documents. It is used
// by one goroutine.
type extractor struct {
	set     *indexSet
	scanner scanner
	arena   []byte
}

func newExtractor(set *indexSet) *extractor {
	return &extractor{set: set, scanner: scanner{found: make([][]byte, set.slots)}}
}

// keys checks a body and appends to dst, for each index of the set, the
// document's encoded fields, or nil when it is not in that index. Errors wrap
// statedb.ErrBadDocument.
func (x *extractor) keys(dst [][]byte, id string, body []byte) ([][]byte, error) {
	usual := !x.set.slow && x.scanner.object(body, x.set.root)
	var tree canonical.Value
	if !usual {
		var err error
		if tree, err = checkBody(body); err != nil {
			return dst, err
		}
	}
	for _, ix := range x.set.indexes {
		start := len(x.arena)
		complete := true
		for i, slot := range ix.slots {
			if usual {
				text := x.scanner.found[slot]
				if text == nil {
					complete = false
					break
				}
				arena, err := appendKeyOfText(x.arena, text)
				if err != nil {
					return dst, fmt.Errorf("%w: %s: %w", statedb.ErrBadDocument, ix.paths[i], err)
				}
				x.arena = arena
			} else {
				v, ok := ix.paths[i].Lookup(tree)
				if !ok {
					complete = false
					break
				}
				x.arena = mango.AppendKey(x.arena, v)
			}
		}
		if complete && ix.filter != nil {
			if usual && tree.IsNull() {
				var err error
				if tree, err = checkBody(body); err != nil {
					return dst, err
				}
			}
			complete = ix.filter.Match(withID(tree, id))
		}
		if complete {
			dst = append(dst, x.arena[start:len(x.arena):len(x.arena)])
		} else {
			x.arena = x.arena[:start]
			dst = append(dst, nil)
		}
	}
	return dst, nil
}

// checkBody gives the full verdict on a body that is not usual.
func checkBody(body []byte) (canonical.Value, error) {
	v, err := canonical.Parse(body)
	if err != nil {
		return v, fmt.Errorf("%w: %w", statedb.ErrBadDocument, err)
	}
	if v.Kind() != canonical.Object {
		return v, fmt.Errorf("%w: the body is %s, not an object", statedb.ErrBadDocument, quoteShort(body))
	}
	for _, key := range []string{"_id", "_rev"} {
		if _, ok := v.Get(key); ok {
			return v, fmt.Errorf("%w: the body has a field %s, which stands beside it", statedb.ErrBadDocument, key)
		}
	}
	return v, nil
}

// withID gives the document as selectors see it.
func withID(body canonical.Value, id string) canonical.Value {
	return body.With("_id", canonical.StringOf(id))
}

func (db *DB) loadIndexes(code byte) (*indexSet, error) {
	prefix := tableKey(code, kindDefinition)
	iter, err := db.store.pebble.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyAfter(prefix)})
	if err != nil {
		return nil, unavailable(err)
	}
	defer iter.Close()
	var indexes []*index
	for iter.First(); iter.Valid(); iter.Next() {
		var stored storedIndex
		if err := json.Unmarshal(iter.Value(), &stored); err != nil {
			return nil, fmt.Errorf("a stored index definition is damaged: %w", err)
		}
		ix, err := newIndex(stored.Def, stored.Number)
		if err != nil {
			return nil, err
		}
		indexes = append(indexes, ix)
	}
	if err := iter.Error(); err != nil {
		return nil, unavailable(err)
	}
	return newIndexSet(indexes), nil
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
	var states []statedb.IndexState
	for _, def := range t.indexes.Load().definitions() {
		states = append(states, statedb.IndexState{Index: def})
	}
	slices.SortFunc(states, func(a, b statedb.IndexState) int { return strings.Compare(a.Name, b.Name) })
	return states, nil
}

// DeployIndexes makes the table's indexes be these. Writers of the table wait
// while an index is built.
func (db *DB) DeployIndexes(ctx context.Context, name string, defs []statedb.Index, progress func([]statedb.IndexState)) error {
	t, err := db.begin(ctx, name)
	if err != nil {
		return err
	}
	defer db.store.end()
	if err := db.acquire(ctx, t); err != nil {
		return err
	}
	defer func() { <-t.lock }()
	if err := t.exists(); err != nil {
		return err
	}
	for _, def := range defs {
		if err := db.deploy(ctx, t, def); err != nil {
			return fmt.Errorf("embedded: table %s: %w", name, err)
		}
	}
	return nil
}

// deploy builds one index unless it is there. The caller holds the table's lock.
func (db *DB) deploy(ctx context.Context, t *table, def statedb.Index) error {
	set := t.indexes.Load()
	number := uint32(1)
	var old *index
	for _, ix := range set.indexes {
		number = max(number, ix.number+1)
		if ix.def.Name == def.Name {
			old = ix
		}
	}
	if old != nil && sameDefinition(old.def, def) {
		return nil
	}
	ix, err := newIndex(def, number)
	if err != nil {
		return err
	}
	if err := db.buildIndex(ctx, t, ix); err != nil {
		return err
	}
	definition, err := json.Marshal(storedIndex{Number: number, Def: def})
	if err != nil {
		return err
	}
	indexes := slices.Clone(set.indexes)
	if old == nil {
		indexes = append(indexes, ix)
	} else {
		indexes[slices.Index(indexes, old)] = ix
	}
	batch := db.store.pebble.NewBatch()
	if err := batch.Set(definitionKey(t.code, def.Name), definition, nil); err != nil {
		return unavailable(err)
	}
	// A definition takes effect with its commit, whoever still waits.
	if err := db.commit(context.WithoutCancel(ctx), batch); err != nil {
		return err
	}
	t.indexes.Store(newIndexSet(indexes))
	if old == nil {
		return nil
	}
	// Only now, so that no reader finds the old index empty. What a crash
	// leaves is never read, its number not being used again.
	clear := db.store.pebble.NewBatch()
	if err := clearIndex(clear, t.code, old.number); err != nil {
		return err
	}
	return db.commit(ctx, clear)
}

// commit writes a batch that is no change of documents.
func (db *DB) commit(ctx context.Context, batch *pebble.Batch) error {
	if err := db.store.begin(); err != nil {
		return err
	}
	return db.store.apply(ctx, batch, func() {}, func() {})
}

func sameDefinition(a, b statedb.Index) bool {
	return a.DDoc == b.DDoc && slices.Equal(a.Fields, b.Fields) && canonical.Equal(a.PartialFilter, b.PartialFilter)
}

func clearIndex(batch *pebble.Batch, code byte, number uint32) error {
	prefix := appendIndexKey(nil, code, number)
	if err := batch.DeleteRange(prefix, keyAfter(prefix), nil); err != nil {
		return unavailable(err)
	}
	return nil
}

// buildBatchBytes bounds the memory of building an index.
const buildBatchBytes = 1 << 20

// buildIndex writes the keys of all documents. Nothing reads them before the
// definition is there; what a build that broke off left is cleared first.
func (db *DB) buildIndex(ctx context.Context, t *table, ix *index) error {
	p := db.store.pebble
	batch := p.NewBatch()
	defer func() { batch.Close() }()
	if err := clearIndex(batch, t.code, ix.number); err != nil {
		return err
	}
	prefix := tableKey(t.code, kindDocument)
	iter, err := p.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyAfter(prefix)})
	if err != nil {
		return unavailable(err)
	}
	defer iter.Close()
	flush := func() error {
		full := batch
		batch = p.NewBatch()
		return db.commit(ctx, full)
	}
	extract := newExtractor(newIndexSet([]*index{ix}))
	var keys [][]byte
	for iter.First(); iter.Valid(); iter.Next() {
		r, err := readRecord(iter.Value())
		if err != nil {
			return err
		}
		if r.deleted {
			continue
		}
		id := iter.Key()[idOffset:]
		extract.arena = extract.arena[:0]
		if keys, err = extract.keys(keys[:0], string(id), r.body); err != nil {
			return fmt.Errorf("document %q: %w", id, err)
		}
		if keys[0] == nil {
			continue
		}
		if err := setIndexKey(batch, t.code, ix.number, keys[0], string(id)); err != nil {
			return err
		}
		if batch.Len() >= buildBatchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := iter.Error(); err != nil {
		return unavailable(err)
	}
	return flush()
}

func setIndexKey(batch *pebble.Batch, code byte, number uint32, key []byte, id string) error {
	op := batch.SetDeferred(indexOffset+len(key)+len(id), 0)
	fillIndexKey(op.Key, code, number, key, id)
	if err := op.Finish(); err != nil {
		return unavailable(err)
	}
	return nil
}

func deleteIndexKey(batch *pebble.Batch, code byte, number uint32, key []byte, id string) error {
	op := batch.DeleteDeferred(indexOffset + len(key) + len(id))
	fillIndexKey(op.Key, code, number, key, id)
	if err := op.Finish(); err != nil {
		return unavailable(err)
	}
	return nil
}

func fillIndexKey(dst []byte, code byte, number uint32, key []byte, id string) {
	dst[0], dst[1] = code, kindIndex
	binary.BigEndian.PutUint32(dst[2:], number)
	copy(dst[indexOffset:], key)
	copy(dst[indexOffset+len(key):], id)
}
