package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// reindexLoad posts and reads until it is stopped.
type reindexLoad struct {
	n     *testNode
	stop  context.CancelFunc
	group sync.WaitGroup

	mu       sync.Mutex
	accepted []*ledger.Transaction
	events   map[string]int
}

func startReindexLoad(t *testing.T, n *testNode) *reindexLoad {
	ctx, stop := context.WithCancel(t.Context())
	l := &reindexLoad{n: n, stop: stop, events: map[string]int{}}
	stream := n.Subscribe()
	l.group.Go(func() {
		defer stream.Close()
		for {
			select {
			case events, open := <-stream.Events():
				if !open {
					t.Error("the stream was closed")
					return
				}
				l.mu.Lock()
				for _, e := range events {
					l.events[e.TxID]++
				}
				l.mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	})
	var serial atomic.Int64
	for range 3 {
		l.group.Go(func() {
			alice := ledger.GenerateKeyPair()
			for ctx.Err() == nil {
				create := newCreate(t, alice, int(serial.Add(1)))
				for _, tx := range []*ledger.Transaction{create, newTransfer(t, alice, create, 0, alice.Public)} {
					if _, err := n.Submit(ctx, tx.Bytes()); err != nil {
						if ctx.Err() == nil {
							t.Errorf("post: %v", err)
						}
						return
					}
					l.mu.Lock()
					l.accepted = append(l.accepted, tx)
					l.mu.Unlock()
					if err := n.Await(ctx, tx.ID); err != nil {
						if ctx.Err() == nil {
							t.Errorf("await: %v", err)
						}
						return
					}
					l.read(ctx, t, alice, tx)
				}
			}
		})
	}
	return l
}

// read asks for what has just become valid in every way.
func (l *reindexLoad) read(ctx context.Context, t *testing.T, owner ledger.KeyPair, tx *ledger.Transaction) {
	fail := func(what string, err error) {
		if ctx.Err() == nil {
			t.Errorf("%s of %s: %v", what, tx.ID, err)
		}
	}
	if status, err := l.n.TransactionStatus(ctx, tx.ID); err != nil || status != "valid" {
		fail("status "+status, err)
	}
	if body, err := l.n.Transaction(ctx, tx.ID); err != nil || string(body) != string(tx.Bytes()) {
		fail("body", err)
	}
	blocks, _, err := l.n.BlocksWith(ctx, tx.ID, "valid", Page{Limit: 10})
	if err != nil || len(blocks) != 1 {
		fail(fmt.Sprint("blocks ", blocks), err)
		return
	}
	if status, err := l.n.BlockStatus(ctx, blocks[0]); err != nil || status != "valid" {
		fail("status of its block "+status, err)
	}
	refs, _, err := l.n.Outputs(ctx, owner.Public, true, Page{Limit: 1000})
	if err != nil {
		fail("outputs", err)
	}
	found := false
	for _, ref := range refs {
		found = found || ref.TxID == tx.ID
	}
	if !found {
		fail("unspent output", nil)
	}
	if bodies, _, err := l.n.AssetTransactions(ctx, tx.Asset, "", Page{Limit: 10}); err != nil || len(bodies) == 0 {
		fail("asset", err)
	}
}

func (l *reindexLoad) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

// TestReindexUnderLoad makes all anew, again and again, while others post and
// read: no call fails, each transaction becomes valid, and is told once.
func TestReindexUnderLoad(t *testing.T) {
	folder, key := t.TempDir(), ledger.GenerateKeyPair()
	n := startNode(t, folder, key)
	l := startReindexLoad(t, n)
	rounds := 6
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		before := l.count()
		eventually(t, "the load goes on", func() bool { return l.count() > before+50 })
		report, err := n.Reindex(t.Context(), func(ReindexProgress) {})
		if err != nil || report.Blocks == 0 || report.Mended != 0 || report.Removed != 0 || report.Unknown != 0 {
			t.Fatalf("round %d: got %+v, %v", round, report, err)
		}
		t.Logf("round %d: %+v", round, *report)
	}
	eventually(t, "every event is told", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.events) >= len(l.accepted)-3 // those under way
	})
	l.stop()
	l.group.Wait()
	for _, tx := range l.accepted {
		n.mustBecomeValid(t, tx)
		if got := l.events[tx.ID]; got > 1 {
			t.Errorf("transaction %s was told %d times", tx.ID, got)
		}
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{nextFolder, switchedFile} {
		if _, err := os.Stat(filepath.Join(folder, "state", left)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", left, err)
		}
	}
	n = startNode(t, folder, key)
	for _, tx := range l.accepted {
		if status, err := n.TransactionStatus(t.Context(), tx.ID); err != nil || status != "valid" {
			t.Fatalf("after a restart %s is %s, %v", tx.ID, status, err)
		}
	}
}

