package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// startFederation starts n nodes on one database.
func startFederation(t *testing.T, n int, delay time.Duration) []*testNode {
	t.Helper()
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	keys := make([]ledger.KeyPair, n)
	for i := range keys {
		keys[i] = ledger.GenerateKeyPair()
	}
	nodes := make([]*testNode, n)
	for i, key := range keys {
		nodes[i] = startNode(t, filepath.Join(folder, fmt.Sprint(i)), key, sharing(db), among(keys...),
			func(o *Options) { o.ReassignDelay = delay })
	}
	return nodes
}

func TestFederationDecidesAlike(t *testing.T) {
	nodes := startFederation(t, 4, time.Hour)
	alice, bob := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	var creates, transfers []*ledger.Transaction
	for i := range 40 {
		tx := newCreate(t, alice, i)
		nodes[i%len(nodes)].mustPost(t, tx)
		creates = append(creates, tx)
	}
	for i, tx := range creates {
		for _, n := range nodes {
			n.mustBecomeValid(t, tx)
		}
		transfer := newTransfer(t, alice, tx, 0, bob.Public)
		nodes[(i+1)%len(nodes)].mustPost(t, transfer)
		transfers = append(transfers, transfer)
	}
	makers := map[string]bool{}
	for _, tx := range transfers {
		var blocks []string
		for i, n := range nodes {
			n.mustBecomeValid(t, tx)
			refs, err := n.state.BlocksWith(tx.ID)
			if err != nil || len(refs) != 1 {
				t.Fatalf("node %d: blocks with %s: got %v, %v, want one", i, tx.ID, refs, err)
			}
			blocks = append(blocks, refs[0].ID)
		}
		if len(slices.Compact(blocks)) != 1 {
			t.Errorf("transaction %s is valid by different blocks: %v", tx.ID, blocks)
		}
		b, err := nodes[0].readBlock(t.Context(), blocks[0])
		if err != nil {
			t.Fatal(err)
		}
		makers[b.NodePubkey] = true
		if !slices.Equal(b.Voters, nodes[0].members) {
			t.Errorf("block %s: got voters %v, want %v", b.ID, b.Voters, nodes[0].members)
		}
	}
	if len(makers) < 2 {
		t.Errorf("of 40 assets all went to %d maker(s)", len(makers))
	}
}

// Of two conflicting spends posted to two nodes at once exactly one becomes
// valid, the same at all nodes, and the other is refused with a reason.
func TestFederationConflicts(t *testing.T) {
	nodes := startFederation(t, 3, time.Hour)
	alice := ledger.GenerateKeyPair()
	var pairs [][]*ledger.Transaction
	for i := range 15 {
		create := newCreate(t, alice, i)
		nodes[0].mustPost(t, create)
		for _, n := range nodes {
			n.mustBecomeValid(t, create)
		}
		pair := []*ledger.Transaction{
			newTransfer(t, alice, create, 0, ledger.GenerateKeyPair().Public),
			newTransfer(t, alice, create, 0, ledger.GenerateKeyPair().Public),
		}
		errs := make(chan error, 2)
		for j, tx := range pair {
			go func() {
				_, err := nodes[1+j].Submit(t.Context(), tx.Bytes())
				errs <- err
			}()
		}
		accepted := 0
		for range pair {
			if err := <-errs; err == nil {
				accepted++
			} else if !ledger.IsKind(err, ledger.DoubleSpend) {
				t.Fatalf("post: got %v, want success or a DoubleSpend", err)
			}
		}
		if accepted == 0 {
			t.Fatal("neither of two conflicting spends was accepted")
		}
		pairs = append(pairs, pair)
	}
	for k, n := range nodes {
		eventually(t, "one of each two is valid and the other nowhere", func() bool {
			settled := true
			for _, pair := range pairs {
				valid, none := 0, 0
				for _, tx := range pair {
					switch status, _ := n.TransactionStatus(t.Context(), tx.ID); status {
					case "valid":
						valid++
					case "":
						none++
					}
				}
				if valid > 1 {
					t.Fatalf("node %d has both of two conflicting spends valid", k)
				}
				settled = settled && valid == 1 && none == 1
			}
			return settled
		})
	}
}

// The work of a node that is gone is taken over by others.
func TestStaleEntriesAreReassigned(t *testing.T) {
	nodes := startFederation(t, 3, 300*time.Millisecond)
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	alice := ledger.GenerateKeyPair()
	orphans := 0
	for i := 0; orphans < 4; i++ { // of those made at random, one in three is
		tx := newCreate(t, alice, i)
		if assigneeOf(nodes[0].federation().Members, tx) == nodes[2].key.Public {
			orphans++
		}
		nodes[0].mustPost(t, tx)
		nodes[0].mustBecomeValid(t, tx)
	}
	eventually(t, "the backlog is empty", func() bool {
		page, err := nodes[0].db.Range(t.Context(), statedb.Backlog, statedb.Range{Limit: 1})
		return err == nil && len(page.Documents) == 0
	})
}

