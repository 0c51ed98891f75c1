package couchdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
	"github.com/couchledger/couchledger/statedb/mango"
)

// query is a Query made ready.
type query struct {
	statedb.Query
	table, name string
	selector    *mango.Selector
	asked       canonical.Value // the selector as CouchDB gets it
	relaxed     bool            // asked finds more than the selector
	fields      []mango.Path
	hash        keyset.Hash
	from        *place    // where the page before ended; nil for the first
	index       *deployed // the index it uses; nil for _all_docs
	plan        *mango.Plan
}

// prepare checks a query and asks CouchDB which index it would use.
func (db *DB) prepare(ctx context.Context, table string, q statedb.Query) (*query, error) {
	name, err := db.database(table)
	if err != nil {
		return nil, err
	}
	if err := keyset.CheckLimit(q.Limit); err != nil {
		return nil, err
	}
	prepared := &query{Query: q, table: table, name: name, hash: keyset.FindHash(table, q)}
	if prepared.selector, err = mango.Parse(q.Selector); err != nil {
		return nil, err
	}
	prepared.asked, prepared.relaxed = relax(q.Selector)
	if prepared.fields, err = mango.ParseFields(q.Fields); err != nil {
		return nil, err
	}
	if q.Bookmark != "" {
		if prepared.from, err = openPlace(q.Bookmark, prepared.hash); err != nil {
			return nil, err
		}
	}
	if err := db.choose(ctx, prepared); err != nil {
		return nil, err
	}
	return prepared, nil
}

// choose asks CouchDB for its plan. The index of a chain of pages is the one
// that its first page used, whatever was deployed since.
func (db *DB) choose(ctx context.Context, q *query) error {
	if _, err := mango.NewPlan(q.selector, q.Sort, nil, ""); err != nil && !errors.Is(err, statedb.ErrNoIndex) {
		return err // a malformed sort
	}
	use := q.UseIndex
	switch {
	case q.from != nil && q.from.Index == "" && q.from.Skip == 0:
		q.readByID()
	case q.from != nil && q.from.Index != "":
		ix, err := db.lookUp(ctx, q.table, q.name, signed(q.from.Index))
		if err != nil {
			return err
		}
		if ix == nil {
			return fmt.Errorf("%w: its index was built anew since", statedb.ErrBadBookmark)
		}
		q.index = ix
		use = ix.Name
	case use != "":
		ix, err := db.lookUp(ctx, q.table, q.name, named(use))
		if err != nil {
			return err
		}
		if ix == nil {
			return fmt.Errorf("%w: there is no index %q", statedb.ErrNoIndex, use)
		}
		q.index = ix
	}
	chosen, err := db.explain(ctx, q)
	if err != nil {
		return err
	}
	if use != "" && (chosen == nil || chosen.Name != use) {
		// CouchDB falls back to another one.
		return fmt.Errorf("%w: the index %q does not fit: the selector must hold a condition on each of its fields, and the sort its order", statedb.ErrNoIndex, use)
	}
	if q.from != nil && q.from.Index != "" && chosen.signature != q.from.Index {
		return fmt.Errorf("%w: its index was built anew since", statedb.ErrBadBookmark)
	}
	q.index = chosen
	return q.describe()
}

// readByID has CouchDB go on over the documents themselves, as the first page
// did, though an index that would serve was deployed since.
func (q *query) readByID() {
	if len(q.Sort) == 0 {
		q.Sort = []statedb.SortField{{Field: "_id"}}
	}
	any := canonical.ObjectOf(canonical.Member{Key: "_id", Value: canonical.ObjectOf(canonical.Member{Key: "$gt"})})
	if q.asked.Len() == 0 { // within $and, {} would stand for equality with it
		q.asked = any
		return
	}
	q.asked = canonical.ObjectOf(canonical.Member{Key: "$and", Value: canonical.ArrayOf(q.asked, any)})
}

// describe makes the plan in this project's own words. What the index serves
// both know alike; that there is one CouchDB has said.
func (q *query) describe() (err error) {
	if q.index != nil {
		if q.plan, err = mango.NewPlan(q.selector, q.Sort, []statedb.Index{q.index.Index}, q.index.Name); err == nil {
			return nil
		}
	}
	// CouchDB can serve a sort by _id from _all_docs.
	q.plan, err = mango.NewPlan(q.selector, nil, nil, "")
	return err
}

func (q *query) scans() bool { return q.index == nil && q.plan.WholeScan() }

