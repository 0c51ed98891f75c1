package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// takeBack carries out what follows from a disputed block: the table for queries
// shows its transactions no more, and those that are in no valid block wait in the
// backlog again, wherever this node had thought them decided: also those in an
// undecided block, which may come to nothing. block is nil when it is gone from the
// database.
func (e *effects) takeBack(ctx context.Context, d chainstate.Decision, block *ledger.Block) error {
	n := e.n
	ids := make([]string, len(d.Transactions))
	for i, t := range d.Transactions {
		ids[i] = t.TxID
	}
	for most := n.db.Limits().MaxBatch; len(ids) > 0; {
		part := ids[:min(len(ids), most)]
		ids = ids[len(part):]
		if err := e.withdraw(ctx, d.BlockID, part); err != nil {
			return err
		}
	}
	if block == nil {
		return nil
	}
	members, now := n.federation().Members, n.clock().Unix()
	var writes []statedb.Write
	var waits []string
	for _, t := range block.Transactions {
		status, _, err := n.state.TransactionStatus(t.ID)
		if err != nil {
			return err
		}
		if status != consensus.Valid {
			waits = append(waits, t.ID)
			writes = append(writes, statedb.Write{ID: t.ID, Body: backlogDocument(t, assigneeOf(members, t), now)})
		}
	}
	for most := n.db.Limits().MaxBatch; len(writes) > 0; {
		part := writes[:min(len(writes), most)]
		writes = writes[len(part):]
		err := n.retry(ctx, "effects", func() error {
			_, err := n.db.Write(ctx, statedb.Backlog, part) // what is there already stays
			return err
		})
		if err != nil {
			return fmt.Errorf("put the transactions of disputed block %s into the backlog: %w", d.BlockID, err)
		}
	}
	// Of an entry that was still there the feed says nothing more.
	return n.trackEntries(ctx, waits)
}

// withdraw takes documents out of the table for queries that are there by a
// block. Others' stay: a transaction may be valid by another block.
func (e *effects) withdraw(ctx context.Context, block string, ids []string) error {
	var gone []statedb.Write
	err := e.n.each(ctx, statedb.Transactions, ids, func(_ int, d statedb.Document) error {
		if d.Rev == "" {
			return nil
		}
		if tree, err := canonical.Parse(d.Body); err == nil {
			if by, _ := tree.Get("block_id"); by.Text() == block {
				gone = append(gone, statedb.Write{ID: d.ID, Rev: d.Rev, Delete: true})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return e.delete(ctx, statedb.Transactions, gone) // one that was written anew meanwhile stays
}

// prove has votes that contradict each other put beside the one that the
// database shows, under ids of their own: see ledger.Vote.ProofID.
func (e *effects) prove(votes ...*ledger.Vote) {
	e.busy.Store(true)
	e.mu.Lock()
	e.proofs = append(e.proofs, votes...)
	e.mu.Unlock()
	e.signal()
}

// proveAgain takes up what a crash may have kept from the database.
func (e *effects) proveAgain() error {
	for cursor := ""; ; {
		list, next, err := e.n.journal.Faults(cursor, journal.MaxFaults)
		if err != nil {
			return err
		}
		for _, f := range list {
			if f.Kind != faultTwoVerdicts {
				continue
			}
			for _, text := range f.Evidence {
				if v, err := ledger.ParseVote([]byte(text)); err == nil {
					e.prove(v)
				}
			}
		}
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

func (e *effects) publish(ctx context.Context, votes []*ledger.Vote) error {
	for most := e.n.db.Limits().MaxBatch; len(votes) > 0; {
		part := votes[:min(len(votes), most)]
		votes = votes[len(part):]
		writes := make([]statedb.Write, len(part))
		for i, v := range part {
			writes[i] = statedb.Write{ID: v.ProofID(), Body: v.Bytes()}
		}
		err := e.n.retry(ctx, "effects", func() error { return putProofs(ctx, e.n.db, writes) })
		if err != nil {
			return err
		}
	}
	return nil
}

// putProofs writes votes under their ProofIDs. What another node has put there
// is as good; a stranger's garbage is overwritten.
func putProofs(ctx context.Context, db statedb.DB, writes []statedb.Write) error {
	results, err := db.Write(ctx, statedb.Votes, writes)
	if err != nil {
		return err
	}
	for i, r := range results {
		if !errors.Is(r.Err, statedb.ErrConflict) {
			if r.Err != nil {
				return r.Err
			}
			continue
		}
		documents, err := db.Get(ctx, statedb.Votes, []string{writes[i].ID})
		if err != nil {
			return err
		}
		if _, err := readVote(writes[i].ID, documents[0].Body); err == nil {
			continue
		}
		writes[i].Rev = documents[0].Rev
		again, err := db.Write(ctx, statedb.Votes, writes[i:i+1])
		if err == nil && !errors.Is(again[0].Err, statedb.ErrConflict) {
			err = again[0].Err
		}
		if err != nil {
			return err
		}
	}
	return nil
}
