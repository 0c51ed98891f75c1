package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// scanWarning is CouchDB's text.
const scanWarning = "No matching index found, create an index to optimize query time."

// lookAhead is how many rows are read beyond a full page to see whether it was
// the last one. If that does not tell, there is a bookmark, and the page after
// it may be empty.
const lookAhead = 1000

// query is a Query made ready: parsed, planned, its bookmark read.
type query struct {
	selector *mango.Selector
	fields   []mango.Path
	plan     *mango.Plan
	index    *index // nil for a scan
	hash     queryHash
	after    []byte // key of the last row of the page before
}

// prepareQuery parses and plans. A bookmark names the index it came from, so
// that an index deployed since does not change the order under way.
func prepareQuery(name string, set *indexSet, q statedb.Query) (*query, error) {
	if q.Limit < 1 {
		return nil, badLimit(q.Limit)
	}
	selector, err := mango.Parse(q.Selector)
	if err != nil {
		return nil, err
	}
	fields, err := mango.ParseFields(q.Fields)
	if err != nil {
		return nil, err
	}
	prepared := &query{selector: selector, fields: fields, hash: findHash(name, q)}
	indexes, use := set.indexes, q.UseIndex
	if q.Bookmark != "" {
		data, err := readBookmark(q.Bookmark, prepared.hash)
		if err != nil {
			return nil, err
		}
		number, key, err := splitFindBookmark(data)
		if err != nil {
			return nil, err
		}
		prepared.after = key
		at := slices.IndexFunc(set.indexes, func(ix *index) bool { return ix.number == number })
		switch {
		case number == scanNumber:
			indexes = nil
		case at < 0:
			return nil, fmt.Errorf("%w: its index was built anew since", statedb.ErrBadBookmark)
		default:
			use = indexes[at].def.Name
		}
	}
	if prepared.plan, prepared.index, err = choose(selector, q.Sort, indexes, use); err != nil {
		return nil, err
	}
	if q.NoScan && prepared.plan.WholeScan() {
		return nil, statedb.ErrScan
	}
	return prepared, nil
}

