package verify

import (
	"os"
	"testing"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/statedb"
)

// sampleSize is how many transactions a test's ledger has, about. VERIFY_FULL=1
// takes as many as make the ledger larger than what is held in memory at once.
func sampleSize() int {
	switch {
	case os.Getenv("VERIFY_FULL") != "":
		return 20_000
	case testing.Short():
		return 250
	default:
		return 1000
	}
}

func wantNone(t testing.TB, found []Finding) {
	t.Helper()
	for i, f := range found {
		if i == 10 {
			t.Errorf("and %d more", len(found)-i)
			break
		}
		t.Errorf("found %+v, want nothing", f)
	}
}

func TestSound(t *testing.T) {
	s := makeSample(t, sampleSize())
	found, report := s.check(Options{})
	wantNone(t, found)
	t.Logf("%+v", *report)
	want := Report{
		Genesis: s.genesis.ID, Rules: consensus.Default, Epochs: 1, Members: 1, Blocks: Blocks{Valid: len(s.blocks) + 1},
		Transactions: len(s.tables[statedb.Transactions]), Derived: len(s.tables[statedb.Transactions]), Votes: len(s.votes),
		Took: report.Took,
	}
	if *report != want {
		t.Errorf("got report %+v, want %+v", *report, want)
	}
}
