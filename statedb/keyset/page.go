package keyset

import (
	"bytes"
	"container/heap"
	"context"
	"slices"
	"sync"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// LookAhead is how many rows are read beyond a full page to see whether it was
// the last one. If that does not tell, there is a bookmark, and the page after
// it may be empty.
const LookAhead = 1000

// Row is a document as an adapter read it, without _id and _rev in its body.
type Row struct {
	ID, Rev string
	Body    canonical.Value
}

// Source gives rows one after another, and false after the last.
type Source func(context.Context) (Row, bool, error)

// candidate is a row that is in the answer.
type candidate struct {
	Row
	at  Position
	key []byte
}

// Page reads one page. Each source gives its rows in the order of the query:
// by the values of the index's fields, then by id, backwards when the plan
// says so. Rows that do not match, or are not behind the page before, may be
// among them.
func (q *Query) Page(ctx context.Context, limit int, sources ...Source) (statedb.Page, error) {
	page := statedb.Page{Stats: statedb.Stats{Keys: -1, Documents: -1}}
	if q.Plan.WholeScan() {
		page.Warning = ScanWarning
	}
	readers, err := q.begin(ctx, sources)
	if err != nil {
		return page, err
	}
	var last Position
	shown := map[string]bool{} // an update meanwhile may bring a document twice
	for {
		r := q.next(readers)
		if r == nil {
			return page, nil
		}
		full := len(page.Documents) == limit
		switch c := r.head; {
		case full && c == nil: // enough was looked at behind the page
			page.Bookmark = q.Bookmark(last)
			return page, nil
		case full && !shown[c.ID]:
			page.Bookmark = q.Bookmark(last)
			return page, nil
		case !shown[c.ID]:
			shown[c.ID] = true
			page.Documents = append(page.Documents, q.document(c.Row))
			last = c.at
		}
		rows := 0
		if full || len(page.Documents) == limit {
			rows = LookAhead
		}
		if err := r.advance(ctx, rows); err != nil {
			return page, err
		}
	}
}

// reader is a source with the candidate that it gives next.
type reader struct {
	q      *Query
	source Source
	head   *candidate // nil where the look behind the page found nothing so far
	ended  bool
}

// begin reads the first candidate of every source, side by side.
func (q *Query) begin(ctx context.Context, sources []Source) ([]*reader, error) {
	readers := make([]*reader, len(sources))
	faults := make([]error, len(sources))
	var group sync.WaitGroup
	for i, source := range sources {
		readers[i] = &reader{q: q, source: source}
		group.Go(func() { faults[i] = readers[i].advance(ctx, 0) })
	}
	group.Wait()
	for _, err := range faults {
		if err != nil {
			return nil, err
		}
	}
	return readers, nil
}

// next is the reader whose candidate comes first, nil when all have ended.
func (q *Query) next(readers []*reader) *reader {
	var first *reader
	for _, r := range readers {
		switch {
		case r.ended:
		case r.head == nil:
			return r
		case first == nil || q.before(r.head.key, first.head.key):
			first = r
		}
	}
	return first
}

func (q *Query) before(a, b []byte) bool {
	if q.Plan.Reverse {
		a, b = b, a
	}
	return bytes.Compare(a, b) < 0
}

// advance reads on to the next candidate, over at most so many other rows; 0 is
// no limit.
func (r *reader) advance(ctx context.Context, most int) error {
	r.head = nil
	for read := 0; most == 0 || read < most; read++ {
		row, ok, err := r.source(ctx)
		if err != nil {
			return err
		}
		if !ok {
			r.ended = true
			return nil
		}
		if r.head = r.q.candidate(row); r.head != nil {
			return nil
		}
	}
	return nil
}

// candidate matches a row; nil when it is not in the answer.
func (q *Query) candidate(row Row) *candidate {
	c := &candidate{Row: row, at: Position{ID: row.ID}}
	for _, path := range q.Paths {
		v, ok := path.Lookup(row.Body)
		if !ok {
			return nil // an index holds what has all its fields
		}
		c.at.Values = append(c.at.Values, v)
	}
	c.key = c.at.Key()
	if q.After != nil && !q.before(q.After.Key(), c.key) {
		return nil
	}
	if q.partial != nil && !match(q.partial, row) || !match(q.Selector, row) {
		return nil
	}
	return c
}

func match(s *mango.Selector, row Row) bool {
	seen := row.Body
	if s.Uses("_id") {
		seen = seen.With("_id", canonical.StringOf(row.ID))
	}
	if s.Uses("_rev") {
		seen = seen.With("_rev", canonical.StringOf(row.Rev))
	}
	return s.Match(seen)
}

func (q *Query) document(row Row) statedb.Document {
	if len(q.Fields) > 0 {
		row.Body = mango.Project(row.Body, q.Fields)
	}
	return statedb.Document{ID: row.ID, Rev: row.Rev, Body: row.Body.Bytes()}
}

// Collect makes a source that gives rows in order of one that does not: it
// reads all of it and keeps what a page of this size can show.
func (q *Query) Collect(limit int, unordered Source) Source {
	var rows []Row
	read := false
	return func(ctx context.Context) (Row, bool, error) {
		if !read {
			var err error
			if rows, err = q.first(ctx, limit+1, unordered); err != nil {
				return Row{}, false, err
			}
			read = true
		}
		if len(rows) == 0 {
			return Row{}, false, nil
		}
		row := rows[0]
		rows = rows[1:]
		return row, true, nil
	}
}

// first returns the first rows in the query's order, at most so many.
func (q *Query) first(ctx context.Context, most int, source Source) ([]Row, error) {
	kept := &farthest{q: q}
	for {
		row, ok, err := source(ctx)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		c := q.candidate(row)
		if c == nil || len(kept.list) == most && !q.before(c.key, kept.list[0].key) {
			continue
		}
		if heap.Push(kept, c); len(kept.list) > most {
			heap.Pop(kept)
		}
	}
	slices.SortFunc(kept.list, func(a, b *candidate) int {
		if q.before(a.key, b.key) {
			return -1
		}
		return 1
	})
	rows := make([]Row, len(kept.list))
	for i, c := range kept.list {
		rows[i] = c.Row
	}
	return rows, nil
}

// farthest is a heap with the last candidate on top.
type farthest struct {
	q    *Query
	list []*candidate
}

func (h *farthest) Len() int           { return len(h.list) }
func (h *farthest) Less(i, j int) bool { return h.q.before(h.list[j].key, h.list[i].key) }
func (h *farthest) Swap(i, j int)      { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *farthest) Push(c any)         { h.list = append(h.list, c.(*candidate)) }

func (h *farthest) Pop() any {
	last := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	return last
}
