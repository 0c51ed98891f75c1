package embedded

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// indexSet is a table's indexes with what it takes to find their fields in a
// document. It is replaced, never changed.
type indexSet struct {
	indexes []*index
	fields  [][]int   // by index: the slots of its fields
	root    *pathNode // nil when there are no indexes
	slots   int
	slow    bool // a path has a position that a scanner would not find
}

// index is one index. A document is in it when it has all the fields and
// matches the filter, if there is one. It is never changed either.
type index struct {
	def    statedb.Index
	number uint32 // in its keys; a new one whenever it is defined anew
	paths  []mango.Path
	filter *mango.Selector
	build  *build // nil when every document that belongs to it is in it
}

// storedIndex is how a definition is stored.
type storedIndex struct {
	Number uint32
	Def    statedb.Index
	Build  *storedBuild `json:",omitempty"` // while it is being built
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
	set := &indexSet{indexes: indexes, fields: make([][]int, len(indexes))}
	if len(indexes) == 0 {
		return set
	}
	set.root = &pathNode{slot: -1}
	for i, ix := range indexes {
		for _, path := range ix.paths {
			set.slow = set.slow || slices.ContainsFunc(path, oddPosition)
			slot := set.root.add(path, set.slots)
			if slot == set.slots {
				set.slots++
			}
			set.fields[i] = append(set.fields[i], slot)
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
	for n, ix := range x.set.indexes {
		start := len(x.arena)
		complete := true
		for i, slot := range x.set.fields[n] {
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
		if stored.Build != nil {
			ix.build = stored.Build.running()
		}
		indexes = append(indexes, ix)
	}
	if err := iter.Error(); err != nil {
		return nil, unavailable(err)
	}
	return newIndexSet(indexes), nil
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
