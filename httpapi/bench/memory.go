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

// watchMemory reads the node's resident memory every second until ctx ends,
// then delivers the highest value in bytes, 0 when it never got one.
func (r *run) watchMemory(ctx context.Context) <-chan float64 {
	peak := make(chan float64, 1)
	go func() {
		most := 0.0
		defer func() { peak <- most }()
		w, err := r.dial()
		if err != nil {
			return
		}
		defer w.close()
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			if resp, err := w.do(http.MethodGet, "/metrics", nil); err == nil {
				most = max(most, residentMemory(resp.body))
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return peak
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
