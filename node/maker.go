package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// How blocks are closed.
const (
	// maxOpenBlocks is how many of its own blocks a node has undecided at once.
	maxOpenBlocks = 4
	// linger is how long the block stage waits for more transactions while
	// another block of this node's is on its way. An idle node does not wait.
	linger = 40 * time.Millisecond
	// busyBlock is from how many transactions on a block shows that there is
	// load. Then blocks are made no faster than one in paceFactor times as long
	// as one takes to be decided, maxPace at most: every block costs the
	// database several small writes, and larger ones leave it more time for posts.
	busyBlock  = 8
	paceFactor = 4
	maxPace    = 250 * time.Millisecond
	// slowWay is from when on blocks take long to be decided: members are many or
	// far, or the database is busy. Every block costs all of them the same, so then
	// one is made in the time that one takes, maxSlowPace at most.
	slowWay     = 100 * time.Millisecond
	maxSlowPace = time.Second
	// maxFailed is how often the pause after a failed block doubles.
	maxFailed = 8
)

// maker is the block stage: it puts transactions assigned to this node into
// blocks.
type maker struct {
	n        *Node
	maxBytes int                // of one block's transactions
	out      chan *ledger.Block // to the block writer
	closed   chan struct{}      // one token when a block was decided

	unwritten atomic.Int64 // own blocks that are not in the database yet

	mu       sync.Mutex
	last     int64                       // timestamp of the last block
	made     time.Time                   // when it was made here
	size     int                         // its transactions
	way      time.Duration               // how long own blocks take to be decided, smoothed
	open     map[string]*ledger.Block    // own blocks that are not decided here
	included map[string]string           // transaction → own open block
	spent    map[ledger.OutputRef]string // output → transaction in an own open block
	failed   int                         // own blocks in a row that came to nothing
	next     time.Time                   // no block is made before
	drafting bool
	retired  []*ledger.Block // decided while a draft is made
}

func newMaker(n *Node) *maker {
	return &maker{
		n: n, maxBytes: min(ledger.MaxBlockBytes, n.db.Limits().MaxDocumentBytes) - 2*ledger.BlockOverhead,
		out: make(chan *ledger.Block, maxOpenBlocks), closed: make(chan struct{}, 1),
		open: map[string]*ledger.Block{}, included: map[string]string{}, spent: map[ledger.OutputRef]string{},
	}
}

// restore takes up the blocks that were signed before a crash and may not be
// in the database. Until they are decided their transactions go into no other.
func (m *maker) restore() error {
	blocks, err := m.n.journal.Outbox()
	if err != nil {
		return err
	}
	m.out = make(chan *ledger.Block, maxOpenBlocks+len(blocks))
	for _, b := range blocks {
		status, err := m.n.state.BlockStatus(b.ID)
		if err != nil {
			return err
		}
		if status == consensus.Unknown || status == consensus.Undecided {
			m.add(b)
		}
		m.unwritten.Add(1)
		m.out <- b
	}
	return nil
}

func (m *maker) add(b *ledger.Block) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = max(m.last, b.Timestamp)
	m.open[b.ID] = b
	m.made, m.size = time.Now(), len(b.Transactions)
	for _, t := range b.Transactions {
		m.included[t.ID] = b.ID
		for _, ref := range t.Spends() {
			m.spent[ref] = t.ID
		}
	}
}

// own returns an own block that is not decided yet, nil for any other.
func (m *maker) own(id string) *ledger.Block {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open[id]
}

// decided takes a block off the open ones and returns it, nil if it was not.
func (m *maker) decided(id string) *ledger.Block {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.open[id]
	if b == nil {
		return nil
	}
	delete(m.open, id)
	if len(m.open) == 0 { // the last one made, so that its time is known
		m.way = (3*m.way + time.Since(m.made)) / 4
	}
	if m.drafting {
		m.retired = append(m.retired, b)
	} else {
		m.forget(b)
	}
	select {
	case m.closed <- struct{}{}:
	default:
	}
	return b
}

// ended notes what became of an own block. After one that the others voted
// invalid the next one waits, longer each time: members that are behind are bound
// by their votes on the last one until they have heard that it failed, and would
// vote against the next for that, again and again.
func (m *maker) ended(valid bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if valid {
		m.failed, m.next = 0, time.Time{}
		return
	}
	m.next = time.Now().Add(min(firstRetry<<m.failed, lastRetry))
	m.failed = min(m.failed+1, maxFailed)
}

func (m *maker) openCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.open)
}

func (m *maker) lastTimestamp() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

func (m *maker) idle() bool { return m.openCount() == 0 }

// drained reports whether nothing is on its way that this node can finish. A
// block that waits for the votes of others is not.
func (m *maker) drained() bool {
	if len(m.n.federation().Members) == 1 {
		return m.idle()
	}
	return m.unwritten.Load() == 0 && m.n.voter.idle()
}

// spenders lists the transaction of an own open block that spends an output.
func (m *maker) spenders(ref ledger.OutputRef) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if tx, ok := m.spent[ref]; ok {
		return []string{tx}
	}
	return nil
}

// run makes blocks, once the node has caught up.
func (m *maker) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-m.n.caughtUp:
	}
	for m.awaitWork(ctx) {
		taken, bodies := m.n.backlog.take(ledger.MaxBlockTransactions, m.maxBytes)
		if len(taken) == 0 {
			continue
		}
		if err := m.make(ctx, taken, bodies); err != nil {
			return err
		}
	}
	return nil
}

