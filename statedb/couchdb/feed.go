package couchdb

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/couchledger/couchledger/statedb"
)

const (
	// feedPage is how many changes are asked for at a time while catching up.
	feedPage = 1000
	// feedBatch is how many changes of a live feed are handed over at once.
	feedBatch = 1000
	// deadBeats is after how many heartbeats that did not come a live feed
	// counts as lost.
	deadBeats = 3
)

// feed reads _changes page by page up to the end, then live. Its token is the
// database's marker and CouchDB's sequence.
type feed struct {
	db     *DB
	name   string
	marker string
	since  string

	ctx    context.Context // ends with the feed or the database
	cancel context.CancelFunc

	mu       sync.Mutex // guards what Close touches
	isClosed bool

	caughtUp bool
	live     *liveFeed
	fault    error // why the feed ended
}

// Changes opens the feed after a token. A token with another marker belongs
// to another database: CouchDB would answer it with all rows.
func (db *DB) Changes(ctx context.Context, table string, since string) (statedb.Feed, error) {
	name, err := db.database(table)
	if err != nil {
		return nil, err
	}
	marker, err := db.marker(ctx, name)
	if err != nil {
		return nil, err
	}
	sequence := ""
	if since != "" {
		of, s, ok := strings.Cut(since, ":")
		if !ok || of != marker || s == "" {
			return nil, fmt.Errorf("%w: it is not of the database %s as it is now", statedb.ErrBadToken, name)
		}
		sequence = s
	}
	f := &feed{db: db, name: name, marker: marker, since: sequence}
	f.ctx, f.cancel = context.WithCancel(db.closed)
	return f, nil
}

// Close ends the feed, also while Next waits.
func (f *feed) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.isClosed = true
	f.cancel()
	return nil
}

// Next waits for changes.
func (f *feed) Next(ctx context.Context) (statedb.Batch, error) {
	if f.fault != nil {
		return statedb.Batch{}, f.fault
	}
	batch, err := f.next(ctx)
	if err != nil {
		f.mu.Lock()
		if f.isClosed {
			err = statedb.ErrClosed
		}
		f.mu.Unlock()
		f.fault = err
		f.cancel()
		if f.live != nil {
			f.live.close()
		}
		return statedb.Batch{}, err
	}
	batch.Token = f.marker + ":" + f.since
	return batch, nil
}

func (f *feed) next(ctx context.Context) (statedb.Batch, error) {
	// Close reaches requests through f.ctx, the caller through its own.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(f.ctx, cancel)
	defer stop()
	if !f.caughtUp {
		return f.page(ctx)
	}
	if f.live == nil {
		var err error
		if f.live, err = f.follow(ctx); err != nil {
			return statedb.Batch{}, err
		}
	}
	return f.live.next(ctx, f)
}

// changeRow is one row of _changes.
type changeRow struct {
	Seq     json.RawMessage `json:"seq"`
	ID      string          `json:"id"`
	Changes []struct {
		Rev string `json:"rev"`
	} `json:"changes"`
	Deleted bool `json:"deleted"`
	// Last and Pending stand in the line that ends a feed.
	Last json.RawMessage `json:"last_seq"`
}

// sequence gives a seq as since takes it: a string, or a number of servers
// that are no cluster; "" where there is none.
func sequence(raw json.RawMessage) string {
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	if raw[0] == '"' {
		return textOf(raw)
	}
	return string(raw)
}

func (r *changeRow) change() (statedb.Change, bool) {
	if r.ID == "" || isReserved(r.ID) || len(r.Changes) == 0 {
		return statedb.Change{}, false
	}
	return statedb.Change{ID: r.ID, Rev: r.Changes[0].Rev, Deleted: r.Deleted}, true
}

// page reads up to feedPage rows that are there.
func (f *feed) page(ctx context.Context) (statedb.Batch, error) {
	for {
		query := url.Values{"limit": {strconv.Itoa(feedPage)}}
		if f.since != "" {
			query.Set("since", f.since)
		}
		answer, err := f.db.do(ctx, request{method: http.MethodGet, path: path(f.name, "_changes"), query: query, reads: true})
		if err != nil {
			return statedb.Batch{}, f.tokenError(err)
		}
		var batch statedb.Batch
		var fault error
		rows, last := 0, ""
		err = eachField(answer, func(key, value []byte) bool {
			switch string(key) {
			case "results":
				fault = eachElement(value, func(element []byte) error {
					var r changeRow
					if err := json.Unmarshal(element, &r); err != nil {
						return malformed("_changes")
					}
					rows++
					if c, ok := r.change(); ok {
						batch.Changes = append(batch.Changes, c)
					}
					return nil
				})
			case "last_seq":
				last = sequence(value)
			}
			return fault == nil
		})
		if err = errors.Join(err, fault); err != nil {
			return statedb.Batch{}, err
		}
		if last == "" {
			return statedb.Batch{}, malformed("_changes without last_seq")
		}
		f.since = last
		f.caughtUp = rows < feedPage
		batch.CaughtUp = f.caughtUp
		if f.caughtUp || len(batch.Changes) > 0 {
			return batch, nil
		}
	}
}

