package node

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

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

// logText collects a log.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
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
	registry, log := prometheus.NewRegistry(), &logText{}
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair(), func(o *Options) {
		o.Registry, o.Logger = registry, slog.New(slog.NewTextHandler(log, nil))
	})
	alice := ledger.GenerateKeyPair()
	txs := n.makeAssets(t, alice, 0, 12)
	// Where nothing else is said, the block named is the right one.
	document := func(tx *ledger.Transaction) string {
		_, block, err := n.state.TransactionStatus(tx.ID)
		if err != nil {
			t.Fatal(err)
		}
		return string(transactionDocument(tx, block))
	}
	_, block6, err := n.state.TransactionStatus(txs[6].ID)
	if err != nil {
		t.Fatal(err)
	}
	forgeries := map[string]string{ // id → body
		"0garbage":        `{"asset":{"data":{"serial":1}}}`,
		"zgarbage":        `{"asset":{"data":{"serial":1}},"block_id":7}`,
		txs[1].ID:         strings.Replace(document(txs[1]), `"serial":1`, `"serial":1001`, 1),
		txs[2].ID:         string(transactionDocument(txs[2], noBlock)),
		txs[3].ID:         string(txs[3].Bytes()),
		txs[4].ID:         document(txs[5]),
		txs[6].ID:         strings.Replace(string(txs[6].Bytes()), `{"serial":6}`, `{"block_id":"`+block6+`","serial":6}`, 1),
		txs[7].ID:         string(parsed(t, document(txs[7])).With("more", canonical.IntOf(1)).Bytes()),
		txs[10].ID:        strings.Replace(document(txs[10]), `"fulfillment":"cf:4:`, `"fulfillment":"cf:4:A`, 1),
		"a" + txs[8].ID:   document(txs[8]),
		txs[9].ID + "too": document(txs[9]),
	}
	never := newCreate(t, alice, 77) // sound by itself, and in no block
	forgeries[never.ID] = string(transactionDocument(never, block6))
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
	if got := strings.Count(log.String(), "left out of queries"); got != len(forgeries) {
		t.Errorf("got %d lines in the log, want one for each of %d documents:\n%.3000s", got, len(forgeries), log)
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

	foreign := ledger.NewBlock(stranger, 1, []string{stranger.Public}, n.genesis.Transactions)
	if _, err := n.soundDocument(statedb.Bigchain, statedb.Document{ID: foreign.ID, Rev: "1", Body: foreign.Bytes()}); err == nil {
		t.Error("a block that has not reached the node is sound")
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
