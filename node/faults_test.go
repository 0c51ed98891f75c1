package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// troubled is a database behind a bad line: calls fail before or after they
// were carried out, feeds break, repeat themselves and come out of order.
type troubled struct {
	statedb.DB
	percent atomic.Int32 // of calls that fail
	down    atomic.Bool  // all calls fail

	mu     sync.Mutex
	tokens map[string][]string // by table: where feeds were
}

var errTrouble = fmt.Errorf("%w: the line is bad", statedb.ErrUnavailable)

func (d *troubled) fails() bool { return d.down.Load() || rand.Int32N(100) < d.percent.Load() }

func (d *troubled) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	if d.fails() {
		return nil, errTrouble
	}
	results, err := d.DB.Write(ctx, table, writes)
	if d.fails() {
		return nil, errTrouble // and yet it was done
	}
	return results, err
}

func (d *troubled) Remove(ctx context.Context, table string, ids []string) error {
	if d.fails() {
		return errTrouble
	}
	err := d.DB.Remove(ctx, table, ids)
	if d.fails() {
		return errTrouble
	}
	return err
}

func (d *troubled) Get(ctx context.Context, table string, ids []string) ([]statedb.Document, error) {
	if d.fails() {
		return nil, errTrouble
	}
	return d.DB.Get(ctx, table, ids)
}

func (d *troubled) Changes(ctx context.Context, table, since string) (statedb.Feed, error) {
	if d.fails() {
		return nil, errTrouble
	}
	d.mu.Lock()
	if known := d.tokens[table]; len(known) > 0 && d.percent.Load() > 0 && since != "" {
		since = known[rand.IntN(len(known))] // from somewhere before: rows come again
	}
	d.mu.Unlock()
	feed, err := d.DB.Changes(ctx, table, since)
	return &troubledFeed{Feed: feed, d: d, table: table}, err
}

type troubledFeed struct {
	statedb.Feed
	d     *troubled
	table string
}

func (f *troubledFeed) Next(ctx context.Context) (statedb.Batch, error) {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.d.percent.Load() > 0 { // a feed that waits is cut off in the end
		wait, cancel = context.WithTimeout(ctx, time.Duration(1+rand.IntN(50))*time.Millisecond)
		defer cancel()
	}
	batch, err := f.Feed.Next(wait)
	if err != nil && ctx.Err() == nil {
		return batch, errors.Join(errTrouble, err)
	}
	if f.d.fails() {
		return statedb.Batch{}, errTrouble
	}
	rand.Shuffle(len(batch.Changes), func(i, j int) {
		batch.Changes[i], batch.Changes[j] = batch.Changes[j], batch.Changes[i]
	})
	f.d.mu.Lock()
	f.d.tokens[f.table] = append(f.d.tokens[f.table], batch.Token)
	f.d.mu.Unlock()
	return batch, err
}

// insist posts until the node takes the transaction, or refuses it.
func (n *testNode) insist(t testing.TB, tx *ledger.Transaction) error {
	t.Helper()
	var err error
	eventually(t, "the transaction is accepted or refused", func() bool {
		_, err = n.Submit(t.Context(), tx.Bytes())
		_, invalid := asInvalid(err)
		return err == nil || invalid
	})
	return err
}

func TestTroubledDatabase(t *testing.T) {
	folder := t.TempDir()
	key, alice := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	if _, err := Init(t.Context(), db, key, nil, nil); err != nil {
		t.Fatal(err)
	}
	bad := &troubled{DB: db, tokens: map[string][]string{}}
	n := startNode(t, folder, key, sharing(bad))
	bad.percent.Store(10)

	var group sync.WaitGroup
	var mu sync.Mutex
	accepted := map[string]*ledger.Transaction{}
	for worker := range 4 {
		group.Go(func() {
			for i := range 25 {
				create := newCreate(t, alice, worker*1000+i)
				if err := n.insist(t, create); err != nil {
					t.Errorf("post a sound CREATE: %v", err)
					return
				}
				n.mustBecomeValid(t, create)
				pair := []*ledger.Transaction{newTransfer(t, alice, create, 0, alice.Public), newTransfer(t, alice, create, 0, key.Public)}
				for _, tx := range pair {
					if err := n.insist(t, tx); err == nil {
						mu.Lock()
						accepted[tx.ID] = tx
						mu.Unlock()
					} else if !ledger.IsKind(err, ledger.DoubleSpend) {
						t.Errorf("post a TRANSFER: %v", err)
					}
				}
				mu.Lock()
				accepted[create.ID] = create
				mu.Unlock()
			}
		})
	}
	group.Wait()
	bad.percent.Store(0)
	eventually(t, "every accepted transaction is valid or refused for a reason", func() bool {
		for id := range accepted {
			status, err := n.TransactionStatus(t.Context(), id)
			var refused *RefusedError
			if status != "valid" && !(errors.As(err, &refused) && strings.Contains(refused.Reason, "DoubleSpend")) {
				return false
			}
		}
		return true
	})
	n.checkLedger(t, accepted)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	again := startNode(t, filepath.Join(folder, "rebuilt"), key, sharing(db))
	again.checkLedger(t, accepted)
}

