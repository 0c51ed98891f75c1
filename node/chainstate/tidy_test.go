package chainstate

import (
	"fmt"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// The cost of listing unspent outputs follows what there is to list: what was
// spent is soon out of the way.
func TestSpentOutputsGetOutOfTheWay(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	owner := ledger.GenerateKeyPair()
	const outputs = 3000
	payments := make([]ledger.Payment, outputs)
	for i := range payments {
		payments[i] = ledger.PayTo(owner.Public, 1)
	}
	create, err := ledger.NewCreate([]ledger.KeyPair{owner}, canonical.Value{}, canonical.Value{}, payments...)
	if err != nil {
		t.Fatal(err)
	}
	var sources []ledger.Source
	for i := range outputs - 10 {
		sources = append(sources, ledger.SourceOf(create, i))
		if len(sources) < 100 && i < outputs-11 {
			continue
		}
		stranger := ledger.GenerateKeyPair()
		tx, err := ledger.NewTransfer(create.ID, sources, canonical.Value{},
			[]ledger.Payment{ledger.PayTo(stranger.Public, int64(len(sources)))}, owner)
		if err != nil {
			t.Fatal(err)
		}
		txs := []*ledger.Transaction{tx}
		if i < 100 {
			txs = []*ledger.Transaction{create, tx}
		}
		u := s.Begin()
		if i < 100 {
			if err := u.AddEpoch(Epoch{Members: []string{owner.Public}}); err != nil {
				t.Fatal(err)
			}
		}
		block := ledger.NewBlock(owner, int64(i), []string{owner.Public}, txs)
		if _, err := u.AddBlock(block, 0, consensus.Valid); err != nil {
			t.Fatal(err)
		}
		if err := u.Commit(); err != nil {
			t.Fatal(err)
		}
		sources = nil
	}
	steps := func() int {
		it, err := s.db.NewIter(iterOptions(ownerPrefix(unspentPrefix, owner.Public)))
		if err != nil {
			t.Fatal(err)
		}
		defer it.Close()
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		if n != 10 {
			t.Fatalf("unspent outputs: got %d, want 10", n)
		}
		return skipped(it)
	}
	if n := steps(); n < outputs/2 {
		t.Fatalf("before: the scan skips %d deleted keys; too few to test anything", n)
	}
	refs, _, err := s.Outputs(owner.Public, true, "", 100)
	if err != nil || len(refs) != 10 {
		t.Fatalf("unspent outputs: got %d, %v, want 10", len(refs), err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for n := steps(); n > maxSkipped; n = steps() {
		if time.Now().After(deadline) {
			t.Fatal(fmt.Sprintf("after: the scan still skips %d deleted keys", n))
		}
		time.Sleep(5 * time.Millisecond)
	}
}
