package node

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// watchedFeeds is a database whose feeds can be held up, by table and by how
// many of that table were opened before.
type watchedFeeds struct {
	statedb.DB
	next   func(ctx context.Context, table string, number int) // before each batch
	closed func(table string, number int)

	mu     sync.Mutex
	opened map[string]int
}

type watchedFeed struct {
	statedb.Feed
	d      *watchedFeeds
	table  string
	number int
	once   sync.Once
}

func (d *watchedFeeds) Changes(ctx context.Context, table, since string) (statedb.Feed, error) {
	feed, err := d.DB.Changes(ctx, table, since)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened[table]++
	return &watchedFeed{Feed: feed, d: d, table: table, number: d.opened[table]}, nil
}

func (f *watchedFeed) Next(ctx context.Context) (statedb.Batch, error) {
	batch, err := f.Feed.Next(ctx)
	if f.d.next != nil && err == nil {
		f.d.next(ctx, f.table, f.number)
	}
	return batch, err
}

func (f *watchedFeed) Close() error {
	err := f.Feed.Close()
	f.once.Do(func() {
		if f.d.closed != nil {
			f.d.closed(f.table, f.number)
		}
	})
	return err
}

func nextEvents(t testing.TB, stream Subscription) []Event {
	t.Helper()
	select {
	case events := <-stream.Events():
		return events
	case <-time.After(30 * time.Second):
		t.Fatal("no event within 30 seconds")
		return nil
	}
}

// TestRebuildAhead: the rebuild has read a block, or the vote on it, before the
// node has. When it has changed over, the node has voted, and told of what is
// valid, and what its feeds bring at last changes nothing.
func TestRebuildAhead(t *testing.T) {
	for _, table := range []string{statedb.Bigchain, statedb.Votes} {
		t.Run(table, func(t *testing.T) {
			folder, alice := t.TempDir(), ledger.GenerateKeyPair()
			release := make(chan struct{})
			var mu sync.Mutex
			holding := false
			db := &watchedFeeds{DB: openEmbedded(t, folder), opened: map[string]int{}}
			t.Cleanup(func() { db.Close() })
			db.next = func(ctx context.Context, of string, number int) {
				mu.Lock()
				hold := holding && of == table && number == 1
				mu.Unlock()
				if hold {
					select {
					case <-release:
					case <-ctx.Done():
					}
				}
			}
			n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(db))
			stream := n.Subscribe()
			mu.Lock()
			holding = true
			mu.Unlock()
			tx := newCreate(t, alice, 1)
			n.mustPost(t, tx)
			eventually(t, "it is in the database", func() bool {
				page, err := db.Range(t.Context(), table, statedb.Range{Limit: 10})
				return err == nil && len(page.Documents) == map[string]int{statedb.Bigchain: 3, statedb.Votes: 1}[table]
			})
			if status, err := n.TransactionStatus(t.Context(), tx.ID); status == "valid" || err != nil {
				t.Fatalf("before: got %s, %v", status, err)
			}
			if _, err := n.Reindex(t.Context(), func(ReindexProgress) {}); err != nil {
				t.Fatal(err)
			}
			n.mustBecomeValid(t, tx)
			if events := nextEvents(t, stream); len(events) != 1 || events[0].TxID != tx.ID {
				t.Errorf("got %+v, want %s", events, tx.ID)
			}
			close(release)
			more := newTransfer(t, alice, tx, 0, alice.Public)
			n.mustPost(t, more)
			n.mustBecomeValid(t, more)
			if events := nextEvents(t, stream); len(events) != 1 || events[0].TxID != more.ID {
				t.Errorf("got %+v, want %s and nothing twice", events, more.ID)
			}
			eventually(t, "the backlog is empty", func() bool {
				page, err := db.Range(t.Context(), statedb.Backlog, statedb.Range{Limit: 1})
				return err == nil && len(page.Documents) == 0
			})
		})
	}
}

// TestRebuildBehind: something becomes valid between the rebuild's reading of
// the feeds and the changeover.
func TestRebuildBehind(t *testing.T) {
	folder, alice := t.TempDir(), ledger.GenerateKeyPair()
	db := &watchedFeeds{DB: openEmbedded(t, folder), opened: map[string]int{}}
	t.Cleanup(func() { db.Close() })
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(db))
	stream := n.Subscribe()
	defer stream.Close()
	tx := newCreate(t, alice, 1)
	db.closed = func(table string, number int) {
		if table == statedb.Votes && number == 3 { // the second of the rebuild's
			n.mustPost(t, tx)
			n.mustBecomeValid(t, tx)
		}
	}
	if _, err := n.Reindex(t.Context(), func(ReindexProgress) {}); err != nil {
		t.Fatal(err)
	}
	if status, err := n.TransactionStatus(t.Context(), tx.ID); status != "valid" || err != nil {
		t.Errorf("got %s, %v, want valid", status, err)
	}
	if events := nextEvents(t, stream); len(events) != 1 || events[0].TxID != tx.ID {
		t.Errorf("got %+v, want %s", events, tx.ID)
	}
	more := newTransfer(t, alice, tx, 0, alice.Public)
	n.mustPost(t, more)
	n.mustBecomeValid(t, more)
	if events := nextEvents(t, stream); len(events) != 1 || events[0].TxID != more.ID {
		t.Errorf("got %+v, want %s and nothing twice", events, more.ID)
	}
}
