package node

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// returning is a database to which a peer brings an entry again as soon as it is
// removed, and whose feed says nothing of that: the node that removes it passes over
// a revision which it still tracks.
type returning struct {
	peered
	entry statedb.Write
	back  *atomic.Bool
}

func (d returning) Remove(ctx context.Context, table string, ids []string) error {
	err := d.peered.Remove(ctx, table, ids)
	if table == statedb.Backlog && slices.Contains(ids, d.entry.ID) && d.back.CompareAndSwap(false, true) {
		_, err = d.Write(ctx, table, []statedb.Write{d.entry})
	}
	return err
}

func (d returning) Changes(ctx context.Context, table, since string) (statedb.Feed, error) {
	feed, err := d.peered.Changes(ctx, table, since)
	return silentFeed{feed, d}, err
}

type silentFeed struct {
	statedb.Feed
	d returning
}

func (f silentFeed) Next(ctx context.Context) (statedb.Batch, error) {
	batch, err := f.Feed.Next(ctx)
	if f.d.back.Load() {
		batch.Changes = slices.DeleteFunc(batch.Changes, func(c statedb.Change) bool { return c.ID == f.d.entry.ID })
	}
	return batch, err
}

// TestLoserComesBack: what is refused and brought again is refused again.
func TestLoserComesBack(t *testing.T) {
	folder, key, peer, alice := t.TempDir(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	if _, err := Init(t.Context(), db, key, []string{peer.Public}, nil); err != nil {
		t.Fatal(err)
	}
	coin := newCreate(t, alice, 1)
	winner, loser := newTransfer(t, alice, coin, 0, peer.Public), newTransfer(t, alice, coin, 0, key.Public)
	d := returning{peered{db}, statedb.Write{ID: loser.ID, Body: backlogDocument(loser, peer.Public, 0)}, &atomic.Bool{}}
	n := startNode(t, folder, key, sharing(d), among(peer), func(o *Options) { o.ReassignDelay = time.Hour })
	for _, tx := range []*ledger.Transaction{coin, winner} {
		b := n.peerBlock(t, peer, tx)
		n.peerVote(t, peer, b, true)
		n.mustBecomeValid(t, tx)
	}
	put(t, db, statedb.Backlog, loser.ID, d.entry.Body)
	eventually(t, "the loser is gone, though it came back", func() bool {
		documents, err := db.Get(t.Context(), statedb.Backlog, []string{loser.ID})
		return err == nil && documents[0].Rev == "" && d.back.Load()
	})
}

// TestLosersAmongPeers: where each operator has his own database, a node refuses
// what lost its output to another transaction, though it is not its turn to put it
// into a block.
func TestLosersAmongPeers(t *testing.T) {
	for name, c := range map[string]struct {
		delay time.Duration
		late  bool // the loser comes when the winner is valid
		alone bool // the winner was never in this backlog
	}{
		"both waited":                {delay: time.Hour},
		"the loser came later":       {delay: time.Hour, late: true},
		"the winner was in no entry": {delay: 200 * time.Millisecond, alone: true},
	} {
		t.Run(name, func(t *testing.T) {
			folder, peer, alice := t.TempDir(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
			db := openEmbedded(t, folder)
			t.Cleanup(func() { db.Close() })
			key := ledger.GenerateKeyPair()
			if _, err := Init(t.Context(), db, key, []string{peer.Public}, nil); err != nil {
				t.Fatal(err)
			}
			n := startNode(t, folder, key, sharing(peered{db}), among(peer), func(o *Options) { o.ReassignDelay = c.delay })
			coin := n.give(t, peer, alice, 1)
			for serial := 2; assigneeOf(n.members, newTransfer(t, alice, coin, 0, alice.Public)) != peer.Public; serial++ {
				coin = n.give(t, peer, alice, serial)
			}
			winner := newTransfer(t, alice, coin, 0, ledger.GenerateKeyPair().Public)
			loser := newTransfer(t, alice, coin, 0, ledger.GenerateKeyPair().Public)
			arrive := func(tx *ledger.Transaction) {
				t.Helper()
				put(t, db, statedb.Backlog, tx.ID, backlogDocument(tx, peer.Public, 0))
				eventually(t, "the entry is tracked", func() bool {
					n.backlog.mu.Lock()
					defer n.backlog.mu.Unlock()
					return n.backlog.entries[tx.ID] != nil
				})
			}
			if !c.alone {
				arrive(winner)
			}
			if !c.late {
				arrive(loser)
			}
			b := n.peerBlock(t, peer, winner)
			n.peerVote(t, peer, b, true)
			n.mustBecomeValid(t, winner)
			if c.late {
				put(t, db, statedb.Backlog, loser.ID, backlogDocument(loser, peer.Public, 0))
			}
			eventually(t, "the loser is refused", func() bool {
				_, err := n.TransactionStatus(t.Context(), loser.ID)
				refused := (*RefusedError)(nil)
				return errors.As(err, &refused)
			})
			eventually(t, "the backlog is empty", func() bool {
				page, err := db.Range(t.Context(), statedb.Backlog, statedb.Range{Limit: 1})
				return err == nil && len(page.Documents) == 0
			})
			eventually(t, "nothing is left behind", func() bool {
				n.backlog.mu.Lock()
				defer n.backlog.mu.Unlock()
				return len(n.backlog.entries) == 0 && len(n.backlog.rivals) == 0 && len(n.backlog.contested) == 0
			})
		})
	}
}
