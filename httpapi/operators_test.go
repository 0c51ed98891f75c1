package httpapi

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
)

// lockedBuffer takes log lines from many goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

func TestMetricsAndLog(t *testing.T) {
	// The node's own collectors stand in the same registry.
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "a_nodes_gauge"}, func() float64 { return 7 }))
	var log lockedBuffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	_, base := start(t, fakenode.New(), Options{Registry: registry, Logger: logger})

	get(t, base+"/api/v1/blocks/"+noID)
	get(t, base+"/api/v1/blocks/"+noID+"/")
	get(t, base+"/surprise/"+noID)
	do(t, http.MethodDelete, base+"/api/v1", "")
	metrics := get(t, base+"/metrics?from=a+scraper")
	for _, want := range []string{
		`couchledger_http_requests_total{code="404",method="GET",route="/api/v1/blocks/:id"} 2`,
		`couchledger_http_requests_total{code="404",method="any",route="other"} 1`,
		`couchledger_http_requests_total{code="405",method="any",route="other"} 1`,
		`couchledger_http_request_duration_seconds_count{method="GET",route="/api/v1/blocks/:id"} 2`,
		"couchledger_http_streams_open 0", "a_nodes_gauge 7", "process_resident_memory_bytes ", "go_goroutines ",
	} {
		if !strings.Contains(metrics.body, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	if strings.Contains(metrics.body, "surprise") {
		t.Error("a client made up a label")
	}
	for _, want := range []string{"level=DEBUG", "uri=/surprise/" + noID, "status=404", "method=DELETE"} {
		if !strings.Contains(log.text(), want) {
			t.Errorf("no %q in the log:\n%s", want, log.text())
		}
	}
}
