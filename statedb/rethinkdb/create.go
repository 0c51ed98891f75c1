package rethinkdb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/statedb"
)

// RethinkDB makes two tables of one name when it is asked for them at the same
// time, and two databases when two servers are; then neither can be used. So
// who made the database makes the tables, and others wait for them. Of two
// databases the one with the lesser id stays: who made the other deletes it,
// new and empty as it is. Where that fails, as when a node dies in between, the
// error says what an operator has to delete.

const (
	// creatorGrace is how long whoever made the database may take for the next
	// table, before others make what is missing. Each adds some time of its
	// own, so that not all begin at once.
	creatorGrace = 5 * time.Second
	// settling is what a cluster may take to tell all servers of a new database.
	settling = 250 * time.Millisecond
)

// Create makes the database and the tables that are missing, and waits until
// they can be written to.
func (db *DB) Create(ctx context.Context) (created bool, err error) {
	if db.closed.Err() != nil {
		return false, statedb.ErrClosed
	}
	c := creation{db: db}
	for begun := time.Now(); ; {
		err := c.run(ctx)
		switch took := time.Since(begun); {
		case errors.Is(err, errAmbiguous) && took < db.opts.RequestTimeout:
			// Another server has told of a second one only now.
		case errors.Is(err, statedb.ErrNoDatabase) && c.mine != "" && took < creatorGrace:
			// Not every thread of a busy server knows yet what it has made.
		default:
			return c.mine != "" && err == nil, err
		}
		if err := statedb.Sleep(ctx, statusPause); err != nil {
			return false, err
		}
	}
}

// creation is one Create.
type creation struct {
	db   *DB
	mine string // id of the database that this one made; "" for none
}

func (c *creation) run(ctx context.Context) error {
	name := c.db.opts.Name
	if c.mine == "" {
		if err := c.database(ctx); err != nil {
			return fmt.Errorf("create the database %s: %w", name, err)
		}
	}
	if err := c.yield(ctx); err != nil {
		return fmt.Errorf("create the database %s: %w", name, err)
	}
	missing := statedb.Tables
	if c.mine == "" {
		var err error
		if missing, err = c.awaitCreator(ctx); err != nil {
			return err
		}
	}
	faults := make([]error, len(statedb.Tables))
	var group sync.WaitGroup
	for i, table := range statedb.Tables {
		group.Go(func() {
			if slices.Contains(missing, table) {
				faults[i] = c.table(ctx, table)
			}
			if faults[i] == nil {
				faults[i] = c.inspect(ctx, table)
			}
			if faults[i] != nil {
				faults[i] = fmt.Errorf("create the table %s of %s: %w", table, name, faults[i])
			}
		})
	}
	group.Wait()
	return errors.Join(faults...)
}

// database makes the database unless it is there.
func (c *creation) database(ctx context.Context) error {
	name := c.db.opts.Name
	made, err := c.db.one(ctx, "create", r.DBCreate(name).Field("config_changes").Nth(0).Field("new_val").Field("id"), nil)
	switch {
	case isRefusal(err, "already exists"), errors.Is(err, errAmbiguous):
		return nil
	case errors.Is(err, statedb.ErrDenied):
		// A user may have all rights on a database that an operator made.
		if there, fault := c.db.one(ctx, "config", r.DBList().Contains(name), nil); fault == nil && there.Bool() {
			return nil
		}
		return err
	case err != nil:
		return err
	}
	c.mine = made.Text()
	if n, err := c.db.servers(ctx); err == nil && n > 1 {
		return statedb.Sleep(ctx, settling)
	}
	return nil
}

// yield deletes the database that this one made when there is another with a
// lesser id, and waits until there is one only.
func (c *creation) yield(ctx context.Context) error {
	const table = "db_config"
	list := r.DB(systemDatabase).Table(table)
	for begun := time.Now(); ; {
		ids, err := c.db.one(ctx, "config", list.Filter(map[string]any{"name": c.db.opts.Name}).Field("id").CoerceTo("array"), nil)
		switch {
		case errors.Is(err, statedb.ErrDenied):
			return nil // this user cannot see whether there are two
		case err != nil:
			return err
		case ids.Len() <= 1:
			return nil
		}
		for i := range ids.Len() {
			if c.mine != "" && ids.At(i).Text() < c.mine {
				if _, err := c.db.run(ctx, "create", list.Get(c.mine).Delete(), nil); err != nil {
					return err
				}
				c.mine = ""
			}
		}
		if time.Since(begun) > c.db.opts.RequestTimeout {
			return fmt.Errorf("%w: delete all but one of %s from the table %s of the database %s", errAmbiguous, ids.Bytes(), table, systemDatabase)
		}
		if err := statedb.Sleep(ctx, statusPause); err != nil {
			return err
		}
	}
}

// awaitCreator gives the tables that are still missing when nobody makes any.
func (c *creation) awaitCreator(ctx context.Context) (missing []string, err error) {
	grace := creatorGrace + rand.N(creatorGrace/2)
	last := time.Now()
	for known := -1; ; {
		list, err := c.db.one(ctx, "config", r.DB(c.db.opts.Name).TableList(), nil)
		if err != nil {
			return nil, err
		}
		missing = slices.Clone(statedb.Tables)
		for i := range list.Len() {
			missing = slices.DeleteFunc(missing, func(table string) bool { return table == list.At(i).Text() })
		}
		if len(missing) != known {
			known, last = len(missing), time.Now()
		}
		if len(missing) == 0 || time.Since(last) > grace {
			return missing, nil
		}
		if err := statedb.Sleep(ctx, statusPause); err != nil {
			return nil, err
		}
	}
}

func (c *creation) table(ctx context.Context, table string) error {
	opts := r.TableCreateOpts{PrimaryKey: fieldID, Durability: hard, Shards: c.db.opts.Shards, Replicas: c.db.opts.Replicas}
	_, err := c.db.run(ctx, "create", r.DB(c.db.opts.Name).TableCreate(table, opts), nil)
	if err != nil && !isRefusal(err, "already exists") {
		return c.db.tooFewServers(ctx, c.db.opts.Replicas, err)
	}
	return nil
}

// inspect refuses a table that cannot hold documents, and waits until it can
// be read and written.
func (c *creation) inspect(ctx context.Context, table string) error {
	t := c.db.table(table)
	key, err := c.db.one(ctx, "config", t.Config().Field("primary_key"), nil)
	if err != nil {
		return err
	}
	if key.Text() != fieldID {
		return fmt.Errorf("its primary key is %q and not %s: another program made it; choose another database.name or drop it", key.Text(), fieldID)
	}
	seconds := max(1, int(c.db.opts.RequestTimeout.Seconds())-1)
	_, err = c.db.run(ctx, "wait", t.Wait(r.WaitOpts{WaitFor: "ready_for_writes", Timeout: seconds}), nil)
	return err
}
