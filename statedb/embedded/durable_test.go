package embedded

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

// slowSync lets no sync of the log through while it is held.
type slowSync struct {
	mu   sync.Mutex
	gate chan struct{}
}

func (s *slowSync) String() string { return "slow sync" }

func (s *slowSync) hold() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gate := make(chan struct{})
	s.gate = gate
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gate = nil
		close(gate)
	})
}

func (s *slowSync) MaybeError(op errorfs.Op) error {
	if op.Kind < errorfs.OpFileSync || op.Kind > errorfs.OpFileFlush || !strings.HasSuffix(op.Path, ".log") {
		return nil
	}
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return nil
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// TestNothingIsShownBeforeItIsDurable holds the disk back while a document is
// written and another removed: no reader, no other writer and no feed may act
// on either before a crash can no longer undo it.
func TestNothingIsShownBeforeItIsDurable(t *testing.T) {
	disk := &slowSync{}
	db := opened(t, "slow", Options{FS: errorfs.Wrap(vfs.NewMem(), disk)})
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	write := func(ctx context.Context, id string) error {
		results, err := db.Write(ctx, statedb.Votes, []statedb.Write{{ID: id, Body: []byte(`{"n":1}`)}})
		if err == nil {
			err = results[0].Err
		}
		return err
	}
	for _, id := range []string{"gone", "kept"} {
		if err := write(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	tab := db.ledger.Load().tables[statedb.Votes]
	visible := func(id string) bool {
		value, err := db.read(appendDocumentKey(nil, tab.code, id))
		return err == nil && value != nil
	}
	release := disk.hold()
	defer release()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer release()
	wg.Go(func() {
		if err := db.Remove(t.Context(), statedb.Votes, []string{"gone"}); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the removal to be visible inside", func() bool { return !visible("gone") })

	selector, err := canonical.Parse([]byte(`{"n":1}`))
	if err != nil {
		t.Fatal(err)
	}
	operations := map[string]func(context.Context) error{
		"Get": func(ctx context.Context) error {
			_, err := db.Get(ctx, statedb.Votes, []string{"new"})
			return err
		},
		"Range": func(ctx context.Context) error {
			_, err := db.Range(ctx, statedb.Votes, statedb.Range{Limit: 10})
			return err
		},
		"Find": func(ctx context.Context) error {
			_, err := db.Find(ctx, statedb.Votes, statedb.Query{Selector: selector, Limit: 10})
			return err
		},
		"a conflicting Write": func(ctx context.Context) error {
			if err := write(ctx, "new"); !errors.Is(err, statedb.ErrConflict) {
				return err
			}
			return nil
		},
		"Remove of nothing": func(ctx context.Context) error {
			return db.Remove(ctx, statedb.Votes, []string{"nothing"})
		},
		"Next": func(ctx context.Context) error {
			feed, err := db.Changes(ctx, statedb.Votes, "")
			if err != nil {
				return err
			}
			defer feed.Close()
			_, err = feed.Next(ctx)
			return err
		},
	}
	waits := func(name string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := operations[name](ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s did not wait for the disk: %v", name, err)
		}
	}
	waits("Next") // a removal alone
	wg.Go(func() {
		if err := write(t.Context(), "new"); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the write to be visible inside", func() bool { return visible("new") })
	for name := range operations {
		waits(name)
	}
	if d, err := db.Get(t.Context(), statedb.Votes, []string{"kept"}); err != nil || d[0].Rev == "" {
		t.Errorf("Get of what is on disk: %v", err)
	}
	release()
	for name, operation := range operations {
		if err := operation(t.Context()); err != nil {
			t.Errorf("%s when the disk is free again: %v", name, err)
		}
	}
}

func TestOpenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "folder")
	opened(t, path, Options{})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v; want 0700", info.Mode(), err)
	}
	_, err = Open(path, Options{})
	if !errors.Is(err, statedb.ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Errorf("the second Open: %v, want ErrLocked with the path", err)
	}
}

// TestOpenTwiceByProcesses opens the folder in this process and in another.
func TestOpenTwiceByProcesses(t *testing.T) {
	if path := os.Getenv("EMBEDDED_TEST_FOLDER"); path != "" {
		_, err := Open(path, Options{})
		if !errors.Is(err, statedb.ErrLocked) {
			t.Errorf("Open beside another process: %v, want ErrLocked", err)
		}
		return
	}
	path := t.TempDir()
	opened(t, path, Options{})
	runSelf(t, "TestOpenTwiceByProcesses", "EMBEDDED_TEST_FOLDER="+path)
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, Options{}); err == nil || errors.Is(err, statedb.ErrLocked) {
		t.Errorf("Open of a file: %v", err)
	}
	fs := vfs.NewMem()
	db := opened(t, "old", Options{FS: fs})
	if err := db.store.pebble.Set([]byte(metaKey), []byte("couchledger 0"), nil); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open("old", Options{FS: fs}); err == nil || !strings.Contains(err.Error(), `"couchledger 0"`) {
		t.Errorf("Open of another format: %v, want an error that names it", err)
	}
}

// TestTokens: the shape of a token and each way in which it can be wrong.
func TestTokens(t *testing.T) {
	db := created(t)
	if _, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: "a", Body: []byte(`{}`)}}); err != nil {
		t.Fatal(err)
	}
	token := func(table string) string {
		feed, err := db.Changes(t.Context(), table, "")
		if err != nil {
			t.Fatal(err)
		}
		defer feed.Close()
		batch, err := feed.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return batch.Token
	}
	good := token(statedb.Votes)
	instance, ok := strings.CutPrefix(good, "1-")
	if !ok || len(instance) != instanceDigits {
		t.Errorf("the token %q is not 1 and an instance", good)
	}
	if _, err := db.Changes(t.Context(), statedb.Votes, good); err != nil {
		t.Errorf("the token %q: %v", good, err)
	}
	for _, bad := range []string{"x", "1", "1-", "-" + instance, "01-" + instance, "+1-" + instance, "2-" + instance,
		"18446744073709551616-" + instance, good + "0", "1-" + strings.Repeat("0", instanceDigits), token(statedb.Backlog)} {
		if _, err := db.Changes(t.Context(), statedb.Votes, bad); !errors.Is(err, statedb.ErrBadToken) {
			t.Errorf("the token %q: %v, want ErrBadToken", bad, err)
		}
	}
}

