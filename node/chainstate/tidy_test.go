package chainstate

import (
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// spendMost makes an owner of 3000 outputs who has spent all but ten.
func spendMost(t *testing.T, s *State, owner ledger.KeyPair) {
	t.Helper()
	const outputs, perBlock = 3000, 100
	payments := make([]ledger.Payment, outputs)
	for i := range payments {
		payments[i] = ledger.PayTo(owner.Public, 1)
	}
	create, err := ledger.NewCreate([]ledger.KeyPair{owner}, canonical.Value{}, canonical.Value{}, payments...)
	if err != nil {
		t.Fatal(err)
	}
	addValid(t, s, owner, create)
	for from := 0; from < outputs-10; from += perBlock {
		var sources []ledger.Source
		for i := from; i < min(from+perBlock, outputs-10); i++ {
			sources = append(sources, ledger.SourceOf(create, i))
		}
		to := ledger.PayTo(ledger.GenerateKeyPair().Public, int64(len(sources)))
		tx, err := ledger.NewTransfer(create.ID, sources, canonical.Value{}, []ledger.Payment{to}, owner)
		if err != nil {
			t.Fatal(err)
		}
		addValid(t, s, owner, tx)
	}
}

func addValid(t *testing.T, s *State, maker ledger.KeyPair, tx *ledger.Transaction) {
	t.Helper()
	u := s.Begin()
	if len(u.epochs) == 0 {
		if err := u.AddEpoch(Epoch{Members: []string{maker.Public}}); err != nil {
			t.Fatal(err)
		}
	}
	block := ledger.NewBlock(maker, 1, []string{maker.Public}, []*ledger.Transaction{tx})
	if _, err := u.AddBlock(block, 0, consensus.Valid); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(); err != nil {
		t.Fatal(err)
	}
}

// awaitTidy waits until the list of unspent outputs steps over few deleted keys.
func awaitTidy(t *testing.T, s *State, owner string, want int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		it, err := s.db.NewIter(iterOptions(ownerPrefix(unspentPrefix, owner)))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		steps := skipped(it)
		it.Close()
		if n != 10 {
			t.Fatalf("unspent outputs: got %d, want 10", n)
		}
		if steps <= want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the scan still skips %d deleted keys, want at most %d", steps, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// The cost of listing unspent outputs follows what there is to list: what was
// spent is soon out of the way, because there was much of it, or because a
// reader stumbled over it.
func TestSpentOutputsGetOutOfTheWay(t *testing.T) {
	open := func() *State {
		s, err := Open(t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	t.Run("much spent", func(t *testing.T) {
		s, owner := open(), ledger.GenerateKeyPair()
		spendMost(t, s, owner)
		awaitTidy(t, s, owner.Public, 2*maxSpent)
	})
	t.Run("a reader stumbles", func(t *testing.T) {
		s, owner := open(), ledger.GenerateKeyPair()
		s.tidier.spent[owner.Public] = -1 << 30 // not by the count
		spendMost(t, s, owner)
		refs, _, err := s.Outputs(owner.Public, true, "", 100)
		if err != nil || len(refs) != 10 {
			t.Fatalf("unspent outputs: got %d, %v, want 10", len(refs), err)
		}
		awaitTidy(t, s, owner.Public, maxSkipped)
	})
}
