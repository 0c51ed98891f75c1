package couchdb

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

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
		state, err := db.state(ctx, name, ix)
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
func (db *DB) state(ctx context.Context, name string, ix *deployed) (statedb.IndexState, error) {
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
		ix.ready.Store(true)
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
	ix := q.index
	if ix.ready.Load() {
		return nil
	}
	state, err := db.state(ctx, q.name, ix)
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
		old := there.find(named(ix.Name))
		if old != nil && old.signature == keyset.Fingerprint(ix) {
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
	if err := db.await(ctx, name, indexes, there, progress); err != nil {
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
		body = append(canonical.AppendString(body, keyset.Direction(f)), '}')
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
func (db *DB) awaitListed(ctx context.Context, table, name string, indexes []statedb.Index) (catalog, error) {
	limit, cancel := context.WithTimeout(ctx, db.opts.RequestTimeout)
	defer cancel()
	for {
		there, err := db.list(ctx, table, name)
		if err != nil {
			return nil, err
		}
		missing := slices.IndexFunc(indexes, func(ix statedb.Index) bool {
			return there.find(signed(keyset.Fingerprint(ix))) == nil
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
func (db *DB) await(ctx context.Context, name string, indexes []statedb.Index, there catalog, progress func([]statedb.IndexState)) error {
	for first := true; ; first = false {
		var building []statedb.IndexState
		for _, def := range indexes {
			ix := there.find(signed(keyset.Fingerprint(def)))
			state, err := db.state(ctx, name, ix)
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
