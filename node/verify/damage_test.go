package verify

import (
	"fmt"
	"slices"
	"testing"

	"github.com/couchledger/couchledger/statedb"
)

// want is a finding that a damage must give.
type want struct {
	table, id string
	rule      Rule
}

func (w want) in(found []Finding) bool {
	return slices.ContainsFunc(found, func(f Finding) bool { return f.Table == w.table && f.ID == w.id && f.Rule == w.rule })
}

func ofBlock(id string, rules ...Rule) (list []want) {
	for _, rule := range rules {
		list = append(list, want{statedb.Bigchain, id, rule})
	}
	return list
}

func ofVote(id string, rule Rule) []want { return []want{{statedb.Votes, id, rule}} }

func ofDerived(id string, rule Rule) []want { return []want{{statedb.Transactions, id, rule}} }

// damage is one thing done to a sound ledger.
type damage struct {
	name    string
	changes []change
	want    []want // at least these
	alone   bool   // and no others
}

// TestDamage does one thing after another to a ledger, each taken back before
// the next: every one is found and named.
func TestDamage(t *testing.T) {
	s := makeSample(t, sampleSize())
	found, _ := s.check(Options{})
	wantNone(t, found)
	rules := map[Rule]bool{}
	list := slices.Concat(s.changedBlocks(), s.forgedBlocks(), s.wrongSpends(), s.wrongVotes(), s.wrongHistory(), s.wrongDerived())
	for i, d := range list {
		t.Run(d.name, func(t *testing.T) {
			s.t = t
			s.apply(d.changes)
			found, _ := s.check(Options{})
			for _, w := range d.want {
				if !w.in(found) {
					t.Errorf("want %+v; got %s", w, few(found))
				}
				rules[w.rule] = true
			}
			if d.alone && len(found) != len(d.want) {
				t.Errorf("want only %+v; got %s", d.want, few(found))
			}
			if i%5 == 0 {
				if again, _ := s.check(Options{}); !slices.Equal(found, again) {
					t.Errorf("the second run finds something else: %s, then %s", few(found), few(again))
				}
			}
			s.apply(s.back(d.changes))
		})
	}
	s.t = t
	found, _ = s.check(Options{})
	wantNone(t, found)
	if len(list) < 40 {
		t.Errorf("%d kinds of damage, want 40", len(list))
	}
	for _, r := range Rules {
		if !rules[r.Rule] && r.Rule != Changed { // see TestResumed
			t.Errorf("no damage breaks the rule %s", r.Rule)
		}
	}
}

// few prints some findings.
func few(found []Finding) string {
	text := fmt.Sprintf("%d findings", len(found))
	for i, f := range found {
		if i == 8 {
			return text + "\n\t…"
		}
		text += fmt.Sprintf("\n\t%+v", f)
	}
	return text
}

// TestNoFinding does to a ledger what is no damage: work in flight, and what
// the federation has dealt with.
func TestNoFinding(t *testing.T) {
	s := makeSample(t, 200)
	for _, d := range s.harmless() {
		t.Run(d.name, func(t *testing.T) {
			s.t = t
			s.apply(d.changes)
			found, _ := s.check(Options{})
			wantNone(t, found)
			s.apply(s.back(d.changes))
		})
	}
}
