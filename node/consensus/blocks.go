package consensus

import (
	"fmt"

	"github.com/couchledger/couchledger/node/ledger"
)

func init() {
	Register(majority{})
	Register(twoThirds{})
}

// majority is the documents' rule: a block is valid when more than half of
// its voters say so, and invalid as soon as that can no longer happen. It
// outlives the crash of any minority, and trusts the members: with an odd number
// of them a single liar can have two conflicting blocks pass.
type majority struct{ documents }

func (majority) Name() string { return Default }

// Tally: with n voters, invalid at 2·invalid ≥ n, else valid at 2·valid > n.
func (majority) Tally(voters, valid, invalid int) Status {
	return tally(voters, voters/2+1, valid, invalid)
}

// TwoThirds is the name of the rule for members that do not trust each other.
const TwoThirds = "two-thirds"

// twoThirds takes more than two thirds of the voters. Honest members vote valid
// on one of two conflicting blocks at most, so while fewer than a third of the
// members lie, only one can pass.
type twoThirds struct{ documents }

func (twoThirds) Name() string { return TwoThirds }

// Tally: with n voters and q = ⌊2n/3⌋+1, valid at q valid votes, invalid when
// the votes that are left do not suffice for that.
func (twoThirds) Tally(voters, valid, invalid int) Status {
	return tally(voters, 2*voters/3+1, valid, invalid)
}

// tally decides when so many valid votes are there, or cannot come any more.
func tally(voters, needed, valid, invalid int) Status {
	switch {
	case voters <= 0:
		return Undecided
	case voters-invalid < needed:
		return Invalid
	case valid >= needed:
		return Valid
	}
	return Undecided
}

// Votes are the verdicts of a block's voters, as far as they are there. A voter
// with one vote of each kind is counted in both and in Both.
type Votes struct {
	Voters, Valid, Invalid, Both int
}

// Decide tells what becomes of a block. Voters that said both may have shown
// one vote to this node and the other to that, so each is counted as it would
// have to be for the block to be valid, and as it would for it to be invalid.
// What could be either is Disputed. More votes never take a decision back, but
// for that: the order in which votes come makes no difference in the end.
func Decide(r Rules, v Votes) Status {
	valid := r.Tally(v.Voters, v.Valid, v.Invalid-v.Both) == Valid
	invalid := r.Tally(v.Voters, v.Valid-v.Both, v.Invalid) == Invalid
	switch {
	case valid && invalid:
		return Disputed
	case valid:
		return Valid
	case invalid:
		return Invalid
	}
	return Undecided
}

// Of returns the rules by which a ledger decides. Its genesis block names them;
// where it names none they are the documents'. So all nodes of a ledger, and
// whoever verifies or restores it, have the same.
func Of(genesis *ledger.Block) (Rules, error) {
	rules, err := Lookup(genesis.Rules())
	if err != nil {
		return nil, fmt.Errorf("the genesis block: %w", err)
	}
	return rules, nil
}

// Check compares the rules that an operator chose with those of his ledger.
func Check(chosen Rules, genesis *ledger.Block) error {
	rules, err := Of(genesis)
	if err == nil && rules.Name() != chosen.Name() {
		err = fmt.Errorf("this ledger decides by the rules %q, as its genesis block says, and consensus_plugin is %q: "+
			"nodes with different rules would decide differently. Set consensus_plugin to %[1]q, or begin another ledger",
			rules.Name(), chosen.Name())
	}
	return err
}
