package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// peered is a database that is copied from others.
type peered struct{ statedb.DB }

func (peered) HasPeers(context.Context) (bool, error)  { return true, nil }
func (peered) TendPeers(context.Context) (bool, error) { return true, nil }

func (peered) ReadRevisions(context.Context, string, string, []string) ([]statedb.Revision, error) {
	return nil, errors.New("nothing is left out")
}

// TestAwaitGenesis: who has peers does not begin a ledger of his own.
func TestAwaitGenesis(t *testing.T) {
	db := peered{openEmbedded(t, t.TempDir())}
	t.Cleanup(func() { db.Close() })
	key := ledger.GenerateKeyPair()
	if created, err := Init(t.Context(), db, key, nil, nil); !created || !errors.Is(err, ErrAwaitsGenesis) {
		t.Fatalf("got %v, %v, want ErrAwaitsGenesis", created, err)
	}
	if _, err := readGenesis(t.Context(), db, ""); !errors.Is(err, ErrNotInitialized) {
		t.Errorf("got %v, want ErrNotInitialized", err)
	}
	other := openEmbedded(t, t.TempDir())
	t.Cleanup(func() { other.Close() })
	put(t, db, statedb.Bigchain, genesisID, genesisDocument(t, other))
	if _, err := Init(t.Context(), db, key, nil, nil); err != nil {
		t.Errorf("the genesis block has come: got %v", err)
	}
}

// genesisDocument makes a ledger and returns the document that claims its first
// block.
func genesisDocument(t *testing.T, db statedb.DB) []byte {
	t.Helper()
	if _, err := Init(t.Context(), db, ledger.GenerateKeyPair(), nil, nil); err != nil {
		t.Fatal(err)
	}
	documents, err := db.Get(t.Context(), statedb.Bigchain, []string{genesisID})
	if err != nil {
		t.Fatal(err)
	}
	return documents[0].Body
}

// TestSeveralGenesisBlocks: two are refused by who is new, with both ids; who knows
// the ledger stays with it, whatever a peer claims.
func TestSeveralGenesisBlocks(t *testing.T) {
	folder, key := t.TempDir(), ledger.GenerateKeyPair()
	own, other := openEmbedded(t, folder), openEmbedded(t, t.TempDir())
	t.Cleanup(func() { own.Close() })
	t.Cleanup(func() { other.Close() })
	db := &meeting{DB: own, others: map[string][]statedb.Revision{}}
	n := startNode(t, filepath.Join(folder, "known"), key, sharing(db))
	ids := []string{n.genesis.ID}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	rival := genesisDocument(t, other)
	db.mu.Lock()
	db.others[genesisID] = []statedb.Revision{{Rev: "1-rival", Body: rival}, {Rev: "1-garbage", Body: []byte(`{}`)}}
	db.mu.Unlock()
	theirs, err := parseGenesis(rival)
	if err != nil {
		t.Fatal(err)
	}
	ids = append(ids, theirs.ID)

	refused := func(what string, err error) {
		t.Helper()
		if several := (*OtherGenesisError)(nil); !errors.As(err, &several) {
			t.Fatalf("%s: got %v", what, err)
		}
		for _, id := range ids {
			if !strings.Contains(err.Error(), id) {
				t.Errorf("%s: %v does not name %s", what, err, id)
			}
		}
	}
	_, err = Init(t.Context(), db, key, nil, nil)
	refused("Init", err)
	_, err = Open(t.Context(), Options{DB: db, StatePath: filepath.Join(folder, "new"), Key: key})
	refused("a new node", err)
	state := filepath.Join(folder, "known", "state")
	for _, what := range []string{"who knows the ledger", "and whose state was changed over to a rebuilt one"} {
		again, err := Open(t.Context(), Options{DB: db, StatePath: state, Key: key})
		if err != nil || again.genesis.ID != ids[0] {
			t.Fatalf("%s: got %v", what, err)
		}
		if err := again.close(); err != nil {
			t.Error(err)
		}
		err = errors.Join(
			os.Rename(filepath.Join(state, chainstateFolder), filepath.Join(state, nextFolder)),
			os.WriteFile(filepath.Join(state, switchedFile), nil, 0o600),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestCopiedIDs: what a ledger writes is copied, what could stop a node is not.
func TestCopiedIDs(t *testing.T) {
	key := ledger.GenerateKeyPair()
	v := ledger.NewVote(key, ledger.Hash([]byte("a")), ledger.Hash([]byte("b")), true, "", 1)
	for table, ids := range map[string]map[string]bool{
		statedb.Backlog:  {ledger.Hash([]byte("a")): true, "x": false, "_design/x": false},
		statedb.Bigchain: {ledger.Hash([]byte("a")): true, genesisID: true, RestoreMarker: false, ledger.NewStatement(key, 1, 1, nil, "").DocumentID(): true, "_design/x": false},
		statedb.Votes:    {ledger.VoteID(v.BlockID, key.Public): true, v.ProofID(): true, "votes": false, v.BlockID: false},
	} {
		for _, c := range Copied(false) {
			for id, want := range ids {
				if c.Table == table && regexp.MustCompile(c.IDs).MatchString(id) != want {
					t.Errorf("%s: %s is copied: %v", table, id, !want)
				}
			}
		}
	}
}
