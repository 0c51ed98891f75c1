package rethinkdb

import (
	"context"
	"errors"
	"fmt"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
	"github.com/couchledger/couchledger/statedb/mango"
)

// prepare plans a query. What is known of the indexes may be old, so that a
// query that no index serves is planned once more over a fresh list.
func (db *DB) prepare(ctx context.Context, table string, q statedb.Query) (*keyset.Query, error) {
	if err := db.checkTable(table); err != nil {
		return nil, err
	}
	c, err := db.indexes(ctx, table)
	if err != nil {
		return nil, err
	}
	query, err := keyset.Prepare(table, q, c.states)
	if errors.Is(err, statedb.ErrNoIndex) || errors.Is(err, statedb.ErrScan) || errors.Is(err, statedb.ErrBadBookmark) {
		if c, err = db.list(ctx, table); err != nil {
			return nil, err
		}
		query, err = keyset.Prepare(table, q, c.states)
	}
	return query, err
}

// Explain tells which index Find uses.
func (db *DB) Explain(ctx context.Context, table string, q statedb.Query) (statedb.Plan, error) {
	query, err := db.prepare(ctx, table, q)
	if err != nil {
		return statedb.Plan{}, err
	}
	return query.Explain(), nil
}

// Find has RethinkDB give the rows between the bounds of an index, in its
// order, that pass a filter no stricter than the selector; which of them match
// is found out here.
func (db *DB) Find(ctx context.Context, table string, q statedb.Query) (statedb.Page, error) {
	query, err := db.prepare(ctx, table, q)
	if err != nil {
		return statedb.Page{}, err
	}
	page, err := db.page(ctx, table, q.Limit, query)
	if isRefusal(err, "was not found on table") {
		// The index was defined anew since it was listed.
		db.forgetIndexes()
		if query, err = db.prepare(ctx, table, q); err != nil {
			return statedb.Page{}, err
		}
		if page, err = db.page(ctx, table, q.Limit, query); isRefusal(err, "was not found on table") {
			return statedb.Page{}, fmt.Errorf("%w: %w", statedb.ErrUnavailable, err)
		}
	}
	return page, err
}

// page reads one page.
func (db *DB) page(ctx context.Context, table string, limit int, q *keyset.Query) (statedb.Page, error) {
	if q.Index == nil {
		source, stop := db.rows(ctx, "scan", filter(db.scan(table, q), q), limit+1)
		defer stop()
		return q.Page(ctx, limit, source)
	}
	odd, stop := db.rows(ctx, "find_odd", filter(db.keys(table, q, oddBounds), q), maxBatchRows)
	defer stop()
	sources := []keyset.Source{q.Collect(limit, odd)}
	if b, some := boundsOf(q); some {
		rows := db.keys(table, q, b).OrderBy(r.OrderByOpts{Index: direction(indexName(*q.Index), q.Plan.Reverse)})
		source, stop := db.rows(ctx, "find", filter(rows, q), limit+1)
		defer stop()
		sources = append(sources, source)
	}
	return q.Page(ctx, limit, sources...)
}

// keys selects rows by the keys of an index.
func (db *DB) keys(table string, q *keyset.Query, b keyBounds) r.Term {
	return db.table(table).Between(b.lower, b.upper, r.BetweenOpts{Index: indexName(*q.Index), RightBound: "closed"})
}

func direction(index string, reverse bool) any {
	if reverse {
		return r.Desc(index)
	}
	return index
}

// scan selects rows by id, in their order.
func (db *DB) scan(table string, q *keyset.Query) r.Term {
	var b idBounds
	for _, bound := range q.Plan.Range {
		if bound.Arg.Kind() != canonical.String {
			continue
		}
		switch id := bound.Arg.Text(); bound.Op {
		case mango.OpGt, mango.OpGte:
			b.from = max(b.from, id)
		case mango.OpLt, mango.OpLte:
			if b.to == "" || id < b.to {
				b.to = id
			}
		}
	}
	if q.After != nil && q.Plan.Reverse {
		b.to = q.After.ID
	} else if q.After != nil {
		b.from = q.After.ID
	}
	return between(db.table(table), b).OrderBy(r.OrderByOpts{Index: direction(fieldID, q.Plan.Reverse)})
}

// filter leaves out rows that surely do not match.
func filter(rows r.Term, q *keyset.Query) r.Term {
	tree := q.Selector.Tree()
	return live(rows.Filter(func(row r.Term) r.Term { return superset(row, tree) }))
}
