package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/couchledger/couchledger/canonical"
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

// forge writes a document as a stranger does who reaches the database.
func (n *testNode) forge(t testing.TB, table, id, body string) {
	t.Helper()
	documents, err := n.db.Get(t.Context(), table, []string{id})
	if err != nil {
		t.Fatal(err)
	}
	results, err := n.db.Write(t.Context(), table, []statedb.Write{{ID: id, Rev: documents[0].Rev, Body: []byte(body)}})
	if err != nil || results[0].Err != nil {
		t.Fatalf("forging %s: %v, %v", id, err, results)
	}
}

// counted reads a counter.
func counted(t testing.TB, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// TestQueryLeavesForgeriesOut writes every kind of false document into the
// table for queries: none is served, whatever fields are asked for, and none
// breaks the paging of those that are true.
func TestQueryLeavesForgeriesOut(t *testing.T) {
	registry := prometheus.NewRegistry()
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair(), func(o *Options) { o.Registry = registry })
	alice := ledger.GenerateKeyPair()
	txs := n.makeAssets(t, alice, 0, 12)
	true0 := n.rowOf(t, txs[0])
	block := parsed(t, true0)
	blockID, _ := block.Get("block_id")
	forgeries := map[string]string{ // id → body
		"0garbage":        `{"asset":{"data":{"serial":1}}}`,
		"zgarbage":        `{"asset":{"data":{"serial":1}},"block_id":7}`,
		txs[1].ID:         strings.Replace(string(transactionDocument(txs[1], blockID.Text())), `"serial":1`, `"serial":1001`, 1),
		txs[2].ID:         string(transactionDocument(txs[2], noBlock)),
		txs[3].ID:         string(txs[3].Bytes()),
		txs[4].ID:         string(transactionDocument(txs[5], blockID.Text())),
		txs[6].ID:         strings.Replace(string(txs[6].Bytes()), `{"serial":6}`, `{"block_id":"`+blockID.Text()+`","serial":6}`, 1),
		txs[7].ID:         string(parsed(t, string(transactionDocument(txs[7], blockID.Text()))).With("more", canonical.IntOf(1)).Bytes()),
		"a" + txs[8].ID:   string(transactionDocument(txs[8], blockID.Text())),
		txs[9].ID + "too": string(transactionDocument(txs[9], blockID.Text())),
	}
	never := newCreate(t, alice, 77) // sound by itself, and in no block
	forgeries[never.ID] = string(transactionDocument(never, blockID.Text()))
	for id, body := range forgeries {
		n.forge(t, statedb.Transactions, id, body)
	}
	genesis := n.genesis.Transactions[0]
	eventually(t, "the first transaction is in the table for queries", func() bool {
		documents, err := n.db.Get(t.Context(), statedb.Transactions, []string{genesis.ID})
		return err == nil && documents[0].Rev != ""
	})
	want := []string{n.rowOf(t, genesis)}
	for _, tx := range txs {
		if forgeries[tx.ID] == "" {
			want = append(want, n.rowOf(t, tx))
		}
	}
	slices.Sort(want) // by _id, which comes first
	for _, limit := range []int{1, 2, 5, 100} {
		for _, q := range []QueryRequest{
			{Selector: parsed(t, `{"asset.data.serial":{"$exists":true}}`)},
			{Selector: parsed(t, `{"asset.data.serial":{"$gte":0}}`)},
			{Range: true},
		} {
			q.Table, q.Limit = statedb.Transactions, limit
			wanted := want
			if !q.Range { // the first transaction has no asset.data
				wanted = slices.DeleteFunc(slices.Clone(want), func(row string) bool { return strings.Contains(row, genesis.ID) })
			}
			if got := n.findAll(t, q); !slices.Equal(got, wanted) {
				t.Errorf("limit %d, %s: got %d documents, want exactly these %d:\n%.3000q\n%.3000q", limit, q.Selector.Bytes(), len(got), len(wanted), got, wanted)
			}
		}
	}
	withheld := func() float64 { return counted(t, registry, "couchledger_query_documents_withheld_total") }
	before := withheld()
	got := n.findAll(t, QueryRequest{Table: statedb.Transactions, Selector: parsed(t, `{}`), Fields: []string{"asset.data.serial"}, Limit: 100})
	if len(got) != len(want) || !slices.Contains(got, `{"asset":{"data":{"serial":0}}}`) || slices.Contains(got, `{"asset":{"data":{"serial":1001}}}`) {
		t.Errorf("fields: got %q", got)
	}
	if got := withheld() - before; got != float64(len(forgeries)) {
		t.Errorf("got %v documents counted as withheld, want %d", got, len(forgeries))
	}
	if len(n.withheld.told) != len(forgeries) {
		t.Errorf("got %d documents told of in the log, want %d", len(n.withheld.told), len(forgeries))
	}
	if got := n.findAll(t, QueryRequest{Table: statedb.Transactions, Selector: parsed(t, `{"asset.data.serial":1001}`), Limit: 5}); len(got) > 0 {
		t.Errorf("a forgery matched: %q", got)
	}
}

const noBlock = "04c00267af82c161b4bf2ad4a47d1ddbfeb47eef1a14b8d51f37d6ee00ea5cdd"

