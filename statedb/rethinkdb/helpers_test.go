package rethinkdb

import (
	"context"
	"testing"
	"time"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// table is where tests do what they do in one table.
const table = statedb.Transactions

// patience is how long tests wait for what must come.
const patience = 60 * time.Second

// made opens a ledger that is dropped when the test ends.
func made(t testing.TB, opts Options) *DB {
	t.Helper()
	db := open(t, opts)
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test may have closed it, or hurt its server.
		if again, err := Open(context.WithoutCancel(t.Context()), opts); err == nil {
			_ = again.Drop(context.WithoutCancel(t.Context()))
			again.Close()
		}
		db.Close()
	})
	return db
}

// write expects all writes to succeed and returns the revisions.
func write(t testing.TB, db *DB, writes ...statedb.Write) (revs []string) {
	t.Helper()
	results, err := db.Write(t.Context(), table, writes)
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range results {
		if result.Err != nil {
			t.Fatalf("Write of %s: %v", writes[i].ID, result.Err)
		}
		revs = append(revs, result.Rev)
	}
	return revs
}

// put writes bodies under ids.
func put(t testing.TB, db *DB, documents ...string) {
	t.Helper()
	var writes []statedb.Write
	for i := 0; i < len(documents); i += 2 {
		writes = append(writes, statedb.Write{ID: documents[i], Body: []byte(documents[i+1])})
	}
	write(t, db, writes...)
}

// plant stores rows as another program would, past the adapter.
func plant(t testing.TB, db *DB, rows ...string) {
	t.Helper()
	for _, row := range rows {
		done, err := db.one(t.Context(), "plant", db.table(table).Insert(r.JSON(row), r.InsertOpts{Conflict: "replace"}), nil)
		if fault, failed := done.Get("first_error"); err != nil || failed {
			t.Fatalf("%.80s: %v %s", row, err, fault.Text())
		}
	}
}

// find reads all pages and returns the ids in order.
func find(t testing.TB, db *DB, q statedb.Query) (ids []string) {
	t.Helper()
	for {
		page, err := db.Find(t.Context(), table, q)
		if err != nil {
			t.Fatalf("Find %s: %v", q.Selector.Bytes(), err)
		}
		for _, d := range page.Documents {
			ids = append(ids, d.ID)
		}
		if q.Bookmark = page.Bookmark; q.Bookmark == "" {
			return ids
		}
	}
}

// follow reads a feed until it has caught up: each document's last row.
func follow(t testing.TB, db *DB, since string) (rows map[string]statedb.Change, token string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	feed, err := db.Changes(ctx, table, since)
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	rows = map[string]statedb.Change{}
	for {
		batch, err := feed.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range batch.Changes {
			rows[c.ID] = c
		}
		if batch.CaughtUp {
			return rows, batch.Token
		}
	}
}

func index(name string, fields ...string) statedb.Index {
	ix := statedb.Index{Name: name, DDoc: name}
	for _, f := range fields {
		ix.Fields = append(ix.Fields, statedb.SortField{Field: f})
	}
	return ix
}

func deploy(t testing.TB, db *DB, indexes ...statedb.Index) {
	t.Helper()
	if err := db.DeployIndexes(t.Context(), table, indexes, nil); err != nil {
		t.Fatal(err)
	}
}

func parse(t testing.TB, text string) canonical.Value {
	t.Helper()
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
