package mongodb

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

// Explain tells which index Find uses.
func (db *DB) Explain(ctx context.Context, table string, q statedb.Query) (statedb.Plan, error) {
	prepared, _, err := db.prepare(ctx, table, q)
	if err != nil {
		return statedb.Plan{}, err
	}
	return prepared.Explain(), nil
}

// prepare plans a query. The index is nil where the ids are read.
func (db *DB) prepare(ctx context.Context, table string, q statedb.Query) (*keyset.Query, *deployed, error) {
	c, err := db.indexes(ctx, table)
	if err != nil {
		return nil, nil, err
	}
	prepared, err := keyset.Prepare(table, q, c.states())
	if err != nil || prepared.Index == nil {
		return prepared, nil, err
	}
	return prepared, c.deployed(prepared.Index.Name), nil
}

// Find reads one page. MongoDB's indexes give rows in its own order of types,
// so a page is merged from several cursors, each over types that it orders as
// Mango does; see sources.go.
func (db *DB) Find(ctx context.Context, table string, q statedb.Query) (statedb.Page, error) {
	page, err := db.find(ctx, table, q, true)
	if code := codeOf(err); code == codeBadValue || code == codeNoPlan {
		// An index is not what it was when it was looked at; or the server sees
		// no way to use it, and finds another.
		db.forgetIndexes(table)
		page, err = db.find(ctx, table, q, false)
	}
	return page, db.fault(ctx, err)
}

func (db *DB) find(ctx context.Context, table string, q statedb.Query, hints bool) (statedb.Page, error) {
	collection, _, err := db.collection(ctx, table)
	if err != nil {
		return statedb.Page{}, err
	}
	prepared, index, err := db.prepare(ctx, table, q)
	if err != nil {
		return statedb.Page{}, err
	}
	bounded, cancel := db.bound(ctx)
	defer cancel()
	f := finder{db: db, collection: collection, query: prepared, limit: q.Limit, hints: hints && !db.server.substitute}
	defer f.close(bounded)
	return prepared.Page(bounded, q.Limit, f.sources(index)...)
}

// finder reads the rows of one page.
type finder struct {
	db         *DB
	collection *mongo.Collection
	query      *keyset.Query
	limit      int
	hints      bool // the server is told which index to use
	readings   []*reading
}

func (f *finder) close(ctx context.Context) {
	for _, r := range f.readings {
		r.close(ctx)
	}
}

func (f *finder) sources(index *deployed) []keyset.Source {
	switch {
	case index == nil:
		return f.byID()
	case index.keys == nil || f.db.cautious():
		return f.byScan()
	}
	return f.byIndex(index)
}
