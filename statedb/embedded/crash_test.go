package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/couchledger/couchledger/statedb"
)

const batchOf = 5 // documents of one batch of the crash tests

// crashWriters write and remove batches, one for each permit, and remember
// what was acknowledged.
type crashWriters struct {
	db      *DB
	permits chan struct{}

	mu   sync.Mutex
	done map[string]string // id to acknowledged revision, "" removed; what is under way is not in it
}

func (w *crashWriters) run(t *testing.T, number int) {
	for i := 0; ; i++ {
		if _, ok := <-w.permits; !ok {
			return
		}
		var writes []statedb.Write
		var ids []string
		for j := range batchOf {
			ids = append(ids, fmt.Sprintf("w%d-%05d-%d", number, i, j))
			writes = append(writes, statedb.Write{ID: ids[j], Body: fmt.Appendf(nil, `{"n":%d}`, i)})
		}
		results, err := w.db.Write(t.Context(), statedb.Backlog, writes)
		if err != nil {
			t.Errorf("Write: %v", err)
			return
		}
		w.settle(ids, func(j int) string { return results[j].Rev })
		if i%3 != 2 {
			continue
		}
		w.mu.Lock()
		for _, id := range ids {
			delete(w.done, id)
		}
		w.mu.Unlock()
		if err := w.db.Remove(t.Context(), statedb.Backlog, ids); err != nil {
			t.Errorf("Remove: %v", err)
			return
		}
		w.settle(ids, func(int) string { return "" })
	}
}

func (w *crashWriters) settle(ids []string, rev func(int) string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for j, id := range ids {
		w.done[id] = rev(j)
	}
}

func (w *crashWriters) acknowledged() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.done)
}

// crashReader follows the feed and remembers what it was told up to its token.
type crashReader struct {
	mu    sync.Mutex
	told  map[string]bool
	token string
}

func (r *crashReader) run(ctx context.Context, t *testing.T, db *DB) {
	feed, err := db.Changes(ctx, statedb.Backlog, "")
	if err != nil {
		t.Error(err)
		return
	}
	defer feed.Close()
	for {
		batch, err := feed.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		r.mu.Lock()
		for _, c := range batch.Changes {
			r.told[c.ID] = true
		}
		r.token = batch.Token
		r.mu.Unlock()
	}
}

func (r *crashReader) state() (told map[string]bool, token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.told), r.token
}

// TestCrash takes the disk as a crash would leave it, at random moments under
// load, and opens it: what was acknowledged is there, batches are whole, the
// feed resumed from a token given out before tells of all that came after it,
// and indexes and feed agree with the documents.
func TestCrash(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	fs := vfs.NewCrashableMem()
	db := opened(t, "crash", Options{FS: fs})
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := statedb.Index{Name: "n", Fields: []statedb.SortField{{Field: "n"}}}
	if err := db.DeployIndexes(t.Context(), statedb.Backlog, []statedb.Index{n}, nil); err != nil {
		t.Fatal(err)
	}
	w := &crashWriters{db: db, permits: make(chan struct{}), done: map[string]string{}}
	r := &crashReader{told: map[string]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { w.run(t, i) })
	}
	wg.Go(func() { r.run(ctx, t, db) })
	defer wg.Wait()
	defer cancel()
	defer close(w.permits)
	for range 60 {
		for range random.IntN(20) {
			w.permits <- struct{}{}
		}
		// What was promised up to here the crash that follows must keep.
		acknowledged := w.acknowledged()
		told, token := r.state()
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
		checkCrashed(t, crashed, acknowledged, told, token)
	}
}

func checkCrashed(t *testing.T, fs *vfs.MemFS, acknowledged map[string]string, told map[string]bool, token string) {
	t.Helper()
	db, err := Open("crash", Options{FS: fs})
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	defer db.Close()
	checkStore(t, db)
	present := map[string]int{}
	found := map[string]string{}
	r := statedb.Range{Limit: 1000}
	for {
		page, err := db.Range(t.Context(), statedb.Backlog, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Documents {
			found[d.ID] = d.Rev
			present[d.ID[:strings.LastIndexByte(d.ID, '-')]]++
		}
		if r.Bookmark = page.Bookmark; r.Bookmark == "" {
			break
		}
	}
	for id, rev := range acknowledged {
		if found[id] != rev {
			t.Fatalf("after a crash %s is at %q, acknowledged was %q", id, found[id], rev)
		}
	}
	for batch, n := range present {
		if n != batchOf {
			t.Fatalf("after a crash %d of %d documents of the batch %s are there", n, batchOf, batch)
		}
	}
	feed, err := db.Changes(t.Context(), statedb.Backlog, token)
	if err != nil {
		t.Fatalf("the token %s after a crash: %v", token, err)
	}
	defer feed.Close()
	after := map[string]bool{}
	for {
		batch, err := feed.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range batch.Changes {
			after[c.ID] = true
		}
		if batch.CaughtUp {
			break
		}
	}
	for id := range found {
		if !told[id] && !after[id] {
			t.Fatalf("after a crash the feed never tells of %s", id)
		}
	}
}

// failing makes a disk fail on demand.
type failing struct {
	on     atomic.Bool
	suffix string // of the files that fail; "" is all
}

func (f *failing) String() string { return "failing" }

func (f *failing) MaybeError(op errorfs.Op) error {
	if f.on.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasSuffix(op.Path, f.suffix) {
		return &os.PathError{Op: "write", Path: op.Path, Err: errors.New("no space left on device")}
	}
	return nil
}

// within fails the test when f takes longer than anything here should.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s hangs", what)
	}
}

