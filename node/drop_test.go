package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// A dropped ledger takes this node's state with it, but not that of a node
// that runs, and not that of another ledger.
func TestDrop(t *testing.T) {
	folder, elsewhere := t.TempDir(), t.TempDir()
	db, other := openEmbedded(t, folder), openEmbedded(t, elsewhere)
	t.Cleanup(func() { db.Close(); other.Close() })
	key := ledger.GenerateKeyPair()
	n := startNode(t, folder, key, sharing(db))
	state := filepath.Join(folder, "state")
	if err := Drop(t.Context(), db, state); !errors.Is(err, kv.ErrLocked) {
		t.Fatalf("while the node runs: got %v, want %v", err, kv.ErrLocked)
	}
	// As a crash while a rebuilt chainstate got its usual name leaves it.
	if err := os.WriteFile(filepath.Join(state, switchedFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Drop(t.Context(), db, state); !errors.Is(err, kv.ErrLocked) {
		t.Fatalf("while a node runs that was changed over: got %v, want %v", err, kv.ErrLocked)
	}
	tx := newCreate(t, ledger.GenerateKeyPair(), 1)
	n.mustPost(t, tx)
	n.mustBecomeValid(t, tx)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(context.WithoutCancel(t.Context()), other, key, nil, nil); err != nil {
		t.Fatal(err)
	}
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(state, name))
		return err == nil
	}
	if err := Drop(t.Context(), other, state); err != nil || !there(chainstateFolder) || !there(journalFolder) {
		t.Fatalf("the drop of another ledger: %v; the state is there: %v, %v", err, there(chainstateFolder), there(journalFolder))
	}
	if err := Drop(t.Context(), db, state); err != nil || there(chainstateFolder) || there(journalFolder) {
		t.Fatalf("the drop: %v; the state is there: %v, %v", err, there(chainstateFolder), there(journalFolder))
	}
	if err := Drop(t.Context(), db, state); !errors.Is(err, statedb.ErrNoDatabase) {
		t.Fatalf("a second drop: got %v, want %v", err, statedb.ErrNoDatabase)
	}
}

// What a node keeps of a ledger is not dropped with an unfinished restore of it.
func TestDropUnfinishedRestore(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	state := filepath.Join(folder, "state")
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(db))
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	for _, wiped := range []string{"", chainstateFolder} {
		if _, err := db.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		if wiped != "" {
			if err := os.RemoveAll(filepath.Join(state, wiped)); err != nil {
				t.Fatal(err)
			}
		}
		results, err := db.Write(t.Context(), statedb.Bigchain, []statedb.Write{{ID: RestoreMarker, Body: []byte(`{}`)}})
		if err != nil || results[0].Err != nil {
			t.Fatal(err, results)
		}
		if err := Drop(t.Context(), db, state); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(state, journalFolder)); err != nil {
			t.Errorf("without %q: %v", wiped, err)
		}
	}
}
