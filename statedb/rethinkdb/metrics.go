package rethinkdb

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count the queries to the server.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "couchledger", Subsystem: "rethinkdb", Name: "requests_total",
			Help: "Queries to RethinkDB by what they are for and their outcome: ok, or the kind of fault.",
		}, []string{"request", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "couchledger", Subsystem: "rethinkdb", Name: "request_seconds",
			Help:    "Time until RethinkDB answered, by what the query is for.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"request"}),
	}
	if registry != nil {
		registry.MustRegister(m.requests, m.seconds)
	}
	return m
}

// count is called when the answer is there.
func (m *metrics) count(request string, start time.Time, err error) {
	m.requests.WithLabelValues(request, outcome(err)).Inc()
	m.seconds.WithLabelValues(request).Observe(time.Since(start).Seconds())
}
