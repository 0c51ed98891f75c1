package mongodb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// Indexes lists the table's indexes with what is still to be built.
func (db *DB) Indexes(ctx context.Context, table string) ([]statedb.IndexState, error) {
	c, err := db.readCatalog(ctx, table)
	if err != nil {
		return nil, err
	}
	return c.states(), nil
}

// progressEvery is how often building is looked at.
const progressEvery = 500 * time.Millisecond

// DeployIndexes stores the definitions and has MongoDB build what they need. A
// node that ends meanwhile leaves definitions that are not ready; the next
// deployment goes on with them.
func (db *DB) DeployIndexes(ctx context.Context, table string, indexes []statedb.Index, progress func([]statedb.IndexState)) error {
	collection, _, err := db.collection(ctx, table)
	if err != nil {
		return err
	}
	c, err := db.readCatalog(ctx, table)
	if err != nil {
		return err
	}
	var missing []statedb.Index
	for _, ix := range indexes {
		if err := checkIndex(ix); err != nil {
			return fmt.Errorf("deploy the index %s of %s: %w", ix.Name, table, err)
		}
		if !db.isDeployed(c, ix) {
			missing = append(missing, ix)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	for _, ix := range missing {
		if err := db.store(ctx, table, ix, false); err != nil {
			return err
		}
	}
	db.forgetIndexes(table)
	if err := db.dropOutdated(ctx, collection, c, missing); err != nil {
		return err
	}
	// What stands for another one that was dropped has made room for the name.
	if c, err = db.readCatalog(ctx, table); err != nil {
		return err
	}
	if err := db.build(ctx, table, collection, db.lacking(c, missing), missing, progress); err != nil {
		return err
	}
	for _, ix := range missing {
		if err := db.store(ctx, table, ix, true); err != nil {
			return err
		}
	}
	db.forgetIndexes(table)
	return nil
}

// checkIndex refuses a definition that no query could use.
func checkIndex(ix statedb.Index) error {
	if ix.Name == "" || len(ix.Fields) == 0 {
		return fmt.Errorf("%w: an index has a name and at least one field", statedb.ErrBadQuery)
	}
	if err := mango.CheckSort(ix.Fields); err != nil {
		return err
	}
	if ix.PartialFilter.IsNull() {
		return nil
	}
	_, err := mango.Parse(ix.PartialFilter)
	return err
}

func (db *DB) isDeployed(c *catalog, ix statedb.Index) bool {
	there := c.deployed(ix.Name)
	if there == nil || there.Pending > 0 || !there.Index.Equal(ix) {
		return false
	}
	return len(db.lacking(c, []statedb.Index{ix})) == 0
}

// store writes a definition.
func (db *DB) store(outer context.Context, table string, ix statedb.Index, ready bool) error {
	ctx, cancel := db.bound(outer)
	defer cancel()
	d := definition{ID: table + "/" + ix.Name, Text: writeDefinition(ix), Ready: ready}
	_, err := db.mongo.Collection(definitions).ReplaceOne(ctx, bson.D{{Key: fieldID, Value: d.ID}}, d, options.Replace().SetUpsert(true))
	if err != nil {
		return fmt.Errorf("store the definition of the index %s of %s: %w", ix.Name, table, db.fault(outer, err))
	}
	return nil
}

// dropOutdated drops MongoDB's indexes of what is defined otherwise now, unless
// another definition needs them.
func (db *DB) dropOutdated(outer context.Context, collection *mongo.Collection, c *catalog, changed []statedb.Index) error {
	needed := func(p *physical) bool {
		stays := slices.ContainsFunc(c.indexes, func(ix deployed) bool {
			return slices.Equal(ix.keys, p.keys) && !slices.ContainsFunc(changed, func(new statedb.Index) bool { return new.Name == ix.Name })
		})
		return stays || slices.ContainsFunc(changed, func(ix statedb.Index) bool {
			keys, _ := keysOf(ix)
			return slices.Equal(keys, p.keys)
		})
	}
	for _, ix := range changed {
		p := c.named(ix.Name)
		if old := c.deployed(ix.Name); old != nil && old.keys != nil {
			p = c.find(old.keys)
		}
		if p == nil || needed(p) {
			continue
		}
		ctx, cancel := db.bound(outer)
		err := collection.Indexes().DropOne(ctx, p.name)
		cancel()
		if err != nil && codeOf(err) != codeNoIndex {
			return fmt.Errorf("drop the index %s of %s: %w", p.name, collection.Name(), db.fault(outer, err))
		}
	}
	return nil
}

// lacking gives what MongoDB has to build for definitions, as createIndexes
// takes it.
func (db *DB) lacking(c *catalog, indexes []statedb.Index) []bson.D {
	var specs []bson.D
	var names []string
	add := func(name string, key bson.D, more ...bson.E) {
		if !slices.Contains(names, name) {
			names = append(names, name)
			specs = append(specs, append(bson.D{{Key: "key", Value: key}, {Key: "name", Value: name}}, more...))
		}
	}
	seen := map[string]bool{}
	for _, ix := range indexes {
		keys, ok := keysOf(ix)
		if !ok {
			continue // such are read without one
		}
		if joined := strings.Join(keys, " "); c.find(keys) == nil && !seen[joined] {
			seen[joined] = true
			name := ix.Name
			if c.named(name) != nil {
				name = joined + " _id" // one that another definition needs has the name
			}
			add(name, keyPattern(keys))
		}
		if db.server.substitute {
			continue // it has no partial indexes
		}
		for _, key := range keys {
			if c.named(oddName(key)) == nil {
				add(oddName(key), oddPattern(key), bson.E{Key: "partialFilterExpression", Value: isOdd(key)})
			}
		}
	}
	return specs
}

// keyPattern is the key of MongoDB's index over some fields.
func keyPattern(keys []string) bson.D {
	var pattern bson.D
	for _, key := range append(slices.Clone(keys), fieldID) {
		pattern = append(pattern, bson.E{Key: key, Value: int32(1)})
	}
	return pattern
}

// oddPattern is the key of the index of documents that have an array or an
// object under a field; isOdd is what keeps others out.
func oddPattern(key string) bson.D {
	return bson.D{{Key: fieldID, Value: int32(1)}, {Key: oddName(key), Value: int32(1)}}
}

func isOdd(key string) bson.D {
	return bson.D{{Key: key, Value: bson.D{{Key: "$type", Value: bson.A{"array", "object"}}}}}
}

// build has MongoDB build indexes, and tells progress meanwhile. It takes as
// long as it takes; MongoDB goes on when the node does not wait.
func (db *DB) build(outer context.Context, table string, collection *mongo.Collection, specs []bson.D, indexes []statedb.Index, progress func([]statedb.IndexState)) error {
	if len(specs) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	defer context.AfterFunc(db.closed, cancel)()
	done := make(chan error, 1)
	go func() {
		done <- db.mongo.RunCommand(ctx, bson.D{
			{Key: "createIndexes", Value: table}, {Key: "indexes", Value: specs},
		}).Err()
	}()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("build indexes of %s: %w", table, db.fault(outer, err))
			}
			return nil
		case <-tick.C:
			if progress == nil {
				continue
			}
			states, err := db.building(ctx, collection, indexes)
			if err != nil {
				return db.fault(outer, err)
			}
			progress(states)
		}
	}
}

