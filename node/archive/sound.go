package archive

import (
	"errors"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// genesisID is the document that claims the first block.
const genesisID = "genesis"

// isHistory reports whether an id of the bigchain table is not a block's.
func isHistory(id string) bool {
	return id == genesisID || strings.HasPrefix(id, ledger.StatementPrefix)
}

// Errors of documents that are not the ledger's, which the file leaves out as a
// node leaves them out of what it serves.
var (
	errSignature = errors.New("the signature is not its maker's")
	errOtherID   = errors.New("it stands under another id than its own")
)

// soundVote reads a vote that is its voter's.
func soundVote(d statedb.Document) (*ledger.Vote, error) {
	v, err := ledger.ParseVote(d.Body)
	switch {
	case err != nil:
		return nil, err
	case !v.StandsAt(d.ID):
		return nil, errOtherID
	case !v.Verify():
		return nil, errSignature
	}
	return v, nil
}

// soundBlock reads a block with its own hash and its maker's signature. Its
// transactions are not judged.
func soundBlock(d statedb.Document) (*ledger.Block, error) {
	b, err := ledger.ParseBlock(d.Body)
	switch {
	case err != nil:
		return nil, err
	case b.ID != d.ID:
		return nil, errOtherID
	}
	return b, b.Verify()
}

// soundHistory reads the claim on the first block, or a statement about the
// federation, in canonical form. members is how many the federation has by it.
func soundHistory(d statedb.Document) (body []byte, members int, err error) {
	if d.ID != genesisID {
		s, err := ledger.ParseStatement(d.Body)
		switch {
		case err != nil:
			return nil, 0, err
		case s.DocumentID() != d.ID:
			return nil, 0, errOtherID
		case !s.Verify():
			return nil, 0, errSignature
		}
		return s.Bytes(), len(s.Members), nil
	}
	b, err := claimedBlock(d)
	if err != nil {
		return nil, 0, err
	}
	tree, err := canonical.Parse(d.Body)
	return tree.Bytes(), len(b.Voters), err
}

// claimedBlock is the first block as the claim on it has it.
func claimedBlock(d statedb.Document) (*ledger.Block, error) {
	tree, err := canonical.Parse(d.Body)
	if err != nil {
		return nil, err
	}
	inner, _ := tree.Get("genesis")
	b, err := ledger.ParseBlock(inner.Bytes())
	if err != nil {
		return nil, err
	}
	return b, b.Verify()
}

// soundEntry reads an entry of the backlog in canonical form.
func soundEntry(d statedb.Document) ([]byte, error) {
	tree, err := canonical.Parse(d.Body)
	if err != nil {
		return nil, err
	}
	t, err := ledger.TransactionFromValue(tree.Without("assignee", "assignment_timestamp"))
	switch {
	case err != nil:
		return nil, err
	case t.ID != d.ID:
		return nil, errOtherID
	case t.ComputeID() != t.ID:
		return nil, errors.New("its id is not the hash of its body")
	}
	return tree.Bytes(), nil
}
