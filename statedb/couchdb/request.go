package couchdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/go-kivik/kivik/v4"
	"github.com/go-kivik/kivik/v4/couchdb/chttp"

	"github.com/couchledger/couchledger/statedb"
)

// request is one HTTP request of this package's own.
type request struct {
	method string
	path   string // escaped, without the server
	query  url.Values
	body   []byte // JSON; nil for none
	header http.Header
	// reads: it changes nothing, so that it can be tried again.
	reads bool
	// most bytes of the answer are read, if that is not 0: the answer may be cut off.
	most int
}

// serverError is an answer with an error status.
type serverError struct {
	status int
	Code   string `json:"error"`  // such as not_found
	Reason string `json:"reason"` // a sentence
}

func (e *serverError) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("status %d %s", e.status, http.StatusText(e.status))
	}
	return fmt.Sprintf("status %d, %s: %s", e.status, e.Code, e.Reason)
}

// maxErrorBody is how much of an error's body is read.
const maxErrorBody = 16 << 10

// firstPause is the time before a request is tried again; it doubles.
const firstPause = 100 * time.Millisecond

// do sends a request and returns the answer's body. What only reads is tried
// again when the server fails at once; one that hangs has had its time.
func (db *DB) do(ctx context.Context, r request) ([]byte, error) {
	pause := firstPause
	for try := 0; ; try++ {
		body, err := db.once(ctx, r)
		if err == nil || !r.reads || try == db.opts.MaxRetries || !errors.Is(err, statedb.ErrUnavailable) || isTimeout(err) {
			return body, err
		}
		if err := db.pause(ctx, pause); err != nil {
			return nil, err
		}
		pause *= 2
	}
}

// pause waits, or returns why it must not.
func (db *DB) pause(ctx context.Context, d time.Duration) error {
	ctx, cancel := db.bound(ctx)
	defer cancel()
	if err := statedb.Sleep(ctx, d); err != nil {
		return db.fault(ctx, err)
	}
	return nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// bound gives a context that ends when the database is closed, too.
func (db *DB) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(db.closed, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

func (db *DB) once(ctx context.Context, r request) ([]byte, error) {
	outer := ctx
	ctx, cancel := db.bound(ctx)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, db.opts.RequestTimeout)
	defer cancelTimeout()
	response, err := db.send(ctx, r)
	if err != nil {
		return nil, db.fault(outer, err)
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		return nil, db.fault(outer, readError(response))
	}
	var body bytes.Buffer
	answer, grow := io.Reader(response.Body), int64(64<<20)
	if r.most > 0 {
		answer, grow = io.LimitReader(answer, int64(r.most)), int64(r.most)
	}
	if n := response.ContentLength; n > 0 {
		body.Grow(int(min(n, grow)) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(answer); err != nil {
		return nil, db.fault(outer, err)
	}
	return body.Bytes(), nil
}

// send returns the response whatever its status. The caller closes its body.
func (db *DB) send(ctx context.Context, r request) (*http.Response, error) {
	opts := &chttp.Options{Query: r.query, Header: r.header}
	if r.body != nil {
		opts.Body = io.NopCloser(bytes.NewReader(r.body))
		opts.ContentLength = int64(len(r.body))
	}
	return db.http.DoReq(ctx, r.method, r.path, opts)
}

func readError(response *http.Response) error {
	e := &serverError{status: response.StatusCode}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxErrorBody))
	if err != nil {
		return err
	}
	// Not every error comes from CouchDB itself; a proxy's is HTML.
	_ = json.Unmarshal(body, e)
	return e
}

// fault gives an error the meaning that the contract has for it.
func (db *DB) fault(ctx context.Context, err error) error {
	if db.closed.Err() != nil {
		return statedb.ErrClosed
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var answer *serverError
	status := 0
	if errors.As(err, &answer) {
		status = answer.status
	} else if status = kivik.HTTPStatus(err); status == http.StatusInternalServerError || status == http.StatusBadGateway {
		// No answer at all, or one that kivik cannot read.
		return fmt.Errorf("%w: %w", statedb.ErrUnavailable, err)
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return db.denied(err)
	case status == http.StatusNotFound:
		return fmt.Errorf("%w: %w", statedb.ErrNoDatabase, err)
	case status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: %w", statedb.ErrTooLarge, err)
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= http.StatusInternalServerError:
		return fmt.Errorf("%w: %w", statedb.ErrUnavailable, err)
	}
	return fmt.Errorf("couchdb: %w", err)
}

// denied tells what the user lacks.
func (db *DB) denied(err error) error {
	if db.opts.Login == "" {
		return fmt.Errorf("%w: CouchDB at %s wants a user: set database.login, and database.password in BIGCHAINDB_DATABASE_PASSWORD (%w)", statedb.ErrDenied, db.url, err)
	}
	return fmt.Errorf("%w: CouchDB at %s does not let the user %q do this: check database.login and database.password, and that this user is a server admin (%w)", statedb.ErrDenied, db.url, db.opts.Login, err)
}

// isCode reports whether an error is an answer with this code.
func isCode(err error, status int, code string) bool {
	var answer *serverError
	return errors.As(err, &answer) && answer.status == status && answer.Code == code
}

// statusOf is an answer's status, 0 where there was none.
func statusOf(err error) int {
	var answer *serverError
	if errors.As(err, &answer) {
		return answer.status
	}
	if err == nil {
		return 0
	}
	return kivik.HTTPStatus(err)
}

// path makes an escaped path of its parts.
func path(parts ...string) string {
	var b bytes.Buffer
	for _, part := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(part))
	}
	return b.String()
}
