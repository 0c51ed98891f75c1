package chainstate

import (
	"encoding/binary"
	"fmt"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// voteRecord is what is kept of a member's votes on a block: the first whole,
// as it proves something should another one contradict it.
type voteRecord struct {
	said  byte // saidValid, saidInvalid or both
	first *ledger.Vote
}

// What a member has said of a block.
const (
	saidValid   = 1
	saidInvalid = 2
	saidBoth    = saidValid | saidInvalid
)

func said(valid bool) byte {
	if valid {
		return saidValid
	}
	return saidInvalid
}

func (r voteRecord) append(dst []byte) []byte {
	dst = append(dst, r.said, said(r.first.Valid))
	previous, _ := toID(r.first.PreviousBlock) // parsing lets no other through
	dst = append(dst, previous[:]...)
	dst = binary.AppendVarint(dst, r.first.Timestamp)
	dst = appendText(dst, r.first.InvalidReason)
	return append(dst, r.first.Signature...)
}

// readVoteRecord reads what append wrote for a member's votes on a block.
func readVoteRecord(b []byte, block id, voter string) (voteRecord, error) {
	r := reader{rest: b}
	rec := voteRecord{said: r.byte(), first: &ledger.Vote{BlockID: block.String(), NodePubkey: voter}}
	rec.first.Valid = r.byte() == saidValid
	rec.first.PreviousBlock = r.id().String()
	rec.first.Timestamp = r.int()
	rec.first.InvalidReason = r.text()
	rec.first.Signature = string(r.rest)
	return rec, r.err()
}

// AddVote records a vote whose signature is sound. Where it is the first that
// contradicts an earlier vote of the same node on the block, it returns that.
func (u *Update) AddVote(v *ledger.Vote) (contradicted *ledger.Vote, err error) {
	block, ok := toID(v.BlockID)
	if !ok {
		return nil, fmt.Errorf("chainstate: malformed block id %.70q", v.BlockID)
	}
	k := key(votePrefix, block[:], []byte(v.NodePubkey))
	known, err := u.get(k)
	if err != nil {
		return nil, err
	}
	if known == nil {
		return nil, u.set(k, voteRecord{said: said(v.Valid), first: v}.append(nil))
	}
	if len(known) > 0 && known[0]|said(v.Valid) == known[0] {
		return nil, nil // said before
	}
	rec, err := readVoteRecord(known, block, v.NodePubkey)
	if err != nil {
		return nil, err
	}
	rec.said = saidBoth
	if !u.liars {
		u.liars = true
		if err := u.set(metaKey(metaLiars), nil); err != nil {
			return nil, err
		}
	}
	return rec.first, u.set(k, rec.append(nil))
}

// Count counts the verdicts of a block's voters, and gives its status as it is.
// open is false when votes change nothing any more: the block has not arrived,
// can never be valid, or is decided and nobody has lied.
func (u *Update) Count(blockID string) (votes consensus.Votes, status consensus.Status, open bool, err error) {
	block, ok := toID(blockID)
	if !ok {
		return
	}
	status, err = u.blockStatus(block)
	switch {
	case err != nil || status == consensus.Unknown || status == consensus.Disputed:
		return votes, status, false, err
	case status != consensus.Undecided && !u.liars:
		return votes, status, false, nil
	}
	rec, err := u.block(block)
	if err != nil || rec.unsound {
		return votes, status, false, err
	}
	members := u.epochs[rec.epoch].Members
	votes.Voters = len(members)
	for _, member := range members {
		value, err := u.get(key(votePrefix, block[:], []byte(member)))
		if err != nil {
			return votes, status, false, err
		}
		if len(value) == 0 {
			continue
		}
		if value[0]&saidValid != 0 {
			votes.Valid++
		}
		if value[0]&saidInvalid != 0 {
			votes.Invalid++
		}
		if value[0] == saidBoth {
			votes.Both++
		}
	}
	return votes, status, status == consensus.Undecided || votes.Both > 0, nil
}

// HasLiars reports whether a member ever voted both ways on a block.
func (s *State) HasLiars() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.liars
}

// Liars lists the members that voted both ways on a block.
func (s *State) Liars(blockID string) ([]string, error) {
	block, _ := toID(blockID)
	epoch, err := s.EpochOf(blockID)
	if err != nil {
		return nil, err
	}
	v := s.View()
	defer v.Close()
	var list []string
	for _, member := range s.Epochs()[epoch].Members {
		value, err := v.get(key(votePrefix, block[:], []byte(member)))
		if err != nil {
			return nil, err
		}
		if len(value) > 0 && value[0] == saidBoth {
			list = append(list, member)
		}
	}
	return list, nil
}
