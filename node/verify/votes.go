package verify

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// checkVote checks a document of the votes table by itself. It reports whether
// it is a vote, whose facts are in b then.
func (v *verifier) checkVote(d statedb.Document, b *pebble.Batch) (sound bool, err error) {
	wrong := func(rule Rule, seen string) error {
		return find(b, classDocument, Finding{Table: statedb.Votes, ID: d.ID, Rule: rule, Seen: seen})
	}
	vote, err := ledger.ParseVote(d.Body)
	if err != nil {
		return false, wrong(VoteShape, err.Error())
	}
	if !vote.StandsAt(d.ID) {
		return false, wrong(VoteID, "it is the vote "+ledger.VoteID(vote.BlockID, vote.NodePubkey))
	}
	if !vote.Verify() {
		return false, wrong(VoteSignature, "the signature is not its voter's")
	}
	if vote.Valid && vote.InvalidReason != "" {
		if err := wrong(VoteVerdict, fmt.Sprintf("it says valid, and gives the reason %q against it", shorten(vote.InvalidReason))); err != nil {
			return false, err
		}
	}
	block, voter := toID(vote.BlockID), voterPart(vote.NodePubkey)
	if ledger.IsProofID(d.ID) {
		return true, b.Set(proofKey(block, vote.NodePubkey, vote.Valid), nil, nil)
	}
	facts := voteFacts{lap: v.lap, valid: vote.Valid, previous: toID(vote.PreviousBlock), reason: vote.InvalidReason}
	// One that was changed since an interruption must not stay in the chain.
	before, err := v.scratch.get(key(votePrefix, voter, block[:]))
	if err != nil {
		return false, err
	}
	if before != nil {
		old, err := readVote(before)
		if err == nil {
			err = b.Delete(key(nextPrefix, voter, old.previous[:], block[:]), nil)
		}
		if err != nil {
			return false, err
		}
	}
	if err := b.Set(key(votePrefix, voter, block[:]), facts.append(nil), nil); err != nil {
		return false, err
	}
	return true, b.Set(key(nextPrefix, voter, facts.previous[:], block[:]), nil, nil)
}

func proofKey(block id, voter string, valid bool) []byte {
	verdict := byte(0)
	if valid {
		verdict = 1
	}
	return key(proofPrefix, block[:], voterPart(voter), []byte{verdict})
}

// verdicts is what a member has said of a block.
type verdicts struct{ valid, invalid bool }

func (d *verdicts) add(valid bool) {
	d.valid = d.valid || valid
	d.invalid = d.invalid || !valid
}

// proofs reads what copies of contradicted votes say of a block, by voter.
func (v *verifier) proofs(block id) (map[string]*verdicts, error) {
	prefix := key(proofPrefix, block[:])
	it, err := v.scratch.scan(prefix, after(prefix))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	found := map[string]*verdicts{}
	for it.First(); it.Valid(); it.Next() {
		voter, verdict, _ := bytes.Cut(it.Key()[len(prefix):], []byte{0})
		if found[string(voter)] == nil {
			found[string(voter)] = &verdicts{}
		}
		found[string(voter)].add(len(verdict) == 1 && verdict[0] == 1)
	}
	return found, it.Error()
}

// liars counts what members have said of a block of whom there are copies of
// contradicted votes, and notes those that said both.
func (v *verifier) liars(block id, members []string, said map[string]*verdicts, votes *consensus.Votes, w setter) error {
	for _, member := range members {
		d := said[member]
		switch {
		case d == nil:
			continue
		case d.valid && d.invalid:
			votes.Valid, votes.Invalid, votes.Both = votes.Valid+1, votes.Invalid+1, votes.Both+1
		case d.valid:
			votes.Valid++
			continue
		default:
			votes.Invalid++
			continue
		}
		err := find(w, classTogether, Finding{Table: statedb.Votes, ID: ledger.VoteID(block.String(), member), Rule: VoteTwice,
			Seen: "its voter voted valid and invalid on the block"})
		if err != nil {
			return err
		}
	}
	return nil
}
