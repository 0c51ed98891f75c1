package couchdb

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// deployed is an index as CouchDB lists it.
type deployed struct {
	statedb.Index
	signature string // tells it from one of the same name and another definition
	ready     bool   // it was seen to be built; queries only bring it up to date
}

// design is the prefix of a design document's id.
const design = "_design/"

// readIndex reads an element of _index, or the index of _explain. It gives nil
// for _all_docs and for indexes that are not of type json.
func readIndex(data []byte) (*deployed, error) {
	tree, err := canonical.Parse(data)
	if err != nil {
		return nil, malformed("an index")
	}
	text := func(v canonical.Value, key string) string {
		field, _ := v.Get(key)
		return field.Text()
	}
	if text(tree, "type") != "json" {
		return nil, nil
	}
	ix := &deployed{}
	ix.Name = text(tree, "name")
	ix.DDoc = strings.TrimPrefix(text(tree, "ddoc"), design)
	definition, _ := tree.Get("def")
	fields, _ := definition.Get("fields")
	for i := range fields.Len() {
		f := fields.At(i)
		if f.Kind() != canonical.Object || f.Len() != 1 {
			return nil, malformed("the fields of index " + ix.Name)
		}
		ix.Fields = append(ix.Fields, statedb.SortField{Field: f.Key(0), Descending: f.At(0).Text() == "desc"})
	}
	if filter, ok := definition.Get("partial_filter_selector"); ok && filter.Len() > 0 {
		ix.PartialFilter = filter
	}
	ix.signature = signature(ix.Index)
	return ix, nil
}

func signature(ix statedb.Index) string {
	parts := []string{ix.DDoc, ix.Name, string(ix.PartialFilter.Bytes())}
	for _, f := range ix.Fields {
		parts = append(parts, f.Field, direction(f))
	}
	sum := hashQuery(parts...)
	return hex.EncodeToString(sum[:8])
}

// key is what the index holds of a document: the values of its fields.
func (ix *deployed) key(d statedb.Document) (canonical.Value, error) {
	tree, err := canonical.Parse(d.Body)
	if err != nil {
		return tree, malformed("a document")
	}
	tree = tree.With("_id", canonical.StringOf(d.ID)).With("_rev", canonical.StringOf(d.Rev))
	var values []canonical.Value
	for _, f := range ix.Fields {
		v, ok := mango.ParsePath(f.Field).Lookup(tree)
		if !ok {
			return v, fmt.Errorf("couchdb: document %q is in the index %s without its field %s", d.ID, ix.Name, f.Field)
		}
		values = append(values, v)
	}
	return canonical.ArrayOf(values...), nil
}

// list asks for a table's indexes and remembers them.
func (db *DB) list(ctx context.Context, table, name string) (map[string]*deployed, error) {
	answer, err := db.do(ctx, request{method: http.MethodGet, path: path(name, "_index"), reads: true})
	if err != nil {
		return nil, err
	}
	all := map[string]*deployed{}
	var fault error
	err = eachField(answer, func(key, value []byte) bool {
		if string(key) == "indexes" {
			fault = eachElement(value, func(element []byte) error {
				ix, err := readIndex(element)
				if ix != nil {
					all[ix.Name] = ix
				}
				return err
			})
		}
		return fault == nil
	})
	if err = errors.Join(err, fault); err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	for n, ix := range all {
		if old := db.indexes[table][n]; old != nil && old.signature == ix.signature {
			ix.ready = old.ready
		}
	}
	db.indexes[table] = all
	return all, nil
}

func (db *DB) known(table, name string) *deployed {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.indexes[table][name]
}

func (db *DB) forgetIndexes() {
	db.mu.Lock()
	defer db.mu.Unlock()
	clear(db.indexes)
}

// byName finds an index, asking the server when it is not known; nil for none.
func (db *DB) byName(ctx context.Context, table, name, index string) (*deployed, error) {
	if ix := db.known(table, index); ix != nil {
		return ix, nil
	}
	all, err := db.list(ctx, table, name)
	return all[index], err
}

func (db *DB) bySignature(ctx context.Context, table, name, signature string) (*deployed, error) {
	find := func(all map[string]*deployed) *deployed {
		for _, ix := range all {
			if ix.signature == signature {
				return ix
			}
		}
		return nil
	}
	db.mu.Lock()
	ix := find(db.indexes[table])
	db.mu.Unlock()
	if ix != nil {
		return ix, nil
	}
	all, err := db.list(ctx, table, name)
	return find(all), err
}

