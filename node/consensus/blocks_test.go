package consensus_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

func named(tb testing.TB, name string) consensus.Rules {
	tb.Helper()
	r, err := consensus.Lookup(name)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// TestTally lists, for n voters, the verdict for each number of invalid votes
// (lines) and of valid ones (letters): u undecided, v valid, i invalid.
func TestTally(t *testing.T) {
	for name, tables := range map[string]map[int]string{
		consensus.Default: {
			1: "uv i",
			2: "uuv ii i",
			3: "uuvv uuv ii i",
			4: "uuuvv uuuv iii ii i",
			5: "uuuvvv uuuvv uuuv iii ii i",
			6: "uuuuvvv uuuuvv uuuuv iiii iii ii i",
			7: "uuuuvvvv uuuuvvv uuuuvv uuuuv iiii iii ii i",
		},
		consensus.TwoThirds: {
			1: "uv i",
			2: "uuv ii i",
			3: "uuuv iii ii i",
			4: "uuuvv uuuv iii ii i",
			5: "uuuuvv uuuuv iiii iii ii i",
			6: "uuuuuvv uuuuuv iiiii iiii iii ii i",
			7: "uuuuuvvv uuuuuvv uuuuuv iiiii iiii iii ii i",
		},
	} {
		t.Run(name, func(t *testing.T) { testTally(t, named(t, name), tables) })
	}
}

func testTally(t *testing.T, rules consensus.Rules, tables map[int]string) {
	letters := map[byte]consensus.Status{'u': consensus.Undecided, 'v': consensus.Valid, 'i': consensus.Invalid}
	for n, table := range tables {
		lines := strings.Split(table, " ")
		if len(lines) != n+1 {
			t.Fatalf("the table for %d voters has %d lines", n, len(lines))
		}
		for invalid, line := range lines {
			if len(line) != n+1-invalid {
				t.Fatalf("line %d of the table for %d voters has %d letters", invalid, n, len(line))
			}
			for valid := range len(line) {
				got, want := rules.Tally(n, valid, invalid), letters[line[valid]]
				if got != want {
					t.Errorf("%d voters, %d valid, %d invalid: got %s, want %s", n, valid, invalid, got, want)
				}
			}
		}
	}
	if got := rules.Tally(0, 0, 0); got != consensus.Undecided {
		t.Errorf("nobody may vote: got %s, want undecided", got)
	}
}

// bothPass reports whether two conflicting blocks can both be valid: each honest
// voter votes for one of them at most, each liar for both.
func bothPass(rules consensus.Rules, voters, liars int) bool {
	honest := voters - liars
	for first := range honest + 1 {
		one := rules.Tally(voters, first+liars, 0)
		other := rules.Tally(voters, honest-first+liars, 0)
		if one == consensus.Valid && other == consensus.Valid {
			return true
		}
	}
	return false
}

// How many liars each rule withstands, and how many may be silent, as
// docs/federation.md has it.
func TestLiars(t *testing.T) {
	for name, limits := range map[string]func(n int) (liars, silent int){
		consensus.Default:   func(n int) (int, int) { return 1 - n%2, (n - 1) / 2 },
		consensus.TwoThirds: func(n int) (int, int) { return (n - 1) / 3, (n - 1) / 3 },
	} {
		rules := named(t, name)
		for n := 1; n <= 50; n++ {
			liars, silent := limits(n)
			if bothPass(rules, n, liars) {
				t.Errorf("%s, %d voters: %d liars have two conflicting blocks pass", name, n, liars)
			}
			if got := rules.Tally(n, n-silent, 0); got != consensus.Valid {
				t.Errorf("%s, %d voters, %d silent: got %s, want valid", name, n, silent, got)
			}
			if got := rules.Tally(n, n-silent-1, 0); got == consensus.Valid {
				t.Errorf("%s, %d voters, %d silent: got valid, want that it waits", name, n, silent+1)
			}
		}
	}
	for _, test := range []struct {
		name         string
		voters, lies int
	}{
		{consensus.Default, 3, 1}, {consensus.Default, 4, 2}, {consensus.Default, 5, 1},
		{consensus.TwoThirds, 4, 2}, {consensus.TwoThirds, 7, 3}, {consensus.TwoThirds, 10, 4},
	} {
		if !bothPass(named(t, test.name), test.voters, test.lies) {
			t.Errorf("%s, %d voters: %d liars do not have two conflicting blocks pass", test.name, test.voters, test.lies)
		}
	}
}

// A verdict never changes as votes come in, and once all are in there is one.
func TestVerdictsStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, err := consensus.Lookup(rapid.SampledFrom([]string{consensus.Default, consensus.TwoThirds}).Draw(t, "rules"))
		if err != nil {
			t.Fatal(err)
		}
		votes := rapid.SliceOfN(rapid.Bool(), 1, 100).Draw(t, "votes")
		counts := map[bool]int{}
		verdict := consensus.Undecided
		for i, vote := range votes {
			counts[vote]++
			now := rules.Tally(len(votes), counts[true], counts[false])
			if verdict != consensus.Undecided && now != verdict {
				t.Fatalf("vote %d turns %s into %s", i, verdict, now)
			}
			verdict = now
		}
		if verdict == consensus.Undecided {
			t.Fatal("undecided with all votes")
		}
	})
}

