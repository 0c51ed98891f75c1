package verify

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

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
	if id := ledger.VoteID(vote.BlockID, vote.NodePubkey); id != d.ID {
		return false, wrong(VoteID, "it is the vote "+id)
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
