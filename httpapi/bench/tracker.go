package bench

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/couchledger/couchledger/httpapi/client"
)

// tracker knows which transactions were posted and are not decided yet.
type tracker struct {
	mu      sync.Mutex
	pending map[string]chan time.Time // nil channels for those nobody waits for singly
	finals  []time.Time               // when those of this phase became valid
	moved   time.Time                 // when something was last decided
	gap     bool                      // the stream was interrupted since the last look
}

func newTracker() *tracker {
	return &tracker{pending: map[string]chan time.Time{}}
}

// begin starts a phase.
func (t *tracker) begin() {
	t.mu.Lock()
	t.finals, t.moved = nil, time.Now()
	t.mu.Unlock()
}

// expect must be called before posting: the event may overtake the answer.
func (t *tracker) expect(id string, told chan time.Time) {
	t.mu.Lock()
	t.pending[id] = told
	t.mu.Unlock()
}

func (t *tracker) forget(id string) {
	t.mu.Lock()
	delete(t.pending, id)
	t.moved = time.Now()
	t.mu.Unlock()
}

// valid records that a transaction is final.
func (t *tracker) valid(id string, at time.Time) {
	t.mu.Lock()
	told, ours := t.pending[id]
	if ours {
		delete(t.pending, id)
		t.finals = append(t.finals, at)
		t.moved = at
	}
	t.mu.Unlock()
	if told != nil {
		told <- at
	}
}

func (t *tracker) done() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.finals)
}

// stalled returns up to most pending ids when nothing moved for a while, or
// right after the stream was interrupted; and for how long nothing moved.
func (t *tracker) stalled(quiet time.Duration, most int) (ids []string, still time.Duration, left int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	still = time.Since(t.moved)
	if still < quiet && !t.gap {
		return nil, still, len(t.pending)
	}
	t.gap = false
	for id := range t.pending {
		if len(ids) == most {
			break
		}
		ids = append(ids, id)
	}
	return ids, still, len(t.pending)
}

// abandon gives up on all that is pending.
func (t *tracker) abandon() {
	t.mu.Lock()
	clear(t.pending)
	t.mu.Unlock()
}

// follow reads the stream of valid transactions until ctx ends, opening a new
// one when it breaks.
func (r *run) follow(ctx context.Context, stream *client.Stream) {
	const pause = 200 * time.Millisecond
	for {
		for {
			event, err := stream.Next(ctx)
			if err != nil {
				break
			}
			r.tracker.valid(event.TxID, time.Now())
		}
		for stream = nil; stream == nil; {
			if ctx.Err() != nil {
				return
			}
			r.fail("stream interrupted")
			var err error
			if stream, err = r.client.Stream(ctx); err != nil {
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		}
		r.tracker.mu.Lock()
		r.tracker.gap = true
		r.tracker.mu.Unlock()
	}
}

const (
	// quiet is how long nothing may move before statuses are asked for.
	quiet = 2 * time.Second
	// pollStep is how many are asked for at a time.
	pollStep = 200
)

// drain waits until all that was posted is decided, asking for statuses when
// the stream stays silent, and gives up after Options.Patience without news.
func (r *run) drain(ctx context.Context) {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	w, err := r.dial()
	if err != nil {
		return
	}
	defer w.close()
	for {
		ids, still, left := r.tracker.stalled(quiet, pollStep)
		if left == 0 {
			return
		}
		if still > r.opts.Patience {
			for range left {
				r.fail("accepted, but never decided")
			}
			r.tracker.abandon()
			return
		}
		for _, id := range ids {
			r.poll(ctx, w, id)
		}
		r.progress.at(r.tracker.done())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// poll looks at the status of a transaction whose event did not come.
func (r *run) poll(ctx context.Context, w *wire, id string) {
	resp, _, err := r.ask(ctx, w, http.MethodGet, "/api/v1/statuses?tx_id="+id, nil)
	if err != nil {
		return // asked again later
	}
	var body struct{ Status any }
	switch {
	case resp.status == http.StatusNotFound:
		r.fail("refused after 202: " + failure(resp, nil))
		r.tracker.forget(id)
	case json.Unmarshal(resp.body, &body) == nil && body.Status == "valid":
		r.tracker.valid(id, time.Now())
	}
}
