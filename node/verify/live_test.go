package verify

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// timeline lists what a node wrote, in an order that it may have written it in:
// each block, the vote, the documents for queries, the end of the backlog's
// entries.
func (s *sample) timeline() (start []change, later [][]change) {
	start = []change{
		{statedb.Bigchain, genesisID, s.tables[statedb.Bigchain][genesisID]}, block(s.genesis),
	}
	start = append(start, derived(s.genesis)...)
	for i, b := range s.blocks {
		var posted, done []change
		for _, tx := range b.Transactions {
			posted = append(posted, change{statedb.Backlog, tx.ID, tx.Bytes()})
			done = append(done, gone(statedb.Backlog, tx.ID))
		}
		later = append(later, posted, []change{block(b)}, []change{vote(s.votes[i])}, derived(b), done)
	}
	return start, later
}

// TestLive verifies a ledger that grows under the reader, however the two
// interleave: what is in flight is no finding. Then it is at rest, and whole.
func TestLive(t *testing.T) {
	s := makeSample(t, 400)
	for seed := range uint64(45) {
		random := rand.New(rand.NewPCG(seed, 1))
		m := memoryOf()
		start, later := s.timeline()
		m.apply(start...)
		advance := func(n int) {
			for range min(n, len(later)) {
				m.apply(later[0]...)
				later = later[1:]
			}
		}
		advance(random.IntN(len(later)))
		most := 1 // at rest: the node was killed at that moment
		if seed%3 > 0 {
			most += 1 + random.IntN(12)
		}
		pages := 0
		m.before = func(string, statedb.Range) error {
			pages++
			advance(random.IntN(most))
			return nil
		}
		found, report := check(t, m, Options{})
		if len(found) > 0 {
			t.Errorf("seed %d, %d pages, %d steps to go: %s", seed, pages, len(later), few(found))
		}
		if report.Blocks.Valid+report.Blocks.Undecided == 0 {
			t.Errorf("seed %d: no block was looked at", seed)
		}
	}
}

// TestLiveDamage: damage in a ledger that grows is found all the same.
func TestLiveDamage(t *testing.T) {
	s := makeSample(t, 400)
	b := s.blocks[s.source]
	for seed := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 2))
		m := memoryOf()
		start, later := s.timeline()
		m.apply(start...)
		for len(later) > len(s.blocks)/2 {
			m.apply(later[0]...)
			later = later[1:]
		}
		m.apply(gone(statedb.Bigchain, b.ID))
		m.before = func(string, statedb.Range) error {
			for range min(random.IntN(2), len(later)) {
				m.apply(later[0]...)
				later = later[1:]
			}
			return nil
		}
		found, _ := check(t, m, Options{})
		if w := (want{statedb.Bigchain, b.ID, BlockMissing}); !w.in(found) {
			t.Errorf("seed %d: want %+v; got %s", seed, w, few(found))
		}
	}
}

// TestResumed interrupts runs after a number of pages and goes on, until one is
// complete: it finds what a run in one go finds.
func TestResumed(t *testing.T) {
	s := makeSample(t, 600)
	m := s.memory()
	v := s.votes[s.source]
	m.apply(gone(statedb.Votes, vote(v).id), change{statedb.Bigchain, s.last().ID, edit(s.last().Bytes(), flip, "signature")})
	all, want := check(t, m, Options{})
	stops := []int{1, 2, 5, 9}
	if testing.Short() {
		stops = stops[2:]
	}
	for _, every := range stops {
		folder := t.TempDir() + "/scratch"
		for runs := 1; ; runs++ {
			ctx, cancel := context.WithCancel(t.Context())
			steps := every * runs // of progress, else it would never end
			var found []Finding
			report, err := Run(ctx, m, Options{
				Derived: true, Scratch: folder, Ledger: "m",
				Progress: func(Progress) {
					if steps--; steps == 0 {
						cancel()
					}
				},
				Finding: func(f Finding) error {
					found = append(found, f)
					return nil
				},
			})
			cancel()
			if err != nil {
				continue
			}
			if !slices.Equal(found, all) {
				t.Errorf("resumed after every %d steps: got %s, want %s", every, few(found), few(all))
			}
			report.Took, want.Took, want.Resumed = 0, 0, true
			if *report != *want || runs < 3 {
				t.Errorf("after %d runs: got report %+v, want %+v", runs, report, want)
			}
			break
		}
		if _, resumed, err := openScratch(folder, "m"); err != nil || resumed {
			t.Errorf("after a complete run: resumed %v, %v", resumed, err)
		}
	}
}

// TestChangedMeanwhile changes a ledger between an interruption and the rest.
func TestChangedMeanwhile(t *testing.T) {
	s := makeSample(t, 600)
	garbage := change{statedb.Bigchain, ledger.Hash(nil), []byte(`{}`)}
	fresh := s.sign(s.create("meanwhile"))
	for _, c := range []struct {
		name    string
		before  []change
		between []change
		want    []want
	}{
		{"a block changed", nil, []change{{statedb.Bigchain, s.blocks[0].ID, edit(s.blocks[0].Bytes(), flip, "signature")}},
			ofBlock(s.blocks[0].ID, Changed, BlockSignature)},
		{"a block removed", nil, []change{gone(statedb.Bigchain, s.blocks[0].ID)}, ofBlock(s.blocks[0].ID, Changed)},
		{"a vote changed", nil, []change{vote(ledger.NewVote(s.key, s.votes[0].BlockID, s.votes[0].PreviousBlock, true, "", 1))},
			ofVote(vote(s.votes[0]).id, Changed)},
		{"garbage removed", []change{garbage}, []change{gone(garbage.table, garbage.id)}, nil},
		{"garbage replaced", []change{{statedb.Bigchain, s.blocks[0].ID, []byte(`{}`)}}, []change{block(s.blocks[0])}, nil},
		{"a block more", nil, s.append(fresh), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := s.memory()
			m.apply(c.before...)
			folder := t.TempDir() + "/scratch"
			ctx, cancel := context.WithCancel(t.Context())
			_, err := Run(ctx, m, Options{Derived: true, Scratch: folder, Progress: func(p Progress) {
				if p.Step == stepDecisions {
					cancel()
				}
			}})
			if err == nil {
				t.Fatal("the run was not interrupted")
			}
			m.apply(c.between...)
			found, report := check(t, m, Options{Scratch: folder})
			if !report.Resumed || len(found) != len(c.want) {
				t.Errorf("resumed %v, want %+v; got %s", report.Resumed, c.want, few(found))
			}
			for _, w := range c.want {
				if !w.in(found) {
					t.Errorf("want %+v; got %s", w, few(found))
				}
			}
		})
	}
	if _, err := Run(t.Context(), s.memory(), Options{Scratch: func() string {
		folder := t.TempDir() + "/scratch"
		store, _, err := openScratch(folder, "another")
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		return folder
	}(), Ledger: "this"}); err == nil {
		t.Error("a scratch folder of another ledger was taken")
	}
}