// TestDiskFails: when the log cannot be written, writers that wait and all who
// come later get ErrUnavailable, nothing hangs or ends the process, and what
// was acknowledged is there when the folder is opened on a healthy disk.
func TestDiskFails(t *testing.T) {
	for _, suffix := range []string{".log", ""} {
		t.Run("files"+suffix, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			fault := &failing{suffix: suffix}
			db, err := Open("disk", Options{FS: errorfs.Wrap(disk, fault)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Create(t.Context()); err != nil {
				t.Fatal(err)
			}
			var acknowledged sync.Map
			var started, wg sync.WaitGroup
			started.Add(4)
			for i := range 4 {
				wg.Go(func() {
					for n := 0; ; n++ {
						id := fmt.Sprintf("w%d-%d", i, n)
						_, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: id, Body: []byte(`{}`)}})
						if n == 10 {
							started.Done()
						}
						if errors.Is(err, statedb.ErrUnavailable) {
							return
						}
						if err != nil {
							t.Errorf("Write on a failing disk: %v, want ErrUnavailable", err)
							return
						}
						acknowledged.Store(id, true)
					}
				})
			}
			started.Wait()
			feed, err := db.Changes(t.Context(), statedb.Votes, "")
			if err != nil {
				t.Fatal(err)
			}
			fault.on.Store(true)
			within(t, "a writer", wg.Wait)
			within(t, "a later operation", func() {
				_, err := db.Get(t.Context(), statedb.Votes, []string{"w0-0"})
				if !errors.Is(err, statedb.ErrUnavailable) {
					t.Errorf("Get after the disk failed: %v, want ErrUnavailable", err)
				}
				if err := db.Health(t.Context()); !errors.Is(err, statedb.ErrUnavailable) {
					t.Errorf("Health after the disk failed: %v, want ErrUnavailable", err)
				}
				for err = nil; err == nil; {
					_, err = feed.Next(t.Context())
				}
				if !errors.Is(err, statedb.ErrUnavailable) {
					t.Errorf("Next after the disk failed: %v, want ErrUnavailable", err)
				}
			})
			within(t, "Close", func() { db.Close() })

			again := opened(t, "disk", Options{FS: disk.CrashClone(vfs.CrashCloneCfg{})})
			checkStore(t, again)
			acknowledged.Range(func(id, _ any) bool {
				d, err := again.Get(t.Context(), statedb.Votes, []string{id.(string)})
				if err != nil || d[0].Rev == "" {
					t.Errorf("%s was acknowledged and is gone: %v", id, err)
				}
				return true
			})
		})
	}
}

// TestFlushFails: a disk that takes the log but no tables refuses writes in
// time, goes on reading, and recovers by itself.
func TestFlushFails(t *testing.T) {
	fault := &failing{suffix: ".sst"}
	db := opened(t, "disk", Options{FS: errorfs.Wrap(vfs.NewMem(), fault)})
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	fault.on.Store(true)
	body := []byte(`{"pad":"` + strings.Repeat("x", 100_000) + `"}`)
	n := 0
	write := func() error {
		n++
		_, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: fmt.Sprint("id", n), Body: body}})
		return err
	}
	within(t, "a write on a full disk", func() {
		var err error
		for err == nil {
			err = write()
		}
		if !errors.Is(err, statedb.ErrUnavailable) {
			t.Errorf("Write: %v, want ErrUnavailable", err)
		}
		if d, err := db.Get(t.Context(), statedb.Votes, []string{"id1"}); err != nil || d[0].Rev == "" {
			t.Errorf("Get while flushes fail: %v", err)
		}
	})
	fault.on.Store(false)
	deadline := time.Now().Add(20 * time.Second)
	for write() != nil {
		if time.Now().After(deadline) {
			t.Fatal("the store does not recover")
		}
		time.Sleep(time.Millisecond)
	}
}
