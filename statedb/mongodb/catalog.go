package mongodb

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// An index is a definition and what MongoDB has for it.
//
// The definition is a document of the collection indexes:
//
//	{_id: "<table>/<name>", definition: "<the index as JSON>", ready: true}
//
// as MongoDB does not keep a partial filter that it cannot express, nor the
// design document. It is not ready from before MongoDB's index is made until
// that is built, and no query uses it meanwhile.
//
// MongoDB's index has the fields and then _id, ascending, over all documents:
// Mango's partial filters are matched when it is read. Definitions with the
// same fields share one, as MongoDB allows only one of a kind. It has the
// definition's name where that is free.
//
// Documents with an array or an object under an indexed field stand apart:
// MongoDB indexes their parts and not the value. A small partial index for each
// such field finds them, and is empty in most ledgers.
type deployed struct {
	statedb.IndexState
	keys []string // MongoDB's index, without _id; nil where its paths mean something else
	odd  []string // those of keys that have an index of the documents that stand apart
}

// catalog is what is known of a table's indexes.
type catalog struct {
	asked    time.Time
	indexes  []deployed // by name
	physical []physical
}

// physical is an index as MongoDB lists it.
type physical struct {
	name string
	keys []string // ascending, without an _id at the end
	bare bool     // nothing keeps documents out of it, or sorts them otherwise
}

// catalogAge is after what time the indexes are asked for again: others may
// have deployed some.
const catalogAge = 2 * time.Second

// indexes returns a table's indexes, from memory when that is fresh.
func (db *DB) indexes(ctx context.Context, table string) (*catalog, error) {
	db.mu.Lock()
	known := db.catalogs[table]
	db.mu.Unlock()
	if known != nil && time.Since(known.asked) < catalogAge {
		return known, nil
	}
	return db.readCatalog(ctx, table)
}

// forgetIndexes makes the next query ask for the indexes.
func (db *DB) forgetIndexes(table string) {
	db.mu.Lock()
	defer db.mu.Unlock()
	delete(db.catalogs, table)
}

