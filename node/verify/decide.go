package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// decision is what became of a block.
type decision struct {
	first consensus.Status // by the votes that the first reading found
	now   consensus.Status // by all
	// against: a member voted against it though it shows no fault by itself.
	against bool
	spends  bool
	votes   []validVote
}

// validVote is the place of a member's vote for a block among its votes.
type validVote struct {
	voter uint64
	rank  rank
}

func (d decision) append(dst []byte) []byte {
	dst = append(dst, byte(d.first), byte(d.now))
	dst = appendFlag(appendFlag(dst, d.against), d.spends)
	for _, vote := range d.votes {
		dst = binary.AppendUvarint(dst, vote.voter)
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, vote.rank.part), vote.rank.place)
	}
	return dst
}

func readDecision(v []byte) (decision, error) {
	f := fields{rest: v}
	d := decision{first: consensus.Status(f.take(1)[0]), now: consensus.Status(f.take(1)[0]), against: f.flag(), spends: f.flag()}
	for len(f.rest) > 0 && !f.bad {
		d.votes = append(d.votes, validVote{f.uint(), rank{f.uint(), f.uint()}})
	}
	return d, f.err()
}

// ballot is a vote on a block.
type ballot struct {
	voter string
	rankedVote
}

// decideBlocks counts the votes on every block.
func (v *verifier) decideBlocks(ctx context.Context) (err error) {
	blocks, err := v.scratch.scan([]byte{blockPrefix}, []byte{blockPrefix + 1})
	if err != nil {
		return err
	}
	defer blocks.Close()
	votes, err := v.scratch.scan([]byte{rankPrefix}, []byte{rankPrefix + 1})
	if err != nil {
		return err
	}
	defer votes.Close()
	decisions := v.scratch.bulk()
	defer decisions.end(&err)
	blocks.First()
	votes.First()
	for blocks.Valid() || votes.Valid() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var block id
		known := blocks.Valid() && (!votes.Valid() || bytes.Compare(blocks.Key()[1:], votes.Key()[1:1+idSize]) <= 0)
		if known {
			block = id(blocks.Key()[1:])
		} else {
			block = id(votes.Key()[1:])
		}
		var err error
		if known {
			var facts blockFacts
			if facts, err = readBlock(blocks.Value()); err == nil {
				err = v.decide(block, facts, votes, decisions)
			}
			blocks.Next()
			v.progress.Add(1, block.String())
		} else {
			err = v.missing(block, votes, decisions)
		}
		if err != nil {
			return err
		}
	}
	if err := blocks.Error(); err != nil {
		return err
	}
	return votes.Error()
}

