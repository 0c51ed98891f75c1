package rethinkdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// Indexes lists the table's indexes. Of those that others made in RethinkDB's
// own way there is the name only, unless an index of the ledger has it: no query
// uses them.
func (db *DB) Indexes(ctx context.Context, table string) ([]statedb.IndexState, error) {
	if err := db.checkTable(table); err != nil {
		return nil, err
	}
	c, err := db.list(ctx, table)
	if err != nil {
		return nil, err
	}
	states := slices.Clone(c.states)
	for _, name := range c.servers {
		known := slices.ContainsFunc(c.states, func(state statedb.IndexState) bool { return state.Name == name })
		if !known && !ownName.MatchString(name) {
			states = append(states, statedb.IndexState{Index: statedb.Index{Name: name}})
		}
	}
	slices.SortFunc(states, func(a, b statedb.IndexState) int { return strings.Compare(a.Name, b.Name) })
	return states, nil
}

const (
	// progressEvery is how often building is told of.
	progressEvery = 500 * time.Millisecond
	// statusPause is the time between two looks.
	statusPause = 50 * time.Millisecond
)

// DeployIndexes stores the definitions, has RethinkDB build the indexes that
// are not there, and waits until they can be used. From the moment that a
// definition is stored no query uses the one that it replaces.
func (db *DB) DeployIndexes(ctx context.Context, table string, indexes []statedb.Index, progress func([]statedb.IndexState)) error {
	if err := db.checkTable(table); err != nil {
		return err
	}
	for _, ix := range indexes {
		if err := db.define(ctx, table, ix); err != nil {
			return fmt.Errorf("deploy the index %s of %s: %w", ix.Name, table, err)
		}
	}
	c, err := db.list(ctx, table)
	if err != nil {
		return err
	}
	for _, ix := range indexes {
		if err := db.build(ctx, table, ix, c.servers); err != nil {
			return fmt.Errorf("deploy the index %s of %s: %w", ix.Name, table, err)
		}
	}
	var told time.Time
	for {
		if c, err = db.list(ctx, table); err != nil {
			return err
		}
		building := slices.DeleteFunc(slices.Clone(c.states), func(state statedb.IndexState) bool {
			return state.Pending == 0 || !slices.ContainsFunc(indexes, state.Equal)
		})
		if len(building) == 0 {
			return nil
		}
		if progress != nil && time.Since(told) >= progressEvery {
			told = time.Now()
			progress(building)
		}
		if err := statedb.Sleep(ctx, statusPause); err != nil {
			return err
		}
	}
}

// define stores a definition. One that is there already is not written again.
func (db *DB) define(ctx context.Context, table string, ix statedb.Index) error {
	if ix.Name == "" || len(ix.Fields) == 0 {
		return fmt.Errorf("%w: an index needs a name and fields", statedb.ErrBadQuery)
	}
	id := definitionPrefix + ix.Name
	if len(id) > maxIDBytes {
		return fmt.Errorf("%w: the name has %d bytes, at most %d are possible", statedb.ErrBadQuery, len(ix.Name), maxIDBytes-len(definitionPrefix))
	}
	row := map[string]any{fieldID: id, fieldDefinition: string(definitionOf(ix).Bytes())}
	done, err := db.one(ctx, "define", db.table(table).Insert(row, r.InsertOpts{Conflict: "replace", Durability: hard}), nil)
	if err != nil {
		return err
	}
	if fault, failed := done.Get("first_error"); failed {
		return fmt.Errorf("%w: RethinkDB: %s", statedb.ErrUnavailable, fault.Text())
	}
	return nil
}

// build has the server make the index of a definition, and delete those of
// others under its name. there are the indexes that the table has.
func (db *DB) build(ctx context.Context, table string, ix statedb.Index, there []string) error {
	t := db.table(table)
	wanted := indexName(ix)
	if !slices.Contains(there, wanted) {
		var paths []mango.Path
		for _, f := range ix.Fields {
			paths = append(paths, mango.ParsePath(f.Field))
		}
		create := t.IndexCreateFunc(wanted, func(row r.Term) r.Term { return indexKey(row, paths) })
		if _, err := db.run(ctx, "index_create", create, nil); err != nil && !isRefusal(err, "already exists") {
			return err
		}
	}
	for _, name := range there {
		own := ownName.FindStringSubmatch(name)
		if name == wanted || own == nil || own[1] != ix.Name {
			continue
		}
		if _, err := db.run(ctx, "index_drop", t.IndexDrop(name), nil); err != nil && !isRefusal(err, "does not exist") {
			return err
		}
	}
	return nil
}
