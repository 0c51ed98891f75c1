package node

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/couchledger/couchledger/node/ledger"
)

// Bounds of what a node holds in memory for clients.
const (
	// maxWaitingBytes bounds the transactions that were posted here and are
	// not decided, with entryOverhead for each. Posts beyond it wait.
	maxWaitingBytes = 48 << 20
	// entryOverhead is about what a waiting transaction takes beside its body.
	entryOverhead = 2000
	// maxWaiting is how many of the smallest transactions fit.
	maxWaiting = maxWaitingBytes / entryOverhead
	// maxPostWait is how long a post waits for room before ErrBusy.
	maxPostWait = 3 * time.Second
)

// entryState is where an entry of the backlog stands on this node.
type entryState uint8

const (
	writing entryState = iota // on its way into the database
	queued                    // waits for this node's next block
	making                    // in the hands of the block stage
	lagging                   // waits for another transaction to be decided
	inBlock                   // in an undecided block
	foreign                   // assigned to another node
)

// entry is one transaction of the backlog as this node tracks it.
type entry struct {
	id string
	tx *ledger.Transaction // nil where the body is only in the database
	// rev and assignee are those of the document.
	rev      string
	assignee string
	state    entryState
	failed   string // the block with the greatest id that had it and came to nothing
	// since is when this node began to see the entry in no live block.
	since time.Time
	// missed is when it was first asked for and was no longer in the database.
	missed time.Time
	// spends is what it spends, kept only where each node refuses for itself;
	// contested says that another transaction which spends that was decided.
	spends    []ledger.OutputRef
	contested bool
	room      int64 // bytes of the bound that it holds

	done chan struct{} // closed when the write has ended; nil for entries from the feed
	err  error         // why the write failed; read after done
}

// backlog tracks the undecided transactions that this node knows of.
type backlog struct {
	self       string
	replicated *atomic.Bool // the node's
	most       int          // undecided transactions with which posts are taken, 0 for no bound
	room       *semaphore.Weighted
	wake       chan struct{} // one token when the queue may have something

	mu      sync.Mutex
	entries map[string]*entry
	queue   []*entry
	// spent says which tracked transaction spends an output, so that of two
	// posts in conflict only one is accepted.
	spent map[ledger.OutputRef]string
	// lag lists the entries that wait for a transaction to be decided.
	lag map[string][]*entry
	// rivals lists the entries that spend an output, of those with spends.
	rivals map[ledger.OutputRef]map[*entry]bool
	// contested lists entries of others that are, and contest has one token then.
	contested []*entry
	contest   chan struct{}
	// pace is at which entries are decided.
	pace pace
}

func newBacklog(n *Node, most int) *backlog {
	return &backlog{
		self: n.key.Public, replicated: &n.replicated, most: most, room: semaphore.NewWeighted(maxWaitingBytes), wake: make(chan struct{}, 1),
		entries: map[string]*entry{}, spent: map[ledger.OutputRef]string{}, lag: map[string][]*entry{},
		rivals: map[ledger.OutputRef]map[*entry]bool{}, contest: make(chan struct{}, 1),
	}
}