// awaitWork returns when a block should be made, or false when ctx ends.
func (m *maker) awaitWork(ctx context.Context) bool {
	for m.n.backlog.ready() == 0 {
		select {
		case <-ctx.Done():
			return false
		case <-m.n.backlog.wake:
		}
	}
	wait, paced := m.pace()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		for waiting := true; waiting && m.n.backlog.ready() < ledger.MaxBlockTransactions && (paced || !m.idle()); {
			select {
			case <-ctx.Done():
				return false
			case <-timer.C:
				waiting = false
			case <-m.n.backlog.wake:
			case <-m.closed:
			}
		}
	}
	for m.openCount() >= maxOpenBlocks {
		select {
		case <-ctx.Done():
			return false
		case <-m.closed:
		}
	}
	m.mu.Lock()
	rest := time.Until(m.next)
	m.mu.Unlock()
	if rest > 0 && !sleep(ctx, rest) {
		return false
	}
	return m.n.effects.await(ctx) && ctx.Err() == nil
}

// pace tells how long to wait for more transactions. Unless paced the wait ends
// when no own block is on its way any more.
func (m *maker) pace() (wait time.Duration, paced bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.size >= busyBlock && m.way <= slowWay:
		return time.Until(m.made.Add(min(paceFactor*m.way, maxPace))), true
	case m.way > slowWay:
		return time.Until(m.made.Add(min(m.way, maxSlowPace))), true
	case len(m.open) > 0:
		return linger, false
	}
	return 0, false
}

// make puts entries into one block, in order, as far as they hold now.
func (m *maker) make(ctx context.Context, entries []*entry, bodies []*ledger.Transaction) error {
	if err := m.load(ctx, entries, bodies); err != nil {
		m.n.backlog.giveBack(entries)
		return nil // ctx ended; the entries are in the database
	}
	epoch, timestamp := m.epoch()
	if !epoch.Has(m.n.key.Public) {
		m.n.backlog.giveBack(entries)
		sleep(ctx, time.Second) // until the members have this node's key
		return nil
	}
	draft := m.newDraft()
	defer m.endDraft(draft)
	size := len(epoch.Members) * 50
	for i, e := range entries {
		t := bodies[i]
		if t == nil {
			m.n.backlog.forget([]string{e.id}) // removed from the backlog meanwhile
			continue
		}
		if size += len(t.Bytes()) + 1; size > m.maxBytes && len(draft.block) > 0 {
			m.n.backlog.giveBack(entries[i:])
			break
		}
		if err := draft.add(e, t); err != nil {
			return err
		}
	}
	if err := m.n.refuse(ctx, draft.refused); err != nil {
		return err
	}
	// Another node's block may have come since the draft's view was taken.
	draft.block = slices.DeleteFunc(draft.block, func(t *ledger.Transaction) bool { return !m.n.backlog.keeps(t.ID) })
	if len(draft.block) == 0 {
		return nil
	}
	block := ledger.NewBlock(m.n.key, timestamp, epoch.Members, draft.block)
	status, err := m.n.state.BlockStatus(block.ID)
	voted, err2 := m.n.journal.Vote(block.ID)
	if err = errors.Join(err, err2); err != nil || status != consensus.Unknown || voted != nil {
		// An invalid block of this second held just these transactions, or one
		// that went when the database was set back: this one would be the same
		// again, and never be decided.
		m.mu.Lock()
		m.last = max(m.last, timestamp+1)
		m.mu.Unlock()
		m.n.backlog.giveBack(entries)
		return err
	}
	if err := m.n.journal.PutBlock(block); err != nil {
		return err
	}
	m.add(block)
	m.n.backlog.entered(idsOf(block))
	m.n.metrics.blocks.Inc()
	m.unwritten.Add(1)
	m.out <- block // has room for every open block
	return nil
}

// epoch returns the federation for a new block, and the block's timestamp,
// which never goes back though the clock may: neither before the last one's nor,
// also after a restart, into an epoch whose members have agreed on another since.
func (m *maker) epoch() (chainstate.Epoch, int64) {
	m.mu.Lock()
	now := max(m.n.clock().Unix(), m.last, m.n.federation().From)
	m.mu.Unlock()
	e, _ := m.n.state.EpochAt(now) // the first epoch began with the genesis block
	return e, now
}

// load reads the transactions that are not in memory in one round trip. Those
// that are gone stay nil.
func (m *maker) load(ctx context.Context, entries []*entry, bodies []*ledger.Transaction) error {
	var missing []string
	var at []int
	for i, t := range bodies {
		if t == nil {
			missing, at = append(missing, entries[i].id), append(at, i)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	for len(missing) > 0 {
		var documents []statedb.Document
		err := m.n.retry(ctx, "block", func() (err error) {
			documents, err = m.n.db.Get(ctx, statedb.Backlog, missing)
			return err
		})
		if err != nil {
			return err
		}
		inParallel(len(documents), func(i int) {
			if documents[i].Rev == "" {
				return
			}
			t, _, err := readBacklogDocument(documents[i])
			if err != nil {
				return // the backlog feed refuses what it cannot read
			}
			if _, err := m.n.check(t); err == nil {
				t.Compact()
				bodies[at[i]] = t
			}
		})
		missing, at = missing[len(documents):], at[len(documents):]
	}
	return nil
}

// write is the block writer: it brings own blocks into the database, in order,
// and keeps each in the outbox until exactly its bytes are there.
func (m *maker) write(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-m.out:
			err := m.n.retry(ctx, "block writer", func() error {
				return ensureBlock(ctx, m.n.db, b)
			})
			if err != nil {
				return fmt.Errorf("write block %s: %w", b.ID, err)
			}
			m.unwritten.Add(-1)
			if err := m.n.journal.DropBlock(b.ID); err != nil {
				return err
			}
		}
	}
}

func idsOf(b *ledger.Block) []string {
	ids := make([]string, len(b.Transactions))
	for i, t := range b.Transactions {
		ids[i] = t.ID
	}
	return ids
}
