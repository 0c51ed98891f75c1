package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// Defaults of QueryOptions.
const (
	// DefaultBatchRows is how many rows are asked of the database at a time.
	DefaultBatchRows = 1000
	// DefaultMaxRows is how many rows one query may read.
	DefaultMaxRows = 10000
)

// QueryOptions bound what one query may cost. The zero value works.
type QueryOptions struct {
	// BatchRows is how many rows are asked of the database at a time, by lists
	// too. 0 is DefaultBatchRows.
	BatchRows int
	// MaxRows is how many rows one query may read, those that are left out
	// among them; a bookmark goes on from there. 0 is DefaultMaxRows.
	MaxRows int
	// NoScans refuses queries that would read a whole table.
	NoScans bool
}

func (o *QueryOptions) setDefaults() {
	if o.BatchRows <= 0 {
		o.BatchRows = DefaultBatchRows
	}
	if o.MaxRows <= 0 {
		o.MaxRows = DefaultMaxRows
	}
}

const (
	// pageBytes ends a query's page early: about so much is read for it.
	pageBytes = 8 << 20
	// firstRows is how many rows are read before their size is known; of
	// blocks, which have up to seven megabytes, firstBlocks.
	firstRows   = 25
	firstBlocks = 4
	// growth bounds how much longer a batch may be than the one before, as the
	// rows to come may be larger than those so far.
	growth = 4
)

// Query answers one page of a query. See API.
func (n *Node) Query(ctx context.Context, q QueryRequest) (QueryPage, error) {
	if err := n.complete(); err != nil {
		return QueryPage{}, err
	}
	f, err := n.newFinder(ctx, q)
	if err != nil {
		return QueryPage{}, err
	}
	return f.page(ctx)
}

// Explain tells how a query would be answered. See API.
func (n *Node) Explain(ctx context.Context, q QueryRequest) (QueryPlan, error) {
	f, err := n.newFinder(ctx, q)
	if err != nil {
		return QueryPlan{}, err
	}
	if q.Range {
		return QueryPlan{Plan: statedb.Plan{Fields: []string{"_id"}, Covering: "The documents between the keys are read in the order of their ids."}}, nil
	}
	f.query.NoScan = false // it reads nothing
	f.query.Limit, f.query.Bookmark = q.Limit, q.Bookmark
	var plan QueryPlan
	err = f.tryIndex(ctx, func() (err error) {
		plan.Plan, err = n.db.Explain(ctx, q.Table, f.query)
		return err
	})
	if plan.Scan {
		plan.Advice = mango.Advise(f.selector)
	}
	return plan, f.explain(err)
}

// finder answers one query.
type finder struct {
	n        *Node
	request  QueryRequest
	selector *mango.Selector
	fields   []mango.Path
	query    statedb.Query // what the database is asked, less limit and bookmark
}

// newFinder checks a request, with the same result whatever the database.
// Fields are not passed on: the whole document has to be seen to be checked.
func (n *Node) newFinder(ctx context.Context, q QueryRequest) (*finder, error) {
	if !slices.Contains(statedb.Tables, q.Table) {
		return nil, fmt.Errorf("%w: table: must be one of %s", statedb.ErrBadQuery, strings.Join(statedb.Tables, ", "))
	}
	if q.Limit < 1 {
		return nil, fmt.Errorf("%w: limit: must be at least 1", statedb.ErrBadQuery)
	}
	f := &finder{n: n, request: q}
	var err error
	if f.fields, err = mango.ParseFields(q.Fields); err != nil || q.Range {
		return f, err
	}
	if f.selector, err = mango.Parse(q.Selector); err != nil {
		return nil, err
	}
	if err := mango.CheckSort(q.Sort); err != nil {
		return nil, err
	}
	f.query = statedb.Query{Selector: q.Selector, Sort: q.Sort, UseIndex: q.UseIndex, NoScan: n.queries.NoScans}
	if q.DesignDoc != "" {
		f.query.UseIndex, err = n.indexOf(ctx, q.Table, q.DesignDoc, q.UseIndex)
	}
	return f, err
}