// Indexes lists the table's indexes with what is still to be built.
func (db *DB) Indexes(ctx context.Context, table string) ([]statedb.IndexState, error) {
	name, err := db.database(table)
	if err != nil {
		return nil, err
	}
	all, err := db.list(ctx, table, name)
	if err != nil {
		return nil, err
	}
	var states []statedb.IndexState
	for _, ix := range all {
		state, err := db.state(ctx, table, name, ix)
		if err != nil {
			return nil, err
		}
		states = append(states, state)
	}
	slices.SortFunc(states, func(a, b statedb.IndexState) int { return strings.Compare(a.Name, b.Name) })
	return states, nil
}

// fewPending is how many documents an index may lack and still be used at
// once: a query indexes them in passing.
const fewPending = 1000

// state asks how far an index is built.
func (db *DB) state(ctx context.Context, table, name string, ix *deployed) (statedb.IndexState, error) {
	state := statedb.IndexState{Index: ix.Index}
	if db.server.substitute {
		return state, nil // it builds when it is asked
	}
	answer, err := db.do(ctx, request{method: http.MethodGet, path: path(name, "_design", ix.DDoc, "_info"), reads: true})
	if err != nil {
		return state, err
	}
	var info struct {
		ViewIndex struct {
			Pending struct {
				Total int `json:"total"`
			} `json:"updates_pending"`
		} `json:"view_index"`
	}
	if err := json.Unmarshal(answer, &info); err != nil {
		return state, malformed("_info of " + ix.DDoc)
	}
	if info.ViewIndex.Pending.Total <= fewPending {
		db.mu.Lock()
		if known := db.indexes[table][ix.Name]; known != nil && known.signature == ix.signature {
			known.ready = true
		}
		db.mu.Unlock()
		return state, nil
	}
	state.Pending = info.ViewIndex.Pending.Total
	if state.Total, err = db.count(ctx, name); err != nil {
		return state, err
	}
	state.Total = max(state.Total, state.Pending)
	return state, nil
}

// count is the number of documents in a database.
func (db *DB) count(ctx context.Context, name string) (int, error) {
	answer, err := db.do(ctx, request{method: http.MethodGet, path: path(name), reads: true})
	if err != nil {
		return 0, err
	}
	var info struct {
		Count int `json:"doc_count"`
	}
	if err := json.Unmarshal(answer, &info); err != nil {
		return 0, malformed("the database's description")
	}
	return info.Count, nil
}

// usable returns ErrBuilding when the index of a query is far from ready:
// CouchDB would hold the answer back until it is.
func (db *DB) usable(ctx context.Context, q *query) error {
	if q.index == nil {
		return nil
	}
	ix, err := db.byName(ctx, q.table, q.name, q.index.Name)
	if err != nil {
		return err
	}
	if ix == nil || ix.signature != q.index.signature {
		all, err := db.list(ctx, q.table, q.name)
		if err != nil {
			return err
		}
		if ix = all[q.index.Name]; ix == nil {
			return fmt.Errorf("%w: the index %s was deleted just now", statedb.ErrUnavailable, q.index.Name)
		}
	}
	db.mu.Lock()
	ready := ix.ready
	db.mu.Unlock()
	if ready {
		return nil
	}
	state, err := db.state(ctx, q.table, q.name, ix)
	if err != nil || state.Pending == 0 {
		return err
	}
	if err := db.kick(ctx, q.name, ix); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s lacks %d of %d documents", statedb.ErrBuilding, ix.Name, state.Pending, state.Total)
}

// kick has the server build an index without waiting for it.
func (db *DB) kick(ctx context.Context, name string, ix *deployed) error {
	query := url.Values{"limit": {"0"}, "reduce": {"false"}, "update": {"lazy"}}
	_, err := db.do(ctx, request{
		method: http.MethodGet, path: path(name, "_design", ix.DDoc, "_view", ix.Name), query: query, reads: true,
	})
	return err
}

// progressEvery is how often building is looked at.
const progressEvery = 500 * time.Millisecond

