package rethinkdb

import (
	"context"
	"fmt"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/statedb"
)

// Layout tells how each table is divided and copied.
func (db *DB) Layout(ctx context.Context) ([]statedb.TableLayout, error) {
	var layout []statedb.TableLayout
	for _, table := range statedb.Tables {
		if err := db.checkTable(table); err != nil {
			return nil, err
		}
		shards, err := db.one(ctx, "config", db.table(table).Config().Field("shards"), nil)
		if err != nil {
			return nil, err
		}
		of := statedb.TableLayout{Table: table, Shards: shards.Len()}
		for i := range shards.Len() {
			replicas, _ := shards.At(i).Get("replicas")
			of.Replicas = max(of.Replicas, replicas.Len())
		}
		layout = append(layout, of)
	}
	return layout, nil
}

// maxShards is how many shards RethinkDB divides a table into.
const maxShards = 64

// SetShards divides every table into n shards, 1 to 64, with as many replicas
// as before, and returns when all tables can be used again.
func (db *DB) SetShards(ctx context.Context, n int) error {
	if n < 1 || n > maxShards {
		return fmt.Errorf("rethinkdb: a table is divided into 1 to %d shards, not %d", maxShards, n)
	}
	return db.reconfigure(ctx, func(l *statedb.TableLayout) { l.Shards = n })
}

// SetReplicas keeps n replicas of every shard. When there are fewer servers
// that is an error, and nothing is changed.
func (db *DB) SetReplicas(ctx context.Context, n int) error {
	if n < 1 {
		return fmt.Errorf("rethinkdb: every shard has 1 replica or more, not %d", n)
	}
	return db.reconfigure(ctx, func(l *statedb.TableLayout) { l.Replicas = n })
}

func (db *DB) reconfigure(ctx context.Context, set func(*statedb.TableLayout)) error {
	layout, err := db.Layout(ctx)
	if err != nil {
		return err
	}
	for _, l := range layout {
		set(&l)
		_, err := db.run(ctx, "reconfigure", db.table(l.Table).Reconfigure(r.ReconfigureOpts{Shards: l.Shards, Replicas: l.Replicas}), nil)
		if err != nil {
			return fmt.Errorf("divide the table %s of %s into %d shards of %d replicas: %w",
				l.Table, db.opts.Name, l.Shards, l.Replicas, db.tooFewServers(ctx, l.Replicas, err))
		}
	}
	for _, l := range layout {
		if err := db.awaitReplicas(ctx, l.Table); err != nil {
			return err
		}
	}
	return nil
}

// awaitReplicas waits until every copy of a table is complete, however long
// that takes.
func (db *DB) awaitReplicas(ctx context.Context, table string) error {
	for {
		ready, err := db.one(ctx, "status", db.table(table).Status().Field("status").Field("all_replicas_ready"), nil)
		if err != nil || ready.Bool() {
			return err
		}
		if err := statedb.Sleep(ctx, statusPause); err != nil {
			return err
		}
	}
}