// indexOf finds an index by its design document and, unless that has only one,
// its name.
func (n *Node) indexOf(ctx context.Context, table, ddoc, name string) (string, error) {
	all, err := n.db.Indexes(ctx, table)
	if err != nil {
		return "", err
	}
	var found []string
	for _, ix := range all {
		if ix.DDoc == ddoc && (name == "" || ix.Name == name) {
			found = append(found, ix.Name)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%w: there is no index %q", statedb.ErrNoIndex, strings.TrimSuffix(ddoc+"/"+name, "/"))
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%w: the design document %q has more than one: name it as [ddoc, name]", statedb.ErrNoIndex, ddoc)
}

// tryIndex runs ask. If there is no index of the name given, that is taken for
// a design document's, as CouchDB takes it. A bookmark seems foreign then, as
// it was given for the index's own name.
func (f *finder) tryIndex(ctx context.Context, ask func() error) error {
	err := ask()
	if f.request.UseIndex == "" || f.request.DesignDoc != "" ||
		!errors.Is(err, statedb.ErrNoIndex) && !errors.Is(err, statedb.ErrBadBookmark) {
		return err
	}
	all, listErr := f.n.db.Indexes(ctx, f.request.Table)
	if listErr != nil || slices.ContainsFunc(all, func(ix statedb.IndexState) bool { return ix.Name == f.request.UseIndex }) {
		return errors.Join(err, listErr)
	}
	name, findErr := f.n.indexOf(ctx, f.request.Table, f.request.UseIndex, "")
	if findErr != nil {
		return findErr
	}
	f.query.UseIndex = name
	return ask()
}

// explain puts an error of the database's into the node's terms.
func (f *finder) explain(err error) error {
	if errors.Is(err, statedb.ErrScan) || errors.Is(err, statedb.ErrNoIndex) {
		if name := f.undeployed(); name != "" {
			return fmt.Errorf("%w: %s is not deployed yet", statedb.ErrBuilding, name)
		}
	}
	switch {
	case errors.Is(err, statedb.ErrBadBookmark):
		return ErrBadCursor
	case errors.Is(err, statedb.ErrScan):
		if fields := mango.Advise(f.selector); len(fields) > 0 {
			return fmt.Errorf("%w; an index on %s would serve it", statedb.ErrScan, strings.Join(fields, ", "))
		}
		return fmt.Errorf("%w; an index can serve a field that is compared with $eq, $lt, $lte, $gt, $gte or $beginsWith outside of $or, $nor and $not",
			statedb.ErrScan)
	}
	return err
}

// undeployed names an index that would serve the query and may not be in the
// database yet, since the node has just been started; "" for none.
func (f *finder) undeployed() string {
	if f.n.deployed.Load() || f.selector == nil {
		return ""
	}
	indexes := f.n.indexes[f.request.Table]
	plan, err := mango.NewPlan(f.selector, f.query.Sort, indexes, f.query.UseIndex)
	if err != nil || plan.Index < 0 {
		return ""
	}
	return indexes[plan.Index].Name
}

// read asks the database for one batch.
func (f *finder) read(ctx context.Context, limit int, bookmark string) (page statedb.Page, err error) {
	q := f.request
	if q.Range {
		page, err = f.n.db.Range(ctx, q.Table, statedb.Range{Start: q.Start, End: q.End, Limit: limit, Bookmark: bookmark})
	} else {
		f.query.Limit, f.query.Bookmark = limit, bookmark
		err = f.tryIndex(ctx, func() (err error) {
			page, err = f.n.db.Find(ctx, q.Table, f.query)
			return err
		})
	}
	return page, f.explain(err)
}

// page reads batches until the page is full, as long as a request may be, or
// the last.
func (f *finder) page(ctx context.Context) (QueryPage, error) {
	page := QueryPage{Documents: [][]byte{}, Bookmark: f.request.Bookmark}
	most := f.n.queries.MaxRows
	limit := min(f.request.Limit, most)
	batch := firstRows
	if f.request.Table == statedb.Bigchain {
		batch = firstBlocks
	}
	for rows, size := 0, 0; ; {
		batch = min(batch, limit-len(page.Documents), most-rows, f.n.queries.BatchRows)
		part, err := f.read(ctx, batch, page.Bookmark)
		if err != nil {
			return QueryPage{}, err
		}
		for _, d := range part.Documents {
			size += len(d.Body)
			row, err := f.row(d)
			if err != nil {
				return QueryPage{}, err
			}
			if row != nil {
				page.Documents = append(page.Documents, row)
			}
		}
		rows += len(part.Documents)
		page.add(part)
		// A batch without rows does not end the result, but there may be many.
		if page.Bookmark == "" || len(part.Documents) == 0 ||
			len(page.Documents) == limit || rows == most || size >= pageBytes {
			return page, nil
		}
		batch = min(growth*batch, 1+(pageBytes-size)/(1+size/rows))
	}
}

// row gives a document as it is served, or nil when it is left out.
func (f *finder) row(d statedb.Document) ([]byte, error) {
	body, err := f.n.soundDocument(f.request.Table, d)
	var unsound *unsoundError
	if errors.As(err, &unsound) {
		f.n.withhold(f.request.Table, d.ID, unsound)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(f.fields) == 0 {
		// It sorts before all the fields that there are.
		row := canonical.AppendString(append(make([]byte, 0, len(d.ID)+len(body)+10), `{"_id":`...), d.ID)
		return append(append(row, ','), body[1:]...), nil
	}
	tree, err := canonical.Parse(body)
	if err != nil {
		return nil, err
	}
	return mango.Project(tree.With("_id", canonical.StringOf(d.ID)), f.fields).Bytes(), nil
}

// add takes up what a batch says beside its documents.
func (p *QueryPage) add(part statedb.Page) {
	p.Bookmark = part.Bookmark
	if part.Warning != "" {
		p.Warning = part.Warning
	}
	p.Stats.Keys = sum(p.Stats.Keys, part.Stats.Keys)
	p.Stats.Documents = sum(p.Stats.Documents, part.Stats.Documents)
}

// sum adds two figures; -1 is an unknown one.
func sum(a, b int) int {
	if a < 0 || b < 0 {
		return -1
	}
	return a + b
}
