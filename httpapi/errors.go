package httpapi

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// httpError is an error with the status and text that a client sees.
type httpError struct {
	status  int
	message string
	// closes: the rest of the request's body is not read.
	closes bool
	// retry is what Retry-After says; 0 leaves it to the node where the status
	// is 503, else out.
	retry time.Duration
}

func (e *httpError) Error() string { return e.message }

func failure(status int, message string) *httpError {
	return &httpError{status: status, message: message}
}

// badParameter is the 400 for a query parameter. reason continues "Invalid
// parameter <name>: ".
func badParameter(name, reason string) *httpError {
	return failure(http.StatusBadRequest, "Invalid parameter "+name+": "+reason)
}

func unavailable(message string) *httpError {
	return failure(http.StatusServiceUnavailable, message)
}

var (
	errNoTx    = failure(http.StatusNotFound, "no such transaction")
	errNoBlock = failure(http.StatusNotFound, "no such block")
)

// internal is the 500. It names the request, for which the log has the rest.
func internal(c echo.Context) *httpError {
	return failure(http.StatusInternalServerError, "internal error, request "+idOf(c))
}

// translate gives the answer to an error. Faults of the node's own are logged
// and answered without their text, which may hold addresses and paths.
func (s *Server) translate(c echo.Context, err error) *httpError {
	var (
		known       *httpError
		invalid     *ledger.ValidationError
		syntax      *canonical.SyntaxError
		refused     *node.RefusedError
		unsupported *statedb.UnsupportedError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &invalid), errors.As(err, &syntax), errors.As(err, &unsupported):
		return failure(http.StatusBadRequest, err.Error())
	case errors.As(err, &refused):
		return failure(http.StatusNotFound, refused.Error())
	case errors.Is(err, node.ErrNotFound):
		return failure(http.StatusNotFound, "not found")
	case errors.Is(err, node.ErrBadCursor):
		return badParameter("bookmark", "no page of this list or query gave it")
	case errors.Is(err, statedb.ErrBadQuery), errors.Is(err, statedb.ErrNoIndex), errors.Is(err, statedb.ErrScan):
		reason := strings.TrimPrefix(strings.TrimPrefix(err.Error(), statedb.ErrBadQuery.Error()+": "), "statedb: ")
		return failure(http.StatusBadRequest, "Invalid query: "+reason)
	case errors.Is(err, statedb.ErrBuilding):
		return unavailable("an index that the query needs is being built")
	case errors.Is(err, node.ErrBusy):
		return unavailable(node.ErrBusy.Error())
	case errors.Is(err, node.ErrNotReady):
		return unavailable(err.Error())
	case errors.Is(err, statedb.ErrUnavailable), errors.Is(err, statedb.ErrNoDatabase), errors.Is(err, statedb.ErrDenied):
		// The node has told of the outage; every request need not.
		s.log.Debug("the database does not answer", "request_id", idOf(c), "route", c.Path(), "error", err)
		return unavailable("the database does not answer")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// Mostly the client went away and nobody reads this.
		return unavailable("the request was given up")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &httpError{status: http.StatusRequestTimeout, message: "the request took too long to arrive", closes: true}
	}
	s.log.Error("a request failed", "request_id", idOf(c), "route", c.Path(), "error", err)
	return internal(c)
}

// writeError answers with {"status": <code>, "message": "<text>"}.
func (s *Server) writeError(c echo.Context, err error) {
	e := s.translate(c, err)
	retry := e.retry
	if retry == 0 && e.status == http.StatusServiceUnavailable {
		retry = max(time.Second, s.node.RetryAfter())
	}
	if retry > 0 {
		seconds := (retry + time.Second - 1) / time.Second
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(int(seconds)))
	}
	if e.closes {
		c.Response().Header().Set(echo.HeaderConnection, "close")
	}
	body := append(make([]byte, 0, 64+len(e.message)), `{"status":`...)
	body = strconv.AppendInt(body, int64(e.status), 10)
	body = append(body, `,"message":`...)
	body = canonical.AppendString(body, strings.ToValidUTF8(e.message, "\uFFFD"))
	if err := writeJSON(c, e.status, append(body, '}')); err != nil {
		s.log.Debug("an error was not delivered", "request_id", idOf(c), "error", err)
	}
}

// jsonType is shared by all answers: net/http only reads header values.
var jsonType = []string{"application/json"}

// writeJSON answers with body, which is JSON already.
func writeJSON(c echo.Context, status int, body []byte) error {
	header := c.Response().Header()
	header["Content-Type"] = jsonType
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	c.Response().WriteHeader(status)
	if len(body) <= writeAtOnce {
		_, err := c.Response().Write(body)
		return err
	}
	return writeLong(c, body)
}

const (
	// writeAtOnce is the longest answer that the system takes whether or not
	// the client reads.
	writeAtOnce = 64 << 10
	// writePart is how much of a longer one a client may take
	// Options.WriteTimeout for.
	writePart = 256 << 10
)

// writeLong writes the body of an answer in parts, each in its time.
func writeLong(c echo.Context, body []byte) error {
	conn := connOf(c.Request())
	control := http.NewResponseController(c.Response().Writer)
	for part := range slices.Chunk(body, writePart) {
		if conn != nil {
			// Serve's http.ResponseWriter has deadlines.
			_ = control.SetWriteDeadline(time.Now().Add(conn.gate.writeTimeout))
		}
		conn.writes()
		_, err := c.Response().Write(part)
		conn.busy()
		if err != nil {
			return err
		}
	}
	return nil
}
