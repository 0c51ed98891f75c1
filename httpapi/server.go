// Package httpapi serves a node over HTTP: version 1 of the BigchainDB 0.10
// client-server API, the WebSocket stream of valid transactions on the same
// port, health, metrics and an OpenAPI description.
//
// Every answer is JSON. Errors read {"status": <code>, "message": "<text>"}.
// The package holds no ledger rules: it turns requests into calls of node.API
// and their results into the documented bodies.
package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
)

// What stands in the root's answer. Clients look at both.
const (
	software        = "BigchainDB"
	protocolVersion = "0.10.0"
)

// Defaults of Options.
const (
	// DefaultMaxBodyBytes leaves a posted transaction room for white space
	// and escapes that its canonical form does not have.
	DefaultMaxBodyBytes = 2 * ledger.MaxTransactionBytes
	// DefaultCommitWait is how long a POST with mode=commit waits for the
	// verdict before it answers 202.
	DefaultCommitWait = 30 * time.Second
	// DefaultMaxStreams is how many WebSocket connections are open at once.
	DefaultMaxStreams = 1000
	// DefaultStreamQueue is how many events a stream's reader may lag behind.
	// Waiting events are shared between readers, about 230 bytes each.
	DefaultStreamQueue = 50_000
	// DefaultMaxConnections is how many connections are open at once.
	DefaultMaxConnections = 10_000
)

// Limits on one connection, so that slow clients do not pile up.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second // header and body
	answerTimeout     = 30 * time.Second // lists get Options.WriteTimeout per page
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	// maxRequestsPerConn bounds the requests that a client has under way on
	// one HTTP/2 connection.
	maxRequestsPerConn = 100
)