// checkLedger checks what must hold of any ledger: no transaction in two valid
// blocks, no output spent twice, a sound chain of votes, an empty backlog.
func (n *testNode) checkLedger(t *testing.T, txs map[string]*ledger.Transaction) {
	t.Helper()
	spent := map[ledger.OutputRef]string{}
	for id, tx := range txs {
		refs, err := n.state.BlocksWith(id)
		if err != nil {
			t.Fatal(err)
		}
		valid := 0
		for _, ref := range refs {
			if ref.Status == consensus.Valid {
				valid++
			}
		}
		if valid > 1 {
			t.Errorf("transaction %s is in %d valid blocks", id, valid)
		}
		if valid == 0 {
			continue
		}
		for _, ref := range tx.Spends() {
			if other := spent[ref]; other != "" {
				t.Errorf("output %v is spent by %s and %s", ref, other, id)
			}
			spent[ref] = id
		}
		if body, err := n.Transaction(t.Context(), id); err != nil || string(body) != string(tx.Bytes()) {
			t.Errorf("transaction %s: got %s, %v, want what was posted", id, body, err)
		}
	}
	n.checkVoteChain(t, n.journal.LastVoted())
	eventually(t, "the backlog is empty", func() bool {
		page, err := n.db.Range(t.Context(), statedb.Backlog, statedb.Range{Limit: 1})
		return err == nil && len(page.Documents) == 0
	})
}

// While the database is away the node says so, takes no transactions, and
// goes on by itself when it is back.
func TestDatabaseAway(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	bad := &troubled{DB: db, tokens: map[string][]string{}}
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(bad))
	alice := ledger.GenerateKeyPair()
	bad.down.Store(true)
	first := newCreate(t, alice, 1)
	for range 2 { // the first may find out, the second is told
		if _, err := n.Submit(t.Context(), first.Bytes()); !errors.Is(err, statedb.ErrUnavailable) && !errors.Is(err, ErrNotReady) {
			t.Errorf("post: got %v, want it to wrap ErrUnavailable or ErrNotReady", err)
		}
	}
	if err := n.Ready(); !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "its database does not answer") || strings.Contains(err.Error(), "the line is bad") {
		t.Errorf("readiness: got %v, want ErrNotReady without the database's own words", err)
	}
	bad.down.Store(false)
	eventually(t, "the node is ready again without a post", func() bool { return n.Ready() == nil })
	tx := newCreate(t, alice, 2)
	if err := n.insist(t, tx); err != nil {
		t.Fatal(err)
	}
	n.mustBecomeValid(t, tx)
	n.mustBecomeValid(t, first) // its write was tried again to find out
}

// hanging is a database that answers nothing while it hangs.
type hanging struct {
	statedb.DB
	hangs atomic.Bool
}

func (d *hanging) wait(ctx context.Context) error {
	if !d.hangs.Load() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (d *hanging) Health(ctx context.Context) error {
	if err := d.wait(ctx); err != nil {
		return err
	}
	return d.DB.Health(ctx)
}

func (d *hanging) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	if err := d.wait(ctx); err != nil {
		return nil, err
	}
	return d.DB.Write(ctx, table, writes)
}

