package node

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// shuffled is a database whose feeds begin in an order of their own, as those
// do that begin with a scan.
type shuffled struct{ statedb.DB }

func (d shuffled) Changes(ctx context.Context, table, since string) (statedb.Feed, error) {
	feed, err := d.DB.Changes(ctx, table, since)
	return &shuffledFeed{Feed: feed}, err
}

type shuffledFeed struct {
	statedb.Feed
	begun bool
}

func (f *shuffledFeed) Next(ctx context.Context) (all statedb.Batch, err error) {
	for !f.begun && !all.CaughtUp {
		batch, err := f.Feed.Next(ctx)
		if err != nil {
			return all, err
		}
		all = statedb.Batch{Changes: append(all.Changes, batch.Changes...), Token: batch.Token, CaughtUp: batch.CaughtUp}
	}
	if f.begun {
		return f.Feed.Next(ctx)
	}
	f.begun = true
	rand.Shuffle(len(all.Changes), func(i, j int) { all.Changes[i], all.Changes[j] = all.Changes[j], all.Changes[i] })
	return all, nil
}

// A chainstate that is derived from feeds in any order lists an asset's
// transactions so that each comes after those it spends.
func TestRebuiltFromFeedsInAnyOrder(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	key, alice := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	n := startNode(t, folder, key, sharing(db))
	asset := newCreate(t, alice, 1)
	chain := []*ledger.Transaction{asset}
	for i := range 25 {
		n.mustPost(t, chain[i])
		n.mustBecomeValid(t, chain[i])
		chain = append(chain, newTransfer(t, alice, chain[i], 0, alice.Public))
	}
	chain = chain[:len(chain)-1]
	for range 3 {
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(folder, "state", chainstateFolder)); err != nil {
			t.Fatal(err)
		}
		n = startNode(t, folder, key, sharing(shuffled{db}))
		bodies, _, err := n.AssetTransactions(t.Context(), asset.ID, "", Page{Limit: 100})
		if err != nil || len(bodies) != len(chain) {
			t.Fatalf("got %d transactions, %v, want %d", len(bodies), err, len(chain))
		}
		for i, body := range bodies {
			if !bytes.Equal(body, chain[i].Bytes()) {
				t.Fatalf("place %d: got %s, want %s", i, body, chain[i].Bytes())
			}
		}
	}
}