func (b *backlog) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// admit begins to track a posted transaction. known is true when it is
// tracked already. A tracked transaction that spends the same output is a
// DoubleSpend; no room within maxPostWait, or more entries than are taken, is
// ErrBusy.
func (b *backlog) admit(ctx context.Context, t *ledger.Transaction) (e *entry, known bool, err error) {
	room := int64(len(t.Bytes())) + entryOverhead
	if !b.room.TryAcquire(room) {
		wait, cancel := context.WithTimeout(ctx, maxPostWait)
		defer cancel()
		if b.room.Acquire(wait, room) != nil {
			return nil, false, ErrBusy
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, known = b.entries[t.ID]; known {
		b.room.Release(room)
		return e, true, nil
	}
	if b.most > 0 && len(b.entries) >= b.most {
		b.room.Release(room)
		return nil, false, ErrBusy
	}
	for i, in := range t.Inputs {
		if in.Fulfills == nil {
			continue
		}
		if other, ok := b.spent[*in.Fulfills]; ok {
			b.room.Release(room)
			return nil, false, ledger.Invalid(ledger.DoubleSpend, "input %d: output %d of transaction %s is spent by %s, which waits in the backlog",
				i, in.Fulfills.Index, in.Fulfills.TxID, other)
		}
	}
	e = &entry{id: t.ID, tx: t, state: writing, since: time.Now(), room: room, done: make(chan struct{})}
	b.entries[e.id] = e
	b.claim(t)
	if b.replicated.Load() {
		b.watch(e, t.Spends())
	}
	return e, false, nil
}

func (b *backlog) claim(t *ledger.Transaction) {
	for _, ref := range t.Spends() {
		if _, taken := b.spent[ref]; !taken {
			b.spent[ref] = t.ID
		}
	}
}

// written ends an entry's write: it is in the database at a revision, or err
// says why it is not.
func (b *backlog) written(e *entry, rev, assignee string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.rev, e.assignee, e.err = rev, assignee, err
	defer close(e.done)
	switch {
	case err != nil:
		b.drop(e)
	case e.state != writing: // its block was quicker than the answer
	case assignee != b.self:
		e.state = foreign
		b.unload(e)
		b.signalContest(e)
	default:
		b.enqueue(e)
	}
}

// track begins to track an entry that the feed brought. It reports false when
// it is tracked already, and then takes over revision and assignee.
func (b *backlog) track(id, rev, assignee string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.entries[id]; ok {
		if e.state != writing && e.rev != rev {
			e.rev, e.missed = rev, time.Time{}
			b.reassign(e, assignee)
		}
		return false
	}
	e := &entry{id: id, rev: rev, assignee: assignee, state: foreign, since: time.Now()}
	b.entries[id] = e
	if assignee == b.self {
		b.enqueue(e)
	}
	return true
}

// reassign notes that an entry has another assignee.
func (b *backlog) reassign(e *entry, assignee string) {
	if e.assignee == assignee {
		return
	}
	e.assignee, e.since = assignee, time.Now()
	switch {
	case assignee == b.self && e.state == foreign:
		b.enqueue(e)
	case assignee != b.self && (e.state == queued || e.state == lagging):
		e.state = foreign
		b.unload(e)
		b.signalContest(e)
	}
}

// passOn gives an entry to another member.
func (b *backlog) passOn(id string, next func(assignee string) string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.entries[id]; ok && e.state == foreign {
		b.reassign(e, next(e.assignee))
	}
}

// knows reports whether an entry at a revision is tracked, or being written.
func (b *backlog) knows(id, rev string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries[id]
	return ok && (e.state == writing || e.rev == rev)
}

// holds reports whether an entry is in the database for certain: it was
// written, and nobody but this node removes it.
func (b *backlog) holds(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries[id]
	return ok && e.state != writing && e.assignee == b.self
}

// passingTime is how long a node does not say of an entry that another node removed
// that nothing is known of it: the block that has it is on its way here, or it was
// refused over there.
const passingTime = 2 * time.Second

// passes reports whether an entry that is no longer in the database was there a
// moment ago.
func (b *backlog) passes(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries[id]
	if !ok {
		return false
	}
	if e.missed.IsZero() {
		e.missed = time.Now()
	}
	return time.Since(e.missed) < passingTime
}

func (b *backlog) enqueue(e *entry) {
	e.state = queued
	b.queue = append(b.queue, e)
	b.signal()
}

// unload gives back the room that an entry's body takes.
func (b *backlog) unload(e *entry) {
	if e.tx != nil {
		for _, ref := range e.tx.Spends() {
			if b.spent[ref] == e.id {
				delete(b.spent, ref)
			}
		}
	}
	e.tx = nil
	b.room.Release(e.room)
	e.room = 0
}

func (b *backlog) drop(e *entry) {
	b.unload(e)
	b.watch(e, nil)
	delete(b.entries, e.id)
}

// take hands the oldest queued entries to the block stage, up to a count and
// about a number of bytes, and with each its transaction, nil where only the
// database has it.
func (b *backlog) take(count, bytes int) (taken []*entry, bodies []*ledger.Transaction) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := 0
	for ; i < len(b.queue) && len(taken) < count && bytes > 0; i++ {
		e := b.queue[i]
		if e.state != queued || b.entries[e.id] != e {
			continue // it went into a block or to another node meanwhile
		}
		if e.tx != nil {
			bytes -= len(e.tx.Bytes())
		}
		e.state = making
		taken, bodies = append(taken, e), append(bodies, e.tx)
	}
	b.queue = slices.Delete(b.queue, 0, i)
	return taken, bodies
}

// ready returns how many entries are queued, about.
func (b *backlog) ready() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue)
}

// giveBack returns entries that the block stage had no place for.
func (b *backlog) giveBack(entries []*entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var back []*entry
	for _, e := range entries {
		if e.state == making {
			e.state = queued
			back = append(back, e)
		}
	}
	if len(back) > 0 {
		b.queue = append(back, b.queue...)
		b.signal()
	}
}