// DeployIndexes sends the definitions that are not there, and waits until
// CouchDB has built them.
func (db *DB) DeployIndexes(ctx context.Context, table string, indexes []statedb.Index, progress func([]statedb.IndexState)) error {
	name, err := db.database(table)
	if err != nil {
		return err
	}
	there, err := db.list(ctx, table, name)
	if err != nil {
		return err
	}
	changed := false
	for _, ix := range indexes {
		old := there[ix.Name]
		if old != nil && old.signature == signature(ix) {
			continue
		}
		changed = changed || old != nil
		if err := db.deploy(ctx, name, ix, old); err != nil {
			return fmt.Errorf("deploy the index %s of %s: %w", ix.Name, name, err)
		}
	}
	if there, err = db.awaitListed(ctx, table, name, indexes); err != nil {
		return err
	}
	if err := db.await(ctx, table, name, indexes, there, progress); err != nil {
		return err
	}
	if changed && !db.server.substitute {
		// The files of the old definitions are of no use to anybody.
		return db.admin(ctx, func(ctx context.Context) error { return db.client.DB(name).ViewCleanup(ctx) })
	}
	return nil
}

// deploy sends one definition. One that moved to another design document is
// deleted from the old.
func (db *DB) deploy(ctx context.Context, name string, ix statedb.Index, old *deployed) error {
	body := []byte(`{"index":{"fields":[`)
	for i, f := range ix.Fields {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(canonical.AppendString(append(body, '{'), f.Field), ':')
		body = append(canonical.AppendString(body, direction(f)), '}')
	}
	body = append(body, ']')
	if !ix.PartialFilter.IsNull() {
		body = append(append(body, `,"partial_filter_selector":`...), ix.PartialFilter.Bytes()...)
	}
	body = canonical.AppendString(append(body, `},"type":"json","ddoc":`...), ix.DDoc)
	body = append(canonical.AppendString(append(body, `,"name":`...), ix.Name), '}')
	if old != nil {
		err := db.deleteIndex(ctx, name, old.Index)
		if err != nil && statusOf(err) != http.StatusNotFound {
			return err
		}
	}
	_, err := db.do(ctx, request{method: http.MethodPost, path: path(name, "_index"), body: body, reads: true})
	if statusOf(err) == http.StatusBadRequest {
		return fmt.Errorf("%w: %w", statedb.ErrBadQuery, err)
	}
	return err
}

func (db *DB) deleteIndex(ctx context.Context, name string, ix statedb.Index) error {
	return db.admin(ctx, func(ctx context.Context) error {
		return db.client.DB(name).DeleteIndex(ctx, url.PathEscape(ix.DDoc), url.PathEscape(ix.Name))
	})
}

// awaitListed lists the indexes until all are there as they were deployed:
// CouchDB's cache of design documents follows a moment later.
func (db *DB) awaitListed(ctx context.Context, table, name string, indexes []statedb.Index) (map[string]*deployed, error) {
	limit, cancel := context.WithTimeout(ctx, db.opts.RequestTimeout)
	defer cancel()
	for {
		there, err := db.list(ctx, table, name)
		if err != nil {
			return nil, err
		}
		missing := slices.IndexFunc(indexes, func(ix statedb.Index) bool {
			return there[ix.Name] == nil || there[ix.Name].signature != signature(ix)
		})
		if missing < 0 {
			return there, nil
		}
		if err := db.pause(limit, listPause); err != nil {
			if ctx.Err() == nil && limit.Err() != nil {
				err = fmt.Errorf("%w: CouchDB does not list the index %s of %s as it was deployed", statedb.ErrUnavailable, indexes[missing].Name, name)
			}
			return nil, err
		}
	}
}

// listPause is the time between two looks at the list of indexes.
const listPause = 20 * time.Millisecond

// await waits until none of the indexes lacks many documents.
func (db *DB) await(ctx context.Context, table, name string, indexes []statedb.Index, there map[string]*deployed, progress func([]statedb.IndexState)) error {
	for first := true; ; first = false {
		var building []statedb.IndexState
		for _, def := range indexes {
			ix := there[def.Name]
			state, err := db.state(ctx, table, name, ix)
			if err != nil {
				return err
			}
			if state.Pending == 0 {
				continue
			}
			building = append(building, state)
			if first {
				if err := db.kick(ctx, name, ix); err != nil {
					return err
				}
			}
		}
		if len(building) == 0 {
			return nil
		}
		if progress != nil {
			progress(building)
		}
		if err := db.pause(ctx, progressEvery); err != nil {
			return err
		}
	}
}
