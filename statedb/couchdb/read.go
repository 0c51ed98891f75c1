package couchdb

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

// Get reads documents through _all_docs with keys. Only those in conflict, which
// replication alone can bring about, take another request.
func (db *DB) Get(ctx context.Context, table string, ids []string) ([]statedb.Document, error) {
	name, err := db.database(table)
	if err != nil {
		return nil, err
	}
	documents := make([]statedb.Document, len(ids))
	keys := []byte(`{"keys":[`)
	var places []int
	for i, id := range ids {
		documents[i].ID = id
		if statedb.CheckID(id) != nil {
			continue // no such document can be there
		}
		if len(places) > 0 {
			keys = append(keys, ',')
		}
		keys = canonical.AppendString(keys, id)
		places = append(places, i)
	}
	if len(ids) > 0 && len(places) == 0 {
		return documents, nil
	}
	keys = append(keys, `]}`...)
	for most := db.opts.maxAnswer; ; most *= 2 {
		answer, err := db.do(ctx, request{
			method: http.MethodPost, path: path(name, "_all_docs"), body: keys, reads: true, most: most,
			query: url.Values{"include_docs": {"true"}, "conflicts": {"true"}},
		})
		if err != nil {
			return nil, err
		}
		rows, others, err := readRows(answer, documents, places)
		cut := len(answer) == most
		switch {
		case err != nil && !cut:
			return nil, err
		case cut && rows == 0:
			continue // one document is as large
		case rows < len(places) && !cut:
			return nil, malformed("_all_docs: fewer rows than keys")
		case rows < len(places):
			documents = documents[:places[rows]]
		}
		if err := db.readConflicts(ctx, name, documents, others); err != nil {
			return nil, err
		}
		return documents, nil
	}
}

// readRows puts the rows of an answer of _all_docs for keys into their places, and
// tells how many there are; an error if it is cut off after them.
func readRows(answer []byte, documents []statedb.Document, places []int) (rows int, others []leaf, err error) {
	err = eachRow(answer, func(r row) error {
		if rows == len(places) {
			return malformed("_all_docs: more rows than keys")
		}
		place := places[rows]
		if r.document == nil { // it is not there, or deleted
			if textOf(r.key) != documents[place].ID {
				return malformed("_all_docs: a row is of another key")
			}
		} else {
			d, conflicts, err := readLeaves(r.document)
			if err != nil {
				return err
			}
			if d.ID != documents[place].ID {
				return malformed("_all_docs: a row is of another document")
			}
			documents[place] = d
			for _, rev := range conflicts {
				others = append(others, leaf{place, d.ID, rev})
			}
		}
		rows++
		return nil
	})
	return rows, others, err
}

// currentRevs returns the revisions of documents, "" for those not there.
func (db *DB) currentRevs(ctx context.Context, name string, ids []string) ([]string, error) {
	body := append(append([]byte(`{"keys":`), canonical.StringsOf(ids).Bytes()...), '}')
	answer, err := db.do(ctx, request{method: http.MethodPost, path: path(name, "_all_docs"), body: body, reads: true})
	if err != nil {
		return nil, err
	}
	var result struct {
		Rows []struct {
			Value struct {
				Rev     string `json:"rev"`
				Deleted bool   `json:"deleted"`
			} `json:"value"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(answer, &result); err != nil || len(result.Rows) != len(ids) {
		return nil, malformed("_all_docs")
	}
	revs := make([]string, len(ids))
	for i, r := range result.Rows {
		if !r.Value.Deleted {
			revs[i] = r.Value.Rev
		}
	}
	return revs, nil
}

// row is one of a view's or of _all_docs.
type row struct {
	id       string
	key      []byte // JSON
	document []byte // JSON; nil where there is none
}

// eachRow calls do with the rows of a view's answer, also of one that is cut off.
func eachRow(answer []byte, do func(row) error) error {
	return eachElementOf(answer, "rows", func(element []byte) error {
		var r row
		if err := eachField(element, func(key, value []byte) bool {
			switch string(key) {
			case "id":
				r.id = textOf(value)
			case "key":
				r.key = value
			case "doc":
				if string(value) != "null" {
					r.document = value
				}
			}
			return true
		}); err != nil {
			return err
		}
		return do(r)
	})
}

// Range reads _all_docs between two ids. A bookmark is the last id of a page:
// the next one begins with it, and leaves it out when it is still there.
func (db *DB) Range(ctx context.Context, table string, r statedb.Range) (statedb.Page, error) {
	name, err := db.database(table)
	if err != nil {
		return statedb.Page{}, err
	}
	if err := keyset.CheckLimit(r.Limit); err != nil {
		return statedb.Page{}, err
	}
	query := keyset.RangeHash(table, r)
	from, last := r.Start, ""
	if r.Bookmark != "" {
		data, err := keyset.Open(r.Bookmark, query)
		if err != nil {
			return statedb.Page{}, err
		}
		last = string(data)
		from = last
	}
	page := statedb.Page{}
	for {
		// One more than asked for tells whether the page is the last, and one
		// may be that which the page before ended with.
		want := r.Limit - len(page.Documents) + 2
		rows, whole, err := db.allDocs(ctx, name, from, r.End, want)
		if err != nil {
			return statedb.Page{}, err
		}
		page.Stats.Keys += len(rows)
		for _, row := range rows {
			if row.id == last || isReserved(row.id) || row.document == nil {
				continue // design documents are not the ledger's
			}
			if len(page.Documents) == r.Limit {
				page.Bookmark = keyset.Seal([]byte(page.Documents[r.Limit-1].ID), query)
				break
			}
			d, err := readDocument(row.document)
			if err != nil {
				return statedb.Page{}, err
			}
			page.Documents = append(page.Documents, d)
		}
		if !whole && page.Bookmark == "" && len(page.Documents) > 0 {
			page.Bookmark = keyset.Seal([]byte(page.Documents[len(page.Documents)-1].ID), query)
		}
		if page.Bookmark != "" || whole && len(rows) < want {
			page.Stats.Documents = len(page.Documents)
			return page, nil
		}
		last = rows[len(rows)-1].id
		from = last
	}
}

// allDocs reads rows with their documents; not the whole of what was asked for when they
// are large, but two at least, so that there is one behind that which was there before.
func (db *DB) allDocs(ctx context.Context, name, start, end string, limit int) (rows []row, whole bool, err error) {
	query := url.Values{"include_docs": {"true"}, "limit": {strconv.Itoa(limit)}}
	if start != "" {
		query.Set("startkey", string(canonical.AppendString(nil, start)))
	}
	if end != "" {
		if start >= end {
			return nil, true, nil // CouchDB refuses a range that is none
		}
		query.Set("endkey", string(canonical.AppendString(nil, end)))
		query.Set("inclusive_end", "false")
	}
	for most := db.opts.maxAnswer; ; most *= 2 {
		answer, err := db.do(ctx, request{method: http.MethodGet, path: path(name, "_all_docs"), query: query, reads: true, most: most})
		if err != nil {
			return nil, false, err
		}
		rows = nil
		err = eachRow(answer, func(r row) error {
			rows = append(rows, r)
			return nil
		})
		if len(answer) < most {
			return rows, true, err
		}
		if len(rows) >= 2 {
			return rows, false, nil
		}
	}
}
