package embedded

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
	"github.com/couchledger/couchledger/statedb/mango"
)

// query is a Query made ready, with the index that it reads.
type query struct {
	*keyset.Query
	index *index // nil for a scan
}

func prepareQuery(name string, set *indexSet, q statedb.Query) (*query, error) {
	states := make([]statedb.IndexState, len(set.indexes))
	for i, ix := range set.indexes {
		states[i] = ix.state()
	}
	made, err := keyset.Prepare(name, q, states)
	if err != nil {
		return nil, err
	}
	prepared := &query{Query: made}
	if prepared.Index != nil {
		at := slices.IndexFunc(set.indexes, func(ix *index) bool { return ix.def.Name == prepared.Index.Name })
		prepared.index = set.indexes[at]
	}
	return prepared, nil
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
	return prepared.Explain(), nil
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
	if prepared.Plan.WholeScan() {
		f.page.Warning = keyset.ScanWarning
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

	prefix   []byte // of all keys of the index or of the documents
	lastID   string // of the last row on the page, and its body where there is an index
	lastBody []byte
	page     statedb.Page
	newest   uint64
}

func (f *finder) bounds() *pebble.IterOptions {
	f.prefix = tableKey(f.t.code, kindDocument)
	if f.index != nil {
		f.prefix = appendIndexKey(nil, f.t.code, f.index.number)
	}
	lower := append(slices.Clone(f.prefix), f.Plan.Lower...)
	upper := keyAfter(f.prefix)
	if f.Plan.Upper != nil {
		upper = append(slices.Clone(f.prefix), f.Plan.Upper...)
	}
	if f.After != nil {
		row := append(slices.Clone(f.prefix), f.After.Key()...)
		if f.Plan.Reverse {
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
	if f.Plan.Reverse {
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
		if beyond > keyset.LookAhead {
			return f.bookmark()
		}
		found, err := f.row(iter, full)
		if err != nil {
			return err
		}
		if found && full {
			return f.bookmark()
		}
	}
	if err := iter.Error(); err != nil {
		return unavailable(err)
	}
	return nil
}

func (f *finder) bookmark() error {
	last := keyset.Position{ID: f.lastID}
	if f.index != nil {
		body, err := canonical.Parse(f.lastBody)
		if err != nil {
			return fmt.Errorf("embedded: the stored document %q is damaged: %w", f.lastID, err)
		}
		for _, path := range f.Paths {
			v, ok := path.Lookup(body)
			if !ok {
				return fmt.Errorf("embedded: the index %s names the document %q, which lacks a field of it", f.index.def.Name, f.lastID)
			}
			last.Values = append(last.Values, v)
		}
	}
	f.page.Bookmark = f.Bookmark(last)
	return nil
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
	if looking && f.Plan.Residual == nil {
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
	if f.Plan.Residual != nil || len(f.Fields) > 0 {
		if body, err = canonical.Parse(r.body); err != nil {
			return false, fmt.Errorf("embedded: the stored document %q is damaged: %w", id, err)
		}
	}
	if f.Plan.Residual != nil {
		seen := body
		if f.Plan.Residual.Uses("_id") {
			seen = withID(seen, id)
		}
		if f.Plan.Residual.Uses("_rev") {
			seen = seen.With("_rev", canonical.StringOf(r.rev.String()))
		}
		if !f.Plan.Residual.Match(seen) {
			return false, nil
		}
	}
	if looking {
		return true, nil
	}
	document := statedb.Document{ID: id, Rev: r.rev.String()}
	if len(f.Fields) > 0 {
		document.Body = mango.Project(body, f.Fields).Bytes()
	} else {
		document.Body = slices.Clone(r.body)
	}
	f.newest = max(f.newest, r.seq)
	f.page.Documents = append(f.page.Documents, document)
	if f.lastID = id; f.index != nil {
		f.lastBody = append(f.lastBody[:0], r.body...)
	}
	return true, nil
}
