package rethinkdb

import (
	"context"
	"fmt"
	"sync"
	"time"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

const (
	// feedQueue is how many changes the server keeps for a feed that does not
	// take them. When they are more it drops some and says so.
	feedQueue = 1_000_000
	// feedAhead is how many answers are read ahead of who takes them.
	feedAhead = 2
	// deadBeats is how many heartbeats long a server may be silent.
	deadBeats = 3
)

// feed is a changefeed. RethinkDB keeps no history: a feed begins with every
// row as it is, and so does one that is opened from a token. The token is the
// table's identity and says no more.
type feed struct {
	db    *DB
	table string
	token string

	ctx    context.Context // ends with the feed or the database
	cancel context.CancelFunc
	conn   *conn // of its own

	mu       sync.Mutex // guards what Close touches
	isClosed bool

	answers chan answer
	failed  chan error // what ended it; buffered

	ready    bool // every row was told of
	caughtUp bool // and Next said so
	fault    error
}

// Changes opens the feed. It reads ids and revisions only.
func (db *DB) Changes(ctx context.Context, table string, since string) (statedb.Feed, error) {
	if err := db.checkTable(table); err != nil {
		return nil, err
	}
	identity, err := db.identity(ctx, table)
	if err != nil {
		return nil, err
	}
	if since != "" && since != identity {
		return nil, fmt.Errorf("%w: it is not of the table %s of %s as it is now", statedb.ErrBadToken, table, db.opts.Name)
	}
	f := &feed{db: db, table: table, token: identity, answers: make(chan answer, feedAhead), failed: make(chan error, 1)}
	f.ctx, f.cancel = context.WithCancel(db.closed)
	if err := f.open(ctx); err != nil {
		f.cancel()
		return nil, err
	}
	// The table may have been made anew while the feed was opened.
	if now, err := db.identity(ctx, table); err != nil || now != identity {
		f.Close()
		if err == nil {
			err = fmt.Errorf("%w: the table %s of %s was made anew", statedb.ErrUnavailable, table, db.opts.Name)
		}
		return nil, err
	}
	return f, nil
}

// identity tells a table from another one of the same name.
func (db *DB) identity(ctx context.Context, table string) (string, error) {
	id, err := db.one(ctx, "config", db.table(table).Config().Field("id"), nil)
	return id.Text(), err
}

// open starts the query and what reads its answers.
func (f *feed) open(ctx context.Context) error {
	text, err := encodeQuery(f.db.table(f.table).Pluck(fieldID, fieldRev, fieldDeleted).Changes(r.ChangesOpts{
		IncludeInitial: true, IncludeStates: true, Squash: false, ChangefeedQueueSize: f.db.opts.feedQueue,
	}), nil)
	if err != nil {
		return err
	}
	bound, cancel := f.db.bound(ctx)
	defer cancel()
	if f.conn, err = f.db.dial(bound); err != nil {
		return f.db.unreachable(ctx, err)
	}
	token := f.conn.newToken()
	limit, cancelLimit := context.WithTimeout(bound, f.db.opts.RequestTimeout)
	defer cancelLimit()
	start := time.Now()
	first, err := f.conn.ask(limit, token, text)
	if err != nil {
		err = f.db.unreachable(ctx, err)
	} else if first.kind >= firstError {
		err = f.db.refused(first)
	}
	f.db.metrics.count("changes", start, err)
	if err != nil {
		f.conn.close()
		return err
	}
	context.AfterFunc(f.ctx, f.conn.close)
	go f.beat()
	go f.read(token, first)
	return nil
}

// beat asks now and then whether the server is there: a feed without changes
// is as silent as one of a server that hangs. No answer breaks the connection.
func (f *feed) beat() {
	tick := time.NewTicker(f.db.opts.heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-f.conn.broken:
			return
		}
		ctx, cancel := context.WithTimeout(f.ctx, deadBeats*f.db.opts.heartbeat)
		token := f.conn.newToken()
		_, err := f.conn.ask(ctx, token, simpleQuery(queryServerInfo))
		cancel()
		f.conn.forget(token)
		if err != nil {
			return
		}
	}
}

