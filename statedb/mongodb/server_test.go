package mongodb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
)

// patience is how long a test waits for anything.
const patience = 30 * time.Second

// made opens a ledger that is dropped when the test ends.
func made(t testing.TB, opts Options) *DB {
	t.Helper()
	db := open(t, opts)
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = db.Drop(context.WithoutCancel(t.Context())) // its server may be gone
		db.Close()
	})
	return db
}

func put(t testing.TB, db *DB, table, id, rev, body string) string {
	t.Helper()
	results, err := db.Write(t.Context(), table, []statedb.Write{{ID: id, Rev: rev, Body: []byte(body)}})
	if err != nil || results[0].Err != nil {
		t.Fatalf("Write of %s: %v, %v", id, results, err)
	}
	return results[0].Rev
}

// follow opens a feed and reads until it has caught up.
func follow(t testing.TB, db *DB, table, since string) (statedb.Feed, map[string]statedb.Change, string) {
	t.Helper()
	feed, err := db.Changes(t.Context(), table, since)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { feed.Close() })
	rows := map[string]statedb.Change{}
	for {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		batch, err := feed.Next(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range batch.Changes {
			rows[c.ID] = c
		}
		if batch.CaughtUp {
			return feed, rows, batch.Token
		}
	}
}

func TestOpenFails(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	var text strings.Builder
	_, err = Open(t.Context(), Options{
		Host: "127.0.0.1", Port: port, Name: "x", Login: "user", Password: "hunter2", MaxTries: 2, ConnectTimeout: 100 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&text, nil)),
	})
	if !errors.Is(err, statedb.ErrUnavailable) || !strings.Contains(err.Error(), "tried 2 times") {
		t.Errorf("no server: %v", err)
	}
	if !strings.Contains(text.String(), "does not answer yet") || strings.Contains(text.String()+fmt.Sprint(err), "hunter2") {
		t.Errorf("the log: %s", text.String())
	}
	for _, name := range []string{"", "a.b", "a b", "a/b", "admin", "local", "config", strings.Repeat("x", 64)} {
		if _, err := Open(t.Context(), Options{Host: "127.0.0.1", Port: port, Name: name, MaxTries: 1}); err == nil || errors.Is(err, statedb.ErrUnavailable) {
			t.Errorf("the name %q: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Options{Host: "127.0.0.1", Port: port, Name: "x", ConnectTimeout: 50 * time.Millisecond}); err == nil {
		t.Error("a server that is not there was opened")
	}
}

// The log says what the server is and how changes are followed.
func TestOpenTells(t *testing.T) {
	address := mongotest.Shared(t)
	var text strings.Builder
	opts := optionsFor(address)
	opts.ReplicaSet, opts.Logger, opts.Registry = "some-set", slog.New(slog.NewTextHandler(&text, nil)), prometheus.NewRegistry()
	db, err := Open(t.Context(), opts)
	if address.ReplicaSet != "" {
		if err == nil || !strings.Contains(err.Error(), "database.replicaset") || errors.Is(err, statedb.ErrUnavailable) {
			t.Errorf("another replica set: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, want := range []string{"FerretDB", "polling", "not in a replica set", "some-set"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the log does not say %q: %s", want, text.String())
		}
	}
	_ = db.Health(t.Context()) // there is no database
	gathered, err := opts.Registry.(*prometheus.Registry).Gather()
	if err != nil || len(gathered) != 2 || len(gathered[1].GetMetric()) == 0 {
		t.Errorf("metrics: %v, %v", gathered, err)
	}
}

func TestCheckSet(t *testing.T) {
	for _, test := range []struct {
		want, got string
		router    bool
		fault     string
	}{
		{"", "", false, ""}, {"", "rs", false, ""}, {"rs", "rs", false, ""}, {"rs", "", false, ""}, {"rs", "", true, ""},
		{"rs", "other", false, `MongoDB at h:1 is in the replica set "other", and database.replicaset names "rs"`},
	} {
		db := &DB{opts: Options{ReplicaSet: test.want}, address: "h:1", server: server{set: test.got, router: test.router}, log: slog.New(slog.DiscardHandler)}
		err := db.checkSet()
		if (err == nil) != (test.fault == "") || err != nil && err.Error() != test.fault {
			t.Errorf("want %q, is %q, router %v: %v", test.want, test.got, test.router, err)
		}
	}
}

// What others put into the collections stands in nobody's way.
func TestForeignDocuments(t *testing.T) {
	opts := optionsFor(mongotest.Shared(t))
	opts.likeMongoDB = true
	db := made(t, opts)
	index := statedb.Index{Name: "n", DDoc: "n", Fields: []statedb.SortField{{Field: "n"}, {Field: "m"}}}
	if err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{index}, nil); err != nil {
		t.Fatal(err)
	}
	put(t, db, statedb.Votes, "good", "", `{"n":1,"m":1}`)
	foreign := []any{
		bson.D{{Key: "_id", Value: bson.NewObjectID()}, {Key: "n", Value: 1}, {Key: "m", Value: 1}},
		bson.D{{Key: "_id", Value: 7}, {Key: "_rev", Value: "1-a"}, {Key: "n", Value: 1}},
		bson.D{{Key: "_id", Value: "_under"}, {Key: "n", Value: 1}},
		bson.D{{Key: "_id", Value: ""}, {Key: "n", Value: 1}, {Key: "m", Value: 1}},
		bson.D{{Key: "_id", Value: "norev"}, {Key: "n", Value: 2}, {Key: "m", Value: time.Now()}},
		bson.D{{Key: "_id", Value: "oddrev"}, {Key: "_rev", Value: 5}, {Key: "n", Value: bson.NewObjectID()}, {Key: "m", Value: bson.Regex{Pattern: "a"}}},
		bson.D{{Key: "_id", Value: "plain"}, {Key: "_rev", Value: ""}, {Key: "_deleted", Value: "no"}, {Key: "n", Value: 3}, {Key: "m", Value: 3}},
	}
	if _, err := db.mongo.Collection(statedb.Votes).InsertMany(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	_, rows, _ := follow(t, db, statedb.Votes, "")
	if len(rows) != 4 || rows["norev"].Rev != foreignRev || rows["oddrev"].Deleted || rows["plain"].Deleted {
		t.Errorf("the feed: %v", rows)
	}
	page, err := db.Range(t.Context(), statedb.Votes, statedb.Range{Limit: 10})
	if err != nil || len(page.Documents) != 4 {
		t.Errorf("Range: %+v, %v", page, err)
	}
	for _, q := range []statedb.Query{
		{Selector: parse(t, `{}`)},
		{Selector: parse(t, `{"n":{"$gt":null}}`), Sort: []statedb.SortField{{Field: "n"}, {Field: "m"}}},
		{Selector: parse(t, `{"n":{"$gt":null}}`), Sort: []statedb.SortField{{Field: "n", Descending: true}, {Field: "m", Descending: true}}},
	} {
		found := map[string]int{}
		for q.Limit = 1; ; {
			page, err := db.Find(t.Context(), statedb.Votes, q)
			if err != nil {
				t.Fatalf("%s: %v", q.Selector.Bytes(), err)
			}
			for _, d := range page.Documents {
				found[d.ID]++
			}
			if q.Bookmark = page.Bookmark; q.Bookmark == "" {
				break
			}
		}
		if found["good"] != 1 || found["plain"] != 1 {
			t.Errorf("%s by %v found %v", q.Selector.Bytes(), q.Sort, found)
		}
	}
	opts.likeMongoDB = false // FerretDB has no $expr that could tell
	db = open(t, opts)
	defer db.Close()
	for _, id := range []string{"norev", "oddrev", "plain"} {
		documents, err := db.Get(t.Context(), statedb.Votes, []string{id})
		if err != nil || documents[0].Rev != foreignRev {
			t.Fatalf("%+v, %v", documents, err)
		}
		rev := put(t, db, statedb.Votes, id, foreignRev, `{"mine":true}`)
		results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: id, Rev: foreignRev, Body: []byte(`{"mine":false}`)}})
		if err != nil || !errors.Is(results[0].Err, statedb.ErrConflict) {
			t.Errorf("%s is at %s and was overwritten again: %v, %v", id, rev, results, err)
		}
	}
}

