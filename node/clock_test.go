package node

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// wrongClock is a machine's clock that somebody sets.
type wrongClock struct{ off atomic.Int64 }

func (c *wrongClock) now() time.Time { return time.Now().Add(time.Duration(c.off.Load())).Round(0) }

func (c *wrongClock) set(off time.Duration) { c.off.Store(int64(off)) }

func by(c *wrongClock) func(*Options) { return func(o *Options) { o.Clock = c.now } }

// TestClockJumps sets the clock to and fro by hours, under load and across
// restarts: nothing accepted is lost, and the ledger is sound.
func TestClockJumps(t *testing.T) {
	folder, key := t.TempDir(), ledger.GenerateKeyPair()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	var clock wrongClock
	p := newPromises()
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		n := startNode(t, folder, key, sharing(db), by(&clock))
		b := n.burden(p, 3)
		for range 4 {
			before := p.count()
			eventually(t, "the load goes on", func() bool { return p.count() > before+10 })
			clock.set(time.Duration(rand.Int64N(int64(22*time.Hour))) - 11*time.Hour) // reasons are kept for a day
		}
		b.stop()
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
	}
	n := startNode(t, folder, key, sharing(db), by(&clock))
	n.checkPromises(t, p)
}

// TestEpochWithWrongClock: a member whose clock goes back does not make blocks
// of an epoch that is over, which others need not see.
func TestEpochWithWrongClock(t *testing.T) {
	folder := t.TempDir()
	alice, a, b := ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	var clock wrongClock
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	if err := startNode(t, folder, a, sharing(db), by(&clock)).stop(); err != nil {
		t.Fatal(err)
	}
	clock.set(2 * time.Hour)
	n := startNode(t, folder, a, sharing(db), among(b), by(&clock))
	eventually(t, "the second epoch began", func() bool { return n.federation().Number == 1 })
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	clock.set(time.Hour)
	n = startNode(t, folder, a, sharing(db), among(b), by(&clock))
	m := startNode(t, filepath.Join(folder, "b"), b, sharing(db), among(a))
	for serial := range 10 { // some are the one's to make, some the other's
		tx := newCreate(t, alice, serial)
		n.mustPost(t, tx)
		n.mustBecomeValid(t, tx)
		m.mustBecomeValid(t, tx)
		refs, err := n.state.BlocksWith(tx.ID)
		if err != nil || len(refs) != 1 {
			t.Fatalf("blocks with %s: %v, %v", tx.ID, refs, err)
		}
		block, err := n.readBlock(t.Context(), refs[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if len(block.Voters) != 2 || block.Timestamp < n.federation().From {
			t.Errorf("the block of %d has voters %v and timestamp %d, want both members and at least %d",
				serial, block.Voters, block.Timestamp, n.federation().From)
		}
	}
	n.checkVerified(t)
}

// TestBlocksOfThePast: who was removed cannot go on making blocks by dating them
// back, but for those that were under way.
func TestBlocksOfThePast(t *testing.T) {
	folder := t.TempDir()
	alice, a, removed := ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	var clock wrongClock
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	before := startNode(t, folder, a, sharing(db), among(removed), by(&clock))
	voters, began := before.members, before.federation().From
	if err := before.stop(); err != nil {
		t.Fatal(err)
	}
	clock.set(time.Minute)
	n := startNode(t, folder, a, sharing(db), by(&clock))
	eventually(t, "this node states the change", func() bool {
		stated, err := n.state.Statements(1)
		return err == nil && len(stated) == 1
	})
	stated, err := n.state.Statements(1)
	if err != nil {
		t.Fatal(err)
	}
	st := ledger.NewStatement(removed, 1, stated[a.Public].From, stated[a.Public].Members, stated[a.Public].Previous)
	put(t, db, statedb.Bigchain, st.DocumentID(), st.Bytes())
	eventually(t, "the second epoch began", func() bool { return n.federation().Number == 1 })
	for i, after := range []time.Duration{2 * time.Minute, time.Hour} {
		clock.set(after)
		b := ledger.NewBlock(removed, began, voters, []*ledger.Transaction{newCreate(t, alice, i)})
		put(t, db, statedb.Bigchain, b.ID, b.Bytes())
		if v := n.ownVote(t, b.ID); v.Valid != (i == 0) || i == 1 && v.InvalidReason != reasonPast {
			t.Errorf("%v after: voted %v, %q", after, v.Valid, v.InvalidReason)
		}
	}
}

// TestEntryFromTheFuture: what another node's clock wrote into an entry of the
// backlog does not hold it.
func TestEntryFromTheFuture(t *testing.T) {
	nodes := startFederation(t, 3, 300*time.Millisecond)
	if err := nodes[2].stop(); err != nil {
		t.Fatal(err)
	}
	alice := ledger.GenerateKeyPair()
	for serial, at := range []int64{1, 32_503_680_000, 1 << 62} {
		tx := newCreate(t, alice, serial)
		body := backlogDocument(tx, nodes[2].key.Public, at)
		results, err := nodes[0].db.Write(t.Context(), statedb.Backlog, []statedb.Write{{ID: tx.ID, Body: body}})
		if err = errors.Join(err, results[0].Err); err != nil {
			t.Fatal(err)
		}
		nodes[0].mustBecomeValid(t, tx)
	}
}

// TestRefusalWithWrongClock: the reason for a refusal outlasts a clock that
// goes hours ahead, and one that goes back.
func TestRefusalWithWrongClock(t *testing.T) {
	var clock wrongClock
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair(), by(&clock))
	tx, other := newCreate(t, n.key, 1), newCreate(t, n.key, 2)
	if err := n.refuse(t.Context(), []journal.Refusal{{TxID: tx.ID, Reason: "why"}}); err != nil {
		t.Fatal(err)
	}
	for _, off := range []time.Duration{0, 20 * time.Hour, -48 * time.Hour, 0} {
		clock.set(off)
		if err := n.refuse(t.Context(), []journal.Refusal{{TxID: other.ID, Reason: "other"}}); err != nil {
			t.Fatal(err)
		}
		_, err := n.TransactionStatus(t.Context(), tx.ID)
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "why") {
			t.Errorf("%v ahead: got %v, want the reason", off, err)
		}
	}
}
