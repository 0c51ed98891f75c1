package ledger

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/couchledger/couchledger/canonical"
)

// Statement is one member's signed word on who makes up the federation from a
// given time on. An epoch of the federation's history begins when more than
// half of the members before it have made the same statement, so no single
// node can name itself the sole voter.
//
// The 0.10 documents have no such object; they let a block's maker choose the
// voters. See ARCHITECTURE.md, Membership.
type Statement struct {
	Number     int      // of the epoch it begins; the genesis block began epoch 0
	From       int64    // Unix seconds: blocks from this timestamp on
	Members    []string // base58, sorted, without repetitions
	Previous   string   // Hash of the statement that began the epoch before; "" for epoch 0
	NodePubkey string
	Signature  string
}

// NewStatement signs a statement.
func NewStatement(signer KeyPair, number int, from int64, members []string, previous string) *Statement {
	s := &Statement{Number: number, From: from, Members: members, Previous: previous, NodePubkey: signer.Public}
	s.Signature = sign(signer, s.appendInner(nil))
	return s
}

// StatementPrefix begins the document ids of statements in the bigchain table.
const StatementPrefix = "federation:"

// DocumentID gives each member one statement for each epoch.
func (s *Statement) DocumentID() string {
	return fmt.Sprintf("%s%08d:%s", StatementPrefix, s.Number, s.NodePubkey)
}

// Hash is the same for equal statements of different members.
func (s *Statement) Hash() string { return Hash(s.appendInner(nil)) }

// Verify reports whether the signature is the member's.
func (s *Statement) Verify() bool { return verify(s.NodePubkey, s.appendInner(nil), s.Signature) }

func (s *Statement) appendInner(dst []byte) []byte {
	dst = append(dst, `{"from":"`...)
	dst = strconv.AppendInt(dst, s.From, 10)
	dst = append(dst, `","members":`...)
	dst = canonical.StringsOf(s.Members).Append(dst)
	dst = append(dst, `,"number":`...)
	dst = strconv.AppendInt(dst, int64(s.Number), 10)
	dst = append(dst, `,"previous":`...)
	if s.Previous == "" {
		dst = append(dst, "null"...)
	} else {
		dst = canonical.AppendString(dst, s.Previous)
	}
	return append(dst, '}')
}

// Bytes returns the canonical form.
func (s *Statement) Bytes() []byte {
	dst := append([]byte(nil), `{"federation":`...)
	dst = s.appendInner(dst)
	dst = append(dst, `,"node_pubkey":`...)
	dst = canonical.AppendString(dst, s.NodePubkey)
	dst = append(dst, `,"signature":`...)
	dst = canonical.AppendString(dst, s.Signature)
	return append(dst, '}')
}

// ParseStatement reads a statement and checks its shape. Errors wrap
// ErrMalformed. It checks no signature: see Verify.
func ParseStatement(data []byte) (*Statement, error) {
	tree, err := canonical.ParseWithin(data, canonical.Limits{Depth: maxStatementDepth})
	if err != nil {
		return nil, fmt.Errorf("statement: %w: %w", ErrMalformed, err)
	}
	s := &Statement{}
	if err := s.read(tree); err != nil {
		return nil, fmt.Errorf("statement: %w: %w", ErrMalformed, err)
	}
	return s, nil
}

const maxStatementDepth = 3

// maxEpochs keeps an epoch's number within the eight digits of a document id.
const maxEpochs = 99_999_999

func (s *Statement) read(tree canonical.Value) error {
	if err := hasFields(tree, "", "federation", "node_pubkey", "signature"); err != nil {
		return err
	}
	inner, signer, signature := tree.At(0), tree.At(1), tree.At(2)
	if err := hasFields(inner, "federation", "from", "members", "number", "previous"); err != nil {
		return err
	}
	from, members, number, previous := inner.At(0), inner.At(1), inner.At(2), inner.At(3)
	if signer.Kind() != canonical.String || signature.Kind() != canonical.String {
		return at("", "node_pubkey and signature must be strings")
	}
	s.NodePubkey, s.Signature = signer.Text(), signature.Text()
	var err error
	if s.From, err = readTimestamp(from); err != nil {
		return within("federation.from", err)
	}
	if s.Members, err = publicKeys(members); err != nil {
		return within("federation.members", err)
	}
	if len(s.Members) == 0 || !slices.IsSorted(s.Members) || len(slices.Compact(slices.Clone(s.Members))) != len(s.Members) {
		return at("federation.members", "must be sorted and without repetitions")
	}
	n, ok := number.Int64()
	if !ok || n < 1 || n > maxEpochs {
		return at("federation.number", "must be an integer of at least 1")
	}
	s.Number = int(n)
	if s.Previous = previous.Text(); !previous.IsNull() && !IsID(s.Previous) {
		return at("federation.previous", "must be null or a hash")
	}
	return nil
}