// A changed keyring begins a new epoch, and blocks of the old one keep the
// verdict that their own voters gave, also when all is derived anew.
func TestMembershipHistory(t *testing.T) {
	folder := t.TempDir()
	alice, a, b := ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	n := startNode(t, folder, a)
	before := newCreate(t, alice, 1)
	n.mustPost(t, before)
	n.mustBecomeValid(t, before)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}

	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	n = startNode(t, folder, a, sharing(db), among(b))
	eventually(t, "the second epoch began", func() bool { return n.federation().Number == 1 })
	m := startNode(t, filepath.Join(folder, "b"), b, sharing(db), among(a))
	eventually(t, "the second epoch's time has come", func() bool { return time.Now().Unix() >= n.federation().From })
	after := newCreate(t, alice, 2)
	n.mustPost(t, after)
	n.mustBecomeValid(t, after)
	m.mustBecomeValid(t, after)

	for i, tx := range []*ledger.Transaction{before, after} {
		refs, err := m.state.BlocksWith(tx.ID)
		if err != nil || len(refs) == 0 {
			t.Fatalf("blocks with %s: %v, %v", tx.ID, refs, err)
		}
		block, err := m.readBlock(t.Context(), refs[len(refs)-1].ID)
		if err != nil {
			t.Fatal(err)
		}
		if len(block.Voters) != i+1 {
			t.Errorf("block of transaction %d: got voters %v, want %d", i, block.Voters, i+1)
		}
	}
	for i, tx := range []*ledger.Transaction{before, after} {
		for _, node := range []*testNode{n, m} {
			if status, err := node.TransactionStatus(t.Context(), tx.ID); err != nil || status != "valid" {
				t.Errorf("transaction %d at %s: got %q, %v, want valid", i, node.key, status, err)
			}
		}
	}
}

func TestRanking(t *testing.T) {
	members := []string{"a", "b", "c", "d"}
	firsts := map[string]int{}
	for i := range 1000 {
		subject := fmt.Sprint(i)
		order := ranking(members, subject)
		firsts[order[0]]++
		fewer := ranking(slices.DeleteFunc(slices.Clone(members), func(m string) bool { return m == order[3] }), subject)
		if !slices.Equal(fewer, order[:3]) {
			t.Fatalf("subject %s: without its last member the order is %v, want %v", subject, fewer, order[:3])
		}
	}
	for _, m := range members {
		if firsts[m] < 150 || firsts[m] > 350 {
			t.Errorf("member %s is first for %d of 1000 subjects", m, firsts[m])
		}
	}
}

// lateBlocks is a database whose blocks are told of late.
type lateBlocks struct {
	statedb.DB
	late *sync.RWMutex // held while they are not told of
}

func (l lateBlocks) Changes(ctx context.Context, table, since string) (statedb.Feed, error) {
	feed, err := l.DB.Changes(ctx, table, since)
	if table == statedb.Bigchain && err == nil {
		feed = lateFeed{feed, l.late}
	}
	return feed, err
}

type lateFeed struct {
	statedb.Feed
	late *sync.RWMutex
}

func (f lateFeed) Next(ctx context.Context) (statedb.Batch, error) {
	batch, err := f.Feed.Next(ctx)
	f.late.RLock()
	defer f.late.RUnlock()
	return batch, err
}

// TestDecidedElsewhere: a node that learns late of a decision does not say
// meanwhile that there is no such transaction.
func TestDecidedElsewhere(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	a, b, c, alice := ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	blocks := lateBlocks{db, &sync.RWMutex{}}
	n := startNode(t, filepath.Join(folder, "a"), a, sharing(blocks), among(b, c))
	startNode(t, filepath.Join(folder, "b"), b, sharing(db), among(a, c))
	startNode(t, filepath.Join(folder, "c"), c, sharing(db), among(a, b))
	blocks.late.Lock()
	tell := sync.OnceFunc(blocks.late.Unlock)
	t.Cleanup(tell) // or it could not stop
	var gone []*ledger.Transaction
	for serial := 0; len(gone) < 5; serial++ { // those that the late node has to make itself stay
		tx := newCreate(t, alice, serial)
		n.mustPost(t, tx)
		if n.backlog.holds(tx.ID) {
			continue
		}
		gone = append(gone, tx)
		asked, waits := time.Now(), ""
		eventually(t, "the entry has left the backlog", func() bool {
			asked = time.Now()
			var err error
			if waits, err = n.TransactionStatus(t.Context(), tx.ID); waits == "" && !errors.Is(err, ErrNotFound) {
				t.Fatalf("transaction %s: %v", tx.ID, err)
			}
			documents, err := db.Get(t.Context(), statedb.Backlog, []string{tx.ID})
			return err == nil && documents[0].Rev == "" || waits == ""
		})
		again, err := n.TransactionStatus(t.Context(), tx.ID)
		if stood := time.Since(asked) > passingTime; !stood && (waits != "backlog" || again != "backlog") {
			t.Errorf("transaction %s, decided elsewhere: got %q, then %q, %v, want backlog", tx.ID, waits, again, err)
		}
	}
	tell()
	for _, tx := range gone {
		n.mustBecomeValid(t, tx)
	}
}