// read hands answers over until there are no more. The next one is asked for
// before, as the server drops changes that nobody asks for.
func (f *feed) read(token uint64, a answer) {
	for {
		if a.kind >= firstError {
			f.failed <- f.db.refused(a)
			return
		}
		if a.kind != answerPartial {
			f.failed <- fmt.Errorf("%w: RethinkDB ended it", statedb.ErrUnavailable)
			return
		}
		next := make(chan answer, 1)
		lost := make(chan error, 1)
		go func() {
			// No limit: a silent table has no answer, and beat notices a
			// server that is gone.
			a, err := f.conn.ask(f.ctx, token, simpleQuery(queryContinue))
			if err != nil {
				lost <- err
				return
			}
			next <- a
		}()
		select {
		case f.answers <- a:
		case <-f.ctx.Done():
			return
		}
		select {
		case a = <-next:
		case err := <-lost:
			f.failed <- err
			return
		}
	}
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
		f.fault = f.why(ctx, err)
		f.cancel()
		return statedb.Batch{}, f.fault
	}
	batch.Token = f.token
	return batch, nil
}

// why gives the reason that the caller wants to hear.
func (f *feed) why(ctx context.Context, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.isClosed || f.db.closed.Err() != nil:
		return statedb.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("the changes feed of %s broke off: %w", f.table, f.db.unreachable(ctx, err))
}

func (f *feed) next(ctx context.Context) (statedb.Batch, error) {
	for {
		// What was read before the end is told first.
		var a answer
		select {
		case a = <-f.answers:
		default:
			select {
			case a = <-f.answers:
			case err := <-f.failed:
				select {
				case a = <-f.answers:
					f.failed <- err
				default:
					return statedb.Batch{}, err
				}
			case <-ctx.Done():
				return statedb.Batch{}, ctx.Err()
			case <-f.ctx.Done():
				return statedb.Batch{}, f.ctx.Err()
			}
		}
		var batch statedb.Batch
		for _, row := range a.rows {
			if err := f.take(&batch, row); err != nil {
				return batch, err
			}
		}
		batch.CaughtUp = f.ready && len(f.answers) == 0
		if len(batch.Changes) > 0 || batch.CaughtUp && !f.caughtUp {
			f.caughtUp = f.caughtUp || batch.CaughtUp
			return batch, nil
		}
	}
}

// take reads one row of the feed: a change, a state, or that some were dropped.
func (f *feed) take(batch *statedb.Batch, text []byte) error {
	row, err := splitObject(text)
	if err != nil {
		return malformed("a row of a changefeed")
	}
	if fault, ok := row[`"error"`]; ok {
		return fmt.Errorf("%w: changes came faster than they were taken, and RethinkDB dropped some: %s", statedb.ErrUnavailable, fault)
	}
	if state, ok := row[`"state"`]; ok {
		f.ready = f.ready || string(state) == `"ready"`
		return nil
	}
	// Of a row that is gone the old value is all that there is.
	c := statedb.Change{Rev: strangeRev}
	value := row[`"new_val"`]
	if len(value) == 0 || string(value) == "null" {
		value, c.Deleted = row[`"old_val"`], true
	}
	document := outline(value)
	id, _ := document.Get(fieldID)
	if c.ID = id.Text(); id.Kind() != canonical.String || checkID(c.ID) != nil {
		return nil // no document of the ledger
	}
	if rev, _ := document.Get(fieldRev); rev.Kind() == canonical.String && rev.Text() != "" {
		c.Rev = rev.Text()
	}
	if deleted, ok := document.Get(fieldDeleted); ok && deleted.Bool() {
		c.Deleted = true
	}
	batch.Changes = append(batch.Changes, c)
	return nil
}
