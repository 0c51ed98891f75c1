package rethinkdb

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
	"github.com/couchledger/couchledger/statedb/statedbtest/faultproxy"
)

// reader follows a feed over all its ends and opens it anew.
type reader struct {
	mu   sync.Mutex
	rows map[string]statedb.Change
}

func (r *reader) run(ctx context.Context, t *testing.T, db *DB) {
	token := ""
	for ctx.Err() == nil {
		feed, err := db.Changes(ctx, table, token)
		for err == nil {
			var batch statedb.Batch
			if batch, err = feed.Next(ctx); err != nil {
				feed.Close()
				break
			}
			token = batch.Token
			r.mu.Lock()
			for _, c := range batch.Changes {
				r.rows[c.ID] = c
			}
			r.mu.Unlock()
		}
		if ctx.Err() == nil && !errors.Is(err, statedb.ErrUnavailable) {
			t.Errorf("the feed ended with %v, want ErrUnavailable", err)
			return
		}
		_ = statedb.Sleep(ctx, 50*time.Millisecond)
	}
}

func (r *reader) has(revs map[string]string) (missing string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, rev := range revs {
		if r.rows[id].Rev != rev {
			return id
		}
	}
	return ""
}

// awaitAll waits until the feed told of everything.
func (r *reader) awaitAll(t *testing.T, revs map[string]string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		missing := r.has(revs)
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the feed never told of %s", missing)
		}
	}
}

// A server that is killed under writes and feeds and started again has what
// it said it had, and the feed goes on over it.
func TestKilled(t *testing.T) {
	server := rethinktest.Start(t)
	opts := optionsFor(server.Address)
	opts.RequestTimeout = 10 * time.Second
	db := made(t, opts)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	read := reader{rows: map[string]statedb.Change{}}
	group.Go(func() { read.run(ctx, t, db) })

	revs, failures := map[string]string{}, 0
	for i := range 300 {
		if i == 100 || i == 200 {
			// In the middle of a write.
			killed := make(chan struct{})
			go func() {
				defer close(killed)
				server.Kill()
			}()
			defer func() { <-killed }()
		}
		var writes []statedb.Write
		for k := range 20 {
			writes = append(writes, statedb.Write{ID: fmt.Sprintf("k%03d-%02d", i, k), Body: []byte(`{"n":1}`)})
		}
		results, err := db.Write(ctx, table, writes)
		if err != nil {
			if failures++; !errors.Is(err, statedb.ErrUnavailable) {
				t.Fatalf("Write to a server that was killed: %v, want ErrUnavailable", err)
			}
			server.Kill() // waits until it is gone
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(patience); db.Health(ctx) != nil; time.Sleep(20 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("after a restart: %v", db.Health(ctx))
				}
			}
			continue
		}
		for k, result := range results {
			if result.Err != nil {
				t.Fatal(result.Err)
			}
			revs[writes[k].ID] = result.Rev
		}
	}
	if failures < 2 {
		t.Errorf("the server was killed twice and %d writes failed", failures)
	}
	documents := map[string]string{}
	r := statedb.Range{Limit: 1000}
	for {
		page, err := db.Range(ctx, table, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Documents {
			documents[d.ID] = d.Rev
		}
		if r.Bookmark = page.Bookmark; r.Bookmark == "" {
			break
		}
	}
	for id, rev := range revs {
		if documents[id] != rev {
			t.Fatalf("%s was written as %s and is %q", id, rev, documents[id])
		}
	}
	read.awaitAll(t, revs)
}

