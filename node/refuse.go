package node

import (
	"context"
	"errors"
	"sync"

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
	if n.replicated.Load() {
		// A peer may have brought one again before it was forgotten, at the revision
		// that it had, so that the feed passed over it.
		return n.trackEntries(ctx, ids)
	}
	return nil
}

// refuseDocuments removes documents that are no entries, each only at the revision
// that was read: the transaction of that id may have been put in its place since.
func (n *Node) refuseDocuments(ctx context.Context, refused []journal.Refusal, documents []statedb.Document) error {
	most := n.db.Limits().MaxBatch
	for len(refused) > 0 {
		part := refused[:min(len(refused), most)]
		writes := make([]statedb.Write, len(part))
		for i, r := range part {
			n.log.Info("refused a document of the backlog", "component", "block", "transaction", r.TxID, "reason", r.Reason)
			writes[i] = statedb.Write{ID: r.TxID, Rev: documents[i].Rev, Delete: true}
		}
		refused, documents = refused[len(part):], documents[len(part):]
		if err := n.refuseAt(ctx, part, writes); err != nil {
			return err
		}
	}
	return nil
}

// refuseAt refuses documents, whose reasons are durable before they go. Until they
// are gone nobody is told the reasons.
func (n *Node) refuseAt(ctx context.Context, refused []journal.Refusal, writes []statedb.Write) error {
	ids := make([]string, len(refused))
	for i, r := range refused {
		ids[i] = r.TxID
	}
	n.doubts.add(ids)
	defer n.doubts.remove(ids)
	if err := n.journal.Refuse(n.clock(), refused); err != nil {
		return err
	}
	var results []statedb.Result
	err := n.retry(ctx, "backlog removal", func() (err error) {
		results, err = n.db.Write(ctx, statedb.Backlog, writes)
		return err
	})
	if err != nil {
		return nil // ctx ended; they are refused again at the next start
	}
	for i, r := range refused {
		if results[i].Err != nil { // it is another document by now, or gone
			if err := n.journal.Unrefuse(r.TxID); err != nil {
				return err
			}
			continue
		}
		n.backlog.forget([]string{r.TxID})
		n.doubts.remove([]string{r.TxID})
		n.waiters.settle(r.TxID, &RefusedError{Reason: r.Reason})
		n.metrics.refused.Inc()
	}
	return nil
}

// doubts are the transactions whose refusal may be taken back.
type doubts struct {
	mu  sync.RWMutex
	ids map[string]bool
}

func (d *doubts) add(ids []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids == nil {
		d.ids = map[string]bool{}
	}
	for _, id := range ids {
		d.ids[id] = true
	}
}

func (d *doubts) remove(ids []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		delete(d.ids, id)
	}
}

func (d *doubts) has(id string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.ids[id]
}

func (n *Node) removeFromBacklog(ctx context.Context, ids []string) error {
	return n.remove(ctx, "backlog removal", statedb.Backlog, ids)
}
