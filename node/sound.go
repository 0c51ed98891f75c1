package node

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// unsoundError says why a document of the shared database is not served.
type unsoundError struct {
	reason string
	// late: it may become sound, this node has only not decided yet.
	late bool
}

func (e *unsoundError) Error() string { return e.reason }

func unsound(format string, args ...any) error {
	return &unsoundError{reason: fmt.Sprintf(format, args...)}
}

// soundDocument returns a document in canonical form if it is what its table
// is for; anybody who reaches the database may have written it. Otherwise the
// error is an *unsoundError. Sound is
//
//   - a transaction that is valid on this node, to the byte as it stands in the
//     block that block_id names
//   - a block that this node knows, whatever its status, with its own hash and
//     its maker's signature; this ledger's genesis claim; a statement about the
//     federation with its member's signature, whether it counts or not
//   - a vote with its voter's signature, whether it counts or not
//   - a backlog entry under the id that its transaction has
func (n *Node) soundDocument(table string, d statedb.Document) ([]byte, error) {
	switch table {
	case statedb.Transactions:
		return n.soundTransaction(d)
	case statedb.Bigchain:
		return n.soundHistory(d)
	case statedb.Votes:
		v, err := ledger.ParseVote(d.Body)
		switch {
		case err != nil:
			return nil, unsound("it is not a vote: %v", err)
		case !v.StandsAt(d.ID):
			return nil, unsound("its id is not that of its block and voter")
		case !v.Verify():
			return nil, unsound("the signature is not its voter's")
		}
		return v.Bytes(), nil
	}
	t, _, err := readBacklogDocument(d)
	if err == nil && t.ComputeID() != t.ID {
		err = fmt.Errorf("its id is not the hash of its body")
	}
	if err != nil {
		return nil, unsound("%v", err)
	}
	tree, err := canonical.Parse(d.Body)
	return tree.Bytes(), err
}

func (n *Node) soundTransaction(d statedb.Document) ([]byte, error) {
	status, block, err := n.state.TransactionStatus(d.ID)
	if err != nil {
		return nil, err
	}
	if status != consensus.Valid {
		return nil, &unsoundError{reason: "no such transaction is valid here", late: status == consensus.Undecided}
	}
	digest, err := n.state.TransactionDigest(d.ID)
	if err != nil {
		return nil, err
	}
	tree, err := canonical.Parse(d.Body)
	if err != nil {
		return nil, unsound("%v", err)
	}
	if named, _ := tree.Get("block_id"); named.Kind() != canonical.String || named.Text() != block {
		return nil, unsound("block_id is not the block by which it is valid, %s", block)
	}
	if sha256.Sum256(tree.Without("block_id").Bytes()) != digest {
		return nil, unsound("it is not what stands in block %s", block)
	}
	return tree.Bytes(), nil
}

// soundHistory checks a document of the bigchain table.
func (n *Node) soundHistory(d statedb.Document) ([]byte, error) {
	switch {
	case d.ID == genesisID:
		claim := genesisClaim(n.genesis)
		if !sameJSON(d.Body, claim) {
			return nil, unsound("it does not claim this ledger's genesis block")
		}
		return claim, nil
	case strings.HasPrefix(d.ID, ledger.StatementPrefix):
		st, err := ledger.ParseStatement(d.Body)
		if err != nil {
			return nil, unsound("it is not a statement about the federation: %v", err)
		}
		if st.DocumentID() != d.ID || !st.Verify() {
			return nil, unsound("it is not signed by its member")
		}
		return st.Bytes(), nil
	}
	status, err := n.state.BlockStatus(d.ID)
	if err != nil {
		return nil, err
	}
	b, err := soundBlock(d.ID, d.Revisions(nil)) // queries see what the database shows
	if err != nil {
		return nil, unsound("%v", err)
	}
	if status == consensus.Unknown {
		return nil, &unsoundError{reason: "the block has not reached this node", late: true}
	}
	return b.Bytes(), nil
}

// maxTold is how many withheld documents are told of, so that somebody who
// fills a table with garbage does not fill the log.
const maxTold = 1000

// withheld remembers which documents were told of.
type withheld struct {
	mu   sync.Mutex
	told map[string]bool
}

// withhold counts a document that a query does not serve, and tells of it in
// the log once.
func (n *Node) withhold(table, id string, why *unsoundError) {
	n.metrics.withheld.Inc()
	if why.late {
		return
	}
	n.withheld.mu.Lock()
	defer n.withheld.mu.Unlock()
	name := table + "/" + id
	if n.withheld.told[name] || len(n.withheld.told) == maxTold {
		return
	}
	n.withheld.told[name] = true
	n.log.Warn("a document is left out of queries", "component", "query", "table", table, "document", id, "reason", why)
}
