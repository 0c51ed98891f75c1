package journal

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/node/ledger"
)

// TestFormats: a folder from before there was a version is upgraded once and
// keeps all it holds, a newer one is refused and left.
func TestFormats(t *testing.T) {
	folder, voter := filepath.Join(t.TempDir(), "journal"), ledger.GenerateKeyPair()
	open := func() *Journal {
		t.Helper()
		j, err := Open(folder, voter.Public, nil)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	if steps := j.Upgraded(); steps != nil {
		t.Errorf("a new journal took the steps %q", steps)
	}
	block, genesis := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	tx := strings.Repeat("ef", 32)
	vote := ledger.NewVote(voter, block, genesis, true, "", 1)
	if err := errors.Join(j.Record(vote, Locks{Transactions: []string{tx}}), j.db.Delete(key(metaPrefix, metaFormat), pebble.Sync), j.Close()); err != nil {
		t.Fatal(err)
	}
	for _, steps := range []int{1, 0} {
		j = open()
		known, err := j.Vote(block)
		if err != nil || known == nil || string(known.Bytes()) != string(vote.Bytes()) || j.LockedTransaction(tx) != block || j.LastVoted() != block || j.Fresh() {
			t.Errorf("got the vote %v, %v, the lock %q and the last block %q", known, err, j.LockedTransaction(tx), j.LastVoted())
		}
		if len(j.Upgraded()) != steps {
			t.Errorf("got the steps %q, want %d", j.Upgraded(), steps)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	j = open()
	if err := errors.Join(j.db.Set(key(metaPrefix, metaFormat), []byte("2"), pebble.Sync), j.Close()); err != nil {
		t.Fatal(err)
	}
	for _, owner := range []string{voter.Public, ledger.GenerateKeyPair().Public} {
		if _, err := Open(folder, owner, nil); !errors.Is(err, kv.ErrNewer) || !strings.Contains(err.Error(), "(format 2, this program knows 1)") {
			t.Errorf("a newer journal: got %v", err)
		}
	}
}

// TestRewind: the votes stay, what they bound to and what was to be sent goes.
func TestRewind(t *testing.T) {
	folder, voter := filepath.Join(t.TempDir(), "journal"), ledger.GenerateKeyPair()
	j, err := Open(folder, voter.Public, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, second, tx := strings.Repeat("ab", 32), strings.Repeat("cd", 32), strings.Repeat("ef", 32)
	gone := ledger.NewVote(voter, second, first, true, "", 2)
	adopted := ledger.NewVote(voter, first, tx, true, "", 1)
	if err := errors.Join(j.Record(gone, Locks{Transactions: []string{tx}}), j.Rewind("", []*ledger.Vote{adopted})); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		one, err := j.Vote(first)
		two, err2 := j.Vote(second)
		unsent, err3 := j.Unsent()
		if err := errors.Join(err, err2, err3); err != nil || one == nil || two == nil || len(unsent) != 0 {
			t.Errorf("got the votes %v and %v, to be sent %v, %v", one, two, unsent, err)
		}
		if j.LastVoted() != "" || j.LockedTransaction(tx) != "" || len(j.Held()) != 0 || j.Fresh() && one == nil {
			t.Errorf("got the last block %q, the lock %q", j.LastVoted(), j.LockedTransaction(tx))
		}
		if err := j.Record(ledger.NewVote(voter, second, first, false, "X", 3), Locks{}); err == nil {
			t.Error("a block whose vote went from the database got another one")
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if j, err = Open(folder, voter.Public, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}