// A collection that was dropped or made anew under a running node is not used
// as if nothing had happened.
func TestDroppedUnderANode(t *testing.T) {
	opts := optionsFor(mongotest.Shared(t))
	db := made(t, opts)
	put(t, db, statedb.Votes, "a", "", `{}`)
	feed, _, token := follow(t, db, statedb.Votes, "")
	other := open(t, opts)
	defer other.Close()
	if err := other.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := feed.Next(ctx); !errors.Is(err, statedb.ErrNoDatabase) {
		t.Errorf("the feed: %v", err)
	}
	if _, err := other.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Health(t.Context()); !errors.Is(err, statedb.ErrNoDatabase) {
		t.Errorf("Health: %v", err)
	}
	_, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: "b", Body: []byte(`{}`)}})
	if !errors.Is(err, statedb.ErrNoDatabase) {
		t.Errorf("Write: %v", err)
	}
	if _, err := other.Changes(t.Context(), statedb.Votes, token); !errors.Is(err, statedb.ErrBadToken) {
		t.Errorf("the old token: %v", err)
	}
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, db, statedb.Votes, "b", "", `{}`)
}

// Writers and a follower live through a server that is killed and started
// again: what was acknowledged is there, and is told.
func TestServerKilled(t *testing.T) {
	server := mongotest.Start(t)
	opts := optionsFor(server.Address)
	opts.ConnectTimeout, opts.RequestTimeout = 500*time.Millisecond, 5*time.Second
	db := made(t, opts)
	var mu sync.Mutex
	acknowledged := map[string]string{}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	writing, stopWriting := context.WithCancel(ctx)
	var writers, reader sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := 0; writing.Err() == nil; i++ {
				id := fmt.Sprintf("w%d-%04d", w, i)
				results, err := db.Write(ctx, statedb.Bigchain, []statedb.Write{{ID: id, Body: []byte(`{"n":1}`)}})
				switch {
				case err == nil && results[0].Err == nil:
					mu.Lock()
					acknowledged[id] = results[0].Rev
					mu.Unlock()
				case ctx.Err() != nil:
				case !errors.Is(err, statedb.ErrUnavailable):
					t.Errorf("Write of %s: %v, %v", id, results, err)
					return
				}
			}
		})
	}
	seen := map[string]string{}
	reader.Go(func() {
		token := ""
		for ctx.Err() == nil {
			feed, err := db.Changes(ctx, statedb.Bigchain, token)
			for err == nil {
				var batch statedb.Batch
				if batch, err = feed.Next(ctx); err == nil {
					token = batch.Token
					mu.Lock()
					for _, c := range batch.Changes {
						seen[c.ID] = c.Rev
					}
					mu.Unlock()
				}
			}
			if ctx.Err() == nil && !errors.Is(err, statedb.ErrUnavailable) {
				t.Errorf("the feed: %v", err)
				return
			}
		}
	})
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	await := func(what string, reached func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !reached(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s did not come within %v", what, patience)
			}
		}
	}
	for range 3 {
		before := count()
		await("more writes", func() bool { return count() >= before+20 })
		server.Kill()
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
	}
	before := count()
	await("writes after the kills", func() bool { return count() >= before+5 })
	stopWriting()
	writers.Wait()
	await("rows of all that was acknowledged", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for id, rev := range acknowledged {
			if seen[id] != rev {
				return false
			}
		}
		return true
	})
	stop()
	reader.Wait()
	for id, rev := range acknowledged {
		documents, err := db.Get(t.Context(), statedb.Bigchain, []string{id})
		if err != nil || documents[0].Rev != rev {
			t.Fatalf("%s was acknowledged at %s and is %+v, %v", id, rev, documents, err)
		}
	}
}

