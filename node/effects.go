package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

const (
	// othersDelay is how long the maker of a valid block has to carry out its
	// consequences before the other nodes see to what is missing.
	othersDelay = 10 * time.Second
	// maxBehind is how many own transactions may be decided and not yet carried
	// out before no more blocks are made: what a database can keep up with is
	// the rate of the whole way, not that of the decisions.
	maxBehind = 20_000
	// Between two looks at what is to do lies a multiple of the time that the
	// last one took, sweepEvery at most: where that is long, much is done at a
	// time.
	sweepFactor = 4
	sweepEvery  = 200 * time.Millisecond
	// maxEffectBytes is how many bytes of decided blocks are kept in memory for
	// that; others are read again.
	maxEffectBytes = 16 << 20
)

// effects carries out what follows from a valid block: its transactions are
// written to the table for queries, and their entries leave the backlog; and
// takes it back where the block turns out disputed (disputes.go). What
// is still to do stands in the chainstate, so a crash only repeats it.
type effects struct {
	n    *Node
	wake chan struct{}
	busy atomic.Bool

	mu      sync.Mutex
	blocks  map[string]*ledger.Block   // own, just decided
	kept    int                        // bytes of blocks
	cleared []string                   // transactions whose backlog entries came too late
	proofs  []*ledger.Vote             // to be put beside the votes that they contradict
	garbage map[string][]statedb.Write // revisions to delete, by table
	due     map[string]time.Time       // others' blocks that are decided
	most    int                        // maxBehind, but for tests
	own     map[string]int             // transactions of own blocks that are decided
	behind  int                        // sum of own
	caught  chan struct{}              // one token when behind fell
}

