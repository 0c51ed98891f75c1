package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/indexes"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

func parsed(t testing.TB, text string) canonical.Value {
	t.Helper()
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// find asks for one page.
func (n *testNode) find(t testing.TB, q QueryRequest) QueryPage {
	t.Helper()
	page, err := n.Query(t.Context(), q)
	if err != nil {
		t.Fatalf("query %s %s: %v", q.Table, q.Selector.Bytes(), err)
	}
	return page
}

// findAll asks for all pages.
func (n *testNode) findAll(t testing.TB, q QueryRequest) []string {
	t.Helper()
	var rows []string
	for range 10_000 {
		page := n.find(t, q)
		if len(page.Documents) > q.Limit {
			t.Fatalf("got %d documents, limit %d", len(page.Documents), q.Limit)
		}
		for _, d := range page.Documents {
			rows = append(rows, string(d))
		}
		if page.Bookmark == "" {
			return rows
		}
		q.Bookmark = page.Bookmark
	}
	t.Fatal("the query does not end")
	return nil
}

// makeAssets makes count assets valid and waits until they can be queried.
// Their serials begin at first.
func (n *testNode) makeAssets(t testing.TB, owner ledger.KeyPair, first, count int) []*ledger.Transaction {
	t.Helper()
	txs := make([]*ledger.Transaction, count)
	for i := range txs {
		txs[i] = newCreate(t, owner, first+i)
		n.mustPost(t, txs[i])
	}
	var ids []string
	for _, tx := range txs {
		n.mustBecomeValid(t, tx)
		ids = append(ids, tx.ID)
	}
	eventually(t, "the assets are in the table for queries", func() bool {
		documents, err := n.db.Get(t.Context(), statedb.Transactions, ids)
		return err == nil && !slices.ContainsFunc(documents, func(d statedb.Document) bool { return d.Rev == "" })
	})
	return txs
}

// rowOf is how a query shows a transaction.
func (n *testNode) rowOf(t testing.TB, tx *ledger.Transaction) string {
	t.Helper()
	_, block, err := n.state.TransactionStatus(tx.ID)
	if err != nil {
		t.Fatal(err)
	}
	return string(tx.Value().With("_id", canonical.StringOf(tx.ID)).With("block_id", canonical.StringOf(block)).Bytes())
}

// counting is a database that remembers how much was asked of it at once.
type counting struct {
	statedb.DB
	most, calls atomic.Int64
}

func (c *counting) asked(limit int) {
	c.calls.Add(1)
	c.most.Store(max(c.most.Load(), int64(limit)))
}

func (c *counting) Find(ctx context.Context, table string, q statedb.Query) (statedb.Page, error) {
	c.asked(q.Limit)
	return c.DB.Find(ctx, table, q)
}

func (c *counting) Range(ctx context.Context, table string, r statedb.Range) (statedb.Page, error) {
	c.asked(r.Limit)
	return c.DB.Range(ctx, table, r)
}

func (c *counting) Get(ctx context.Context, table string, ids []string) ([]statedb.Document, error) {
	if table == statedb.Transactions {
		c.asked(len(ids))
	}
	return c.DB.Get(ctx, table, ids)
}

// TestQueryLimits: the database is asked for a batch at a time, one query
// reads so many rows, with those left out among them, and a chain of bookmarks
// goes on beyond that.
func TestQueryLimits(t *testing.T) {
	folder := t.TempDir()
	db := &counting{DB: openEmbedded(t, folder)}
	t.Cleanup(func() { db.Close() })
	const batch, total, count = 3, 10, 45
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(db),
		func(o *Options) { o.Queries = QueryOptions{BatchRows: batch, MaxRows: total} })
	n.makeAssets(t, ledger.GenerateKeyPair(), 0, count)
	for _, q := range []QueryRequest{
		{Table: statedb.Transactions, Selector: parsed(t, `{"operation":"CREATE"}`)},
		{Table: statedb.Transactions, Range: true},
	} {
		db.most.Store(0)
		q.Limit = 1000
		page := n.find(t, q)
		if len(page.Documents) != total || page.Bookmark == "" {
			t.Errorf("one query gave %d documents, bookmark %q, want %d and one", len(page.Documents), page.Bookmark, total)
		}
		if db.most.Load() != batch {
			t.Errorf("the database was asked for %d rows at a time, want %d", db.most.Load(), batch)
		}
		rows := n.findAll(t, q)
		slices.Sort(rows)
		if unique := len(slices.Compact(slices.Clone(rows))); unique < count || unique != len(rows) {
			t.Errorf("the chain of bookmarks gave %d documents, %d different ones, want %d", len(rows), unique, count)
		}
	}
	for i := range 2 * total { // before all ids: all of one request is garbage
		n.forge(t, statedb.Transactions, fmt.Sprintf("-garbage%02d", i), `{"operation":"CREATE"}`)
	}
	q := QueryRequest{Table: statedb.Transactions, Range: true, Limit: 4}
	if page := n.find(t, q); len(page.Documents) != 0 || page.Bookmark == "" {
		t.Errorf("a page of garbage: got %d documents, bookmark %q, want none and a bookmark", len(page.Documents), page.Bookmark)
	}
	if rows := n.findAll(t, q); len(rows) != count+1 { // and the GENESIS
		t.Errorf("behind the garbage: got %d documents, want %d", len(rows), count+1)
	}
	for _, list := range []func(p Page) ([][]byte, string, error){
		func(p Page) ([][]byte, string, error) { return n.Votes(t.Context(), n.genesis.ID, p) },
		func(p Page) ([][]byte, string, error) { return n.AssetTransactions(t.Context(), noBlock, "", p) },
	} {
		db.most.Store(0)
		if _, _, err := list(Page{Limit: 100}); err != nil || db.most.Load() > batch {
			t.Errorf("a list asked the database for %d rows at a time, %v, want %d at most", db.most.Load(), err, batch)
		}
	}
}

