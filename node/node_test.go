package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/embedded"
)

// testNode is a node on an embedded store in a folder, which outlives it.
type testNode struct {
	*Node
	db     statedb.DB
	key    ledger.KeyPair
	folder string
	run    func()
	stop   func() error
}

// startNode starts a node with the data and state under folder, and waits until
// it is ready.
func startNode(t testing.TB, folder string, key ledger.KeyPair, change ...func(*Options)) *testNode {
	t.Helper()
	n := launchNode(t, folder, key, change...)
	eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
	return n
}

// launchNode starts a node and does not wait.
func launchNode(t testing.TB, folder string, key ledger.KeyPair, change ...func(*Options)) *testNode {
	t.Helper()
	n := openNode(t, folder, key, change...)
	n.run()
	return n
}

// openNode opens a node that does not run yet.
func openNode(t testing.TB, folder string, key ledger.KeyPair, change ...func(*Options)) *testNode {
	t.Helper()
	o := Options{StatePath: filepath.Join(folder, "state"), Key: key, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	for _, f := range change {
		f(&o)
	}
	closeDB := func() error { return nil }
	if o.DB == nil {
		o.DB = openEmbedded(t, folder)
		closeDB = o.DB.Close
	}
	if _, err := Init(t.Context(), o.DB, key, o.Keyring, o.Rules); err != nil {
		t.Fatal(err)
	}
	n, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	run := sync.OnceFunc(func() { go func() { done <- n.Run(ctx) }() })
	var once sync.Once
	var result error
	stop := func() error {
		once.Do(func() {
			run() // so that it closes what it has open
			cancel()
			result = errors.Join(<-done, closeDB())
		})
		return result
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return &testNode{Node: n, db: o.DB, key: key, folder: folder, run: run, stop: stop}
}

func openEmbedded(t testing.TB, folder string) statedb.DB {
	t.Helper()
	db, err := embedded.Open(filepath.Join(folder, "data"), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// sharing makes a node use a database that is open already.
func sharing(db statedb.DB) func(*Options) {
	return func(o *Options) { o.DB = db }
}

// among gives a node its keyring.
func among(keys ...ledger.KeyPair) func(*Options) {
	return func(o *Options) {
		for _, k := range keys {
			o.Keyring = append(o.Keyring, k.Public)
		}
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// eventually waits for a condition, for half a minute at most.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 seconds: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (n *testNode) mustPost(t testing.TB, tx *ledger.Transaction) {
	t.Helper()
	if _, err := n.Submit(t.Context(), tx.Bytes()); err != nil {
		t.Fatalf("post %s: %v", tx.ID, err)
	}
}

func (n *testNode) mustBecomeValid(t testing.TB, tx *ledger.Transaction) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := n.Await(ctx, tx.ID); err != nil {
		t.Fatalf("await %s: %v", tx.ID, err)
	}
}

func newCreate(t testing.TB, owner ledger.KeyPair, serial int, payments ...ledger.Payment) *ledger.Transaction {
	t.Helper()
	if len(payments) == 0 {
		payments = []ledger.Payment{ledger.PayTo(owner.Public, 1)}
	}
	tx, err := ledger.NewCreate([]ledger.KeyPair{owner}, serialOf(serial), noMetadata, payments...)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// noMetadata is that of a transaction without any.
var noMetadata canonical.Value

func serialOf(serial int) canonical.Value {
	return canonical.ObjectOf(canonical.Member{Key: "serial", Value: canonical.IntOf(int64(serial))})
}

// largeCreate makes a CREATE of about 20 KB.
func largeCreate(owner ledger.KeyPair, serial int) *ledger.Transaction {
	data := canonical.ObjectOf(canonical.Member{Key: "serial", Value: canonical.IntOf(int64(serial))},
		canonical.Member{Key: "pad", Value: canonical.StringOf(strings.Repeat("x", 20_000))})
	tx, err := ledger.NewCreate([]ledger.KeyPair{owner}, data, noMetadata, ledger.PayTo(owner.Public, 1))
	if err != nil {
		panic(err)
	}
	return tx
}

func newTransfer(t testing.TB, owner ledger.KeyPair, from *ledger.Transaction, index int, to string) *ledger.Transaction {
	t.Helper()
	var amount int64
	fmt.Sscan(string(from.Outputs[index].Amount), &amount)
	tx, err := ledger.NewTransfer(from.Asset, []ledger.Source{ledger.SourceOf(from, index)}, canonical.Value{},
		[]ledger.Payment{ledger.PayTo(to, amount)}, owner)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func TestPostToValid(t *testing.T) {
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair())
	alice, bob := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	stream := n.Subscribe()
	defer stream.Close()

	create := newCreate(t, alice, 1)
	n.mustPost(t, create)
	n.mustBecomeValid(t, create)
	transfer := newTransfer(t, alice, create, 0, bob.Public)
	n.mustPost(t, transfer)
	n.mustBecomeValid(t, transfer)

	for i, want := range []*ledger.Transaction{create, transfer} {
		events := <-stream.Events()
		if len(events) != 1 || events[0].TxID != want.ID || events[0].AssetID != create.ID {
			t.Errorf("event %d: got %+v, want transaction %s of asset %s", i, events, want.ID, create.ID)
		}
		body, err := n.Transaction(t.Context(), want.ID)
		if err != nil || string(body) != string(want.Bytes()) {
			t.Errorf("transaction %d: got %s, %v, want %s", i, body, err, want.Bytes())
		}
	}
	refs, _, err := n.Outputs(t.Context(), alice.Public, true, Page{Limit: 10})
	if err != nil || len(refs) != 0 {
		t.Errorf("unspent outputs of the first owner: got %v, %v, want none", refs, err)
	}
	refs, _, err = n.Outputs(t.Context(), bob.Public, true, Page{Limit: 10})
	if err != nil || len(refs) != 1 || refs[0].TxID != transfer.ID {
		t.Errorf("unspent outputs of the second owner: got %v, %v, want output 0 of %s", refs, err, transfer.ID)
	}
	again := newTransfer(t, alice, create, 0, alice.Public)
	if _, err := n.Submit(t.Context(), again.Bytes()); !ledger.IsKind(err, ledger.DoubleSpend) {
		t.Errorf("second spend: got %v, want a DoubleSpend", err)
	}
	eventually(t, "the backlog is empty", func() bool {
		page, err := n.db.Range(t.Context(), statedb.Backlog, statedb.Range{Limit: 1})
		return err == nil && len(page.Documents) == 0
	})
}

// BenchmarkCreate measures POST to valid without HTTP, 32 posts at a time.
func BenchmarkCreate(b *testing.B) {
	n := startNode(b, b.TempDir(), ledger.GenerateKeyPair())
	alice := ledger.GenerateKeyPair()
	txs := make([]*ledger.Transaction, b.N)
	for i := range txs {
		txs[i] = newCreate(b, alice, i)
	}
	b.ResetTimer()
	var group sync.WaitGroup
	next := make(chan *ledger.Transaction)
	for range 32 {
		group.Go(func() {
			for tx := range next {
				if _, err := n.Submit(b.Context(), tx.Bytes()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for _, tx := range txs {
		next <- tx
	}
	close(next)
	group.Wait()
	n.mustBecomeValid(b, txs[len(txs)-1])
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tx/s")
}
