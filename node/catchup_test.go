package node

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// lateVotes is a database whose votes cannot be read until they are released.
type lateVotes struct {
	statedb.DB
	released chan struct{}
}

func (l lateVotes) Changes(ctx context.Context, table, since string) (statedb.Feed, error) {
	if table == statedb.Votes {
		select {
		case <-l.released:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return l.DB.Changes(ctx, table, since)
}

// A node that is new to a ledger says how far it has read it, answers what it
// knows meanwhile, and votes on nothing that it has voted on.
func TestCatchingUp(t *testing.T) {
	folder, key := t.TempDir(), ledger.GenerateKeyPair()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	n := startNode(t, filepath.Join(folder, "before"), key, sharing(db))
	tx := newCreate(t, ledger.GenerateKeyPair(), 1)
	n.mustPost(t, tx)
	n.mustBecomeValid(t, tx)
	if up, behind := n.CatchingUp(); behind || up != (CatchUp{}) {
		t.Errorf("caught up: got %v, %v", up, behind)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}

	late := lateVotes{db, make(chan struct{})}
	n = launchNode(t, filepath.Join(folder, "after"), key, sharing(late))
	eventually(t, "the block is read", func() bool {
		status, err := n.TransactionStatus(t.Context(), tx.ID)
		return err == nil && status == "undecided"
	})
	eventually(t, "it is counted", func() bool {
		up, _ := n.CatchingUp()
		return up.Blocks > 0
	})
	up, behind := n.CatchingUp()
	if age := time.Since(up.Newest); !behind || up.Blocks < 1 || up.Votes != 0 || age < 0 || age > time.Hour {
		t.Errorf("without votes: got %v, %v", up, behind)
	}
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "catching up with the ledger: "+up.String()) {
		t.Errorf("ready: got %v, want one that says %q", err, up)
	}
	close(late.released)
	n.mustBecomeValid(t, tx)
	eventually(t, "the node has caught up", func() bool { return n.Ready() == nil })
	page, err := db.Range(t.Context(), statedb.Votes, statedb.Range{Limit: 10})
	if err != nil || len(page.Documents) != 1 {
		t.Errorf("got %d votes, %v, want the one given before", len(page.Documents), err)
	}
}
