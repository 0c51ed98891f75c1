package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// resend writes this node's vote on a block again: a stranger wrote over it.
func (v *voter) resend(block string) {
	vote, err := v.n.journal.Vote(block)
	if err != nil || vote == nil {
		return
	}
	v.mu.Lock()
	v.unsent = append(v.unsent, vote)
	v.mu.Unlock()
	v.signal()
}

// idle reports whether every vote given is in the database.
func (v *voter) idle() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.unsent) == 0
}

// write is the vote writer: it brings votes into the database.
func (v *voter) write(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.wake:
		}
		for {
			v.mu.Lock()
			batch := v.unsent[:min(len(v.unsent), v.n.db.Limits().MaxBatch)]
			v.mu.Unlock()
			if len(batch) == 0 {
				break
			}
			if err := v.send(ctx, batch); err != nil {
				return err
			}
			v.mu.Lock()
			v.unsent = v.unsent[len(batch):]
			v.mu.Unlock()
		}
	}
}

func (v *voter) send(ctx context.Context, batch []*ledger.Vote) error {
	n := v.n
	writes := make([]statedb.Write, len(batch))
	for i, vote := range batch {
		writes[i] = statedb.Write{ID: ledger.VoteID(vote.BlockID, vote.NodePubkey), Body: vote.Bytes()}
	}
	var results []statedb.Result
	err := n.retry(ctx, "vote writer", func() (err error) {
		results, err = n.db.Write(ctx, statedb.Votes, writes)
		return err
	})
	if err != nil {
		return err
	}
	for i, r := range results {
		err := r.Err
		if errors.Is(err, statedb.ErrConflict) {
			err = n.retry(ctx, "vote writer", func() error { return v.reclaim(ctx, batch[i]) })
		}
		if err != nil {
			return fmt.Errorf("write the vote on block %s: %w", batch[i].BlockID, err)
		}
		if err := n.journal.Sent(batch[i].BlockID); err != nil {
			return err
		}
	}
	return nil
}

// reclaim resolves a conflict at this node's own vote id. A vote of its own
// there is left alone, whatever it says: a second one would be a lie to
// somebody. Anything else has no business there and is overwritten. Where peers copy
// this database they take no edits, and have that garbage too, so a copy goes to
// where nobody could put any before.
func (v *voter) reclaim(ctx context.Context, vote *ledger.Vote) error {
	id := ledger.VoteID(vote.BlockID, vote.NodePubkey)
	documents, err := v.n.db.Get(ctx, statedb.Votes, []string{id})
	if err != nil {
		return err
	}
	for r, err := range revisions(ctx, v.n.db, statedb.Votes, documents[0]) {
		if err != nil {
			return err
		}
		if _, fault := readVote(id, r.Body); fault == nil {
			return nil
		}
	}
	copies := []statedb.Write{{ID: vote.ProofID(), Body: vote.Bytes()}}
	if err := putProofs(ctx, v.n.db, copies); err != nil {
		return err
	}
	results, err := v.n.db.Write(ctx, statedb.Votes, []statedb.Write{{ID: id, Rev: documents[0].Rev, Body: vote.Bytes()}})
	if err != nil {
		return err
	}
	return results[0].Err
}
