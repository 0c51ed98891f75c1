package bench

import (
	"bytes"
	"context"
	"net/http"
	"runtime"
	"strconv"
	"time"
)

func cores() int { return runtime.GOMAXPROCS(0) }

// watchMemory reads the node's resident memory every second until ctx ends.
func (r *run) watchMemory(ctx context.Context) {
	w, err := r.dial()
	if err != nil {
		return
	}
	defer w.close()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		if resp, err := w.do(http.MethodGet, "/metrics", nil); err == nil {
			now := residentMemory(resp.body)
			r.mu.Lock()
			r.memory = max(r.memory, now)
			r.mu.Unlock()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// memoryPeak is the highest value so far in MB, 0 when the node tells none.
func (r *run) memoryPeak() float64 {
	const megabyte = 1e6
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.memory / megabyte
}

// residentMemory finds the gauge in Prometheus's text format, in bytes.
func residentMemory(metrics []byte) float64 {
	for line := range bytes.Lines(metrics) {
		if value, ok := bytes.CutPrefix(line, []byte("process_resident_memory_bytes ")); ok {
			n, err := strconv.ParseFloat(string(bytes.TrimSpace(value)), 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}