// TestReindexMends damages what is derived and has it mended, by a running node
// and by a stopped one.
func TestReindexMends(t *testing.T) {
	folder, key, alice := t.TempDir(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	n := startNode(t, folder, key, sharing(db))
	var all []*ledger.Transaction
	for i := range 20 {
		all = append(all, newCreate(t, alice, i))
		n.mustPost(t, all[i])
	}
	for _, tx := range all {
		n.mustBecomeValid(t, tx)
	}
	documents := func() []statedb.Document {
		page, err := db.Range(t.Context(), statedb.Transactions, statedb.Range{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		return page.Documents
	}
	eventually(t, "the documents are written", func() bool { return len(documents()) == 21 })
	eventually(t, "nothing is left to do", func() bool { _, more, err := n.state.Pending(0); return !more && err == nil })
	want := documents()
	damage := func() {
		t.Helper()
		other := newCreate(t, alice, 1000)
		mustWriteTo(t, db, statedb.Transactions, statedb.Write{ID: want[0].ID, Rev: revOf(t, db, want[0].ID), Body: []byte(`{"block_id":"x"}`)},
			statedb.Write{ID: want[1].ID, Rev: revOf(t, db, want[1].ID), Body: other.Bytes()},
			statedb.Write{ID: other.ID, Body: transactionDocument(other, n.genesis.ID)})
		if err := db.Remove(t.Context(), statedb.Transactions, []string{want[2].ID, want[3].ID, want[4].ID}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(who string, report *Reindexed, err error) {
		t.Helper()
		if err != nil || report.Right != 16 || report.Mended != 2 || report.Written != 3 || report.Removed != 1 {
			t.Fatalf("%s: got %+v, %v", who, report, err)
		}
		got := documents()
		if len(got) != len(want) {
			t.Fatalf("%s: got %d documents, want %d", who, len(got), len(want))
		}
		for i := range got {
			if got[i].ID != want[i].ID || !sameJSON(got[i].Body, want[i].Body) {
				t.Errorf("%s: document %s: got %s, want %s", who, want[i].ID, got[i].Body, want[i].Body)
			}
		}
	}
	damage()
	report, err := n.Reindex(t.Context(), func(ReindexProgress) {})
	check("a running node", report, err)

	o := Options{DB: db, StatePath: filepath.Join(folder, "state"), Key: key}
	if _, err := Reindex(t.Context(), o, func(ReindexProgress) {}); !errors.Is(err, kv.ErrLocked) {
		t.Errorf("beside a node: got %v, want ErrLocked", err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Reindex(t.Context(), func(ReindexProgress) {}); !errors.Is(err, ErrNotReady) {
		t.Errorf("of a node that has stopped: got %v, want ErrNotReady", err)
	}
	damage()
	// A chainstate that cannot be opened is mended too.
	manifests, err := filepath.Glob(filepath.Join(folder, "state", chainstateFolder, "MANIFEST*"))
	if err != nil || len(manifests) == 0 {
		t.Fatal(manifests, err)
	}
	if err := os.WriteFile(manifests[0], []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), o); err == nil || !contains(err, "`bigchaindb reindex` makes it anew") {
		t.Errorf("a node on a damaged chainstate: got %v", err)
	}
	report, err = Reindex(t.Context(), o, func(ReindexProgress) {})
	check("a stopped node", report, err)
	n = startNode(t, folder, key, sharing(db))
	more := newCreate(t, alice, 2000)
	n.mustPost(t, more)
	n.mustBecomeValid(t, more)
	for _, tx := range all {
		if status, _, err := n.state.TransactionStatus(tx.ID); err != nil || status != consensus.Valid {
			t.Errorf("transaction %s is %v, %v", tx.ID, status, err)
		}
	}
}

// TestReindexLeavesOtherLedgers: a state path that belongs to another ledger
// is the wrong one, and stays as it is.
func TestReindexLeavesOtherLedgers(t *testing.T) {
	key := ledger.GenerateKeyPair()
	first, second := t.TempDir(), t.TempDir()
	one, other := startNode(t, first, key), startNode(t, second, key)
	if err := errors.Join(one.stop(), other.stop()); err != nil {
		t.Fatal(err)
	}
	db := openEmbedded(t, second)
	defer db.Close()
	o := Options{DB: db, StatePath: filepath.Join(first, "state"), Key: key}
	if _, err := Reindex(t.Context(), o, func(ReindexProgress) {}); err == nil || !contains(err, "belongs to another ledger") {
		t.Errorf("got %v, want that it is another ledger's", err)
	}
	startNode(t, first, key)
}

// TestFoldersAfterACrash: whatever a crash leaves of the changeover, one whole
// chainstate is found.
func TestFoldersAfterACrash(t *testing.T) {
	for _, test := range []struct {
		name string
		have []string // of the three names
		want string   // the folder whose mark is found; "" for none
	}{
		{"nothing", nil, ""},
		{"a rebuild broke off", []string{chainstateFolder, nextFolder}, chainstateFolder},
		{"changed over", []string{chainstateFolder, nextFolder, switchedFile}, nextFolder},
		{"the former one is gone", []string{nextFolder, switchedFile}, nextFolder},
		{"renamed", []string{chainstateFolder, switchedFile}, chainstateFolder},
		{"done", []string{chainstateFolder}, chainstateFolder},
		{"the first was never whole", []string{nextFolder}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := t.TempDir()
			for _, name := range test.have {
				var err error
				if name == switchedFile {
					err = os.WriteFile(filepath.Join(path, name), nil, 0o600)
				} else {
					err = errors.Join(os.Mkdir(filepath.Join(path, name), 0o700), os.WriteFile(filepath.Join(path, name, name), nil, 0o600))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			c := foldersIn(path, nil)
			if err := c.settle(); err != nil {
				t.Fatal(err)
			}
			marks, err := filepath.Glob(filepath.Join(path, "*", "*"))
			if err != nil || test.want == "" && len(marks) > 0 || test.want != "" && (len(marks) != 1 || marks[0] != filepath.Join(path, chainstateFolder, test.want)) {
				t.Errorf("got %v, %v, want that of %s", marks, err, test.want)
			}
			if _, err := os.Stat(filepath.Join(path, switchedFile)); err == nil {
				t.Error("the note of the changeover is left")
			}
		})
	}
}

// TestReindexBreaksOff: a rebuild that the node's stop breaks off changes
// nothing, and those who wait for it are told.
func TestReindexBreaksOff(t *testing.T) {
	folder, key, alice := t.TempDir(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	n := startNode(t, folder, key)
	tx := newCreate(t, alice, 1)
	n.mustPost(t, tx)
	n.mustBecomeValid(t, tx)
	release := make(chan struct{})
	n.pauses <- func(context.Context) error { <-release; return nil } // the ledger loop is busy
	ended := make(chan error, 2)
	for range 2 { // the second joins the first
		go func() {
			_, err := n.Reindex(t.Context(), func(ReindexProgress) {})
			ended <- err
		}()
	}
	gone, leave := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer leave()
	if _, err := n.Reindex(gone, func(ReindexProgress) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one who leaves: got %v", err)
	}
	stopped := make(chan error)
	go func() { stopped <- n.stop() }()
	eventually(t, "the node stops", n.stopping.Load)
	close(release)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; err != nil && !errors.Is(err, ErrNotReady) {
			t.Errorf("got %v, want ErrNotReady", err)
		}
	}
	n = startNode(t, folder, key)
	if status, err := n.TransactionStatus(t.Context(), tx.ID); err != nil || status != "valid" {
		t.Errorf("got %s, %v", status, err)
	}
}

func contains(err error, part string) bool { return strings.Contains(err.Error(), part) }

func revOf(t testing.TB, db statedb.DB, id string) string {
	t.Helper()
	documents, err := db.Get(t.Context(), statedb.Transactions, []string{id})
	if err != nil {
		t.Fatal(err)
	}
	return documents[0].Rev
}

func mustWriteTo(t testing.TB, db statedb.DB, table string, writes ...statedb.Write) {
	t.Helper()
	results, err := db.Write(t.Context(), table, writes)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		t.Fatal(err)
	}
}
