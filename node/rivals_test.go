package node

import (
	"errors"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

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