// A server that hangs fails what is asked of it in time, and feeds too.
func TestServerHangs(t *testing.T) {
	server := mongotest.Start(t)
	opts := optionsFor(server.Address)
	opts.ConnectTimeout, opts.RequestTimeout, opts.patience = 500*time.Millisecond, time.Second, 500*time.Millisecond
	db := made(t, opts)
	put(t, db, statedb.Votes, "a", "", `{}`)
	feed, _, token := follow(t, db, statedb.Votes, "")
	if err := server.Suspend(); err != nil {
		t.Fatal(err)
	}
	resumed := false
	defer func() {
		if !resumed {
			_ = server.Resume()
		}
	}()
	began := time.Now()
	_, err := db.Get(t.Context(), statedb.Votes, []string{"a"})
	if !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("Get: %v", err)
	}
	_, err = db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: "b", Body: []byte(`{}`)}})
	if !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("Write: %v", err)
	}
	if err := db.Health(t.Context()); !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("Health: %v", err)
	}
	if _, err := feed.Next(t.Context()); !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("the feed: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to notice", took)
	}
	resumed = true
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if err = db.Health(t.Context()); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server goes on, and Health says %v", err)
		}
	}
	_, rows, _ := follow(t, db, statedb.Votes, token)
	if rows["a"].Rev == "" {
		t.Errorf("the feed after the hang: %v", rows)
	}
}