// TestQueryEndsPagesByBytes: of large documents a page holds few.
func TestQueryEndsPagesByBytes(t *testing.T) {
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair())
	alice := ledger.GenerateKeyPair()
	const count, each = 30, 900_000
	for i := range count {
		data := canonical.ObjectOf(
			canonical.Member{Key: "serial", Value: canonical.IntOf(int64(i))},
			canonical.Member{Key: "text", Value: canonical.StringOf(strings.Repeat("x", each))},
		)
		tx, err := ledger.NewCreate([]ledger.KeyPair{alice}, data, canonical.Value{}, ledger.PayTo(alice.Public, 1))
		if err != nil {
			t.Fatal(err)
		}
		n.mustPost(t, tx)
		n.mustBecomeValid(t, tx)
	}
	eventually(t, "all can be queried", func() bool {
		page, err := n.db.Range(t.Context(), statedb.Transactions, statedb.Range{Limit: 100})
		return err == nil && len(page.Documents) == count+1 // and the GENESIS
	})
	q := QueryRequest{Table: statedb.Transactions, Selector: parsed(t, `{"operation":"CREATE"}`), Fields: []string{"asset.data.serial"}, Limit: 1000}
	page := n.find(t, q)
	if len(page.Documents) != firstRows || page.Bookmark == "" {
		t.Errorf("got %d documents of %d bytes on a page, want %d and a bookmark", len(page.Documents), each, firstRows)
	}
	if rows := n.findAll(t, q); len(rows) != count {
		t.Errorf("got %d documents on all pages, want %d", len(rows), count)
	}
}

// TestQueryErrors: every fault in a query has its own error, found before the
// database is asked where that is possible.
func TestQueryErrors(t *testing.T) {
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair(), func(o *Options) { o.Queries.NoScans = true })
	if err := n.db.DeployIndexes(t.Context(), statedb.Transactions, indexes.Packaged()[statedb.Transactions], nil); err != nil {
		t.Fatal(err)
	}
	n.makeAssets(t, ledger.GenerateKeyPair(), 0, 5)
	ok := QueryRequest{Table: statedb.Transactions, Selector: parsed(t, `{"operation":"CREATE"}`), Limit: 2}
	first := n.find(t, ok)
	if first.Bookmark == "" || first.Warning != "" || first.Stats.Documents < 2 {
		t.Fatalf("got %+v", first)
	}
	for _, test := range []struct {
		change func(q *QueryRequest)
		want   error
		text   string
	}{
		{func(q *QueryRequest) { q.Table = "blocks" }, statedb.ErrBadQuery, "bigchain"},
		{func(q *QueryRequest) { q.Limit = 0 }, statedb.ErrBadQuery, "limit"},
		{func(q *QueryRequest) { q.Selector = parsed(t, `{"a":{"$in":1}}`) }, statedb.ErrBadQuery, "a.$in"},
		{func(q *QueryRequest) { q.Fields = []string{"a..b"} }, statedb.ErrBadQuery, "a..b"},
		{func(q *QueryRequest) { q.Sort = []statedb.SortField{{Field: "a"}, {Field: "b", Descending: true}} }, statedb.ErrBadQuery, "all"},
		{func(q *QueryRequest) { q.Sort = []statedb.SortField{{Field: "metadata"}} }, statedb.ErrNoIndex, ""},
		{func(q *QueryRequest) { q.UseIndex = "nosuch" }, statedb.ErrNoIndex, "nosuch"},
		{func(q *QueryRequest) { q.UseIndex = "by_block" }, statedb.ErrNoIndex, "by_block"},
		{func(q *QueryRequest) { q.DesignDoc, q.UseIndex = "by_operation", "by_block" }, statedb.ErrNoIndex, "by_operation/by_block"},
		{func(q *QueryRequest) { q.Selector = parsed(t, `{"asset.data.serial":{"$gt":1},"metadata":null}`) }, statedb.ErrScan, "metadata, asset.data.serial"},
		{func(q *QueryRequest) { q.Selector = parsed(t, `{"asset.data.serial":{"$in":[1]}}`) }, statedb.ErrScan, "$beginsWith"},
		{func(q *QueryRequest) { q.Bookmark = "rubbish" }, ErrBadCursor, ""},
		{func(q *QueryRequest) { q.Bookmark, q.Table = first.Bookmark, statedb.Backlog }, ErrBadCursor, ""},
		{func(q *QueryRequest) { q.Bookmark, q.Range = first.Bookmark, true }, ErrBadCursor, ""},
		{func(q *QueryRequest) { q.Bookmark, q.UseIndex = first.Bookmark, "by_operation" }, ErrBadCursor, ""},
		{func(q *QueryRequest) { q.Bookmark, q.Selector = first.Bookmark, parsed(t, `{"operation":"TRANSFER"}`) }, ErrBadCursor, ""},
	} {
		q := ok
		test.change(&q)
		if _, err := n.Query(t.Context(), q); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%+v: got error %v, want %v with %q", q, err, test.want, test.text)
		}
	}
	ok.Bookmark, ok.Limit = first.Bookmark, 100
	if rest := n.find(t, ok); len(rest.Documents) != 3 || rest.Bookmark != "" {
		t.Errorf("the rest at another limit: got %d documents, bookmark %q", len(rest.Documents), rest.Bookmark)
	}
}

