package rethinkdb

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

// table is the term of a table, for writing, and for reading what a majority
// of its replicas has. A node decides by what it reads, and the primary alone
// may show a write that is lost when it fails.
func (db *DB) table(name string) r.Term {
	return r.DB(db.opts.Name).Table(name, r.TableOpts{ReadMode: "majority"})
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
	rows, err := db.run(ctx, "get", db.table(table).GetAll(asked...), nil)
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
	rows := db.live(db.ids(table, idBounds{from: max(want.Start, last), to: want.End}).OrderBy(r.OrderByOpts{Index: fieldID}))
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
func (db *DB) live(rows r.Term) r.Term {
	return rows.Filter(func(row r.Term) r.Term { return isDeleted(row).Not() })
}

// idBounds are two ids, from <= id <= to; an empty one is open.
type idBounds struct{ from, to string }

// ids selects rows by id, those at the bounds too.
func (db *DB) ids(table string, b idBounds) r.Term {
	// Ids are strings, which no other kind of key is greater than; what is
	// less than all strings is left out.
	var upper any = r.MaxVal
	if to, whole := keyPart(b.to); b.to != "" && whole {
		upper = to
	}
	from, _ := keyPart(b.from)
	return db.table(table).Between(from, upper, r.BetweenOpts{RightBound: "closed"})
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
