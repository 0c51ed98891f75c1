package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

var _ API = (*Node)(nil)

// PublicKey is the node's own key.
func (n *Node) PublicKey() string { return n.key.Public }

// Keyring lists the keys of the other members, by configuration.
func (n *Node) Keyring() []string {
	return slices.DeleteFunc(slices.Clone(n.members), func(k string) bool { return k == n.key.Public })
}

// Rules is the name of the rules in force.
func (n *Node) Rules() string { return n.rules.Name() }

// Transaction returns the canonical body of a transaction in a valid block.
func (n *Node) Transaction(ctx context.Context, txID string) ([]byte, error) {
	status, block, err := n.state.TransactionStatus(txID)
	if err != nil {
		return nil, err
	}
	if status != consensus.Valid {
		return nil, n.unknown()
	}
	bodies, err := n.bodies(ctx, []chainstate.AssetEntry{{TxID: txID, BlockID: block}})
	if err != nil {
		return nil, err
	}
	return bodies[0], nil
}

// bodies reads valid transactions from the table for queries in one round
// trip. What is not there yet, or is not what was signed, comes out of its block.
func (n *Node) bodies(ctx context.Context, entries []chainstate.AssetEntry) ([][]byte, error) {
	ids := make([]string, len(entries))
	for i, e := range entries {
		ids[i] = e.TxID
	}
	bodies := make([][]byte, len(entries))
	blocks := map[string]*ledger.Block{} // of one page, a few at most
	err := statedb.Each(ctx, n.db, statedb.Transactions, ids, func(i int, d statedb.Document) error {
		e := entries[i]
		digest, err := n.state.TransactionDigest(e.TxID)
		if err == nil {
			bodies[i] = transactionBody(d, e.BlockID, digest)
		}
		if err == nil && bodies[i] == nil {
			bodies[i], err = n.bodyFromBlock(ctx, e, blocks)
		}
		return err
	})
	return bodies, err
}

func (n *Node) bodyFromBlock(ctx context.Context, e chainstate.AssetEntry, blocks map[string]*ledger.Block) ([]byte, error) {
	block := blocks[e.BlockID]
	if block == nil {
		var err error
		if block, err = n.storedBlock(ctx, e.BlockID); err != nil {
			return nil, err
		}
		blocks[e.BlockID] = block
	}
	for _, t := range block.Transactions {
		if t.ID == e.TxID {
			return t.Bytes(), nil
		}
	}
	return nil, ErrNotFound
}

// storedBlock reads a block that the chainstate knows, as a request does: it tries
// once.
func (n *Node) storedBlock(ctx context.Context, id string) (*ledger.Block, error) {
	documents, err := n.db.Get(ctx, statedb.Bigchain, []string{id})
	if err != nil {
		return nil, err
	}
	return soundBlock(id, revisions(ctx, n.db, statedb.Bigchain, documents[0]))
}

// revisions gives all that stands under an id, or the error of reading it.
func revisions(ctx context.Context, db statedb.DB, table string, d statedb.Document) iter.Seq2[statedb.Revision, error] {
	return d.Revisions(func(revs []string) ([]statedb.Revision, error) {
		return statedb.ReadRevisions(ctx, db, table, d.ID, revs)
	})
}

// lostBlockError: the database does not have a block that it had.
type lostBlockError struct {
	id    string
	fault error // of what stands there; nil for nothing
}

func (e *lostBlockError) Error() string {
	if e.fault == nil {
		return fmt.Sprintf("block %s is gone from the database", e.id)
	}
	return fmt.Sprintf("block %s was changed in the database: %v", e.id, e.fault)
}

func (e *lostBlockError) Unwrap() error { return e.fault }

