package ledger

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// Vote is one node's signed verdict on a block.
type Vote struct {
	NodePubkey    string // the voter, base58
	Signature     string // base58, by the voter over the inner vote
	BlockID       string // voting_for_block
	PreviousBlock string // the block this node voted on before
	Valid         bool   // is_block_valid
	InvalidReason string // "" where the JSON has null
	Timestamp     int64  // Unix seconds, by the voter's clock
}

// NewVote signs a verdict. reason is a short word, "" for a valid block.
func NewVote(voter KeyPair, block, previous string, valid bool, reason string, timestamp int64) *Vote {
	v := &Vote{
		NodePubkey: voter.Public, BlockID: block, PreviousBlock: previous,
		Valid: valid, InvalidReason: reason, Timestamp: timestamp,
	}
	v.Signature = sign(voter, v.appendInner(nil))
	return v
}

// VoteID is the document id of a node's vote on a block. It makes a second
// vote of one node a conflict in the database.
func VoteID(block, node string) string { return block + ":" + node }

// ProofID is the document id of a copy of a vote, beside the one at VoteID, where the
// documents have nothing. Two votes of one node on a block that contradict each other
// are put there by whoever met both, so that all who read the ledger later, or a
// backup of it, meet both as well. So is a vote at whose VoteID somebody put garbage
// before: nobody knows this id before the vote is signed.
func (v *Vote) ProofID() string {
	return VoteID(v.BlockID, v.NodePubkey) + ":" + Hash([]byte(v.Signature))[:16]
}

// IsProofID reports whether an id of the votes table can be a ProofID.
func IsProofID(id string) bool { return strings.Count(id, ":") == 2 }

// StandsAt reports whether a document id is one of those under which the vote
// may stand.
func (v *Vote) StandsAt(id string) bool {
	return id == VoteID(v.BlockID, v.NodePubkey) || id == v.ProofID()
}

func (v *Vote) appendInner(dst []byte) []byte {
	dst = append(dst, `{"invalid_reason":`...)
	if v.InvalidReason == "" {
		dst = append(dst, "null"...)
	} else {
		dst = canonical.AppendString(dst, v.InvalidReason)
	}
	dst = append(dst, `,"is_block_valid":`...)
	dst = strconv.AppendBool(dst, v.Valid)
	dst = append(dst, `,"previous_block":`...)
	dst = canonical.AppendString(dst, v.PreviousBlock)
	dst = append(dst, `,"timestamp":"`...)
	dst = strconv.AppendInt(dst, v.Timestamp, 10)
	dst = append(dst, `","voting_for_block":`...)
	dst = canonical.AppendString(dst, v.BlockID)
	return append(dst, '}')
}

// Bytes returns the canonical form of the vote as the API shows it.
func (v *Vote) Bytes() []byte {
	dst := append(make([]byte, 0, 512), `{"node_pubkey":`...)
	dst = canonical.AppendString(dst, v.NodePubkey)
	dst = append(dst, `,"signature":`...)
	dst = canonical.AppendString(dst, v.Signature)
	dst = append(dst, `,"vote":`...)
	return append(v.appendInner(dst), '}')
}

// ParseVote reads a vote and checks its shape. Errors wrap ErrMalformed. It
// checks no signature: see Verify.
func ParseVote(data []byte) (*Vote, error) {
	tree, err := canonical.ParseWithin(data, canonical.Limits{Depth: maxVoteDepth})
	if err != nil {
		return nil, fmt.Errorf("vote: %w: %w", ErrMalformed, err)
	}
	v := &Vote{}
	if err := v.read(tree); err != nil {
		return nil, fmt.Errorf("vote: %w: %w", ErrMalformed, err)
	}
	return v, nil
}

const maxVoteDepth = 2

func (v *Vote) read(tree canonical.Value) error {
	if err := hasFields(tree, "", "node_pubkey", "signature", "vote"); err != nil {
		return err
	}
	voter, signature, inner := tree.At(0), tree.At(1), tree.At(2)
	if err := hasFields(inner, "vote", "invalid_reason", "is_block_valid", "previous_block", "timestamp", "voting_for_block"); err != nil {
		return err
	}
	reason, verdict, previous, timestamp, block := inner.At(0), inner.At(1), inner.At(2), inner.At(3), inner.At(4)
	for _, s := range []canonical.Value{voter, signature, previous, block} {
		if s.Kind() != canonical.String {
			return at("", "node_pubkey, signature, vote.previous_block and vote.voting_for_block must be strings")
		}
	}
	v.NodePubkey, v.Signature, v.PreviousBlock, v.BlockID = voter.Text(), signature.Text(), previous.Text(), block.Text()
	if !isKeyText(v.NodePubkey) || !IsID(v.BlockID) || !IsID(v.PreviousBlock) {
		return at("", "node_pubkey must be a key, vote.previous_block and vote.voting_for_block ids")
	}
	if v.InvalidReason = reason.Text(); !reason.IsNull() && (reason.Kind() != canonical.String || reason.Text() == "") {
		return at("vote.invalid_reason", "must be null or a short word")
	}
	if verdict.Kind() != canonical.Bool {
		return at("vote.is_block_valid", "must be true or false")
	}
	v.Valid = verdict.Bool()
	var err error
	if v.Timestamp, err = readTimestamp(timestamp); err != nil {
		return within("vote.timestamp", err)
	}
	return nil
}

// Verify reports whether the signature is the voter's.
func (v *Vote) Verify() bool { return verify(v.NodePubkey, v.appendInner(nil), v.Signature) }
