package bench

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
)

// maker builds and signs the i-th transaction of a load. It is called from
// many goroutines.
type maker func(i int) (*ledger.Transaction, error)

// result is what a load came to.
type result struct {
	valid     int
	took      time.Duration // first POST to last valid event
	latencies []time.Duration
	finals    []time.Time
	begin     time.Time
}

// rate is valid transactions per second.
func (r result) rate() float64 { return perSecond(r.valid, r.took) }

func perSecond(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// edges are the rates of the first and the last n.
func (r result) edges(n int) (first, last float64) {
	if len(r.finals) < 2*n || n == 0 {
		return 0, 0
	}
	end := len(r.finals) - 1
	return perSecond(n, r.finals[n-1].Sub(r.begin)), perSecond(n, r.finals[end].Sub(r.finals[end-n]))
}

// load posts count transactions over r.connections and waits until
// they are decided.
func (r *run) load(ctx context.Context, label string, count int, make maker) (result, error) {
	if r.opts.PreSign {
		signed, err := r.preSign(ctx, label, count, make)
		if err != nil {
			return result{}, err
		}
		make = func(i int) (*ledger.Transaction, error) { return signed[i], nil }
	}
	r.progress.start(label, count)
	defer func() { r.progress.finish(r.tracker.done()) }()
	r.tracker.begin()

	res := result{begin: time.Now()}
	var (
		next   atomic.Int64
		mu     sync.Mutex
		failed error
	)
	r.each(ctx, func(w *wire) {
		var latencies []time.Duration
		for i := int(next.Add(1)) - 1; i < count && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
			t, err := make(i)
			if err != nil {
				mu.Lock()
				failed = fmt.Errorf("bench: making a transaction: %w", err)
				mu.Unlock()
				return
			}
			if took, ok := r.post(ctx, w, t, nil); ok {
				latencies = append(latencies, took)
			}
			if i%64 == 0 {
				r.progress.at(r.tracker.done())
			}
		}
		mu.Lock()
		res.latencies = append(res.latencies, latencies...)
		mu.Unlock()
	})
	if failed != nil {
		return res, failed
	}
	r.drain(ctx)
	r.tracker.mu.Lock()
	res.finals = r.tracker.finals
	r.tracker.mu.Unlock()
	if res.valid = len(res.finals); res.valid > 0 {
		// Events arrive in order, statuses asked for may come between.
		slices.SortFunc(res.finals, time.Time.Compare)
		res.took = res.finals[res.valid-1].Sub(res.begin)
	}
	return res, ctx.Err()
}

// each runs work once per connection.
func (r *run) each(ctx context.Context, work func(*wire)) {
	var wg sync.WaitGroup
	for range r.connections {
		wg.Go(func() {
			w, err := r.dial()
			if err != nil {
				r.fail(err.Error())
				return
			}
			defer w.close()
			work(w)
		})
	}
	wg.Wait()
}

func (r *run) preSign(ctx context.Context, label string, count int, make maker) ([]*ledger.Transaction, error) {
	r.progress.start(label+", signing", count)
	signed := slices.Repeat([]*ledger.Transaction{nil}, count)
	var (
		next   atomic.Int64
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed error
	)
	for range r.connections {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < count && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				t, err := make(i)
				if err != nil {
					mu.Lock()
					failed = fmt.Errorf("bench: making a transaction: %w", err)
					mu.Unlock()
					return
				}
				t.Compact()
				signed[i] = t
				r.progress.at(i)
			}
		})
	}
	wg.Wait()
	r.progress.finish(count)
	return signed, failed
}

// maxRetries bounds how often a request is repeated after a 429 or 503.
const maxRetries = 30

// ask sends a request, again after each 429 and 503 when its Retry-After is
// over, and tells how long the last answer took.
func (r *run) ask(ctx context.Context, w *wire, method, path string, body []byte) (response, time.Duration, error) {
	for try := 0; ; try++ {
		begin := time.Now()
		resp, err := w.do(method, path, body)
		took := time.Since(begin)
		if err != nil || resp.status != http.StatusServiceUnavailable && resp.status != http.StatusTooManyRequests || try == maxRetries {
			return resp, took, err
		}
		r.mu.Lock()
		r.retries++
		r.mu.Unlock()
		seconds, err := strconv.Atoi(resp.header.Get("Retry-After"))
		if err != nil || seconds < 1 {
			seconds = 1
		}
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
		case <-ctx.Done():
			return resp, took, nil
		}
	}
}

// post sends one transaction and tells how long the POST that succeeded took.
func (r *run) post(ctx context.Context, w *wire, t *ledger.Transaction, told chan time.Time) (time.Duration, bool) {
	r.tracker.expect(t.ID, told)
	resp, took, err := r.ask(ctx, w, http.MethodPost, "/api/v1/transactions/", t.Bytes())
	if err == nil && resp.status == http.StatusAccepted {
		return took, true
	}
	r.fail(failure(resp, err))
	r.tracker.forget(t.ID)
	return 0, false
}

// percentile of sorted or unsorted durations; p is 0 to 1.
func percentile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
