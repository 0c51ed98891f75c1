package couchdb

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count the requests to the server.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "couchledger", Subsystem: "couchdb", Name: "requests_total",
			Help: "Requests to CouchDB by the last part of their path and their status, 0 where none came.",
		}, []string{"request", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "couchledger", Subsystem: "couchdb", Name: "request_seconds",
			Help:    "Time until CouchDB began to answer, by the last part of the path.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"request"}),
	}
	if registry != nil {
		registry.MustRegister(m.requests, m.seconds)
	}
	return m
}

// countingTransport counts every request, whichever client sends it.
type countingTransport struct {
	next    *http.Transport
	metrics *metrics
}

func (t countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	start := time.Now()
	response, err := t.next.RoundTrip(r)
	kind, status := requestKind(r.URL.Path), 0
	if err == nil {
		status = response.StatusCode
	}
	t.metrics.requests.WithLabelValues(kind, strconv.Itoa(status)).Inc()
	t.metrics.seconds.WithLabelValues(kind).Observe(time.Since(start).Seconds())
	return response, err
}

// CloseIdleConnections lets http.Client reach the transport's own.
func (t countingTransport) CloseIdleConnections() { t.next.CloseIdleConnections() }

// requestKind is the first reserved name in a path, such as _bulk_docs: the
// names of databases and documents would make too many.
func requestKind(path string) string {
	for part := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(part, "_") {
			return part
		}
	}
	return "database"
}