func newEffects(n *Node) *effects {
	e := &effects{
		n: n, wake: make(chan struct{}, 1), blocks: map[string]*ledger.Block{}, due: map[string]time.Time{},
		most: maxBehind, own: map[string]int{}, caught: make(chan struct{}, 1),
	}
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
	if d.Maker == e.n.key.Public && e.own[d.BlockID] == 0 {
		e.own[d.BlockID] = len(d.Transactions)
		e.behind += len(d.Transactions)
	}
	if block != nil && e.blocks[d.BlockID] == nil && e.kept < maxEffectBytes {
		e.blocks[d.BlockID] = block
		e.kept += block.Size()
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

// garbage has revisions deleted beside which a sound one stands.
func (n *Node) garbage(table string, gone []statedb.Write) {
	e := n.effects
	e.busy.Store(true)
	e.mu.Lock()
	if e.garbage == nil {
		e.garbage = map[string][]statedb.Write{}
	}
	e.garbage[table] = append(e.garbage[table], gone...)
	e.mu.Unlock()
	e.signal()
}

// delete deletes revisions, as far as they are still there.
func (e *effects) delete(ctx context.Context, table string, gone []statedb.Write) error {
	for most := e.n.db.Limits().MaxBatch; len(gone) > 0; {
		part := gone[:min(len(gone), most)]
		gone = gone[len(part):]
		err := e.n.retry(ctx, "effects", func() error {
			_, err := e.n.db.Write(ctx, table, part)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// await returns when not too much is left to do for more blocks to be made,
// or false when ctx ends.
func (e *effects) await(ctx context.Context) bool {
	for {
		e.mu.Lock()
		behind := e.behind
		e.mu.Unlock()
		if behind < e.most {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-e.caught:
		}
	}
}

// idle reports whether nothing is left to do for now.
func (e *effects) idle() bool { return !e.busy.Load() }

func (e *effects) run(ctx context.Context) error {
	timer := time.NewTicker(othersDelay / 2)
	defer timer.Stop()
	var swept time.Time
	var took time.Duration
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-e.wake:
		}
		e.busy.Store(true)
		// Nobody waits for this.
		if wait := time.Until(swept.Add(min(sweepFactor*took, sweepEvery))); wait > 0 && !e.n.stopping.Load() && !sleep(ctx, wait) {
			return nil
		}
		start := time.Now()
		if err := e.sweep(ctx); err != nil {
			return err
		}
		swept, took = time.Now(), time.Since(start)
		e.busy.Store(len(e.wake) > 0)
	}
}

// sweep carries out all that is due.
func (e *effects) sweep(ctx context.Context) error {
	e.mu.Lock()
	cleared, proofs, garbage := e.cleared, e.proofs, e.garbage
	e.cleared, e.proofs, e.garbage = nil, nil, nil
	e.mu.Unlock()
	for table, gone := range garbage {
		if err := e.delete(ctx, table, gone); err != nil {
			return err
		}
	}
	if err := e.publish(ctx, proofs); err != nil {
		return err
	}
	for last := uint64(0); ; {
		var group []chainstate.Decision
		var err error
		if group, last, err = e.gather(last); err != nil {
			return err
		}
		if len(group) == 0 {
			break
		}
		if err := e.carryOut(ctx, group); err != nil {
			return err
		}
	}
	// Last, so that an entry leaves the backlog after its transaction is in the
	// table for queries: as long as it is there, an audit waits for that. It may have
	// turned out disputed since.
	var decided []string
	for _, tx := range cleared {
		status, _, err := e.n.state.TransactionStatus(tx)
		if err != nil {
			return err
		}
		if status == consensus.Valid {
			decided = append(decided, tx)
		}
	}
	return e.n.removeFromBacklog(ctx, decided)
}

// gather collects decisions that are due, up to about one bulk write of
// transactions: large writes cost the database much less than many small ones.
func (e *effects) gather(last uint64) (group []chainstate.Decision, upTo uint64, err error) {
	most := e.n.db.Limits().MaxBatch
	for transactions := 0; ; {
		d, ok, err := e.n.state.Pending(last)
		if err != nil || !ok {
			return group, last, err
		}
		if d.Status == consensus.Valid && d.Maker != e.n.key.Public && !e.isDue(d.BlockID) {
			last = d.Number
			continue
		}
		if transactions += len(d.Transactions); transactions > most && len(group) > 0 {
			return group, last, nil
		}
		last = d.Number
		group = append(group, d)
	}
}

func (e *effects) isDue(block string) bool {
	if e.n.replicated.Load() {
		return true // the maker carries it out in its own database
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.due[block]
	if !ok {
		e.due[block] = time.Now().Add(othersDelay)
		return false
	}
	return time.Now().After(at)
}

func (e *effects) carryOut(ctx context.Context, group []chainstate.Decision) error {
	n := e.n
	var writes []statedb.Write
	var ids []string
	for _, d := range group {
		block, err := e.blockOf(ctx, d.BlockID)
		if err != nil {
			return err
		}
		if d.Status == consensus.Disputed {
			if err := e.takeBack(ctx, d, block); err != nil {
				return err
			}
			continue
		}
		if block != nil { // else it is gone from the database, which is reported
			for _, t := range block.Transactions {
				writes = append(writes, statedb.Write{ID: t.ID, Body: transactionDocument(t, block.ID)})
			}
		}
		for _, t := range d.Transactions {
			ids = append(ids, t.TxID)
		}
	}
	if err := e.writeTransactions(ctx, writes); err != nil {
		return fmt.Errorf("write the transactions of block %s and others: %w", group[0].BlockID, err)
	}
	if err := n.removeFromBacklog(ctx, ids); err != nil {
		return err
	}
	e.mu.Lock()
	for _, d := range group {
		e.release(d.BlockID)
		delete(e.due, d.BlockID)
		e.behind -= e.own[d.BlockID]
		delete(e.own, d.BlockID)
	}
	e.mu.Unlock()
	select {
	case e.caught <- struct{}{}:
	default:
	}
	return n.update(func(u *chainstate.Update) error {
		for _, d := range group {
			if err := u.EffectDone(d.Number, d.BlockID); err != nil {
				return err
			}
		}
		return nil
	})
}

// blockOf returns a decided block, nil when it is gone from the database.
func (e *effects) blockOf(ctx context.Context, id string) (*ledger.Block, error) {
	e.mu.Lock()
	block := e.blocks[id]
	e.mu.Unlock()
	if block != nil {
		return block, nil
	}
	return e.n.readBlock(ctx, id)
}

// release forgets a block that was kept. The caller holds the lock.
func (e *effects) release(id string) {
	if block := e.blocks[id]; block != nil {
		e.kept -= block.Size()
		delete(e.blocks, id)
	}
}

// writeTransactions writes transactions for queries. What stands there already
// is left if it is the same.
func (e *effects) writeTransactions(ctx context.Context, writes []statedb.Write) error {
	n := e.n
	most := n.db.Limits().MaxBatch
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