// Explain tells which index CouchDB uses.
func (db *DB) Explain(ctx context.Context, table string, q statedb.Query) (statedb.Plan, error) {
	prepared, err := db.prepare(ctx, table, q)
	if err != nil {
		return statedb.Plan{}, err
	}
	plan := statedb.Plan{Fields: []string{"_id"}, Covering: prepared.plan.Describe(), Scan: prepared.scans()}
	if prepared.index != nil {
		plan.Index = prepared.index.Name
		plan.Fields = nil
		for _, f := range prepared.index.Fields {
			plan.Fields = append(plan.Fields, f.Field)
		}
	}
	return plan, nil
}

// body makes what _find and _explain take.
func (q *query) body(limit int, bookmark string) []byte {
	b := append([]byte(`{"selector":`), q.asked.Bytes()...)
	b = fmt.Appendf(b, `,"limit":%d`, limit)
	if len(q.Sort) > 0 {
		b = append(b, `,"sort":[`...)
		for i, f := range q.Sort {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(canonical.AppendString(append(b, '{'), f.Field), ':')
			b = append(canonical.AppendString(b, keyset.Direction(f)), '}')
		}
		b = append(b, ']')
	}
	if q.index != nil {
		b = append(b, `,"use_index":`...)
		b = append(b, canonical.StringsOf([]string{q.index.DDoc, q.index.Name}).Bytes()...)
	}
	if bookmark != "" {
		b = append(b, `,"bookmark":`...)
		b = canonical.AppendString(b, bookmark)
	}
	return b
}

// explain asks for the index of a query; nil for _all_docs.
func (db *DB) explain(ctx context.Context, q *query) (*deployed, error) {
	answer, err := db.do(ctx, request{
		method: http.MethodPost, path: path(q.name, "_explain"), body: append(q.body(q.Limit, ""), '}'), reads: true,
	})
	if err != nil {
		return nil, queryError(err)
	}
	tree, err := canonical.Parse(answer)
	if err != nil {
		return nil, malformed("_explain")
	}
	chosen, _ := tree.Get("index")
	if textIn(chosen, "type") != "json" {
		return nil, nil
	}
	definition, _ := chosen.Get("def")
	fields, err := readFields(definition)
	if err != nil {
		return nil, err
	}
	index, ddoc := textIn(chosen, "name"), strings.TrimPrefix(textIn(chosen, "ddoc"), design)
	ix, err := db.lookUp(ctx, q.table, q.name, func(ix *deployed) bool {
		return ix.Name == index && ix.DDoc == ddoc && slices.Equal(ix.Fields, fields)
	})
	if err == nil && ix == nil {
		err = fmt.Errorf("%w: the index %s changes just now", statedb.ErrUnavailable, index)
	}
	return ix, err
}

// queryError gives CouchDB's refusals of a query their meaning.
func queryError(err error) error {
	switch {
	case isCode(err, http.StatusBadRequest, "no_usable_index"), isCode(err, http.StatusBadRequest, "invalid_index"):
		return fmt.Errorf("%w: %w", statedb.ErrNoIndex, err)
	case isCode(err, http.StatusBadRequest, "invalid_bookmark"):
		return fmt.Errorf("%w: %w", statedb.ErrBadBookmark, err)
	case statusOf(err) == http.StatusBadRequest:
		return fmt.Errorf("%w: %w", statedb.ErrBadQuery, err)
	}
	return err
}

// Find asks _find for one page.
func (db *DB) Find(ctx context.Context, table string, q statedb.Query) (statedb.Page, error) {
	prepared, err := db.prepare(ctx, table, q)
	if err != nil {
		return statedb.Page{}, err
	}
	if q.NoScan && prepared.scans() {
		return statedb.Page{}, statedb.ErrScan
	}
	if err := db.usable(ctx, prepared); err != nil {
		return statedb.Page{}, err
	}
	found, err := db.page(ctx, prepared)
	if err != nil {
		return statedb.Page{}, err
	}
	page := statedb.Page{Stats: found.stats}
	if prepared.scans() {
		page.Warning = keyset.ScanWarning
	}
	if found.full && len(found.documents) > 0 {
		page.Bookmark, err = prepared.bookmark(found)
	}
	page.Documents = found.documents
	if len(prepared.fields) > 0 {
		// Here rather than in CouchDB: the bookmark needs the index's fields.
		for i, d := range page.Documents {
			page.Documents[i].Body = mango.Project(parseBody(d).Without("_id", "_rev"), prepared.fields).Bytes()
		}
	}
	return page, err
}

// found is a part of a result as _find gives it.
type found struct {
	documents []statedb.Document
	full      bool   // as many as were asked for: more may follow
	native    string // CouchDB's bookmark behind them
	stats     statedb.Stats
}

