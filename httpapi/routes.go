package httpapi

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

// handler answers a request whose query parameters are among the route's own.
// An error that it returns becomes the error body.
type handler func(c echo.Context, q query) error

// route is one documented path. GET routes answer HEAD too, and every route
// answers with and without a trailing slash.
type route struct {
	method string
	path   string
	params []string // query parameters it takes
	handle handler
	// side routes do not count against MaxRequests, and look at their query
	// themselves if at all: probes and scrapers add parameters of their own.
	side bool
	// needs is what a token must give for it; 0 is open to all.
	needs Rights
}

func (s *Server) routes() []route {
	get, post := http.MethodGet, http.MethodPost
	return []route{
		{method: get, path: "/", handle: s.root},
		{method: get, path: "/api/v1", handle: s.apiRoot},
		{method: get, path: "/api/v1/openapi.json", handle: s.openAPI},
		{method: post, path: "/api/v1/transactions", params: []string{"mode"}, handle: s.postTransaction, needs: MayPost},
		{method: get, path: "/api/v1/transactions", params: []string{"asset_id", "operation", "limit", "bookmark"}, handle: s.listTransactions, needs: MayQuery},
		{method: get, path: "/api/v1/transactions/:id", handle: s.getTransaction, needs: MayQuery},
		{method: get, path: "/api/v1/outputs", params: []string{"public_key", "unspent", "limit", "bookmark"}, handle: s.listOutputs, needs: MayQuery},
		{method: get, path: "/api/v1/statuses", params: []string{"tx_id", "block_id"}, handle: s.getStatus, needs: MayQuery},
		{method: get, path: "/api/v1/blocks", params: []string{"tx_id", "status", "limit", "bookmark"}, handle: s.listBlocks, needs: MayQuery},
		{method: get, path: "/api/v1/blocks/:id", handle: s.getBlock, needs: MayQuery},
		{method: get, path: "/api/v1/votes", params: []string{"block_id", "limit", "bookmark"}, handle: s.listVotes, needs: MayQuery},
		{method: get, path: "/api/v1/faults", params: []string{"limit", "bookmark"}, handle: s.listFaults, needs: MayQuery},
		{method: post, path: "/api/v1/query", handle: s.postQuery, needs: MayQuery},
		{method: post, path: "/api/v1/query/explain", handle: s.explainQuery, needs: MayQuery},
		{method: get, path: "/api/v1/streams/valid_tx", handle: s.streamValid, side: true, needs: MayQuery},
		{method: get, path: "/healthz", handle: s.healthz, side: true},
		{method: get, path: "/readyz", handle: s.readyz, side: true},
		{method: get, path: "/metrics", handle: s.serveMetrics(), side: true, needs: MayQuery},
	}
}

func (s *Server) route() {
	for _, r := range s.routes() {
		wrapped := s.wrap(r)
		paths := []string{r.path}
		if r.path != "/" {
			paths = append(paths, r.path+"/")
		}
		for _, path := range paths {
			s.echo.Add(r.method, path, wrapped)
			// A socket cannot be opened with HEAD.
			if r.method == http.MethodGet && !strings.Contains(path, "/streams/") {
				s.echo.Add(http.MethodHead, path, wrapped)
			}
		}
	}
	s.echo.HTTPErrorHandler = s.unrouted
}

// wrap gives a route what all have in common: a place among the running
// requests, query parsing, error bodies, recovery, metrics and the log.
func (s *Server) wrap(r route) echo.HandlerFunc {
	observe := s.metrics.route(r.method, r.path)
	return func(c echo.Context) error {
		start := time.Now()
		defer func() {
			fault := recover()
			if fault != nil && fault != http.ErrAbortHandler {
				s.log.Error("panic while answering a request",
					"request_id", idOf(c), "method", r.method, "route", r.path, "panic", fault, "stack", string(debug.Stack()))
				if !c.Response().Committed {
					s.writeError(c, internal(c))
					fault = nil
				}
			}
			took := time.Since(start)
			observe(c.Response().Status, took)
			s.logRequest(c, took)
			if fault != nil {
				// The answer has begun: only a cut connection tells the
				// client that it is not whole.
				panic(http.ErrAbortHandler)
			}
		}()
		if err := s.answer(c, r); err != nil {
			if c.Response().Committed {
				s.log.Debug("an answer was cut short", "request_id", idOf(c), "route", r.path, "error", err)
				panic(http.ErrAbortHandler)
			}
			s.writeError(c, err)
		}
		return nil
	}
}

func (s *Server) answer(c echo.Context, r route) error {
	if err := s.authorize(c, r.needs); err != nil {
		return err
	}
	if up, behind := s.node.CatchingUp(); behind {
		c.Response().Header().Set(headerCatchingUp, up.String())
	}
	if r.side {
		return r.handle(c, query{})
	}
	q, err := parseQuery(c.Request().URL.RawQuery, r.params)
	if err != nil {
		return err
	}
	if s.slots != nil {
		if err := s.enter(c); err != nil {
			return err
		}
		defer func() { <-s.slots }()
	}
	return r.handle(c, q)
}

// accessLevel keeps the log of single requests off unless asked for: at full
// load it would cost more than the requests.
const accessLevel = slog.LevelDebug

// queueWait is how long a request waits for its turn when MaxRequests run.
const queueWait = 15 * time.Second

func (s *Server) enter(c echo.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(queueWait)
	defer timer.Stop()
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-timer.C:
		return unavailable("the node answers as many requests as it may")
	case <-c.Request().Context().Done():
		return c.Request().Context().Err()
	}
}

// unrouted answers what the router found no handler for: 404 and 405.
func (s *Server) unrouted(err error, c echo.Context) {
	start := time.Now()
	if he, ok := err.(*echo.HTTPError); ok && he.Code == http.StatusMethodNotAllowed {
		err = failure(http.StatusMethodNotAllowed, "this resource does not take this method")
		allow, _ := c.Get(echo.ContextKeyHeaderAllow).(string)
		c.Response().Header().Set(echo.HeaderAllow, allow)
	} else {
		err = failure(http.StatusNotFound, "no such resource")
	}
	s.writeError(c, err)
	s.aside(c, start)
}

func (s *Server) logRequest(c echo.Context, took time.Duration) {
	r := c.Request()
	if !s.log.Enabled(r.Context(), accessLevel) {
		return
	}
	attrs := []any{
		"request_id", idOf(c), "method", r.Method, "uri", loggedURI(r), "status", c.Response().Status,
		"bytes", c.Response().Size, "took", took, "remote", s.clientOf(r),
	}
	if name, ok := c.Get(tokenKey).(string); ok {
		attrs = append(attrs, "token", name)
	}
	s.log.Log(r.Context(), accessLevel, "request", attrs...)
}