// choose plans a query over the indexes that are ready; the index is nil for a
// scan. Where that is no way to answer it, or would read the whole table, and
// an index that is being built will be one, that is ErrBuilding.
func choose(selector *mango.Selector, sort []statedb.SortField, indexes []*index, use string) (*mango.Plan, *index, error) {
	ready := slices.DeleteFunc(slices.Clone(indexes), func(ix *index) bool { return ix.build != nil })
	plan, err := mango.NewPlan(selector, sort, definitions(ready), use)
	if len(ready) < len(indexes) && (errors.Is(err, statedb.ErrNoIndex) || err == nil && plan.WholeScan()) {
		later, err := mango.NewPlan(selector, sort, definitions(indexes), use)
		if err != nil {
			return nil, nil, err
		}
		if later.Index >= 0 && indexes[later.Index].build != nil {
			state := indexes[later.Index].state()
			return nil, nil, fmt.Errorf("%w: %s, %d documents of %d to go", statedb.ErrBuilding, state.Name, state.Pending, state.Total)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if plan.Index < 0 {
		return plan, nil, nil
	}
	return plan, ready[plan.Index], nil
}

func definitions(indexes []*index) []statedb.Index {
	defs := make([]statedb.Index, len(indexes))
	for i, ix := range indexes {
		defs[i] = ix.def
	}
	return defs
}

func findHash(name string, q statedb.Query) queryHash {
	parts := [][]byte{[]byte("find"), []byte(name), q.Selector.Bytes(), []byte(q.UseIndex)}
	for _, f := range q.Sort {
		direction := "asc"
		if f.Descending {
			direction = "desc"
		}
		parts = append(parts, []byte("sort"), []byte(f.Field), []byte(direction))
	}
	for _, f := range q.Fields {
		parts = append(parts, []byte("field"), []byte(f))
	}
	return hashQuery(parts...)
}

// The key in a bookmark of Find is the number of the index, scanNumber when
// there was none, and the row's key without the table's own beginning.
const scanNumber = 0

func splitFindBookmark(data []byte) (number uint32, key []byte, err error) {
	if len(data) < 4 {
		return 0, nil, fmt.Errorf("%w: malformed", statedb.ErrBadBookmark)
	}
	return binary.BigEndian.Uint32(data), data[4:], nil
}

// Explain tells which index Find uses.
func (db *DB) Explain(ctx context.Context, name string, q statedb.Query) (statedb.Plan, error) {
	t, err := db.begin(ctx, name)
	if err != nil {
		return statedb.Plan{}, err
	}
	defer db.store.end()
	prepared, err := prepareQuery(name, t.indexes.Load(), q)
	if err != nil {
		return statedb.Plan{}, err
	}
	plan := statedb.Plan{Fields: []string{"_id"}, Covering: prepared.plan.Describe(), Scan: prepared.plan.WholeScan()}
	if ix := prepared.index; ix != nil {
		plan.Index = ix.def.Name
		plan.Fields = nil
		for _, f := range ix.def.Fields {
			plan.Fields = append(plan.Fields, f.Field)
		}
	}
	return plan, nil
}

// Find reads one page from one snapshot. The rows of a page come in the order
// of the index, then of the ids; without an index, of the ids.
func (db *DB) Find(ctx context.Context, name string, q statedb.Query) (statedb.Page, error) {
	t, err := db.begin(ctx, name)
	if err != nil {
		return statedb.Page{}, err
	}
	defer db.store.end()

	// The snapshot must have the index that the plan chose: an index is known to
	// be replaced before its keys go.
	set := t.indexes.Load()
	snapshot := db.store.pebble.NewSnapshot()
	defer func() { snapshot.Close() }()
	for set != t.indexes.Load() {
		set = t.indexes.Load()
		snapshot.Close()
		snapshot = db.store.pebble.NewSnapshot()
	}
	prepared, err := prepareQuery(name, set, q)
	if err != nil {
		return statedb.Page{}, err
	}
	f := finder{query: prepared, t: t, snapshot: snapshot, limit: q.Limit}
	if err := f.run(ctx); err != nil {
		return statedb.Page{}, err
	}
	if prepared.plan.WholeScan() {
		f.page.Warning = scanWarning
	}
	return f.page, db.settle(ctx, t, f.newest)
}

// finder walks over the keys of a plan and collects a page.
type finder struct {
	*query
	t        *table
	snapshot *pebble.Snapshot
	lookup   *lookup // of the documents that an index names
	limit    int

	prefix  []byte // of all keys of the index or of the documents
	lastKey []byte // of the last row on the page, without prefix
	page    statedb.Page
	newest  uint64
}

func (f *finder) bounds() *pebble.IterOptions {
	f.prefix = tableKey(f.t.code, kindDocument)
	if f.index != nil {
		f.prefix = appendIndexKey(nil, f.t.code, f.index.number)
	}
	lower := append(slices.Clone(f.prefix), f.plan.Lower...)
	upper := keyAfter(f.prefix)
	if f.plan.Upper != nil {
		upper = append(slices.Clone(f.prefix), f.plan.Upper...)
	}
	if f.after != nil {
		row := append(slices.Clone(f.prefix), f.after...)
		if f.plan.Reverse {
			upper = smaller(row, upper)
		} else if next := append(row, 0); bytes.Compare(next, lower) > 0 {
			lower = next
		}
	}
	return &pebble.IterOptions{LowerBound: lower, UpperBound: upper}
}

func smaller(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return a
	}
	return b
}

func (f *finder) run(ctx context.Context) error {
	opts := f.bounds()
	if bytes.Compare(opts.LowerBound, opts.UpperBound) >= 0 {
		return nil
	}
	iter, err := f.snapshot.NewIter(opts)
	if err != nil {
		return unavailable(err)
	}
	defer iter.Close()
	if f.index != nil {
		if f.lookup, err = newLookup(f.snapshot, f.t.code); err != nil {
			return err
		}
		defer f.lookup.close()
	}
	start, next := iter.First, iter.Next
	if f.plan.Reverse {
		start, next = iter.Last, iter.Prev
	}
	beyond := 0
	for valid := start(); valid; valid = next() {
		if f.page.Stats.Keys++; f.page.Stats.Keys%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		full := len(f.page.Documents) == f.limit
		if full {
			beyond++
		}
		if beyond > lookAhead {
			f.bookmark()
			return nil
		}
		found, err := f.row(iter, full)
		if err != nil {
			return err
		}
		if found && full {
			f.bookmark()
			return nil
		}
		if found {
			f.lastKey = append(f.lastKey[:0], iter.Key()[len(f.prefix):]...)
		}
	}
	if err := iter.Error(); err != nil {
		return unavailable(err)
	}
	return nil
}

func (f *finder) bookmark() {
	number := uint32(scanNumber)
	if f.index != nil {
		number = f.index.number
	}
	f.page.Bookmark = makeBookmark(append(binary.BigEndian.AppendUint32(nil, number), f.lastKey...), f.hash)
}

// row reads the document of a key and adds it to the page when it matches,
// unless only looking ahead.
func (f *finder) row(iter *pebble.Iterator, looking bool) (found bool, err error) {
	if f.index == nil {
		r, err := readRecord(iter.Value())
		if err != nil || r.deleted {
			return false, err
		}
		return f.document(string(iter.Key()[idOffset:]), r, looking)
	}
	id := iter.Key()[indexOffset:]
	for range f.index.paths {
		var ok bool
		if id, ok = mango.SkipKey(id); !ok {
			return false, fmt.Errorf("embedded: a key of the index %s is damaged", f.index.def.Name)
		}
	}
	if looking && f.plan.Residual == nil {
		return true, nil
	}
	r, there, err := f.lookup.get(string(id))
	if err == nil && !there {
		err = fmt.Errorf("embedded: the index %s names the document %q, which is not there", f.index.def.Name, id)
	}
	if err != nil {
		return false, err
	}
	return f.document(string(id), r, looking)
}

func (f *finder) document(id string, r record, looking bool) (found bool, err error) {
	f.page.Stats.Documents++
	var body canonical.Value
	if f.plan.Residual != nil || len(f.fields) > 0 {
		if body, err = canonical.Parse(r.body); err != nil {
			return false, fmt.Errorf("embedded: the stored document %q is damaged: %w", id, err)
		}
	}
	if f.plan.Residual != nil {
		seen := body
		if f.plan.Residual.Uses("_id") {
			seen = withID(seen, id)
		}
		if f.plan.Residual.Uses("_rev") {
			seen = seen.With("_rev", canonical.StringOf(r.rev.String()))
		}
		if !f.plan.Residual.Match(seen) {
			return false, nil
		}
	}
	if looking {
		return true, nil
	}
	document := statedb.Document{ID: id, Rev: r.rev.String()}
	if len(f.fields) > 0 {
		document.Body = mango.Project(body, f.fields).Bytes()
	} else {
		document.Body = slices.Clone(r.body)
	}
	f.newest = max(f.newest, r.seq)
	f.page.Documents = append(f.page.Documents, document)
	return true, nil
}
