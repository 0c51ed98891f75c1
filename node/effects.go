package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

const (
	// othersDelay is how long the maker of a valid block has to carry out its
	// consequences before the other nodes see to what is missing.
	othersDelay = 10 * time.Second
	// maxEffectBlocks is how many decided blocks are kept in memory for that.
	maxEffectBlocks = 8
)

// effects carries out what follows from a valid block: its transactions are
// written to the table for queries, and their entries leave the backlog. What
// is still to do stands in the chainstate, so a crash only repeats it.
type effects struct {
	n    *Node
	wake chan struct{}
	busy atomic.Bool

	mu      sync.Mutex
	blocks  map[string]*ledger.Block // own, just decided
	cleared []string                 // transactions whose backlog entries came too late
	due     map[uint64]time.Time     // decisions on others' blocks
}

func newEffects(n *Node) *effects {
	e := &effects{n: n, wake: make(chan struct{}, 1), blocks: map[string]*ledger.Block{}, due: map[uint64]time.Time{}}
	e.busy.Store(true)
	e.signal()
	return e
}

func (e *effects) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// enqueue tells of a decision. block spares reading it again; it may be nil.
func (e *effects) enqueue(d chainstate.Decision, block *ledger.Block) {
	e.busy.Store(true)
	e.mu.Lock()
	if block != nil && len(e.blocks) < maxEffectBlocks {
		e.blocks[d.BlockID] = block
	}
	e.mu.Unlock()
	e.signal()
}

// clear has the backlog entry of a valid transaction removed.
func (e *effects) clear(tx string) {
	e.busy.Store(true)
	e.mu.Lock()
	e.cleared = append(e.cleared, tx)
	e.mu.Unlock()
	e.signal()
}

// idle reports whether nothing is left to do for now.
func (e *effects) idle() bool { return !e.busy.Load() }

func (e *effects) run(ctx context.Context) error {
	timer := time.NewTicker(othersDelay / 2)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-e.wake:
		}
		e.busy.Store(true)
		if err := e.sweep(ctx); err != nil {
			return err
		}
		e.busy.Store(len(e.wake) > 0)
	}
}

// sweep carries out all that is due.
func (e *effects) sweep(ctx context.Context) error {
	e.mu.Lock()
	cleared := e.cleared
	e.cleared = nil
	e.mu.Unlock()
	if err := e.n.removeFromBacklog(ctx, cleared); err != nil {
		return err
	}
	for last := uint64(0); ; {
		d, ok, err := e.n.state.Pending(last)
		if err != nil || !ok {
			return err
		}
		last = d.Number
		if d.Maker != e.n.key.Public && !e.isDue(d.Number) {
			continue
		}
		if err := e.carryOut(ctx, d); err != nil {
			return err
		}
	}
}

func (e *effects) isDue(number uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.due[number]
	if !ok {
		e.due[number] = time.Now().Add(othersDelay)
		return false
	}
	return time.Now().After(at)
}

func (e *effects) carryOut(ctx context.Context, d chainstate.Decision) error {
	n := e.n
	e.mu.Lock()
	block := e.blocks[d.BlockID]
	e.mu.Unlock()
	if block == nil {
		var err error
		if block, err = n.readBlock(ctx, d.BlockID); err != nil {
			return err
		}
	}
	if block != nil { // else it is gone from the database, which is reported
		if err := e.writeTransactions(ctx, block); err != nil {
			return fmt.Errorf("write the transactions of block %s: %w", d.BlockID, err)
		}
	}
	ids := make([]string, len(d.Transactions))
	for i, t := range d.Transactions {
		ids[i] = t.TxID
	}
	if err := n.removeFromBacklog(ctx, ids); err != nil {
		return err
	}
	e.mu.Lock()
	delete(e.blocks, d.BlockID)
	delete(e.due, d.Number)
	e.mu.Unlock()
	return n.update(func(u *chainstate.Update) error { return u.EffectDone(d.Number) })
}

// writeTransactions writes a valid block's transactions for queries. What
// stands there already is left if it is the same.
func (e *effects) writeTransactions(ctx context.Context, b *ledger.Block) error {
	n := e.n
	most := n.db.Limits().MaxBatch
	writes := make([]statedb.Write, len(b.Transactions))
	for i, t := range b.Transactions {
		writes[i] = statedb.Write{ID: t.ID, Body: transactionDocument(t, b.ID)}
	}
	for len(writes) > 0 {
		part := writes[:min(len(writes), most)]
		writes = writes[len(part):]
		var faults []error
		err := n.retry(ctx, "effects", func() (err error) {
			faults, err = ensureDocuments(ctx, n.db, statedb.Transactions, part)
			return err
		})
		if err != nil {
			return err
		}
		for i, err := range faults {
			if err != nil {
				n.log.Error("a transaction cannot be written for queries", "component", "effects", "transaction", part[i].ID, "error", err)
			}
		}
	}
	return nil
}

// transactionDocument is a transaction's fields with the block it is valid by.
func transactionDocument(t *ledger.Transaction, block string) []byte {
	return t.BytesWith([]byte(blockField(block)))
}

func blockField(block string) string { return `"block_id":"` + block + `",` }
