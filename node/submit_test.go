package node

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// lateAnswer is a database whose answer to a write of the backlog is lost, and
// not before the feed has shown what was written.
type lateAnswer struct {
	statedb.DB
	lost  atomic.Bool
	shown chan string // ids that the backlog feed's reader has dealt with
}

func (d *lateAnswer) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	results, err := d.DB.Write(ctx, table, writes)
	if table != statedb.Backlog || err != nil || d.lost.Swap(true) {
		return results, err
	}
	for {
		select {
		case id := <-d.shown:
			if id == writes[0].ID {
				return nil, errTrouble
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (d *lateAnswer) Changes(ctx context.Context, table, since string) (statedb.Feed, error) {
	feed, err := d.DB.Changes(ctx, table, since)
	if table == statedb.Backlog && err == nil {
		feed = &shownFeed{Feed: feed, shown: d.shown}
	}
	return feed, err
}

type shownFeed struct {
	statedb.Feed
	before []statedb.Change
	shown  chan string
}

func (f *shownFeed) Next(ctx context.Context) (statedb.Batch, error) {
	for _, c := range f.before {
		f.shown <- c.ID
	}
	batch, err := f.Feed.Next(ctx)
	f.before = slices.Clone(batch.Changes)
	return batch, err
}

// A transaction that is in the backlog although its client was told 503, and
// whose row in the feed came while it was still being written, is decided
// without being posted again.
func TestPostWhoseAnswerIsLost(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	late := &lateAnswer{DB: db, shown: make(chan string, 100)}
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(late))
	tx := newCreate(t, ledger.GenerateKeyPair(), 1)
	if _, err := n.Submit(t.Context(), tx.Bytes()); err == nil {
		t.Fatal("the post was accepted although its write failed")
	}
	n.mustBecomeValid(t, tx)
}
