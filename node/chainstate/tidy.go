package chainstate

import (
	"context"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Deleted keys stay in the way of a scan until a compaction meets them, so the
// list of an owner who has spent 100,000 outputs would cost 100,000 steps.
// A scan that steps over many has its range compacted.
const (
	// maxSkipped is how many deleted keys a scan may step over.
	maxSkipped = 200
	// tidyPause is the least time between two compactions of this kind, which
	// bounds what readers can cause.
	tidyPause = 250 * time.Millisecond
)

// skipped tells how many deleted keys an iterator has stepped over.
func skipped(it *pebble.Iterator) int {
	steps := it.Stats().ForwardStepCount
	return steps[pebble.InternalIterCall] - steps[pebble.InterfaceCall]
}

// askTidy has a range of keys compacted soon, unless another waits already.
func (s *State) askTidy(prefix []byte) {
	select {
	case s.untidy <- prefix:
	default:
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
