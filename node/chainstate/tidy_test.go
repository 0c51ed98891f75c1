package chainstate

import (
	"slices"
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
		it, err := s.current.NewIter(iterOptions(ownerPrefix(unspentPrefix, owner)))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		steps := skippedBy(it)
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

// The cost of listing unspent outputs follows what there is to list: a reader
// that stumbles over what was spent has it cleared away, and until then, and
// while more is spent, the short list is kept.
func TestSpentOutputsGetOutOfTheWay(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	owner := ledger.GenerateKeyPair()
	spendMost(t, s, owner)
	first := wantUnspent(t, s, owner.Public, 10)
	if got, _, kept := s.short.page(owner.Public, nil, 100); !kept || len(got) != 10 {
		t.Fatalf("the list after a scan: got kept %v, %d outputs, want it kept with 10", kept, len(got))
	}
	awaitTidy(t, s, owner.Public, maxSkipped)

	// One more comes and one goes.
	extra, err := ledger.NewCreate([]ledger.KeyPair{owner}, canonical.Value{}, canonical.Value{}, ledger.PayTo(owner.Public, 1))
	if err != nil {
		t.Fatal(err)
	}
	addValid(t, s, owner, extra)
	source := ledger.Source{Ref: first[0], OwnersBefore: []string{owner.Public}, Details: extra.Details(0)}
	spent, err := ledger.NewTransfer(first[0].TxID, []ledger.Source{source}, canonical.Value{},
		[]ledger.Payment{ledger.PayTo(ledger.GenerateKeyPair().Public, 1)}, owner)
	if err != nil {
		t.Fatal(err)
	}
	addValid(t, s, owner, spent)
	want := append(slices.Clone(first[1:]), ledger.OutputRef{TxID: extra.ID})
	if got := wantUnspent(t, s, owner.Public, 10); !slices.Equal(got, want) {
		t.Errorf("the list that is kept: got %v, want %v", got, want)
	}
	s.short.lists = map[string][]listed{}
	if got := wantUnspent(t, s, owner.Public, 10); !slices.Equal(got, want) {
		t.Errorf("the list on disk: got %v, want %v", got, want)
	}
}

// wantUnspent reads an owner's unspent outputs whole and in pages of three.
func wantUnspent(t *testing.T, s *State, owner string, want int) []ledger.OutputRef {
	t.Helper()
	all, next, err := s.Outputs(owner, true, "", 100)
	if err != nil || next != "" || len(all) != want {
		t.Fatalf("unspent outputs: got %d, next %q, %v, want %d", len(all), next, err, want)
	}
	var paged []ledger.OutputRef
	for cursor := ""; ; cursor = next {
		var page []ledger.OutputRef
		if page, next, err = s.Outputs(owner, true, cursor, 3); err != nil {
			t.Fatal(err)
		}
		if paged = append(paged, page...); next == "" {
			break
		}
	}
	if !slices.Equal(paged, all) {
		t.Fatalf("in pages: got %v, want %v", paged, all)
	}
	return all
}

// A commit during a scan keeps its result from being kept.
func TestScanDuringCommitIsNotKept(t *testing.T) {
	l := shortlists{lists: map[string][]listed{}}
	mark := l.now()
	l.committed(nil)
	l.keep(mark, "a", []listed{{}})
	if _, _, kept := l.page("a", nil, 1); kept {
		t.Error("a list that a commit may have passed by is kept")
	}
	l.keep(l.now(), "a", []listed{{}})
	if _, _, kept := l.page("a", nil, 1); !kept {
		t.Error("a list is not kept though nothing was committed")
	}
}