// bookmark marks the end of a full page.
func (q *query) bookmark(f found) (string, error) {
	last := f.documents[len(f.documents)-1]
	p := place{Native: f.native, ID: last.ID, Rev: last.Rev}
	if f.native == "" {
		p.Skip = len(f.documents)
		if q.from != nil {
			p.Skip += q.from.Skip
		}
	}
	key, err := q.key(last)
	if err != nil {
		return "", err
	}
	p.Key = key.Bytes()
	if q.index != nil {
		p.Index = q.index.signature
	}
	return p.seal(q.hash), nil
}

// page reads the page behind q.from. CouchDB's bookmark leaves one row out, the
// one that the page before ended with; when that is no longer where it was, it
// leaves out the next. So it is looked for afterwards.
func (db *DB) page(ctx context.Context, q *query) (found, error) {
	if q.from == nil {
		return db.find(ctx, q, q.Limit, "", 0)
	}
	if q.from.Native == "" {
		return db.find(ctx, q, q.Limit, "", q.from.Skip)
	}
	f, err := db.find(ctx, q, q.Limit, q.from.Native, 0)
	if err != nil {
		return f, err
	}
	revs, err := db.currentRevs(ctx, q.name, []string{q.from.ID})
	if err != nil || revs[0] == q.from.Rev {
		return f, err
	}
	return db.pageBehindGap(ctx, q)
}

// find reads documents that match behind a bookmark: limit of them, or fewer where
// they are large.
func (db *DB) find(ctx context.Context, q *query, limit int, bookmark string, skip int) (found, error) {
	if !q.relaxed {
		return db.ask(ctx, q, limit, bookmark, skip)
	}
	all := found{native: bookmark}
	for size := 0; ; {
		part, err := db.ask(ctx, q, relaxedPage, all.native, skip)
		if err != nil {
			return found{}, err
		}
		all.stats.Keys += part.stats.Keys
		all.stats.Documents += part.stats.Documents
		all.native = part.native
		for _, d := range part.documents {
			if !q.matches(d) {
				continue
			}
			size += len(d.Body)
			if all.documents = append(all.documents, d); len(all.documents) == limit || size > db.opts.maxAnswer {
				key, err := q.key(d)
				all.native, all.full = nativeBookmark(key, d.ID), true
				return all, err
			}
		}
		if !part.full {
			return all, nil
		}
		skip += len(part.documents)
		if part.native != "" {
			skip = 0
		}
	}
}

// relaxedPage is how many documents are asked for at a time by a selector that
// finds more than is wanted.
const relaxedPage = 200

// matches reports whether a document matches the selector as it was given.
func (q *query) matches(d statedb.Document) bool {
	return q.selector.Match(parseBody(d))
}

// key is a document's key in what the query reads.
func (q *query) key(d statedb.Document) (canonical.Value, error) {
	if q.index == nil {
		return canonical.StringOf(d.ID), nil
	}
	return q.index.key(d)
}

// ask sends one _find, and another for fewer documents where the answer is large.
func (db *DB) ask(ctx context.Context, q *query, limit int, bookmark string, skip int) (found, error) {
	for most := db.opts.maxAnswer; ; most *= 2 {
		body := append(q.body(limit, bookmark), `,"execution_stats":true`...)
		if skip > 0 {
			body = fmt.Appendf(body, `,"skip":%d`, skip)
		}
		answer, err := db.do(ctx, request{method: http.MethodPost, path: path(q.name, "_find"), body: append(body, '}'), reads: true, most: most})
		if err != nil {
			return found{}, queryError(err)
		}
		if len(answer) < most {
			return readFound(answer, limit)
		}
		whole := 0
		_ = eachElementOf(answer, "docs", func([]byte) error { // it is cut off
			whole++
			return nil
		})
		limit = min(limit, max(whole, 1))
	}
}

func readFound(answer []byte, limit int) (found, error) {
	f := found{stats: statedb.Stats{Keys: -1, Documents: -1}}
	var fault error
	err := eachField(answer, func(key, value []byte) bool {
		switch string(key) {
		case "docs":
			fault = eachElement(value, func(element []byte) error {
				d, err := readDocument(element)
				f.documents = append(f.documents, d)
				return err
			})
		case "bookmark":
			if f.native = textOf(value); f.native == "nil" {
				f.native = ""
			}
		case "execution_stats":
			stats := struct {
				Keys      *int `json:"total_keys_examined"`
				Documents *int `json:"total_docs_examined"`
			}{&f.stats.Keys, &f.stats.Documents}
			// What is not there, or no number, stays unknown.
			_ = json.Unmarshal(value, &stats)
		}
		return fault == nil
	})
	if fault != nil {
		return found{}, fault
	}
	if err != nil {
		return found{}, err
	}
	f.full = len(f.documents) == limit
	f.documents = slices.DeleteFunc(f.documents, func(d statedb.Document) bool { return isReserved(d.ID) })
	return f, nil
}
