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
	var others []leaf
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
	answer, err := db.do(ctx, request{
		method: http.MethodPost, path: path(name, "_all_docs"), body: append(keys, `]}`...), reads: true,
		query: url.Values{"include_docs": {"true"}, "conflicts": {"true"}},
	})
	if err != nil {
		return nil, err
	}
	rows := 0
	err = eachRow(answer, func(r row) error {
		if rows == len(places) {
			return malformed("_all_docs: more rows than keys")
		}
		place := places[rows]
		rows++
		if r.document == nil {
			return nil // it is not there, or deleted
		}
		d, conflicts, err := readLeaves(r.document)
		if err != nil {
			return err
		}
		if d.ID != ids[place] {
			return malformed("_all_docs: a row is of another document")
		}
		documents[place] = d
		for _, rev := range conflicts {
			others = append(others, leaf{place, d.ID, rev})
		}
		return nil
	})
	if err == nil && rows != len(places) {
		err = malformed("_all_docs: fewer rows than keys")
	}
	if err == nil && len(others) > 0 {
		err = db.readConflicts(ctx, name, documents, others)
	}
	if err != nil {
		return nil, err
	}
	return documents, nil
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

// eachRow calls do with the rows of a view's answer.
func eachRow(answer []byte, do func(row) error) error {
	found := false
	var fault error
	err := eachField(answer, func(key, value []byte) bool {
		if string(key) != "rows" {
			return true
		}
		found = true
		fault = eachElement(value, func(element []byte) error {
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
		return fault == nil
	})
	switch {
	case fault != nil:
		return fault
	case err != nil:
		return err
	case !found:
		return malformed("rows are missing")
	}
	return nil
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
		rows, err := db.allDocs(ctx, name, from, r.End, want)
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
		if page.Bookmark != "" || len(rows) < want {
			page.Stats.Documents = len(page.Documents)
			return page, nil
		}
		last = rows[len(rows)-1].id
		from = last
	}
}

func (db *DB) allDocs(ctx context.Context, name, start, end string, limit int) ([]row, error) {
	query := url.Values{"include_docs": {"true"}, "limit": {strconv.Itoa(limit)}}
	if start != "" {
		query.Set("startkey", string(canonical.AppendString(nil, start)))
	}
	if end != "" {
		if start >= end {
			return nil, nil // CouchDB refuses a range that is none
		}
		query.Set("endkey", string(canonical.AppendString(nil, end)))
		query.Set("inclusive_end", "false")
	}
	answer, err := db.do(ctx, request{method: http.MethodGet, path: path(name, "_all_docs"), query: query, reads: true})
	if err != nil {
		return nil, err
	}
	var rows []row
	err = eachRow(answer, func(r row) error {
		rows = append(rows, r)
		return nil
	})
	return rows, err
}
