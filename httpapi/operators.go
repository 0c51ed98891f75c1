package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// healthz answers that the process is alive.
func (s *Server) healthz(c echo.Context, _ query) error {
	return writeJSON(c, http.StatusOK, []byte(`{"status":"alive"}`))
}

// readyz answers whether requests should be sent here: 503 with what is
// missing while the database is not reached or the node has not caught up.
func (s *Server) readyz(c echo.Context, _ query) error {
	if s.running.Err() != nil {
		return unavailable("the node is stopping")
	}
	if err := s.node.Ready(); err != nil {
		return unavailable(err.Error())
	}
	return writeJSON(c, http.StatusOK, []byte(`{"status":"ready"}`))
}

func (s *Server) serveMetrics() handler {
	h := promhttp.HandlerFor(s.opts.Registry, promhttp.HandlerOpts{})
	return func(c echo.Context, _ query) error {
		conn := connOf(c.Request())
		conn.waits()
		defer conn.busy()
		h.ServeHTTP(c.Response(), c.Request())
		return nil
	}
}

// metrics counts what clients did.
type metrics struct {
	requests       *prometheus.CounterVec
	durations      *prometheus.HistogramVec
	streams        prometheus.Gauge
	streamEvents   prometheus.Counter
	streamsDropped prometheus.Counter
	connections    prometheus.Gauge
	evicted        prometheus.Counter
	refused        *prometheus.CounterVec
}

// The reasons of metrics.refused.
const (
	refusedRate       = "rate"
	refusedToken      = "token"
	refusedConnection = "connections"
)

// otherRoute labels requests that found no route, so that clients cannot make
// up labels.
const otherRoute = "other"

func newMetrics(registry *prometheus.Registry) *metrics {
	const namespace, subsystem = "couchledger", "http"
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "requests_total",
			Help: "Requests answered, by route, method and status code.",
		}, []string{"route", "method", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "request_duration_seconds",
			Help:    "From the header's arrival to the end of the answer, by route and method.",
			Buckets: []float64{.0002, .001, .005, .02, .05, .1, .25, .5, 1, 2.5, 10, 30},
		}, []string{"route", "method"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "streams_open",
			Help: "WebSocket connections open.",
		}),
		streamEvents: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "stream_events_total",
			Help: "Messages written to WebSocket connections.",
		}),
		streamsDropped: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "streams_dropped_total",
			Help: "WebSocket connections cut because their reader was too slow.",
		}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "connections_open",
			Help: "Connections open, streams too.",
		}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "connections_evicted_total",
			Help: "Connections that idled, trickled or did not read, cut to make room for others.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "refused_total",
			Help: "What was turned away: requests beyond a client's rate or without the token they need, connections without room.",
		}, []string{"reason"}),
	}
	registry.MustRegister(m.requests, m.durations, m.streams, m.streamEvents, m.streamsDropped, m.connections, m.evicted, m.refused)
	for _, c := range []prometheus.Collector{
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector(),
	} {
		// The node may have registered the process's own collectors already.
		if err := registry.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			panic("httpapi: " + err.Error())
		}
	}
	return m
}

// route returns what counts one route's requests.
func (m *metrics) route(method, path string) func(status int, took time.Duration) {
	durations := m.durations.WithLabelValues(path, method)
	return func(status int, took time.Duration) {
		if status != http.StatusSwitchingProtocols { // a stream lasts as long as its client likes
			durations.Observe(took.Seconds())
		}
		m.requests.WithLabelValues(path, method, strconv.Itoa(status)).Inc()
	}
}

// unrouted counts a request that no route took.
func (m *metrics) unrouted(status int, took time.Duration) {
	m.route("any", otherRoute)(status, took)
}