// A server that hangs ends requests in the time they have, feeds after some
// heartbeats, and attempts to connect; and it works when it goes on.
func TestHangs(t *testing.T) {
	server := rethinktest.Start(t)
	opts := optionsFor(server.Address)
	opts.RequestTimeout, opts.ConnectTimeout, opts.heartbeat = 2*time.Second, time.Second, 300*time.Millisecond
	db := made(t, opts)
	put(t, db, "a", `{"n":1}`)
	feed, err := db.Changes(t.Context(), table, "")
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	for caughtUp := false; !caughtUp; {
		batch, err := feed.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		caughtUp = batch.CaughtUp
	}
	if err := server.Suspend(); err != nil {
		t.Fatal(err)
	}
	resumed := false
	defer func() {
		if !resumed {
			_ = server.Resume()
		}
	}()
	const slack = 3 * time.Second
	timed := func(what string, most time.Duration, do func() error) {
		t.Helper()
		start := time.Now()
		err := do()
		if took := time.Since(start); !errors.Is(err, statedb.ErrUnavailable) || took > most+slack {
			t.Errorf("%s on a server that hangs: %v after %v, want ErrUnavailable within %v", what, err, took, most)
		}
	}
	timed("Next", deadBeats*opts.heartbeat+opts.heartbeat, func() error {
		_, err := feed.Next(t.Context())
		return err
	})
	for range 2 { // on a connection that is there, then on a new one
		timed("Get", opts.RequestTimeout, func() error {
			_, err := db.Get(t.Context(), table, []string{"a"})
			return err
		})
	}
	timed("Write", opts.RequestTimeout, func() error {
		_, err := db.Write(t.Context(), table, []statedb.Write{{ID: "b", Body: []byte(`{}`)}})
		return err
	})
	timed("Changes", opts.RequestTimeout, func() error {
		_, err := db.Changes(t.Context(), table, "")
		return err
	})
	timed("Open", opts.ConnectTimeout, func() error {
		_, err := Open(t.Context(), opts)
		return err
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := db.Get(ctx, table, []string{"a"}); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("Get with a context that ends: %v", err)
	}
	resumed = true
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	if d, err := db.Get(t.Context(), table, []string{"a"}); err != nil || d[0].Rev == "" {
		t.Errorf("Get when it goes on: %v, %v", d, err)
	}
	rows, _ := follow(t, db, "")
	if _, ok := rows["a"]; !ok {
		t.Errorf("the feed when it goes on: %v", rows)
	}
}

// A feed without changes is kept for as long as the server answers.
func TestSilentFeedStays(t *testing.T) {
	opts := optionsFor(rethinktest.Shared(t))
	opts.heartbeat, opts.RequestTimeout = 20*time.Millisecond, 200*time.Millisecond
	db := made(t, Options{Host: opts.Host, Port: opts.Port, Login: opts.Login, Password: opts.Password, Name: opts.Name})
	quick := open(t, opts)
	defer quick.Close()
	feed, err := quick.Changes(t.Context(), table, "")
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	if batch, err := feed.Next(t.Context()); err != nil || !batch.CaughtUp {
		t.Fatal(batch, err)
	}
	// Many heartbeats, and longer than a request may take.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	written := make(chan struct{})
	time.AfterFunc(5*opts.RequestTimeout, func() {
		defer close(written)
		if _, err := db.Write(ctx, table, []statedb.Write{{ID: "late", Body: []byte(`{}`)}}); err != nil {
			t.Error(err)
		}
	})
	if batch, err := feed.Next(ctx); err != nil || len(batch.Changes) != 1 || batch.Changes[0].ID != "late" {
		t.Errorf("after a long silence: %+v, %v", batch, err)
	}
	<-written
}

// Changes that nobody takes overflow the server's queue: the feed ends, and
// the next one has them all.
func TestFeedOverflow(t *testing.T) {
	opts := optionsFor(rethinktest.Shared(t))
	opts.feedQueue = 10
	db := made(t, opts)
	feed, err := db.Changes(t.Context(), table, "")
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	const batches, each = 20, 500
	for i := range batches {
		write(t, db, batchOf(each, i*each)...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := 0
	for err == nil {
		var batch statedb.Batch
		if batch, err = feed.Next(ctx); err == nil {
			if seen += len(batch.Changes); seen == batches*each {
				t.Skip("not tested: the server dropped nothing")
			}
		}
	}
	if !errors.Is(err, statedb.ErrUnavailable) || !isIn(err, "dropped") {
		t.Errorf("the feed ended with %v, want that changes were dropped", err)
	}
	if rows, _ := follow(t, db, ""); len(rows) != batches*each {
		t.Errorf("the next feed has %d rows, want %d", len(rows), batches*each)
	}
}

// An answer that is cut at any place is no answer, a write is not sent twice,
// and nothing is left behind.
func TestCut(t *testing.T) {
	address := rethinktest.Shared(t)
	opts := optionsFor(address)
	made(t, opts)
	proxy := faultproxy.New(t, address.Host, address.Port)
	through := opts
	through.Host, through.Port = proxy.Host, proxy.Port
	through.RequestTimeout = 5 * time.Second
	before := runtime.NumGoroutine()
	db := open(t, through)
	known := map[string]bool{}
	for i := range 60 {
		proxy.CutAfterRandom(0, 2000)
		id := fmt.Sprintf("c%03d", i)
		results, err := db.Write(t.Context(), table, []statedb.Write{{ID: id, Body: []byte(`{}`)}})
		switch {
		case err != nil && !errors.Is(err, statedb.ErrUnavailable):
			t.Fatalf("a cut write: %v", err)
		case err == nil && results[0].Err != nil:
			t.Fatalf("%s conflicts with itself: %v", id, results[0].Err)
		case err == nil:
			known[id] = true
		}
		if _, err := db.Range(t.Context(), table, statedb.Range{Limit: 100}); err != nil && !errors.Is(err, statedb.ErrUnavailable) {
			t.Fatalf("a cut range: %v", err)
		}
		if feed, err := db.Changes(t.Context(), table, ""); err == nil {
			_, err = feed.Next(t.Context())
			feed.Close()
			if err != nil && !errors.Is(err, statedb.ErrUnavailable) {
				t.Fatalf("a cut feed: %v", err)
			}
		} else if !errors.Is(err, statedb.ErrUnavailable) {
			t.Fatalf("Changes over a cut connection: %v", err)
		}
	}
	if proxy.Hits() == 0 || len(known) == 0 {
		t.Errorf("%d connections were cut, %d writes succeeded", proxy.Hits(), len(known))
	}
	proxy.Clear()
	for id := range known {
		if d, err := db.Get(t.Context(), table, []string{id}); err != nil || d[0].Rev == "" {
			t.Errorf("%s is gone: %v", id, err)
		}
	}
	// An idle connection that broke meanwhile is not used.
	proxy.Cut()
	allBroken := func() bool {
		db.mu.Lock()
		defer db.mu.Unlock()
		return !slices.ContainsFunc(db.idle, func(c *conn) bool { return !c.isBroken() })
	}
	for deadline := time.Now().Add(patience); !allBroken(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a connection that was cut is not known to be broken")
		}
	}
	if _, err := db.Get(t.Context(), table, []string{"x"}); err != nil {
		t.Errorf("the request after all connections broke: %v", err)
	}
	db.Close()
	proxy.Cut()
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// A dropped table ends its feed.
func TestDroppedTableEndsFeed(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	feed, err := db.Changes(t.Context(), table, "")
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := feed.Next(ctx); err != nil {
		t.Fatal(err)
	}
	if err := db.Drop(ctx); err != nil {
		t.Fatal(err)
	}
	if batch, err := feed.Next(ctx); !errors.Is(err, statedb.ErrUnavailable) && !errors.Is(err, statedb.ErrNoDatabase) {
		t.Errorf("the feed of a dropped table: %+v, %v", batch, err)
	}
	if _, err := db.Changes(ctx, table, ""); !errors.Is(err, statedb.ErrNoDatabase) {
		t.Errorf("Changes of a dropped table: %v", err)
	}
}