// keeps reports whether an entry is still in the hands of the block stage: no
// block that arrived meanwhile has it.
func (b *backlog) keeps(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries[id]
	return ok && e.state == making
}

// wait makes an entry wait until a transaction is decided. ok is called under
// the lock, and false from it returns the entry to the queue instead: what it
// would wait for has happened meanwhile.
func (b *backlog) wait(e *entry, forTx string, ok func() bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.state != making {
		return
	}
	if !ok() {
		b.enqueue(e)
		return
	}
	e.state = lagging
	b.unload(e)
	b.lag[forTx] = append(b.lag[forTx], e)
}

// entered notes that transactions stand in an undecided block.
func (b *backlog) entered(ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if e, ok := b.entries[id]; ok {
			e.state = inBlock
		}
	}
}

// decided notes that transactions became valid.
func (b *backlog) decided(ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := 0
	for _, id := range ids {
		if e, ok := b.entries[id]; ok {
			b.contestRivals(e)
			b.drop(e)
			known++
		}
	}
	b.pace.add(known, time.Now())
	b.wakeLagging(ids)
}

// retryAfter is how long half of what waits takes to be decided, as far as the
// last seconds tell.
func (b *backlog) retryAfter() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pace.time(len(b.entries) / 2)
}

// pace is how many transactions per second are decided.
type pace struct {
	since     time.Time
	count     int
	perSecond float64
}

const (
	// A pace is measured over paceSpan, and what took longer than paceIdle had
	// nothing to do meanwhile.
	paceSpan = time.Second
	paceIdle = 10 * time.Second
	// Bounds of what clients are told.
	leastRetry = time.Second
	mostRetry  = 30 * time.Second
)

func (p *pace) add(count int, now time.Time) {
	p.count += count
	switch took := now.Sub(p.since); {
	case took > paceIdle:
		p.since, p.count = now, 0
	case took >= paceSpan:
		p.perSecond = float64(p.count) / took.Seconds()
		p.since, p.count = now, 0
	}
}

// time is how long so many take, within the bounds.
func (p *pace) time(count int) time.Duration {
	if p.perSecond <= 0 {
		return leastRetry
	}
	seconds := min(float64(count)/p.perSecond, mostRetry.Seconds())
	return max(leastRetry, time.Duration(seconds*float64(time.Second)))
}

// revive notes that a block with these transactions came to nothing. live tells
// of one whether another live block holds it. Unless turn is nil it names the
// member whose turn it is after a block: of several that came to nothing the one
// with the greatest id, so that all nodes go on with the same member.
func (b *backlog) revive(ids []string, block string, live func(id string) bool, turn func(block string) string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		e, ok := b.entries[id]
		if ok && turn != nil {
			e.failed = max(e.failed, block)
		}
		if !ok || e.state != inBlock || live(id) {
			continue
		}
		e.since = time.Now()
		if turn != nil {
			e.assignee = turn(e.failed)
		}
		if e.assignee == b.self {
			b.enqueue(e)
		} else {
			e.state = foreign
			b.signalContest(e)
		}
	}
	b.wakeLagging(ids)
}

func (b *backlog) wakeLagging(ids []string) {
	for _, id := range ids {
		for _, e := range b.lag[id] {
			if e.state == lagging && b.entries[e.id] == e {
				b.enqueue(e)
			}
		}
		delete(b.lag, id)
	}
}

// forget stops tracking transactions that were refused or are gone.
func (b *backlog) forget(ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if e, ok := b.entries[id]; ok && e.state != writing {
			b.drop(e)
		}
	}
	b.wakeLagging(ids)
}

// stale lists the entries that stand in no live block for longer than a delay,
// and begins to count anew for them. Own ones that lag are queued again.
func (b *backlog) stale(delay time.Duration) []*entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []*entry
	for _, id := range slices.Sorted(maps.Keys(b.entries)) {
		e := b.entries[id]
		if time.Since(e.since) < delay {
			continue
		}
		switch e.state {
		case foreign:
			list = append(list, e)
		case lagging:
			b.enqueue(e)
		default:
			continue
		}
		e.since = time.Now()
	}
	return list
}

func (b *backlog) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.entries)
}

// idle reports whether nothing is on its way that this node must finish.
func (b *backlog) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		if e.state == writing || e.state == queued || e.state == making {
			return false
		}
	}
	return true
}