// TestQueryLeavesOutTheUndecided: what another node holds valid already and this
// one does not yet is left out, and nobody's fault.
func TestQueryLeavesOutTheUndecided(t *testing.T) {
	registry := prometheus.NewRegistry()
	absent, alice := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair(), among(absent), func(o *Options) { o.Registry = registry })
	var tx *ledger.Transaction
	for serial := 0; tx == nil || assigneeOf(n.federation().Members, tx) != n.key.Public; serial++ {
		tx = newCreate(t, alice, serial)
	}
	n.mustPost(t, tx)
	eventually(t, "the transaction is in a block", func() bool {
		status, err := n.TransactionStatus(t.Context(), tx.ID)
		return err == nil && status == "undecided"
	})
	_, block, err := n.state.TransactionStatus(tx.ID)
	if err != nil {
		t.Fatal(err)
	}
	n.forge(t, statedb.Transactions, tx.ID, string(transactionDocument(tx, block)))
	if got := n.findAll(t, QueryRequest{Table: statedb.Transactions, Range: true, Start: tx.ID, End: tx.ID + "x", Limit: 5}); len(got) > 0 {
		t.Errorf("got %q, want nothing", got)
	}
	if got := counted(t, registry, "couchledger_query_documents_withheld_total"); got != 1 || len(n.withheld.told) > 0 {
		t.Errorf("got %v documents counted and %v told of, want 1 and none", got, n.withheld.told)
	}
}

// TestQueryOtherTables looks at what is served of the other tables, and that
// forgeries among it are not.
func TestQueryOtherTables(t *testing.T) {
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair())
	alice := ledger.GenerateKeyPair()
	tx := n.makeAssets(t, alice, 0, 1)[0]
	_, block, err := n.state.TransactionStatus(tx.ID)
	if err != nil {
		t.Fatal(err)
	}
	everything := func(table string) []string {
		return n.findAll(t, QueryRequest{Table: table, Range: true, Limit: 3})
	}
	// A statement that does not count is still its member's word.
	st := ledger.NewStatement(alice, 9, 1, []string{alice.Public}, "")
	n.forge(t, statedb.Bigchain, st.DocumentID(), string(st.Bytes()))
	history, votes := everything(statedb.Bigchain), everything(statedb.Votes)
	body, err := n.Block(t.Context(), block)
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]string{
		"the block":         `{"_id":"` + block + `",` + string(body[1:]),
		"the genesis block": `{"_id":"` + n.genesis.ID + `",` + string(n.genesis.Bytes()[1:]),
		"the claim":         `{"_id":"genesis",` + string(genesisClaim(n.genesis)[1:]),
		"the statement":     `{"_id":"` + st.DocumentID() + `",` + string(st.Bytes()[1:]),
	} {
		if !slices.Contains(history, want) {
			t.Errorf("%s is not in %q", what, history)
		}
	}
	if len(history) != 4 {
		t.Errorf("bigchain: got %d documents, want 4: %q", len(history), history)
	}
	if len(votes) == 0 || !strings.Contains(strings.Join(votes, " "), `{"_id":"`+block+`:`+n.key.Public+`",`) {
		t.Errorf("votes: got %q", votes)
	}

	stranger := ledger.GenerateKeyPair()
	vote := ledger.NewVote(stranger, block, block, false, "", 1)
	n.forge(t, statedb.Votes, ledger.VoteID(block, alice.Public), string(vote.Bytes()))
	n.forge(t, statedb.Votes, ledger.VoteID(block, stranger.Public), strings.Replace(string(vote.Bytes()), "false", "true", 1))
	n.forge(t, statedb.Votes, "x", `{"x":1}`)
	n.forge(t, statedb.Bigchain, noBlock, strings.Replace(string(body), block, noBlock, 1))
	n.forge(t, statedb.Bigchain, "x", `{"x":1}`)
	n.forge(t, statedb.Bigchain, "federation:00000001:"+alice.Public, string(st.Bytes()))
	n.forge(t, statedb.Bigchain, genesisID, `{"genesis":`+string(body)+`}`)
	if got := everything(statedb.Votes); !slices.Equal(got, votes) {
		t.Errorf("votes with forgeries: got %q, want %q", got, votes)
	}
	if got := everything(statedb.Bigchain); len(got) != 3 || strings.Contains(strings.Join(got, ""), `"_id":"genesis"`) {
		t.Errorf("bigchain with forgeries: got %q, want what there was without the claim", got)
	}

	// Entries that are another's, so that this node leaves them in the backlog.
	waits := newCreate(t, alice, 5)
	document := string(backlogDocument(waits, stranger.Public, 1))
	n.forge(t, statedb.Backlog, waits.ID, document)
	false1 := strings.Replace(document, `"serial":5`, `"serial":6`, 1)
	want := `{"_id":"` + waits.ID + `",` + document[1:]
	if got := everything(statedb.Backlog); len(got) != 1 || got[0] != want {
		t.Errorf("backlog: got %q, want %q", got, want)
	}
	if _, err := n.soundDocument(statedb.Backlog, statedb.Document{ID: waits.ID, Rev: "1", Body: []byte(false1)}); err == nil {
		t.Error("a backlog entry whose id is not its hash is sound")
	}
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
	for i := range 2 * total { // all of one request is garbage
		n.forge(t, statedb.Transactions, fmt.Sprintf("00garbage%02d", i), `{"operation":"CREATE"}`)
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
	if _, err := Init(t.Context(), db, key, nil); err != nil {
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