// soundBlock finds a block among what stands under its id. A *lostBlockError says
// that it is not there, any other that it could not be read.
func soundBlock(id string, revisions iter.Seq2[statedb.Revision, error]) (*ledger.Block, error) {
	lost := &lostBlockError{id: id}
	for r, err := range revisions {
		if err != nil {
			return nil, err
		}
		b, fault := readBlock(id, r.Body)
		if fault == nil {
			return b, nil
		}
		if lost.fault == nil {
			lost.fault = fault
		}
	}
	return nil, lost
}

// readBlock reads what stands under a block's id.
func readBlock(id string, body []byte) (*ledger.Block, error) {
	b, err := ledger.ParseBlock(body)
	if err == nil && b.ID != id {
		err = fmt.Errorf("it holds block %.64s", b.ID)
	}
	if err == nil {
		err = b.Verify()
	}
	return b, err
}

// isBlock judges what stands under a block's id.
func isBlock(id string) func(body []byte) error {
	return func(body []byte) error {
		_, err := readBlock(id, body)
		return err
	}
}

// transactionBody takes block_id out of a document of the transactions table
// and returns the rest in canonical form, or nil when that is not what the
// digest says.
func transactionBody(d statedb.Document, block string, digest [sha256.Size]byte) []byte {
	// As this node writes it, the first such text is the field.
	before, after, found := bytes.Cut(d.Body, []byte(blockField(block)))
	if found {
		if body := slices.Concat(before, after); sha256.Sum256(body) == digest {
			return body
		}
	}
	tree, err := canonical.Parse(d.Body)
	if err != nil {
		return nil
	}
	if body := tree.Without("block_id").Bytes(); sha256.Sum256(body) == digest {
		return body
	}
	return nil
}

// TransactionStatus gives a transaction's status: "valid", "undecided" or
// "backlog", else ErrNotFound, or a *RefusedError with the reason.
func (n *Node) TransactionStatus(ctx context.Context, txID string) (string, error) {
	status, _, err := n.state.TransactionStatus(txID)
	if err != nil || status == consensus.Valid || status == consensus.Undecided {
		return status.String(), err
	}
	const waits = "backlog"
	if status == consensus.Unknown && n.backlog.holds(txID) {
		return waits, nil
	}
	if doubted, err := n.refusal(txID); err != nil {
		return "", err
	} else if doubted {
		return waits, nil
	}
	if status == consensus.Disputed { // it waits as well, but what was valid is to be told apart
		return status.String(), nil
	}
	documents, err := n.db.Get(ctx, statedb.Backlog, []string{txID})
	if err != nil {
		return "", err
	}
	if documents[0].Rev != "" {
		return waits, nil
	}
	// It may have left the backlog between the two looks, either way.
	if status, _, err = n.state.TransactionStatus(txID); err != nil || status != consensus.Unknown {
		return status.String(), err
	}
	if doubted, err := n.refusal(txID); err != nil {
		return "", err
	} else if doubted || n.backlog.passes(txID) {
		return waits, nil
	}
	return "", n.unknown()
}

// refusal returns why a transaction was refused, as a *RefusedError; nil if it
// was not. While a refusal may still be taken back it is doubted.
func (n *Node) refusal(txID string) (doubted bool, err error) {
	if n.doubts.has(txID) {
		return true, nil
	}
	reason, err := n.journal.Refusal(n.clock(), txID)
	if err != nil || reason == "" {
		return false, err
	}
	// It may have come between the two looks.
	if n.doubts.has(txID) {
		return true, nil
	}
	return false, &RefusedError{Reason: reason}
}

// unknown is the answer about what this node does not hold. Before it has
// caught up, as after its chainstate was deleted, that means nothing.
func (n *Node) unknown() error {
	if err := n.complete(); err != nil {
		return err
	}
	return ErrNotFound
}

// complete returns ErrNotReady until the chainstate holds all that the
// database does: a list would lack rows.
func (n *Node) complete() error {
	if n.isCaughtUp() {
		return nil
	}
	return fmt.Errorf("%w: it is catching up with the ledger", ErrNotReady)
}

