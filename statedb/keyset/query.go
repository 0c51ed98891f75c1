// Package keyset answers Mango queries over databases whose own query language
// is another one. It plans a query over the table's indexes and keeps the place
// where a page ended as the key of its last row, in bookmarks that belong to
// one query. An adapter then asks its database for the rows behind that key,
// in the index's order; that may be more rows than match. Page merges them,
// matches each exactly as CouchDB would, and cuts the page.
package keyset

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// ScanWarning is the Warning of a page for which all of the table was read, in
// CouchDB's words.
const ScanWarning = "No matching index found, create an index to optimize query time."

// Query is a statedb.Query made ready.
type Query struct {
	// Plan says which part of the index holds the answer: Constants, then
	// Range, and in which direction to read it.
	Plan *mango.Plan
	// Index is the one to read, nil for reading by id.
	Index    *statedb.Index
	Selector *mango.Selector
	// Paths are the index's fields; none when reading by id.
	Paths []mango.Path
	// After is where the page before ended; nil for the first.
	After *Position
	// Fields are the paths to keep of each document; none keeps all.
	Fields []mango.Path

	partial *mango.Selector // of the index; nil for none
	hash    Hash
}

// Position is the place of a row in an index: the values of the index's fields,
// then the id.
type Position struct {
	Values []canonical.Value
	ID     string
}

// Key gives the position in bytes that sort as the rows do, and as the bounds
// of a mango.Plan.
func (p Position) Key() []byte {
	var key []byte
	for _, v := range p.Values {
		key = mango.AppendKey(key, v)
	}
	return append(key, p.ID...)
}

// Prepare parses a query, plans it over the indexes that are ready, and reads
// its bookmark. A bookmark names the index it came from, so that an index
// deployed since does not change the order under way. Errors are those of
// statedb.DB's Find.
func Prepare(table string, q statedb.Query, indexes []statedb.IndexState) (*Query, error) {
	if err := CheckLimit(q.Limit); err != nil {
		return nil, err
	}
	var err error
	query := &Query{hash: FindHash(table, q)}
	if query.Selector, err = mango.Parse(q.Selector); err != nil {
		return nil, err
	}
	if query.Fields, err = mango.ParseFields(q.Fields); err != nil {
		return nil, err
	}
	use := q.UseIndex
	if q.Bookmark != "" {
		ix, err := query.readBookmark(q.Bookmark, indexes)
		if err != nil {
			return nil, err
		}
		if indexes = nil; ix != nil {
			indexes, use = []statedb.IndexState{*ix}, ix.Name
		}
	}
	if err := query.choose(q.Sort, indexes, use); err != nil {
		return nil, err
	}
	if q.NoScan && query.Plan.WholeScan() {
		return nil, statedb.ErrScan
	}
	return query, nil
}

// choose plans over the indexes that are ready. Where that is no way to answer,
// or would read the whole table, and an index that is being built will be one,
// that is ErrBuilding.
func (q *Query) choose(sort []statedb.SortField, states []statedb.IndexState, use string) error {
	var all, ready []statedb.Index
	for _, state := range states {
		all = append(all, state.Index)
		if state.Pending == 0 {
			ready = append(ready, state.Index)
		}
	}
	plan, err := mango.NewPlan(q.Selector, sort, ready, use)
	if len(ready) < len(all) && (errors.Is(err, statedb.ErrNoIndex) || err == nil && plan.WholeScan()) {
		later, err := mango.NewPlan(q.Selector, sort, all, use)
		if err != nil {
			return err
		}
		if later.Index >= 0 && states[later.Index].Pending > 0 {
			state := states[later.Index]
			return fmt.Errorf("%w: %s, %d documents of %d to go", statedb.ErrBuilding, state.Name, state.Pending, state.Total)
		}
	}
	if err != nil {
		return err
	}
	if q.Plan = plan; plan.Index < 0 {
		return nil
	}
	q.Index = &ready[plan.Index]
	for _, f := range q.Index.Fields {
		q.Paths = append(q.Paths, mango.ParsePath(f.Field))
	}
	if !q.Index.PartialFilter.IsNull() {
		if q.partial, err = mango.Parse(q.Index.PartialFilter); err != nil {
			return fmt.Errorf("the partial filter of the index %s: %w", q.Index.Name, err)
		}
	}
	return nil
}

// Explain is the answer of statedb.DB's Explain.
func (q *Query) Explain() statedb.Plan {
	plan := statedb.Plan{Fields: []string{"_id"}, Covering: q.Plan.Describe(), Scan: q.Plan.WholeScan()}
	if q.Index != nil {
		plan.Index, plan.Fields = q.Index.Name, nil
		for _, f := range q.Index.Fields {
			plan.Fields = append(plan.Fields, f.Field)
		}
	}
	return plan
}

// Fingerprint tells an index from one of the same name and another definition.
func Fingerprint(ix statedb.Index) string {
	parts := []string{ix.DDoc, ix.Name, string(ix.PartialFilter.Bytes())}
	for _, f := range ix.Fields {
		parts = append(parts, f.Field, Direction(f))
	}
	sum := HashOf(parts...)
	return hex.EncodeToString(sum[:8])
}

// Bookmark makes the bookmark of a page that ended at a position. What it seals
// is a JSON array: the index's Fingerprint, "" when reading by id; the values;
// the id.
func (q *Query) Bookmark(last Position) string {
	index := ""
	if q.Index != nil {
		index = Fingerprint(*q.Index)
	}
	place := append([]canonical.Value{canonical.StringOf(index)}, last.Values...)
	return Seal(canonical.ArrayOf(append(place, canonical.StringOf(last.ID))...).Bytes(), q.hash)
}

// readBookmark sets After and returns the index of the page before, nil when
// that was read by id.
func (q *Query) readBookmark(bookmark string, indexes []statedb.IndexState) (*statedb.IndexState, error) {
	data, err := Open(bookmark, q.hash)
	if err != nil {
		return nil, err
	}
	// Whoever knows how can seal anything.
	place, err := canonical.Parse(data)
	if err != nil || place.Kind() != canonical.Array || place.Len() < 2 || place.At(place.Len()-1).Kind() != canonical.String {
		return nil, fmt.Errorf("%w: malformed", statedb.ErrBadBookmark)
	}
	q.After = &Position{ID: place.At(place.Len() - 1).Text()}
	for i := 1; i < place.Len()-1; i++ {
		q.After.Values = append(q.After.Values, place.At(i))
	}
	var ix *statedb.IndexState
	if name := place.At(0).Text(); name != "" {
		at := slices.IndexFunc(indexes, func(state statedb.IndexState) bool { return Fingerprint(state.Index) == name })
		if at < 0 {
			return nil, fmt.Errorf("%w: its index was built anew since", statedb.ErrBadBookmark)
		}
		ix = &indexes[at]
	}
	if ix == nil && len(q.After.Values) > 0 || ix != nil && len(q.After.Values) != len(ix.Fields) {
		return nil, fmt.Errorf("%w: malformed", statedb.ErrBadBookmark)
	}
	return ix, nil
}
