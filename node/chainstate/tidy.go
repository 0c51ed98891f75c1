package chainstate

import (
	"context"
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
	// readers can cause.
	tidyPause = 100 * time.Millisecond
	// maxCounted bounds the owners whose spends are counted at a time.
	maxCounted = 10_000
)

// countSpent notes that an owner has spent an output. It is called with the
// writer lock held.
func (s *State) countSpent(owner string) {
	if len(s.spending) >= maxCounted {
		clear(s.spending)
	}
	s.spending[owner]++
	if s.spending[owner] >= maxSpent && s.askTidy(ownerPrefix(unspentPrefix, owner)) {
		delete(s.spending, owner)
	}
}

// skipped tells how many deleted keys an iterator has stepped over.
func skipped(it *pebble.Iterator) int {
	steps := it.Stats().ForwardStepCount
	return steps[pebble.InternalIterCall] - steps[pebble.InterfaceCall]
}

// askTidy has a range of keys compacted soon, unless another waits already.
func (s *State) askTidy(prefix []byte) bool {
	select {
	case s.untidy <- prefix:
		return true
	default:
		return false
	}
}

// tidy compacts what is asked for until ctx ends.
func (s *State) tidy(ctx context.Context) {
	defer close(s.tidied)
	for {
		select {
		case <-ctx.Done():
			return
		case prefix := <-s.untidy:
			// A failure shows at the next write; here it only leaves scans slow.
			_ = s.db.Compact(ctx, prefix, after(prefix))
		}
		pause := time.NewTimer(tidyPause)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}
