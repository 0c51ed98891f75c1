package rethinkdb

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

// table is the term of a table, read at its primary replicas.
func (db *DB) table(name string) r.Term { return r.DB(db.opts.Name).Table(name) }

// replicasKnown is how long the number of replicas is taken for the same.
const replicasKnown = 10 * time.Second

// decisive is the term of a table for what a node decides by: of several
// replicas it asks a majority, as the primary alone may show a write that is
// lost with it. That costs half a millisecond; with one replica it says
// nothing more.
func (db *DB) decisive(ctx context.Context, name string) (r.Term, error) {
	db.mu.Lock()
	known, ok := db.replicated[name]
	db.mu.Unlock()
	if !ok || time.Since(known.at) > replicasKnown {
		several, err := db.one(ctx, "config", db.table(name).Config().Field("shards").Contains(func(shard r.Term) r.Term {
			return shard.Field("replicas").Count().Gt(1)
		}), nil)
		// A user who may not see how many there are gets a majority.
		denied := errors.Is(err, statedb.ErrDenied)
		if err != nil && !denied {
			return r.Term{}, err
		}
		known = replicated{at: time.Now(), several: several.Bool() || denied}
		db.mu.Lock()
		db.replicated[name] = known
		db.mu.Unlock()
	}
	if !known.several {
		return db.table(name), nil
	}
	return r.DB(db.opts.Name).Table(name, r.TableOpts{ReadMode: "majority"}), nil
}

// replicated says whether a table had several replicas at a time.
type replicated struct {
	at      time.Time
	several bool
}

// Get reads documents by id.
func (db *DB) Get(ctx context.Context, table string, ids []string) ([]statedb.Document, error) {
	if err := db.checkTable(table); err != nil {
		return nil, err
	}
	documents := make([]statedb.Document, len(ids))
	places := map[string][]int{}
	for i, id := range ids {
		documents[i].ID = id
		places[id] = append(places[id], i)
	}
	asked := rowIDs(ids)
	if len(asked) == 0 && len(ids) > 0 {
		return documents, nil
	}
	t, err := db.decisive(ctx, table)
	if err != nil {
		return nil, err
	}
	rows, err := db.run(ctx, "get", t.GetAll(asked...), nil)
	if err != nil {
		return nil, err
	}
	for _, text := range rows {
		if row, ok := readRow(text); ok {
			for _, i := range places[row.ID] {
				documents[i] = documentOf(row)
			}
		}
	}
	return documents, nil
}

func documentOf(row keyset.Row) statedb.Document {
	return statedb.Document{ID: row.ID, Rev: row.Rev, Body: row.Body.Bytes()}
}

// Range reads rows between two ids. A bookmark is the last id of a page.
func (db *DB) Range(ctx context.Context, table string, want statedb.Range) (statedb.Page, error) {
	if err := db.checkTable(table); err != nil {
		return statedb.Page{}, err
	}
	if err := keyset.CheckLimit(want.Limit); err != nil {
		return statedb.Page{}, err
	}
	hash := keyset.RangeHash(table, want)
	last := ""
	if want.Bookmark != "" {
		place, err := keyset.Open(want.Bookmark, hash)
		if err != nil {
			return statedb.Page{}, err
		}
		last = string(place)
	}
	t, err := db.decisive(ctx, table)
	if err != nil {
		return statedb.Page{}, err
	}
	rows := live(between(t, idBounds{from: max(want.Start, last), to: want.End}).OrderBy(r.OrderByOpts{Index: fieldID}))
	source, stop := db.rows(ctx, "range", rows, want.Limit+1)
	defer stop()
	page := statedb.Page{Stats: statedb.Stats{Keys: -1, Documents: -1}}
	for {
		row, ok, err := source(ctx)
		if err != nil || !ok {
			return page, err
		}
		switch inside := row.ID >= want.Start && row.ID > last && (want.End == "" || row.ID < want.End); {
		case !inside:
		case len(page.Documents) == want.Limit:
			page.Bookmark = keyset.Seal([]byte(page.Documents[want.Limit-1].ID), hash)
			return page, nil
		default:
			page.Documents = append(page.Documents, documentOf(row))
		}
	}
}

// live leaves out what is left of deleted documents.
func live(rows r.Term) r.Term {
	return rows.Filter(func(row r.Term) r.Term { return isDeleted(row).Not() })
}

// idBounds are two ids, from <= id <= to; an empty one is open.
type idBounds struct{ from, to string }

// between selects rows by id, those at the bounds too.
func between(table r.Term, b idBounds) r.Term {
	// Ids are strings, which no other kind of key is greater than; what is
	// less than all strings is left out.
	var upper any = r.MaxVal
	if to, whole := keyPart(b.to); b.to != "" && whole {
		upper = to
	}
	from, _ := keyPart(b.from)
	return table.Between(from, upper, r.BetweenOpts{RightBound: "closed"})
}

// keyPart is the beginning of an id that RethinkDB takes as a bound, and
// whether no id beyond it is before the whole: a key has no U+0000, so one
// that is less than the whole is at most what stands before the first.
func keyPart(id string) (part string, whole bool) {
	part, _, _ = strings.Cut(id, "\x00")
	if utf8.ValidString(part) {
		return part, true
	}
	for i, c := range part {
		if c == utf8.RuneError && !strings.HasPrefix(part[i:], "\uFFFD") {
			return part[:i], false
		}
	}
	return part, false
}

// maxBatchRows bounds how many rows the server sends at a time.
const maxBatchRows = 1000

// rows reads the documents of a query one after another. stop ends it; what
// was asked for and not read costs little, as the server reads in batches.
func (db *DB) rows(ctx context.Context, what string, term r.Term, batch int) (source keyset.Source, stop func()) {
	var c *cursor
	at := 0
	source = func(ctx context.Context) (keyset.Row, bool, error) {
		for {
			var err error
			switch {
			case c == nil:
				c, err = db.open(ctx, what, term, options{"max_batch_rows": min(batch, maxBatchRows), "first_batch_scaledown_factor": 1})
			case at == len(c.rows) && c.done:
				return keyset.Row{}, false, nil
			case at == len(c.rows):
				c.rows, at = slices.Delete(c.rows, 0, at), 0
				err = c.more()
			}
			if err != nil {
				return keyset.Row{}, false, err
			}
			for at < len(c.rows) {
				at++
				if row, ok := readRow(c.rows[at-1]); ok {
					return row, true, nil
				}
			}
		}
	}
	return source, func() {
		if c != nil {
			c.close()
		}
	}
}