// readCatalog asks for a table's indexes and remembers them.
func (db *DB) readCatalog(outer context.Context, table string) (*catalog, error) {
	collection, _, err := db.collection(outer, table)
	if err != nil {
		return nil, err
	}
	ctx, cancel := db.bound(outer)
	defer cancel()
	c := &catalog{asked: time.Now()}
	if c.physical, err = listIndexes(ctx, collection); err != nil {
		return nil, db.fault(outer, err)
	}
	if c.indexes, err = db.definitions(ctx, table); err != nil {
		return nil, db.fault(outer, err)
	}
	c.settle()
	for i, ix := range c.indexes {
		if ix.Pending == 0 {
			continue
		}
		total, err := collection.EstimatedDocumentCount(ctx)
		if err != nil {
			return nil, db.fault(outer, err)
		}
		c.indexes[i].Total = max(int(total), 1)
		c.indexes[i].Pending = c.indexes[i].Total
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.catalogs[table] = c
	return c, nil
}

// settle leaves out definitions whose index somebody has dropped, and adds the
// indexes that others made, where Mango has words for them.
func (c *catalog) settle() {
	used := map[string]bool{}
	c.indexes = slices.DeleteFunc(c.indexes, func(ix deployed) bool {
		used[strings.Join(ix.keys, " ")] = true
		return ix.Pending == 0 && ix.keys != nil && c.find(ix.keys) == nil
	})
	for _, p := range c.physical {
		if !p.bare || used[strings.Join(p.keys, " ")] || slices.ContainsFunc(c.indexes, func(ix deployed) bool { return ix.Name == p.name }) {
			continue
		}
		ix := deployed{IndexState: statedb.IndexState{Index: statedb.Index{Name: p.name}}, keys: p.keys}
		for _, key := range p.keys {
			ix.Fields = append(ix.Fields, statedb.SortField{Field: key})
		}
		if same, ok := keysOf(ix.Index); ok && slices.Equal(same, p.keys) {
			c.indexes = append(c.indexes, ix)
		}
	}
	slices.SortFunc(c.indexes, func(a, b deployed) int { return strings.Compare(a.Name, b.Name) })
	for i, ix := range c.indexes {
		for _, key := range ix.keys {
			if c.named(oddName(key)) != nil {
				c.indexes[i].odd = append(c.indexes[i].odd, key)
			}
		}
	}
}

// find returns MongoDB's index over some fields, nil for none.
func (c *catalog) find(keys []string) *physical {
	for i, p := range c.physical {
		if p.bare && slices.Equal(p.keys, keys) {
			return &c.physical[i]
		}
	}
	return nil
}

func (c *catalog) named(name string) *physical {
	for i, p := range c.physical {
		if p.name == name {
			return &c.physical[i]
		}
	}
	return nil
}

// deployed returns the index of a definition by name, nil for none.
func (c *catalog) deployed(name string) *deployed {
	for i, ix := range c.indexes {
		if ix.Name == name {
			return &c.indexes[i]
		}
	}
	return nil
}

func (c *catalog) states() []statedb.IndexState {
	states := make([]statedb.IndexState, len(c.indexes))
	for i, ix := range c.indexes {
		states[i] = ix.IndexState
	}
	return states
}

// maxKeys is how many fields an index of MongoDB may have.
const maxKeys = 32

// keysOf gives an index's fields as MongoDB's paths; false where one means
// something else there.
func keysOf(ix statedb.Index) ([]string, bool) {
	var keys []string
	for _, f := range ix.Fields {
		key, ok := fieldPath(mango.ParsePath(f.Field))
		if !ok || slices.Contains(keys, key) {
			return nil, false
		}
		keys = append(keys, key)
	}
	return keys, len(keys) > 0 && len(keys) < maxKeys
}

// oddPrefix begins the names of the indexes of documents that stand apart, and,
// as a field that no document has, keeps their keys from being those of any
// other index.
const oddPrefix = "_odd"

func oddName(key string) string { return oddPrefix + "." + key }

// listIndexes asks for MongoDB's indexes but that of the ids.
func listIndexes(ctx context.Context, collection *mongo.Collection) ([]physical, error) {
	cursor, err := collection.Indexes().List(ctx)
	if err != nil {
		return nil, err
	}
	var list []struct {
		Name string   `bson:"name"`
		Key  bson.Raw `bson:"key"`
		// What makes an index another one than it seems by its key.
		Partial   bson.Raw `bson:"partialFilterExpression"`
		Sparse    bool     `bson:"sparse"`
		Hidden    bool     `bson:"hidden"`
		Collation bson.Raw `bson:"collation"`
	}
	if err := cursor.All(ctx, &list); err != nil {
		return nil, err
	}
	var all []physical
	for _, ix := range list {
		p := physical{name: ix.Name, bare: ix.Partial == nil && !ix.Sparse && !ix.Hidden && ix.Collation == nil}
		elements, err := ix.Key.Elements()
		if err != nil {
			return nil, malformed("the key of an index")
		}
		for _, e := range elements {
			direction, ok := e.Value().AsInt64OK()
			p.bare = p.bare && ok && direction == 1
			p.keys = append(p.keys, e.Key())
		}
		if n := len(p.keys); n > 0 && p.keys[n-1] == fieldID {
			p.keys = p.keys[:n-1]
		}
		if len(p.keys) > 0 {
			all = append(all, p)
		}
	}
	return all, nil
}

// definition is a document of the collection indexes.
type definition struct {
	ID    string `bson:"_id"`
	Text  string `bson:"definition"`
	Ready bool   `bson:"ready"`
}

// definitions reads a table's. What others wrote there and is none is left out.
func (db *DB) definitions(ctx context.Context, table string) ([]deployed, error) {
	cursor, err := db.mongo.Collection(definitions).Find(ctx, bson.D{})
	if err != nil {
		return nil, err
	}
	defer cursor.Close(ctx)
	var all []deployed
	for cursor.Next(ctx) {
		var d definition
		if cursor.Decode(&d) != nil || !strings.HasPrefix(d.ID, table+"/") {
			continue
		}
		ix, ok := readDefinition(d.Text)
		if !ok || d.ID != table+"/"+ix.Name {
			continue
		}
		entry := deployed{IndexState: statedb.IndexState{Index: ix}}
		entry.keys, _ = keysOf(ix)
		if !d.Ready {
			entry.Pending = 1 // how many is asked for later
		}
		all = append(all, entry)
	}
	return all, cursor.Err()
}

// writeDefinition gives an index as JSON: name, ddoc, fields as [path, whether
// it descends], and partial_filter_selector.
func writeDefinition(ix statedb.Index) string {
	fields := make([]canonical.Value, len(ix.Fields))
	for i, f := range ix.Fields {
		fields[i] = canonical.ArrayOf(canonical.StringOf(f.Field), canonical.BoolOf(f.Descending))
	}
	return string(canonical.ObjectOf(
		canonical.Member{Key: "ddoc", Value: canonical.StringOf(ix.DDoc)},
		canonical.Member{Key: "fields", Value: canonical.ArrayOf(fields...)},
		canonical.Member{Key: "name", Value: canonical.StringOf(ix.Name)},
		canonical.Member{Key: "partial_filter_selector", Value: ix.PartialFilter},
	).Bytes())
}

// readDefinition is the inverse of writeDefinition.
func readDefinition(text string) (statedb.Index, bool) {
	tree, err := canonical.Parse([]byte(text))
	if err != nil {
		return statedb.Index{}, false
	}
	name, _ := tree.Get("name")
	ddoc, _ := tree.Get("ddoc")
	fields, _ := tree.Get("fields")
	ix := statedb.Index{Name: name.Text(), DDoc: ddoc.Text()}
	if fields.Kind() != canonical.Array || fields.Len() == 0 {
		return ix, false
	}
	for i := range fields.Len() {
		f := fields.At(i)
		if f.Kind() != canonical.Array || f.Len() != 2 || f.At(0).Kind() != canonical.String {
			return ix, false
		}
		ix.Fields = append(ix.Fields, statedb.SortField{Field: f.At(0).Text(), Descending: f.At(1).Bool()})
	}
	ix.PartialFilter, _ = tree.Get("partial_filter_selector")
	if !ix.PartialFilter.IsNull() {
		if _, err := mango.Parse(ix.PartialFilter); err != nil {
			return ix, false
		}
	}
	return ix, true
}
