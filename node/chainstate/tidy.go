package chainstate

import (
	"context"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Deleted keys stay in the way of a scan until a compaction meets them, so the
// list of an owner who has spent 100,000 outputs would cost 100,000 steps. A
// scan that steps over many has its range compacted, and what it found is kept
// where that is short (shortlist.go).
const (
	// maxSkipped is how many deleted keys a scan may step over.
	maxSkipped = 200
	// tidyPause is the least time between two compactions. One costs about
	// 0.2 s of a core, so it bounds what readers can cause.
	tidyPause = 2 * time.Second
	// maxUntidy bounds the lists that wait to be compacted.
	maxUntidy = 1000
)

// tidier compacts lists of unspent outputs, one after another.
type tidier struct {
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{}

	mu      sync.Mutex
	waiting map[string]bool // prefixes of lists to compact
}

func newTidier(s *State) *tidier {
	ctx, cancel := context.WithCancel(context.Background())
	t := &tidier{
		cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1),
		waiting: map[string]bool{},
	}
	go t.run(ctx, s)
	return t
}

func (t *tidier) stop() {
	t.cancel()
	<-t.done
}

// ask has a range of keys compacted soon.
func (t *tidier) ask(prefix []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) < maxUntidy {
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
			g := s.use()
			_ = g.Compact(ctx, prefix, after(prefix))
			g.users.Done()
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

// skippedBy tells how many deleted keys an iterator has stepped over.
func skippedBy(it *pebble.Iterator) int {
	steps := it.Stats().ForwardStepCount
	return steps[pebble.InternalIterCall] - steps[pebble.InterfaceCall]
}
