package mongodb

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

// onlyRevisions leaves out everything but what a deletion leaves.
var onlyRevisions = bson.D{{Key: fieldID, Value: 1}, {Key: fieldRev, Value: 1}, {Key: fieldDeleted, Value: 1}}

// Get reads documents by id.
func (db *DB) Get(ctx context.Context, table string, ids []string) ([]statedb.Document, error) {
	collection, _, err := db.collection(ctx, table)
	if err != nil {
		return nil, err
	}
	bounded, cancel := db.bound(ctx)
	defer cancel()
	found, err := db.lookUp(bounded, collection, ids, nil)
	if err != nil {
		return nil, db.fault(ctx, err)
	}
	documents := make([]statedb.Document, len(ids))
	for i, id := range ids {
		documents[i].ID = id
		if r, ok := found[id]; ok && !r.deleted {
			documents[i] = r.document()
		}
	}
	return documents, nil
}

// revisions reads the revisions of documents, deleted ones too.
func (db *DB) revisions(ctx context.Context, collection *mongo.Collection, ids []string) (map[string]record, error) {
	return db.lookUp(ctx, collection, ids, onlyRevisions)
}

// lookUp reads documents by id; fields may be nil for all.
func (db *DB) lookUp(ctx context.Context, collection *mongo.Collection, ids []string, fields bson.D) (map[string]record, error) {
	wanted := make([]string, 0, len(ids))
	for _, id := range ids {
		if statedb.CheckID(id) == nil { // no other can be there
			wanted = append(wanted, id)
		}
	}
	found := make(map[string]record, len(wanted))
	if len(wanted) == 0 {
		return found, nil
	}
	if db.cautious() && len(wanted) <= fewDocuments {
		return found, lookUpEach(ctx, collection, wanted, fields, found)
	}
	cursor, err := collection.Find(ctx, bson.D{{Key: fieldID, Value: bson.D{{Key: "$in", Value: wanted}}}}, findOptions(fields))
	if err != nil {
		return nil, err
	}
	return found, drain(ctx, cursor, func(r record) { found[r.id] = r })
}

func findOptions(fields bson.D) *options.FindOptionsBuilder {
	opts := options.Find()
	if fields != nil {
		opts.SetProjection(fields)
	}
	return opts
}

// drain reads a cursor to its end and closes it. Documents that are none of the
// ledger's are left out.
func drain(ctx context.Context, cursor *mongo.Cursor, do func(record)) error {
	defer cursor.Close(ctx)
	for cursor.Next(ctx) {
		r, ok, err := readRecord(cursor.Current)
		if err != nil {
			return err
		}
		if ok {
			do(r)
		}
	}
	return cursor.Err()
}

// fewDocuments is up to how many it pays to ask FerretDB for each alone, which
// is the only thing that it does not read all of the collection for.
const fewDocuments = 16

func lookUpEach(ctx context.Context, collection *mongo.Collection, ids []string, fields bson.D, found map[string]record) error {
	opts := options.FindOne()
	if fields != nil {
		opts.SetProjection(fields)
	}
	for _, id := range ids {
		raw, err := collection.FindOne(ctx, bson.D{{Key: fieldID, Value: id}}, opts).Raw()
		if errors.Is(err, mongo.ErrNoDocuments) {
			continue
		}
		if err != nil {
			return err
		}
		r, _, err := readRecord(raw)
		if err != nil {
			return err
		}
		found[r.id] = r
	}
	return nil
}

// Range reads documents between two ids. A bookmark is the last id of a page.
func (db *DB) Range(ctx context.Context, table string, r statedb.Range) (statedb.Page, error) {
	collection, _, err := db.collection(ctx, table)
	if err != nil {
		return statedb.Page{}, err
	}
	if err := keyset.CheckLimit(r.Limit); err != nil {
		return statedb.Page{}, err
	}
	hash := keyset.RangeHash(table, r)
	op, from := "$gte", r.Start
	if r.Bookmark != "" {
		last, err := keyset.Open(r.Bookmark, hash)
		if err != nil {
			return statedb.Page{}, err
		}
		op, from = "$gt", string(last)
	}
	page := statedb.Page{}
	for {
		bounded, cancel := db.bound(ctx)
		// One more than asked for tells whether the page is the last.
		chunk, err := db.ids(bounded, collection, op, from, r.End, nil, r.Limit-len(page.Documents)+1)
		cancel()
		if err != nil {
			return statedb.Page{}, db.fault(ctx, fmt.Errorf("read a range of %s: %w", table, err))
		}
		page.Stats.Keys += chunk.read
		for _, record := range chunk.records {
			if record.deleted {
				continue
			}
			if len(page.Documents) == r.Limit {
				page.Bookmark = keyset.Seal([]byte(page.Documents[r.Limit-1].ID), hash)
				break
			}
			page.Documents = append(page.Documents, record.document())
		}
		if page.Bookmark != "" || chunk.last == "" {
			page.Stats.Documents = len(page.Documents)
			return page, nil
		}
		op, from = "$gt", chunk.last
	}
}

// chunk is what one command of several that read on gave.
type chunk struct {
	records []record
	read    int    // documents, those that are none of the ledger's too
	last    string // the last id where there may be more behind it; else ""
}

// ids reads documents in the order of their ids: from one on, which op says
// whether to include, up to another one, "" for none.
func (db *DB) ids(ctx context.Context, collection *mongo.Collection, op, from, end string, fields bson.D, limit int) (chunk, error) {
	// A comparison with a text finds texts only.
	bounds := bson.D{{Key: op, Value: from}}
	if end != "" {
		bounds = append(bounds, bson.E{Key: "$lt", Value: end})
	}
	opts := findOptions(fields).SetSort(bson.D{{Key: fieldID, Value: 1}}).SetLimit(int64(limit))
	cursor, err := collection.Find(ctx, bson.D{{Key: fieldID, Value: bounds}}, opts)
	if err != nil {
		return chunk{}, err
	}
	defer cursor.Close(ctx)
	var c chunk
	for cursor.Next(ctx) {
		c.read++
		if c.last, err = idOf(cursor.Current); err != nil {
			return c, err
		}
		r, ok, err := readRecord(cursor.Current)
		if err != nil {
			return c, err
		}
		if ok {
			c.records = append(c.records, r)
		}
	}
	if c.read < limit {
		c.last = ""
	}
	return c, cursor.Err()
}

// idOf is a document's _id, which is a text.
func idOf(raw bson.Raw) (string, error) {
	id, ok := raw.Lookup(fieldID).StringValueOK()
	if !ok {
		return "", malformed("an _id is no text")
	}
	return id, nil
}