// Options are the server's settings. The zero value works.
type Options struct {
	// Version is the software's own version, shown beside the protocol's.
	Version string
	// TrustForwarded takes scheme and host of links from X-Forwarded-Proto
	// and X-Forwarded-Host, and a client's address from the last entry of
	// X-Forwarded-For. Set it only behind a proxy that sets all three.
	TrustForwarded bool
	// MaxBodyBytes bounds a request's body. 0 is DefaultMaxBodyBytes.
	MaxBodyBytes int64
	// MaxRequests caps how many requests are served at once; others wait
	// their turn. Streams, health and metrics are not counted. 0 is no cap.
	MaxRequests int
	// CommitWait bounds the wait of mode=commit. 0 is DefaultCommitWait.
	CommitWait time.Duration
	// MaxStreams and StreamQueue: see the defaults of those names.
	MaxStreams  int
	StreamQueue int
	// ReadTimeout bounds how long a client may take to send a request, and
	// HeaderTimeout its header alone. 0 is 30 s and 10 s.
	ReadTimeout   time.Duration
	HeaderTimeout time.Duration
	// WriteTimeout bounds one write to a client that does not read: a page of
	// a list or a batch of a stream. 0 is 30 s.
	WriteTimeout time.Duration
	// IdleTimeout is how long a connection is kept for another request. 0 is
	// 2 minutes.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds a request's header, about. 0 is 32 KB.
	MaxHeaderBytes int
	// MaxConnections is how many connections are open at once, streams too; 0
	// is DefaultMaxConnections. MaxClientConnections is the same for one client
	// address; 0 is no bound. Serve keeps them.
	MaxConnections       int
	MaxClientConnections int
	// Rate is how many requests per second one client address may make in the
	// long run, and Burst how many at once. A Rate of 0 is no bound, a Burst of
	// 0 twice the Rate.
	Rate, Burst int
	// Origins are the web pages that may use the API and the streams from a
	// browser: scheme://host[:port] in lower case, or "*".
	Origins []string
	// Tokens, where there are any, are needed for everything but the roots, the
	// OpenAPI document, health, and what Anonymous gives.
	Tokens    []Token
	Anonymous Rights
	// TLS has Serve speak TLS, HTTP/2 too; nil is plain HTTP/1.1.
	TLS *tls.Config
	// Registry takes the metrics and is served at /metrics. The node may
	// register its own there. nil makes a new one.
	Registry *prometheus.Registry
	// Logger gets requests at debug level and faults at error level, as it is:
	// its component is the caller's to set. nil is
	// slog.Default.
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	setDefault(&o.MaxBodyBytes, DefaultMaxBodyBytes)
	setDefault(&o.CommitWait, DefaultCommitWait)
	setDefault(&o.MaxStreams, DefaultMaxStreams)
	setDefault(&o.StreamQueue, DefaultStreamQueue)
	setDefault(&o.ReadTimeout, readTimeout)
	setDefault(&o.HeaderTimeout, readHeaderTimeout)
	setDefault(&o.WriteTimeout, writeStall)
	setDefault(&o.IdleTimeout, idleTimeout)
	setDefault(&o.MaxHeaderBytes, maxHeaderBytes)
	setDefault(&o.MaxConnections, DefaultMaxConnections)
	if o.Version == "" {
		o.Version = "devel"
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

func setDefault[T int | int64 | time.Duration](v *T, fallback T) {
	if *v <= 0 {
		*v = fallback
	}
}

// Server serves one node. It is an http.Handler; Serve runs it on a listener
// with the timeouts and limits that face the outside.
type Server struct {
	node    node.API
	opts    Options
	log     *slog.Logger
	echo    *echo.Echo
	http    *http.Server
	metrics *metrics
	hub     *hub
	rates   *rates        // nil without a bound
	slots   chan struct{} // one per running request, nil without a cap

	reading   *budget // bytes of large bodies held while they arrive
	parsing   *budget // bytes of large bodies being validated
	lists     *budget // bytes of answers that clients have not taken yet: lists
	documents *budget // and single documents

	running context.Context // ends when Shutdown begins
	halt    context.CancelFunc
}

// New makes a server of a node.
func New(api node.API, opts Options) *Server {
	opts.setDefaults()
	s := &Server{
		node:      api,
		opts:      opts,
		log:       opts.Logger,
		echo:      echo.New(),
		reading:   newBudget(readBudgetBodies * opts.MaxBodyBytes),
		parsing:   newBudget(opts.MaxBodyBytes),
		lists:     newBudget(listRoom),
		documents: newBudget(documentRoom),
	}
	s.running, s.halt = context.WithCancel(context.Background())
	s.metrics = newMetrics(opts.Registry)
	s.rates = newRates(opts.Rate, opts.Burst)
	s.hub = newHub(api, opts, s.metrics)
	if opts.MaxRequests > 0 {
		s.slots = make(chan struct{}, opts.MaxRequests)
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: opts.HeaderTimeout,
		ReadTimeout:       opts.ReadTimeout,
		// It counts from the header's arrival, so all that a request may
		// wait for is in it.
		WriteTimeout:   queueWait + opts.ReadTimeout + 2*budgetWait + opts.CommitWait + answerTimeout,
		IdleTimeout:    opts.IdleTimeout,
		MaxHeaderBytes: opts.MaxHeaderBytes,
		ErrorLog:       log.New(debugLog{s.log}, "", 0),
		ConnContext:    withConn,
		TLSConfig:      opts.TLS,
		HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: maxRequestsPerConn},
	}
	s.echo.Pre(s.guard)
	s.route()
	return s
}

// debugLog takes what net/http says about single connections: clients that
// vanish, handshakes that fail.
type debugLog struct{ log *slog.Logger }

func (d debugLog) Write(p []byte) (int, error) {
	d.log.Debug("connection", "error", strings.TrimSpace(string(p)))
	return len(p), nil
}

// ServeHTTP answers one request. Served through another http.Server than
// Serve's, the limits on slow clients are that server's.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.RawPath != "" {
		// Route by the decoded path: an id may be sent percent-encoded.
		decoded := *r.URL
		decoded.RawPath = ""
		r2 := *r
		r2.URL = &decoded
		r = &r2
	}
	s.echo.ServeHTTP(w, r)
}

// Serve answers requests on l until Shutdown. It returns nil after Shutdown,
// else what broke the listener.
func (s *Server) Serve(l net.Listener) error {
	serve := s.http.Serve
	if s.opts.TLS != nil {
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	if err := serve(newGate(l, s.opts, s.metrics)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown takes no new connections, closes the streams with status 1001,
// answers waiting mode=commit requests with 202, and returns when every
// running request has its answer. When ctx ends first it cuts what is left
// and returns the context's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.halt()
	s.hub.close(ctx)
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // its error is that of a connection being cut
		return err
	}
	return nil
}
