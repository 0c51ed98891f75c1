package rethinkdb

import (
	"context"
	"fmt"
	"slices"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/statedb"
)

// Remove deletes rows: nothing is left of them.
func (db *DB) Remove(ctx context.Context, table string, ids []string) error {
	if err := db.checkTable(table); err != nil {
		return err
	}
	for part := range slices.Chunk(rowIDs(ids), db.opts.MaxBatch) {
		outcome, err := db.one(ctx, "delete", db.table(table).GetAll(part...).Delete(r.DeleteOpts{Durability: hard}), nil)
		if err != nil {
			return err
		}
		if fault, failed := outcome.Get("first_error"); failed {
			return fmt.Errorf("%w: RethinkDB: %s", statedb.ErrUnavailable, fault.Text())
		}
	}
	return nil
}

// rowIDs gives the ids that rows can have, each once: of an id that is named
// twice RethinkDB reads the row twice, and an impossible one fails the query.
func rowIDs(ids []string) (possible []any) {
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		if checkID(id) == nil {
			possible = append(possible, id)
		}
	}
	return possible
}
