package rethinkdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/statedb"
)

// Create makes the database and the tables that are missing, and waits until
// they can be written to.
func (db *DB) Create(ctx context.Context) (created bool, err error) {
	if db.closed.Err() != nil {
		return false, statedb.ErrClosed
	}
	name := db.opts.Name
	created, err = db.make(ctx, "db_config", map[string]any{"name": name}, r.DBCreate(name))
	if err != nil {
		return false, fmt.Errorf("create the database %s: %w", name, err)
	}
	faults := make([]error, len(statedb.Tables))
	var group sync.WaitGroup
	for i, table := range statedb.Tables {
		group.Go(func() {
			if err := db.createTable(ctx, table); err != nil {
				faults[i] = fmt.Errorf("create the table %s of %s: %w", table, name, err)
			}
		})
	}
	group.Wait()
	return created, errors.Join(faults...)
}

func (db *DB) createTable(ctx context.Context, table string) error {
	opts := r.TableCreateOpts{PrimaryKey: fieldID, Durability: hard, Shards: db.opts.Shards, Replicas: db.opts.Replicas}
	_, err := db.make(ctx, "table_config", map[string]any{"db": db.opts.Name, "name": table},
		r.DB(db.opts.Name).TableCreate(table, opts))
	if err != nil {
		return db.tooFewServers(ctx, db.opts.Replicas, err)
	}
	key, err := db.one(ctx, "config", db.table(table).Config().Field("primary_key"), nil)
	if err != nil {
		return err
	}
	if key.Text() != fieldID {
		return fmt.Errorf("its primary key is %q and not %s: another program made it; choose another database.name or drop it", key.Text(), fieldID)
	}
	return db.await(ctx, table)
}

// await waits until a table can be read and written.
func (db *DB) await(ctx context.Context, table string) error {
	seconds := max(1, int(db.opts.RequestTimeout.Seconds())-1)
	_, err := db.run(ctx, "wait", db.table(table).Wait(r.WaitOpts{WaitFor: "ready_for_writes", Timeout: seconds}), nil)
	return err
}

// make creates a database or a table unless it is there. config is the system
// table that lists it, by fields that name it.
//
// Two servers of a cluster that are asked at the same time can both make one of
// the same name, and then neither can be used. Whoever made one that is not
// the first by its identity, deletes it again: it is new and empty.
func (db *DB) make(ctx context.Context, config string, named map[string]any, create r.Term) (created bool, err error) {
	done, err := db.one(ctx, "create", create.Field("config_changes").Nth(0).Field("new_val").Field("id"), nil)
	switch {
	case isRefusal(err, "already exists"):
		return false, nil
	case err != nil && !errors.Is(err, errAmbiguous):
		return false, err
	}
	list := r.DB(systemDatabase).Table(config)
	all, err := db.one(ctx, "config", list.Filter(named).Field("id").CoerceTo("array"), nil)
	if errors.Is(err, statedb.ErrDenied) {
		return !done.IsNull(), nil // this user may create and not see what others do
	}
	if err != nil {
		return false, err
	}
	var ids []string
	for i := range all.Len() {
		ids = append(ids, all.At(i).Text())
	}
	slices.Sort(ids)
	if mine := done.Text(); mine != "" && len(ids) > 1 && ids[0] != mine {
		_, err := db.run(ctx, "create", list.Get(mine).Delete(), nil)
		return false, err
	}
	return !done.IsNull(), nil
}

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