// TestQueryIndexNames takes the forms in which CouchDB takes an index's name,
// over several pages.
func TestQueryIndexNames(t *testing.T) {
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair())
	index := func(ddoc, name, field string) statedb.Index {
		return statedb.Index{DDoc: ddoc, Name: name, Fields: []statedb.SortField{{Field: field}}}
	}
	err := n.db.DeployIndexes(t.Context(), statedb.Transactions, []statedb.Index{
		index("mine", "by_serial", "asset.data.serial"), index("several", "a", "metadata"), index("several", "b", "asset.data.serial"),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n.makeAssets(t, ledger.GenerateKeyPair(), 0, 5)
	q := QueryRequest{Table: statedb.Transactions, Selector: parsed(t, `{"asset.data.serial":{"$gte":0}}`), Limit: 2}
	for _, test := range []struct{ ddoc, use, index string }{
		{"", "by_serial", "by_serial"}, {"", "mine", "by_serial"}, {"mine", "", "by_serial"},
		{"mine", "by_serial", "by_serial"}, {"several", "b", "b"}, {"", "b", "b"}, {"several", "", ""}, {"", "several", ""},
	} {
		q.DesignDoc, q.UseIndex = test.ddoc, test.use
		plan, err := n.Explain(t.Context(), q)
		if test.index == "" {
			if !errors.Is(err, statedb.ErrNoIndex) {
				t.Errorf("%+v: got %+v, %v, want ErrNoIndex", test, plan, err)
			}
			continue
		}
		if err != nil || plan.Index != test.index || plan.Scan || plan.Covering == "" {
			t.Errorf("%+v: got %+v, %v", test, plan, err)
		}
		if rows := n.findAll(t, q); len(rows) != 5 {
			t.Errorf("%+v: got %d documents, want 5", test, len(rows))
		}
	}
}

// TestExplainScan: a scan is explained even where it is refused, with the
// index that would spare it.
func TestExplainScan(t *testing.T) {
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair(), func(o *Options) { o.Queries.NoScans = true })
	if err := n.db.DeployIndexes(t.Context(), statedb.Votes, indexes.Packaged()[statedb.Votes], nil); err != nil {
		t.Fatal(err)
	}
	q := QueryRequest{Table: statedb.Votes, Selector: parsed(t, `{"vote.timestamp":"1"}`), Limit: 1}
	plan, err := n.Explain(t.Context(), q)
	if err != nil || !plan.Scan || plan.Index != "" || !slices.Equal(plan.Advice, []string{"vote.timestamp"}) {
		t.Errorf("a scan: got %+v, %v", plan, err)
	}
	q.Selector = parsed(t, `{"node_pubkey":"x"}`)
	if plan, err = n.Explain(t.Context(), q); err != nil || plan.Scan || plan.Index != "by_voter" || plan.Advice != nil {
		t.Errorf("by index: got %+v, %v", plan, err)
	}
	q = QueryRequest{Table: statedb.Votes, Range: true, Start: "a", Limit: 1}
	if plan, err = n.Explain(t.Context(), q); err != nil || plan.Scan || plan.Index != "" || plan.Covering == "" {
		t.Errorf("a range: got %+v, %v", plan, err)
	}
}

// TestQueryBeforeCaughtUp: a node that does not know the whole ledger yet would
// leave out what is true.
func TestQueryBeforeCaughtUp(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	defer db.Close()
	key := ledger.GenerateKeyPair()
	if _, err := Init(t.Context(), db, key, nil, nil); err != nil {
		t.Fatal(err)
	}
	n, err := Open(t.Context(), Options{DB: db, StatePath: folder + "/state", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	for _, table := range statedb.Tables {
		if _, err := n.Query(t.Context(), QueryRequest{Table: table, Range: true, Limit: 1}); !errors.Is(err, ErrNotReady) {
			t.Errorf("%s: got error %v, want ErrNotReady", table, err)
		}
	}
}