// TestRevisions: "<n>-<hash>", the same for the same change of the same
// document in any database.
func TestRevisions(t *testing.T) {
	var revs [2]string
	for i := range revs {
		db := created(t)
		rev := ""
		for _, body := range []string{`{"n":1}`, `{"n":2}`} {
			results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: "a", Rev: rev, Body: []byte(body)}})
			if err != nil || results[0].Err != nil {
				t.Fatal(err, results)
			}
			rev = results[0].Rev
		}
		revs[i] = rev
	}
	if revs[0] != revs[1] || !strings.HasPrefix(revs[0], "2-") || len(revs[0]) != 2+32 {
		t.Errorf("the revisions are %q, want one of the second generation twice", revs)
	}
}

// TestScanWarns: CouchDB's words where every document is read, and only there.
func TestScanWarns(t *testing.T) {
	db := created(t)
	for text, want := range map[string]string{`{"n":1}`: keyset.ScanWarning, `{"_id":{"$gt":"a"},"n":1}`: "", `{}`: ""} {
		selector, err := canonical.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		page, err := db.Find(t.Context(), statedb.Votes, statedb.Query{Selector: selector, Limit: 1})
		if err != nil || page.Warning != want {
			t.Errorf("%s: warning %q, %v; want %q", text, page.Warning, err, want)
		}
	}
}

func TestHugeBatchIsRefused(t *testing.T) {
	db := created(t)
	writes := make([]statedb.Write, maxBatchBytes/maxDocumentBytes+1)
	body := make([]byte, maxDocumentBytes)
	for i := range writes {
		writes[i] = statedb.Write{ID: "a", Body: body} // refused before it is read
	}
	if _, err := db.Write(t.Context(), statedb.Votes, writes); !errors.Is(err, statedb.ErrTooLarge) {
		t.Errorf("Write of %d bytes: %v, want ErrTooLarge", len(writes)*len(body), err)
	}
}
