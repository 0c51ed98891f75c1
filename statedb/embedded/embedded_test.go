package embedded

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/couchledger/couchledger/statedb"
)

func open(t *testing.T, dir string) *DB {
	db, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Create(context.Background()); err != nil {
		t.Fatal(err)
	}
	return db
}

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := open(t, dir)
	var ws []statedb.Write
	for i := range 2500 {
		ws = append(ws, statedb.Write{ID: fmt.Sprintf("d%04d", i), Body: []byte(`{"a":1}`)})
	}
	res, err := db.Write(ctx, statedb.Backlog, ws)
	if err != nil || res[0].Err != nil || res[0].Rev == "" {
		t.Fatal(err, res[0])
	}
	res, err = db.Write(ctx, statedb.Backlog, ws[:1])
	if err != nil || !errors.Is(res[0].Err, statedb.ErrConflict) {
		t.Fatal(err, res)
	}
	f, err := db.Changes(ctx, statedb.Backlog, "")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		b, err := f.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n += len(b.Changes)
		if b.CaughtUp {
			break
		}
	}
	if n != 2500 {
		t.Fatal(n)
	}
	if err := db.Remove(ctx, statedb.Backlog, []string{"d0001", "nope"}); err != nil {
		t.Fatal(err)
	}
	p, err := db.Range(ctx, statedb.Backlog, statedb.Range{Start: "d0001", Limit: 3})
	if err != nil || p.Documents[0].ID != "d0002" || p.Bookmark == "" {
		t.Fatal(err, p)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, statedb.ErrLocked) {
		t.Fatal(err)
	}
	if err := db.Drop(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Get(ctx, statedb.Votes, []string{"x"}); !errors.Is(err, statedb.ErrNoDatabase) {
		t.Fatal(err)
	}
}
