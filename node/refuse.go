package node

import (
	"context"
	"errors"

	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

func asInvalid(err error) (*ledger.ValidationError, bool) {
	var invalid *ledger.ValidationError
	return invalid, errors.As(err, &invalid)
}

// refuse removes transactions that failed for good from the backlog. The
// reason is durable before the entry goes, so that a client can always learn
// one or the other.
func (n *Node) refuse(ctx context.Context, refused []journal.Refusal) error {
	if len(refused) == 0 {
		return nil
	}
	if err := n.journal.Refuse(n.clock(), refused); err != nil {
		return err
	}
	ids := make([]string, len(refused))
	for i, r := range refused {
		ids[i] = r.TxID
		n.log.Info("refused a transaction", "component", "block", "transaction", r.TxID, "reason", r.Reason)
	}
	if err := n.removeFromBacklog(ctx, ids); err != nil {
		return nil // ctx ended; the entries are refused again at the next start
	}
	n.backlog.forget(ids)
	for _, r := range refused {
		n.waiters.settle(r.TxID, &RefusedError{Reason: r.Reason})
	}
	n.metrics.refused.Add(float64(len(refused)))
	return nil
}

func (n *Node) removeFromBacklog(ctx context.Context, ids []string) error {
	most := n.db.Limits().MaxBatch
	for len(ids) > 0 {
		part := ids[:min(len(ids), most)]
		ids = ids[len(part):]
		err := n.retry(ctx, "backlog removal", func() error {
			return n.db.Remove(ctx, statedb.Backlog, part)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