// tokenError tells a sequence that the server does not understand.
func (f *feed) tokenError(err error) error {
	if statusOf(err) == http.StatusBadRequest {
		return fmt.Errorf("%w: %w", statedb.ErrBadToken, err)
	}
	return err
}

// liveFeed is an open continuous feed. A goroutine reads its lines.
type liveFeed struct {
	lines  chan []byte // one row each
	failed chan error  // what ended it; buffered
	cancel context.CancelFunc
}

func (l *liveFeed) close() { l.cancel() }

// follow opens the continuous feed. kivik's ends in a panic and does not show
// heartbeats, by which a server that hangs is told from a silent one.
func (f *feed) follow(ctx context.Context) (*liveFeed, error) {
	beat := f.db.opts.heartbeat
	query := url.Values{
		"feed": {"continuous"}, "heartbeat": {strconv.FormatInt(beat.Milliseconds(), 10)}, "since": {f.since},
	}
	// The feed outlives the call that opens it.
	open, cancel := context.WithCancel(f.ctx)
	deadline := time.AfterFunc(f.db.opts.RequestTimeout, cancel)
	stop := context.AfterFunc(ctx, cancel)
	response, err := f.db.send(open, request{
		method: http.MethodGet, path: path(f.name, "_changes"), query: query,
		header: http.Header{"Accept-Encoding": {"identity"}}, // a compressor would hold rows back
	})
	stop()
	deadline.Stop()
	if err != nil {
		cancel()
		return nil, f.db.fault(ctx, err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		defer cancel()
		defer response.Body.Close()
		return nil, f.tokenError(f.db.fault(ctx, readError(response)))
	}
	l := &liveFeed{lines: make(chan []byte, feedBatch), failed: make(chan error, 1), cancel: cancel}
	go l.read(open, response.Body, deadBeats*beat)
	return l, nil
}

// maxLine bounds a row: an id, a sequence of a cluster, some revisions.
const maxLine = 1 << 20

// read hands the lines over until the feed ends.
func (l *liveFeed) read(ctx context.Context, body io.ReadCloser, patience time.Duration) {
	defer body.Close()
	silent := time.AfterFunc(patience, l.cancel)
	defer silent.Stop()
	scanner := bufio.NewScanner(body)
	scanner.Buffer(make([]byte, 4096), maxLine)
	for scanner.Scan() {
		silent.Reset(patience)
		line := scanner.Bytes()
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			continue // a heartbeat
		}
		// Whoever takes the rows may take his time.
		silent.Stop()
		select {
		case l.lines <- append([]byte(nil), line...):
			silent.Reset(patience)
		case <-ctx.Done():
			l.failed <- ctx.Err()
			return
		}
	}
	err := scanner.Err()
	switch {
	case err == nil:
		err = io.ErrUnexpectedEOF
	case ctx.Err() != nil:
		err = fmt.Errorf("the changes feed was silent for %v", patience)
	}
	l.failed <- err
}

// next waits for the first row and takes what else is there.
func (l *liveFeed) next(ctx context.Context, f *feed) (statedb.Batch, error) {
	var batch statedb.Batch
	for len(batch.Changes) == 0 {
		select {
		case line := <-l.lines:
			if err := f.take(&batch, line); err != nil {
				return batch, err
			}
		case err := <-l.failed:
			return batch, f.ended(ctx, err)
		case <-ctx.Done():
			return batch, f.db.fault(ctx, ctx.Err())
		}
		for more := true; more && len(batch.Changes) < feedBatch; {
			select {
			case line := <-l.lines:
				if err := f.take(&batch, line); err != nil {
					return batch, err
				}
			default:
				more = false
			}
		}
	}
	batch.CaughtUp = len(l.lines) == 0
	return batch, nil
}

// ended says why a live feed ended. Rows that were read before it did come
// again when it is opened anew.
func (f *feed) ended(ctx context.Context, err error) error {
	if f.db.closed.Err() != nil || ctx.Err() != nil {
		return f.db.fault(ctx, ctx.Err())
	}
	return fmt.Errorf("%w: the changes feed of %s broke off: %w", statedb.ErrUnavailable, f.name, err)
}

// take adds a row to a batch.
func (f *feed) take(batch *statedb.Batch, line []byte) error {
	var r changeRow
	if err := json.Unmarshal(line, &r); err != nil {
		return malformed("a line of _changes")
	}
	if len(r.Last) > 0 {
		return fmt.Errorf("%w: CouchDB ended the changes feed of %s", statedb.ErrUnavailable, f.name)
	}
	if s := sequence(r.Seq); s != "" {
		f.since = s
	}
	if c, ok := r.change(); ok {
		batch.Changes = append(batch.Changes, c)
	}
	return nil
}