// building asks how far the indexes are. The server builds all of one command
// together, and may not tell how far they are.
func (db *DB) building(ctx context.Context, collection *mongo.Collection, indexes []statedb.Index) ([]statedb.IndexState, error) {
	ctx, cancel := db.bound(ctx)
	defer cancel()
	count, err := collection.EstimatedDocumentCount(ctx)
	if err != nil {
		return nil, err
	}
	total := max(int(count), 1)
	pending := total
	if done, ok := db.indexed(ctx, collection.Name()); ok {
		pending = min(max(total-done, 1), total)
	}
	var states []statedb.IndexState
	for _, ix := range indexes {
		states = append(states, statedb.IndexState{Index: ix, Pending: pending, Total: total})
	}
	return states, nil
}

// indexed is how many documents an index build has read; false where the server
// does not say.
func (db *DB) indexed(ctx context.Context, table string) (int, bool) {
	if db.server.substitute {
		return 0, false
	}
	pipeline := mongo.Pipeline{
		{{Key: "$currentOp", Value: bson.D{}}},
		{{Key: "$match", Value: bson.D{
			{Key: "command.createIndexes", Value: table}, {Key: "command.$db", Value: db.opts.Name},
			{Key: "progress.total", Value: bson.D{{Key: "$gt", Value: 0}}},
		}}},
	}
	admin := db.client.Database("admin", options.Database().SetReadConcern(readconcern.Local())) // it allows no other
	cursor, err := admin.Aggregate(ctx, pipeline)
	if err != nil {
		return 0, false // the user may not look, which harms nothing
	}
	var running []struct {
		Progress struct {
			Done int64 `bson:"done"`
		} `bson:"progress"`
	}
	if cursor.All(ctx, &running) != nil || len(running) == 0 {
		return 0, false
	}
	done := running[0].Progress.Done
	for _, r := range running {
		done = min(done, r.Progress.Done)
	}
	return int(done), true
}
