package rethinkdb

import (
	"context"
	"fmt"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/statedb"
)

// Drop deletes the database with all its tables.
func (db *DB) Drop(ctx context.Context) error {
	if db.closed.Err() != nil {
		return statedb.ErrClosed
	}
	_, err := db.run(ctx, "drop", r.DBDrop(db.opts.Name), nil)
	db.forgetIndexes()
	return err
}

// Health asks whether all tables can be read and written.
func (db *DB) Health(ctx context.Context) error {
	if db.closed.Err() != nil {
		return statedb.ErrClosed
	}
	var states []any
	for _, table := range statedb.Tables {
		states = append(states, db.table(table).Status().Field("status").Field("ready_for_writes"))
	}
	answer, err := db.one(ctx, "status", r.Expr(states), nil)
	if err != nil {
		return err
	}
	for i, table := range statedb.Tables {
		if !answer.At(i).Bool() {
			return fmt.Errorf("%w: the table %s of %s lacks servers and cannot be written", statedb.ErrUnavailable, table, db.opts.Name)
		}
	}
	return nil
}

// servers is how many the cluster has.
func (db *DB) servers(ctx context.Context) (int, error) {
	count, err := db.one(ctx, "status", r.DB(systemDatabase).Table("server_config").Count(), nil)
	n, _ := count.Int64()
	return int(n), err
}

// tooFewServers says how many servers there are when that is what is wrong.
func (db *DB) tooFewServers(ctx context.Context, wanted int, err error) error {
	if n, fault := db.servers(ctx); fault == nil && wanted > n {
		return fmt.Errorf("%d servers are needed and the cluster has %d: %w", wanted, n, err)
	}
	return err
}