// BlockStatus gives a block's status: "valid", "undecided" or "invalid".
func (n *Node) BlockStatus(_ context.Context, blockID string) (string, error) {
	status, err := n.state.BlockStatus(blockID)
	if err == nil && status == consensus.Unknown {
		err = n.unknown()
	}
	return status.String(), err
}

// Block returns a block's canonical form, whatever its status.
func (n *Node) Block(ctx context.Context, blockID string) ([]byte, error) {
	if _, err := n.BlockStatus(ctx, blockID); err != nil {
		return nil, err
	}
	b, err := n.storedBlock(ctx, blockID)
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// AssetTransactions lists the bodies of an asset's valid transactions in the
// order they became valid.
func (n *Node) AssetTransactions(ctx context.Context, assetID string, operation ledger.Operation, p Page) ([][]byte, string, error) {
	if err := n.complete(); err != nil {
		return nil, "", err
	}
	if operation == ledger.Create {
		p.Limit = 1 // it is the first, and there is no other
	}
	p.Limit = min(p.Limit, n.queries.BatchRows) // the bodies are read at once
	entries, next, err := n.state.AssetTransactions(assetID, operation, p.Cursor, p.Limit)
	for operation == ledger.Create && err == nil && len(entries) == 0 && next != "" { // the first's block is disputed
		entries, next, err = n.state.AssetTransactions(assetID, operation, next, p.Limit)
	}
	if operation == ledger.Create {
		next = ""
	}
	if err != nil || len(entries) == 0 {
		return nil, next, badCursor(err)
	}
	bodies, err := n.bodies(ctx, entries)
	return bodies, next, err
}

func badCursor(err error) error {
	if errors.Is(err, chainstate.ErrBadCursor) || errors.Is(err, journal.ErrBadCursor) {
		return ErrBadCursor
	}
	return err
}

// Outputs lists the outputs that name a public key.
func (n *Node) Outputs(_ context.Context, publicKey string, unspent bool, p Page) ([]ledger.OutputRef, string, error) {
	if err := n.complete(); err != nil {
		return nil, "", err
	}
	refs, next, err := n.state.Outputs(publicKey, unspent, p.Cursor, p.Limit)
	return refs, next, badCursor(err)
}

// BlocksWith lists the ids of blocks that hold a transaction.
func (n *Node) BlocksWith(_ context.Context, txID string, status string, p Page) ([]string, string, error) {
	if err := n.complete(); err != nil {
		return nil, "", err
	}
	all, err := n.state.BlocksWith(txID)
	if err != nil {
		return nil, "", err
	}
	start := 0
	if p.Cursor != "" {
		if start, err = strconv.Atoi(p.Cursor); err != nil || start < 0 {
			return nil, "", ErrBadCursor
		}
	}
	var ids []string
	for i := start; i < len(all); i++ {
		if len(ids) == p.Limit {
			return ids, strconv.Itoa(i), nil
		}
		if status == "" || all[i].Status.String() == status {
			ids = append(ids, all[i].ID)
		}
	}
	return ids, "", nil
}

// Votes lists the canonical forms of all votes on a block, sound or not.
func (n *Node) Votes(ctx context.Context, blockID string, p Page) ([][]byte, string, error) {
	page, err := n.db.Range(ctx, statedb.Votes, statedb.Range{
		Start: ledger.VoteID(blockID, ""), End: blockID + ";", Limit: min(p.Limit, n.queries.BatchRows), Bookmark: p.Cursor,
	})
	if errors.Is(err, statedb.ErrBadBookmark) {
		err = ErrBadCursor
	}
	if err != nil {
		return nil, "", err
	}
	votes := make([][]byte, 0, len(page.Documents))
	for _, d := range page.Documents {
		if ledger.IsProofID(d.ID) {
			continue // one vote more than once; Faults has them
		}
		if tree, err := canonical.Parse(d.Body); err == nil { // else it is too deep to be anything
			votes = append(votes, tree.Bytes())
		}
	}
	return votes, page.Bookmark, nil
}
