package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/statedb"
)

// Queries are served from the table for queries, and other nodes may share it.
// So it is not emptied: each document is compared with what the block says.

// mendDerived makes the document of every valid transaction be what its block
// holds.
func (r *rebuild) mendDerived(ctx context.Context) error {
	most := r.db.Limits().MaxBatch
	done := 0
	for last := uint64(0); ; {
		var group []chainstate.Decision
		for transactions := 0; transactions < most; {
			d, ok, err := r.state.Pending(last)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			last = d.Number
			if r.leave(d) {
				done += len(d.Transactions)
				continue
			}
			transactions += len(d.Transactions)
			group = append(group, d)
		}
		if len(group) == 0 {
			return nil
		}
		for _, d := range group {
			if err := r.mendBlock(ctx, d); err != nil {
				return err
			}
			done += len(d.Transactions)
			r.progress(stepDerived, "comparing the documents for queries", done, max(done, r.report.Transactions), "documents")
		}
		err := r.update(func(u *chainstate.Update) error {
			for _, d := range group {
				if err := u.EffectDone(d.Number, d.BlockID); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// mendBlock compares the documents of one block's transactions.
func (r *rebuild) mendBlock(ctx context.Context, d chainstate.Decision) error {
	block, err := r.fetchBlock(ctx, d.BlockID)
	if lost := (*lostBlockError)(nil); errors.As(err, &lost) {
		r.report.Unknown += len(d.Transactions)
		r.log.Error("a valid block cannot be read", "component", "ledger", "block", d.BlockID, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	var writes []statedb.Write
	err = r.each(ctx, statedb.Transactions, idsOf(block), func(i int, d statedb.Document) error {
		body := transactionDocument(block.Transactions[i], block.ID)
		switch {
		case d.Rev == "":
			r.report.Written++
		case sameJSON(d.Body, body):
			r.report.Right++
			return nil
		default:
			r.report.Mended++
		}
		writes = append(writes, statedb.Write{ID: d.ID, Body: body})
		return nil
	})
	if err != nil {
		return err
	}
	var faults []error
	for most := r.db.Limits().MaxBatch; len(writes) > 0; {
		part := writes[:min(len(writes), most)]
		writes = writes[len(part):]
		err := r.retry(ctx, r.task+"derived documents", func() (err error) {
			faults, err = ensureDocuments(ctx, r.db, statedb.Transactions, part)
			return err
		})
		if err != nil {
			return err
		}
		for i, fault := range faults {
			if fault != nil {
				return fmt.Errorf("write transaction %s for queries: %w", part[i].ID, fault)
			}
		}
	}
	return nil
}

// maxSurplus is how many documents that seem to be too many are gathered.
const maxSurplus = 10_000

// removeSurplus takes documents out of the table for queries that are of no
// valid transaction. One may be of a block that was decided only after the feeds
// were read, so it goes only if, read to their heads once more, they know of
// none.
func (r *rebuild) removeSurplus(ctx context.Context) error {
	var surplus []string
	seen := 0
	err := r.eachPage(ctx, r.task+"derived documents", statedb.Transactions, func(documents []statedb.Document) error {
		for _, d := range documents {
			valid, err := r.isValid(d.ID)
			if err != nil {
				return err
			}
			if !valid {
				surplus = append(surplus, d.ID)
			}
		}
		seen += len(documents)
		r.progress(stepSurplus, "looking for documents of no valid transaction", seen, max(seen, r.report.Transactions), "documents")
		if len(surplus) < maxSurplus {
			return nil
		}
		err := r.removeConfirmed(ctx, surplus)
		surplus = nil
		return err
	})
	if err != nil {
		return err
	}
	return r.removeConfirmed(ctx, surplus)
}

func (r *rebuild) isValid(tx string) (bool, error) {
	status, _, err := r.state.TransactionStatus(tx)
	return status == consensus.Valid, err
}

func (r *rebuild) removeConfirmed(ctx context.Context, surplus []string) error {
	if len(surplus) == 0 {
		return nil
	}
	if err := r.toHeads(ctx, func() {}); err != nil {
		return err
	}
	var ids []string
	for _, id := range surplus {
		valid, err := r.isValid(id)
		if err != nil {
			return err
		}
		if !valid {
			ids = append(ids, id)
		}
	}
	r.report.Removed += len(ids)
	return r.remove(ctx, r.task+"derived documents", statedb.Transactions, ids)
}
