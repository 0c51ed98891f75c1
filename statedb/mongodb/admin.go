package mongodb

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/couchledger/couchledger/statedb"
)

// definitions is the collection that holds what MongoDB does not keep of an
// index: see catalog.go.
const definitions = "indexes"

// identity tells a collection from another one of the same name: one that was
// dropped and made again.
//
// MongoDB makes a collection that is not there when something is written to it.
// So a node asks for the identities when it first uses a table, and again with
// every Health and in its feeds. When one has changed, the collection was
// dropped under the node; what it wrote since then went to a new one. From then
// on it gets ErrNoDatabase, until it is started anew or calls Create.
type identity struct {
	uuid string
	lost bool
}

// collection returns a table's collection and its identity, or ErrNoDatabase.
func (db *DB) collection(ctx context.Context, table string) (*mongo.Collection, string, error) {
	if db.closed.Err() != nil {
		return nil, "", statedb.ErrClosed
	}
	if !slices.Contains(statedb.Tables, table) {
		return nil, "", fmt.Errorf("%w: there is no table %q", statedb.ErrNoDatabase, table)
	}
	db.mu.Lock()
	known, ok := db.tables[table]
	db.mu.Unlock()
	if !ok {
		there, err := db.identities(ctx)
		if err != nil {
			return nil, "", err
		}
		if known, ok = db.compare(there)[table]; !ok {
			return nil, "", fmt.Errorf("%w: MongoDB has no collection %s.%s", statedb.ErrNoDatabase, db.opts.Name, table)
		}
	}
	if known.lost {
		return nil, "", fmt.Errorf("%w: the collection %s.%s was dropped or replaced while the node was using it", statedb.ErrNoDatabase, db.opts.Name, table)
	}
	return db.mongo.Collection(table), known.uuid, nil
}

// identities asks for the collections of the tables.
func (db *DB) identities(outer context.Context) (map[string]string, error) {
	ctx, cancel := db.bound(outer)
	defer cancel()
	list, err := db.mongo.ListCollectionSpecifications(ctx, bson.D{})
	if err != nil {
		return nil, db.fault(outer, err)
	}
	there := map[string]string{}
	for _, c := range list {
		if slices.Contains(statedb.Tables, c.Name) {
			if c.UUID == nil || c.Type != "collection" {
				return nil, db.fault(outer, refuse("%s.%s is not a collection that can be used: it is a %s", db.opts.Name, c.Name, c.Type))
			}
			there[c.Name] = hex.EncodeToString(c.UUID.Data)
		}
	}
	return there, nil
}

// compare remembers the collections that are used for the first time, and
// notices those that are not what they were.
func (db *DB) compare(there map[string]string) map[string]identity {
	db.mu.Lock()
	defer db.mu.Unlock()
	for table, known := range db.tables {
		if there[table] != known.uuid && !known.lost {
			db.tables[table] = identity{known.uuid, true}
			db.log.Error("the collection was dropped or replaced while the node was using it", "database", db.opts.Name, "collection", table)
		}
	}
	for table, uuid := range there {
		if _, ok := db.tables[table]; !ok {
			db.tables[table] = identity{uuid: uuid}
		}
	}
	known := map[string]identity{}
	for table, id := range db.tables {
		known[table] = id
	}
	return known
}

// forget is for collections that are made or dropped here.
func (db *DB) forget() {
	db.mu.Lock()
	defer db.mu.Unlock()
	clear(db.tables)
	clear(db.catalogs)
}

// Create makes the collections that are missing.
func (db *DB) Create(outer context.Context) (created bool, err error) {
	if db.closed.Err() != nil {
		return false, statedb.ErrClosed
	}
	there, err := db.identities(outer)
	if err != nil {
		return false, err
	}
	for i, table := range statedb.Tables {
		if _, ok := there[table]; ok {
			continue
		}
		ctx, cancel := db.bound(outer)
		err := db.mongo.CreateCollection(ctx, table)
		cancel()
		if err != nil && codeOf(err) != codeNamespaceExists {
			return created, fmt.Errorf("create the collection %s.%s: %w", db.opts.Name, table, db.fault(outer, err))
		}
		created = created || err == nil && i == 0
	}
	db.forget()
	if there, err = db.identities(outer); err == nil {
		db.compare(there)
	}
	return created, err
}

// Drop deletes the ledger's collections. MongoDB's database is gone with its
// last one; FerretDB is told so when nothing else is in it.
func (db *DB) Drop(outer context.Context) error {
	if db.closed.Err() != nil {
		return statedb.ErrClosed
	}
	ctx, cancel := db.bound(outer)
	defer cancel()
	names, err := db.mongo.ListCollectionNames(ctx, bson.D{})
	if err != nil {
		return db.fault(outer, err)
	}
	found, others := false, false
	for _, name := range names {
		table := slices.Contains(statedb.Tables, name)
		if !table && name != definitions {
			others = true
			continue
		}
		found = found || table
		if err := db.mongo.Collection(name).Drop(ctx); err != nil {
			return fmt.Errorf("drop the collection %s.%s: %w", db.opts.Name, name, db.fault(outer, err))
		}
	}
	if db.server.substitute && !others && len(names) > 0 {
		if err := db.mongo.Drop(ctx); err != nil {
			return fmt.Errorf("drop the database %s: %w", db.opts.Name, db.fault(outer, err))
		}
	}
	db.forget()
	if !found {
		return statedb.ErrNoDatabase
	}
	return nil
}

// Health asks for the collections. It is how a node notices that one was
// dropped: see identity.
func (db *DB) Health(ctx context.Context) error {
	if db.closed.Err() != nil {
		return statedb.ErrClosed
	}
	there, err := db.identities(ctx)
	if err != nil {
		return err
	}
	db.compare(there)
	var faults []error
	for _, table := range statedb.Tables {
		if _, _, err := db.collection(ctx, table); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
