package chainstate

import (
	"context"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Deleted keys stay in the way of a scan until a compaction meets them, so the
// list of an owner who has spent 100,000 outputs would cost 100,000 steps. A
// scan that steps over many has its range compacted, and so has an owner who
// has spent many.
const (
	// maxSkipped is how many deleted keys a scan may step over.
	maxSkipped = 200
	// maxSpent is how many outputs an owner may spend before his list of
	// unspent ones is compacted.
	maxSpent = 1000
	// tidyPause is the least time between two compactions, which bounds what
	// readers and spenders can cause.
	tidyPause = 50 * time.Millisecond
	// maxCounted bounds the owners whose spends are counted at a time, and the
	// lists that wait to be compacted.
	maxCounted = 10_000
)

// tidier compacts lists of unspent outputs, one after another.
type tidier struct {
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{}

	mu      sync.Mutex
	spent   map[string]int  // by owner, since his list was compacted
	waiting map[string]bool // prefixes of lists to compact
}

func newTidier(s *State) *tidier {
	ctx, cancel := context.WithCancel(context.Background())
	t := &tidier{
		cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1),
		spent: map[string]int{}, waiting: map[string]bool{},
	}
	go t.run(ctx, s)
	return t
}

func (t *tidier) stop() {
	t.cancel()
	<-t.done
}

// countSpent notes that owners have spent outputs.
func (t *tidier) countSpent(owners []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.spent) > maxCounted {
		clear(t.spent)
	}
	for _, owner := range owners {
		if t.spent[owner]++; t.spent[owner] >= maxSpent {
			delete(t.spent, owner)
			t.add(ownerPrefix(unspentPrefix, owner))
		}
	}
}

// ask has a range of keys compacted soon.
func (t *tidier) ask(prefix []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(prefix)
}

func (t *tidier) add(prefix []byte) {
	if len(t.waiting) < maxCounted {
		t.waiting[string(prefix)] = true
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// next takes a list that waits, nil when there is none.
func (t *tidier) next() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	for prefix := range t.waiting {
		delete(t.waiting, prefix)
		return []byte(prefix)
	}
	return nil
}

func (t *tidier) run(ctx context.Context, s *State) {
	defer close(t.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		for prefix := t.next(); prefix != nil; prefix = t.next() {
			// A failure shows at the next write; here it only leaves scans slow.
			_ = s.db.Compact(ctx, prefix, after(prefix))
			pause := time.NewTimer(tidyPause)
			select {
			case <-ctx.Done():
				pause.Stop()
				return
			case <-pause.C:
			}
		}
	}
}

// skipped tells how many deleted keys an iterator has stepped over.
func skipped(it *pebble.Iterator) int {
	steps := it.Stats().ForwardStepCount
	return steps[pebble.InternalIterCall] - steps[pebble.InterfaceCall]
}