// A post that waits for a database that hangs is answered as soon as the node
// knows, not when its request has used up its time.
func TestDatabaseHangs(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	bad := &hanging{DB: db}
	const patience = time.Second
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(bad), func(o *Options) { o.patience = patience })
	bad.hangs.Store(true)
	answered := make(chan error, 1)
	go func() {
		_, err := n.Submit(t.Context(), newCreate(t, ledger.GenerateKeyPair(), 1).Bytes())
		answered <- err
	}()
	select {
	case err := <-answered:
		if !errors.Is(err, ErrNotReady) {
			t.Errorf("post: got %v, want ErrNotReady", err)
		}
	case <-time.After(healthEvery + 10*patience):
		t.Fatal("the post still waits")
	}
}

// What lies in the backlog is taken up, and what is wrong there is removed.
func TestBacklogFromOutside(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(db))
	alice := ledger.GenerateKeyPair()
	sound, unknownInput := newCreate(t, alice, 1), newTransfer(t, alice, newCreate(t, alice, 2), 0, alice.Public)
	put(t, db, statedb.Backlog, sound.ID, backlogDocument(sound, n.key.Public, 1))
	put(t, db, statedb.Backlog, unknownInput.ID, backlogDocument(unknownInput, n.key.Public, 1))
	n.mustBecomeValid(t, sound)

	bad := newCreate(t, alice, 3)
	changed := strings.Replace(string(backlogDocument(bad, n.key.Public, 1)), `"serial":3`, `"serial":4`, 1)
	put(t, db, statedb.Backlog, bad.ID, []byte(changed))
	put(t, db, statedb.Backlog, "garbage", []byte(`{"assignee":7}`))
	eventually(t, "a changed transaction is refused for its hash", func() bool {
		_, err := n.TransactionStatus(t.Context(), bad.ID)
		var refused *RefusedError
		return errors.As(err, &refused) && strings.Contains(refused.Reason, "InvalidHash")
	})
	eventually(t, "only the entry that lags is left", func() bool {
		page, err := db.Range(t.Context(), statedb.Backlog, statedb.Range{Limit: 10})
		return err == nil && len(page.Documents) == 1 && page.Documents[0].ID == unknownInput.ID
	})
	if status, err := n.TransactionStatus(t.Context(), unknownInput.ID); err != nil || status != "backlog" {
		t.Errorf("an entry with an input that is not here: got %q, %v, want backlog", status, err)
	}
}

// One transaction posted many times at once stands in one block.
func TestSamePostManyTimes(t *testing.T) {
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair())
	tx := newCreate(t, ledger.GenerateKeyPair(), 1)
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if _, err := n.Submit(t.Context(), tx.Bytes()); err != nil {
				t.Errorf("post: %v", err)
			}
		})
	}
	group.Wait()
	n.mustBecomeValid(t, tx)
	n.mustPost(t, tx)
	if refs, err := n.state.BlocksWith(tx.ID); err != nil || len(refs) != 1 {
		t.Errorf("blocks with it: got %v, %v, want one", refs, err)
	}
}

// stuck is a database that carries out writes for queries only when it is let.
type stuck struct {
	statedb.DB
	let chan struct{}
}

func (d *stuck) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	if table == statedb.Transactions {
		select {
		case <-d.let:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return d.DB.Write(ctx, table, writes)
}

// When what follows from decisions lags, no more blocks are made until it has
// caught up: the backlog is where transactions wait.
func TestBlocksWaitForEffects(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	slow := &stuck{DB: db, let: make(chan struct{})}
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(slow))
	n.effects.mu.Lock()
	n.effects.most = 3
	n.effects.mu.Unlock()
	alice := ledger.GenerateKeyPair()
	waiting := 0
	var all []*ledger.Transaction
	for i := range 10 {
		tx := newCreate(t, alice, i)
		n.mustPost(t, tx)
		all = append(all, tx)
		if i < 3 {
			n.mustBecomeValid(t, tx)
		}
	}
	for _, tx := range all[4:] {
		if status, err := n.TransactionStatus(t.Context(), tx.ID); err != nil {
			t.Fatal(err)
		} else if status == "backlog" {
			waiting++
		}
	}
	if waiting < len(all[4:]) {
		t.Errorf("%d of %d transactions wait in the backlog, want all", waiting, len(all[4:]))
	}
	close(slow.let)
	for _, tx := range all {
		n.mustBecomeValid(t, tx)
	}
}
