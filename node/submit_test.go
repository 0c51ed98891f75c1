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

// A post of what stands only in a block that another node made outlives that
// block: whoever made it may never have had the transaction in the backlog.
func TestPostOfWhatIsInAnUndecidedBlock(t *testing.T) {
	n, peer, db := withPeer(t)
	tx := newCreate(t, ledger.GenerateKeyPair(), 1)
	b := n.peerBlock(t, peer, tx)
	n.ownVote(t, b.ID)
	n.mustPost(t, tx)
	n.peerVote(t, peer, b, false)
	eventually(t, "the block is invalid", func() bool {
		status, _ := n.BlockStatus(t.Context(), b.ID)
		return status == "invalid"
	})
	documents, err := db.Get(t.Context(), statedb.Backlog, []string{tx.ID})
	if err != nil || documents[0].Rev == "" {
		t.Errorf("an accepted transaction is neither in a live block nor in the backlog: %v", err)
	}
}

// overtaken is a database in which something is put under an id just before a
// node takes away what stood there.
type overtaken struct {
	statedb.DB
	put       atomic.Pointer[statedb.Write]
	meanwhile func() // is called then
}

func (d *overtaken) overtake(ctx context.Context, table, id string) {
	w := d.put.Load()
	if table != statedb.Backlog || w == nil || w.ID != id {
		return
	}
	d.put.Store(nil)
	documents, err := d.DB.Get(ctx, table, []string{id})
	if err == nil {
		d.DB.Write(ctx, table, []statedb.Write{{ID: id, Rev: documents[0].Rev, Body: w.Body}})
	}
	if d.meanwhile != nil {
		d.meanwhile()
	}
}

func (d *overtaken) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	d.overtake(ctx, table, writes[0].ID)
	return d.DB.Write(ctx, table, writes)
}

func (d *overtaken) Remove(ctx context.Context, table string, ids []string) error {
	d.overtake(ctx, table, ids[0])
	return d.DB.Remove(ctx, table, ids)
}

// Garbage is taken from the backlog only as it was read: another node may have
// put the entry in its place, and told its client so.
func TestGarbageThatBecameAnEntry(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	between := &overtaken{DB: db}
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(between))
	tx := newCreate(t, ledger.GenerateKeyPair(), 1)
	between.meanwhile = func() {
		if status, err := n.TransactionStatus(t.Context(), tx.ID); status != "backlog" || err != nil {
			t.Errorf("status in the moment between: got %q, %v, want backlog", status, err)
		}
	}
	between.put.Store(&statedb.Write{ID: tx.ID, Body: backlogDocument(tx, n.key.Public, 0)})
	put(t, db, statedb.Backlog, tx.ID, []byte(`{"junk":true}`))
	n.mustBecomeValid(t, tx)
}