// eachBallot calls do with the votes on a block, at which the iterator stands if
// there are any. Strangers may have written any number.
func (v *verifier) eachBallot(block id, votes *pebble.Iterator, do func(ballot) error) error {
	for ; votes.Valid() && id(votes.Key()[1:1+idSize]) == block; votes.Next() {
		v.report.Votes++
		vote, err := readRanked(votes.Value())
		if err == nil {
			err = do(ballot{string(votes.Key()[1+idSize:]), vote})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// missing looks into votes on a block that is not there, or damaged.
func (v *verifier) missing(block id, votes *pebble.Iterator, w setter) error {
	members := 0
	err := v.eachBallot(block, votes, func(vote ballot) error {
		if _, member := v.voters[vote.voter]; member || v.history.genesis == "" {
			if vote.lap <= v.subject {
				members++
			}
			return nil
		}
		return find(w, classTogether, Finding{Table: statedb.Votes, ID: ledger.VoteID(block.String(), vote.voter), Rule: VoteVoter,
			Seen: "its voter was never a member of the federation"})
	})
	if err != nil || members == 0 {
		return err
	}
	there, err := v.scratch.bigchainSeen(block.String())
	if err != nil || there {
		return err
	}
	return find(w, classTogether, Finding{Table: statedb.Bigchain, ID: block.String(), Rule: BlockMissing,
		Seen: fmt.Sprintf("it is not there, but members voted on it: %d", members)})
}

// foreign tells why a block is not one of the federation's.
func (v *verifier) foreign(block id, facts blockFacts) (members []string, faults []fault) {
	if v.history.genesis == "" { // nobody can tell
		members = slices.Sorted(slices.Values(facts.voters))
		return slices.Compact(members), nil
	}
	if facts.genesis && block.String() != v.history.genesis {
		faults = append(faults, fault{rule: BlockGenesis, seen: "it is a genesis block; the ledger's is " + v.history.genesis})
	}
	epoch, ok := v.history.at(facts.timestamp)
	if !ok {
		return nil, append(faults, fault{rule: BlockTimestamp, seen: fmt.Sprintf("its timestamp is %d, the genesis block's is %d",
			facts.timestamp, v.history.epochs[0].from)})
	}
	if !slices.Contains(epoch.members, facts.maker) {
		faults = append(faults, fault{rule: BlockMaker, seen: fmt.Sprintf("its maker %s was no member in epoch %d", shorten(facts.maker), epoch.number)})
	}
	if !slices.Equal(slices.Sorted(slices.Values(facts.voters)), epoch.members) {
		faults = append(faults, fault{rule: BlockVoters, seen: fmt.Sprintf("it names %d voters, which are not the %d members in epoch %d",
			len(facts.voters), len(epoch.members), epoch.number)})
	}
	return epoch.members, faults
}

// decide counts the votes on a block.
func (v *verifier) decide(block id, facts blockFacts, votes *pebble.Iterator, w setter) error {
	if block.String() == v.history.genesis {
		v.report.Blocks.Valid++
		// Votes on it are findings of their nodes' chains, and have no rank.
		return w.Set(key(statusPrefix, block[:]), decision{first: consensus.Valid, now: consensus.Valid}.append(nil), nil)
	}
	members, faults := v.foreign(block, facts)
	faults = append(faults, facts.faults...)
	var d decision
	first, now := consensus.Votes{Voters: len(members)}, consensus.Votes{Voters: len(members)}
	var against []byte
	said, err := v.proofs(block)
	if err != nil {
		return err
	}
	err = v.eachBallot(block, votes, func(vote ballot) error {
		about := Finding{Table: statedb.Votes, ID: ledger.VoteID(block.String(), vote.voter)}
		if !slices.Contains(members, vote.voter) {
			about.Rule, about.Seen = VoteVoter, "its voter was no member of the federation when the block was made"
			return find(w, classTogether, about)
		}
		early := vote.lap <= v.subject
		count := 1
		if d := said[vote.voter]; d != nil {
			d.add(vote.valid)
			count = 0 // with all that its voter said
		}
		if !vote.valid {
			now.Invalid += count
			if early {
				first.Invalid += count
				against = appendText(appendText(against, vote.voter), vote.reason)
			}
			return nil
		}
		now.Valid += count
		if early {
			first.Valid += count
		}
		if number, member := v.voters[vote.voter]; member {
			d.votes = append(d.votes, validVote{number, vote.rank})
		}
		if len(faults) > 0 {
			about.Rule, about.Seen = VoteVerdict, fmt.Sprintf("it says valid, but the block breaks %s", faults[0].rule)
			return find(w, classTogether, about)
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.spends = facts.spends
	if len(said) > 0 {
		if err := v.liars(block, members, said, &now, w); err != nil {
			return err
		}
		first = now
	}
	d.now = consensus.Decide(v.rules, now)
	if d.first = consensus.Decide(v.rules, first); facts.lap > v.subject {
		d.first = consensus.Undecided
	}
	if d.now == consensus.Disputed && len(faults) == 0 {
		err := find(w, classTogether, Finding{Table: statedb.Bigchain, ID: block.String(), Rule: BlockDisputed,
			Seen: "its votes let one node decide it valid and another one invalid"})
		if err != nil {
			return err
		}
	}
	switch {
	case len(faults) == 0:
		if d.against = len(against) > 0; d.against {
			if err := w.Set(key(againstPrefix, block[:]), against, nil); err != nil {
				return err
			}
		}
	case d.now != consensus.Invalid: // else the federation has dealt with it
		for _, f := range faults {
			err := find(w, classTogether, Finding{Table: statedb.Bigchain, ID: block.String(), Rule: f.rule, Transaction: f.tx, Seen: f.seen})
			if err != nil {
				return err
			}
		}
		fallthrough
	default:
		d.first, d.now, d.votes = consensus.Invalid, consensus.Invalid, nil
	}
	v.report.Blocks.count(d.now)
	return w.Set(key(statusPrefix, block[:]), d.append(nil), nil)
}

func (b *Blocks) count(status consensus.Status) {
	switch status {
	case consensus.Valid:
		b.Valid++
	case consensus.Invalid:
		b.Invalid++
	case consensus.Disputed:
		b.Disputed++
	default:
		b.Undecided++
	}
}