func TestRulesOfALedger(t *testing.T) {
	node := newKey(1)
	genesis := func(rules string) *ledger.Block {
		tx, err := ledger.NewGenesis(node, rules)
		if err != nil {
			t.Fatal(err)
		}
		return ledger.NewBlock(node, 1, []string{node.Public}, []*ledger.Transaction{tx})
	}
	for rules, want := range map[string]string{"": consensus.Default, consensus.Default: consensus.Default, consensus.TwoThirds: consensus.TwoThirds} {
		if got, err := consensus.Of(genesis(rules)); err != nil || got.Name() != want {
			t.Errorf("%q: got %v, %v, want %s", rules, got, err, want)
		}
		if err := consensus.Check(named(t, want), genesis(rules)); err != nil {
			t.Errorf("%q: %v", rules, err)
		}
	}
	err := consensus.Check(named(t, consensus.Default), genesis(consensus.TwoThirds))
	if err == nil || !strings.Contains(err.Error(), `Set consensus_plugin to "two-thirds"`) {
		t.Errorf("another rule: got %v", err)
	}
	if _, err := consensus.Of(genesis("unanimous")); err == nil || !strings.Contains(err.Error(), "the genesis block: no consensus rules are named") {
		t.Errorf("a rule that nobody knows: got %v", err)
	}
	// Only the genesis block says so.
	data := canonical.ObjectOf(canonical.Member{Key: "rules", Value: canonical.StringOf(consensus.TwoThirds)})
	tx, err := ledger.NewCreate([]ledger.KeyPair{node}, canonical.Value{}, data, ledger.PayTo(node.Public, 1))
	if err != nil {
		t.Fatal(err)
	}
	if got := ledger.NewBlock(node, 1, []string{node.Public}, []*ledger.Transaction{tx}).Rules(); got != "" {
		t.Errorf("another block: got %q, want none", got)
	}
}

// TestDisputed goes through all votes of up to six voters. What a block comes to
// must be what an honest node could have decided that saw one vote of each
// voter: valid, invalid, or disputed where both could be.
func TestDisputed(t *testing.T) {
	for _, r := range []consensus.Rules{named(t, consensus.Default), named(t, consensus.TwoThirds)} {
		for n := 1; n <= 6; n++ {
			for valid := range n + 1 {
				for invalid := range n - valid + 1 {
					for both := range n - valid - invalid + 1 {
						could := map[consensus.Status]bool{}
						for shown := range both + 1 { // of those that said both, how many valid
							could[r.Tally(n, valid+shown, invalid+both-shown)] = true
						}
						want := consensus.Undecided
						switch {
						case could[consensus.Valid] && could[consensus.Invalid]:
							want = consensus.Disputed
						case could[consensus.Valid]:
							want = consensus.Valid
						case could[consensus.Invalid]:
							want = consensus.Invalid
						}
						if got := consensus.Decide(r, consensus.Votes{Voters: n, Valid: valid + both, Invalid: invalid + both, Both: both}); got != want {
							t.Errorf("%s: %d voters, %d valid, %d invalid, %d both: got %s, want %s", r.Name(), n, valid, invalid, both, got, want)
						}
					}
				}
			}
		}
	}
}

// TestLiarsAlone: a block on which all honest voters agree is disputed only when
// more lie than the rule withstands.
func TestLiarsAlone(t *testing.T) {
	for n := 1; n <= 30; n++ {
		for liars := 0; 3*liars < n; liars++ {
			if got := consensus.Decide(named(t, consensus.TwoThirds), consensus.Votes{Voters: n, Valid: n, Invalid: liars, Both: liars}); got != consensus.Valid {
				t.Errorf("%d voters, %d said both, all others valid: got %s", n, liars, got)
			}
		}
	}
}
