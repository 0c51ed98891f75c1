package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/embedded"
)

// faulty is an embedded store that fails at a call that changes it.
type faulty struct {
	statedb.DB
	calls  atomic.Int64
	at     int64 // the call that fails; 0 for none
	after  bool  // it was done all the same
	with   error
	refuse string // id of a document that Check refuses
	small  bool   // takes one document at a time
}

func (f *faulty) fails() bool { return f.calls.Add(1) == f.at }

func (f *faulty) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	if !f.fails() {
		return f.DB.Write(ctx, table, writes)
	}
	if f.after {
		if _, err := f.DB.Write(ctx, table, writes); err != nil {
			return nil, err
		}
	}
	return nil, f.with
}

func (f *faulty) Remove(ctx context.Context, table string, ids []string) error {
	if f.fails() {
		return f.with
	}
	return f.DB.Remove(ctx, table, ids)
}

func (f *faulty) Check(document canonical.Value) error {
	if id, _ := document.Get("id"); f.refuse != "" && id.Text() == f.refuse {
		return &statedb.UnsupportedError{Path: "block.x", Reason: "cannot be held"}
	}
	return f.DB.Check(document)
}

func (f *faulty) Limits() statedb.Limits {
	l := f.DB.Limits()
	if f.small {
		l.MaxBatch, l.Writers = 3, 1
	}
	return l
}

func newTarget(t testing.TB) *faulty {
	t.Helper()
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &faulty{DB: db, small: true}
}

// holds wants the database to be exactly what the files are.
func (f *faulty) holds(t testing.TB, c *Chain) {
	t.Helper()
	for _, table := range statedb.Tables {
		want, err := c.Range(t.Context(), table, statedb.Range{Limit: 10000})
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Range(t.Context(), table, statedb.Range{Limit: 10000})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Documents) != len(want.Documents) {
			t.Errorf("%s: got %d documents, want %d", table, len(got.Documents), len(want.Documents))
			continue
		}
		for i, d := range got.Documents {
			if d.ID != want.Documents[i].ID || string(d.Body) != string(want.Documents[i].Body) {
				t.Errorf("%s/%s: got %s", table, d.ID, d.Body)
			}
		}
	}
}

// claims reports whether the claim on the first block is there.
func (f *faulty) claims(t testing.TB) bool {
	t.Helper()
	documents, err := f.Get(t.Context(), statedb.Bigchain, []string{genesisID})
	if err != nil {
		t.Fatal(err)
	}
	return documents[0].Rev != ""
}

// count is how many documents there are, with the marker.
func (f *faulty) count(t testing.TB) (n int) {
	t.Helper()
	for _, table := range tables {
		page, err := f.Range(t.Context(), table, statedb.Range{Limit: 10000})
		if err != nil {
			t.Fatal(err)
		}
		n += len(page.Documents)
	}
	return n
}

// TestRestoreInterrupted interrupts a restore at every write, before or after it
// takes effect: there is no ledger until another call has completed it.
func TestRestoreInterrupted(t *testing.T) {
	w, path := sampleFile(t, 12)
	c := mustOpenChain(t, path)
	interrupted := errors.New("interrupted")
	for _, after := range []bool{false, true} {
		for at := int64(1); ; at++ {
			db := newTarget(t)
			ctx, cancel := context.WithCancel(t.Context())
			db.at, db.after, db.with = at, after, interrupted
			_, err := Restore(ctx, &canceller{db, cancel}, c, RestoreOptions{StatePath: t.TempDir()})
			cancel()
			if err == nil {
				db.holds(t, c)
				if at < 8 {
					t.Errorf("only %d calls", at)
				}
				break
			}
			if !errors.Is(err, interrupted) {
				t.Fatal(err)
			}
			what := fmt.Sprintf("call %d, after %v", at, after)
			if db.claims(t) && db.count(t) != c.Summary().Documents[statedb.Bigchain]+c.Summary().Documents[statedb.Votes]+1 {
				t.Errorf("%s: the claim on the first block is there, and not all the rest", what)
			}
			if at > 1 || after {
				if _, err := node.Init(t.Context(), db, w.members[0], nil, nil); !errors.Is(err, node.ErrRestoring) {
					t.Errorf("%s: init: got %v", what, err)
				}
				if _, err := node.Open(t.Context(), node.Options{DB: db, StatePath: t.TempDir(), Key: w.members[0]}); !errors.Is(err, node.ErrRestoring) {
					t.Errorf("%s: start: got %v", what, err)
				}
				other := newWorld(t, 3, 1)
				path := filepath.Join(t.TempDir(), "other")
				other.backup(t, path, BackupOptions{})
				if _, err := Restore(t.Context(), db, mustOpenChain(t, path), RestoreOptions{StatePath: t.TempDir()}); !errors.Is(err, ErrNotEmpty) {
					t.Errorf("%s: another file: got %v", what, err)
				}
			}
			done, err := Restore(t.Context(), db, c, RestoreOptions{StatePath: t.TempDir()})
			if err != nil || done.Resumed != (at > 1 || after) {
				t.Errorf("%s: again: got %+v, %v", what, done, err)
			}
			db.holds(t, c)
		}
	}
}

// canceller cancels when its database has failed.
type canceller struct {
	*faulty
	cancel func()
}

func (c *canceller) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	results, err := c.faulty.Write(ctx, table, writes)
	if err != nil {
		c.cancel()
	}
	return results, err
}

func (c *canceller) Remove(ctx context.Context, table string, ids []string) error {
	err := c.faulty.Remove(ctx, table, ids)
	if err != nil {
		c.cancel()
	}
	return err
}

// TestRestoreTakesBack: after an error that another call would meet again there
// is no database; a document that it cannot hold is told before it is made.
func TestRestoreTakesBack(t *testing.T) {
	w, path := sampleFile(t, 12)
	c := mustOpenChain(t, path)
	db := newTarget(t)
	db.at, db.with = 3, statedb.ErrTooLarge
	if _, err := Restore(t.Context(), db, c, RestoreOptions{StatePath: t.TempDir()}); !errors.Is(err, statedb.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if err := db.Health(t.Context()); !errors.Is(err, statedb.ErrNoDatabase) {
		t.Errorf("afterwards: got %v", err)
	}

	db = newTarget(t)
	db.refuse = w.blocks[2].ID
	_, err := Restore(t.Context(), db, c, RestoreOptions{StatePath: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "bigchain/"+w.blocks[2].ID) || !strings.Contains(err.Error(), "block.x") {
		t.Errorf("got %v", err)
	}
	if err := db.Health(t.Context()); !errors.Is(err, statedb.ErrNoDatabase) || db.calls.Load() > 0 {
		t.Errorf("afterwards: got %v, %d calls", err, db.calls.Load())
	}

	db = newTarget(t) // away for a moment
	db.at, db.with = 4, statedb.ErrUnavailable
	if _, err := Restore(t.Context(), db, c, RestoreOptions{StatePath: t.TempDir()}); err != nil {
		t.Error(err)
	}
	db.holds(t, c)
}

// TestRestoreNotEmpty: whatever stands in any table.
func TestRestoreNotEmpty(t *testing.T) {
	_, path := sampleFile(t, 4)
	c := mustOpenChain(t, path)
	for _, table := range statedb.Tables {
		db := newTarget(t)
		if _, err := db.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := db.DB.Write(t.Context(), table, []statedb.Write{{ID: "readme", Body: []byte(`{}`)}}); err != nil {
			t.Fatal(err)
		}
		_, err := Restore(t.Context(), db, c, RestoreOptions{StatePath: t.TempDir()})
		if !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), table) || !strings.Contains(err.Error(), "readme") || db.calls.Load() > 0 {
			t.Errorf("%s: got %v after %d calls", table, err, db.calls.Load())
		}
	}
}

// TestRestoreForeignState: the state path is of another ledger.
func TestRestoreForeignState(t *testing.T) {
	_, path := sampleFile(t, 4)
	c := mustOpenChain(t, path)
	state, db := t.TempDir(), newTarget(t)
	key := ledger.GenerateKeyPair()
	if _, err := node.Init(t.Context(), db, key, nil, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n, err := node.Open(ctx, node.Options{DB: db, StatePath: state, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), newTarget(t), c, RestoreOptions{StatePath: state}); err == nil || !strings.Contains(err.Error(), "a node runs") {
		t.Errorf("while a node runs: got %v", err)
	}
	cancel()
	if err := n.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), newTarget(t), c, RestoreOptions{StatePath: state}); err == nil || !strings.Contains(err.Error(), "another ledger") {
		t.Errorf("got %v", err)
	}
}

// TestBacklog: what waits is restored where it was asked for, and the last of
// several files says what waits.
func TestBacklog(t *testing.T) {
	w, path := sampleFile(t, 4)
	owner := ledger.GenerateKeyPair()
	entry := func(n int64) string {
		tx, err := ledger.NewCreate([]ledger.KeyPair{owner}, canonical.ObjectOf(canonical.Member{Key: "n", Value: canonical.IntOf(n)}), canonical.Value{}, ledger.PayTo(owner.Public, 1))
		if err != nil {
			t.Fatal(err)
		}
		w.tables[statedb.Backlog][tx.ID] = tx.BytesWith([]byte(`"assignee":"` + w.members[0].Public + `","assignment_timestamp":1,`))
		return tx.ID
	}
	first := entry(1)
	w.tables[statedb.Backlog]["garbage"] = []byte(`{}`)
	var left []string
	o := BackupOptions{Backlog: true, Left: func(table, id string, _ error) { left = append(left, table+"/"+id) }}
	w.backup(t, path, o)
	if len(left) != 1 || left[0] != "backlog/garbage" {
		t.Errorf("left out: %q", left)
	}
	delete(w.tables[statedb.Backlog], first)
	second := entry(2)
	o.Since = mustOpenChain(t, path)
	next := filepath.Join(t.TempDir(), "next")
	w.backup(t, next, o)
	db := newTarget(t)
	if _, err := Restore(t.Context(), db, mustOpenChain(t, path, next), RestoreOptions{StatePath: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	page, err := db.Range(t.Context(), statedb.Backlog, statedb.Range{Limit: 10})
	if err != nil || len(page.Documents) != 1 || page.Documents[0].ID != second {
		t.Errorf("got %+v, %v, want %s alone", page.Documents, err, second)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
