package mongodb

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/couchledger/couchledger/statedb"
)

// feedBatch is how many changes are handed over at once.
const feedBatch = 1000

// feed is a table's feed. How it gets its changes is the follower's.
type feed struct {
	db     *DB
	table  string
	from   follower
	ctx    context.Context // ends with the feed or the database
	cancel context.CancelFunc

	mu       sync.Mutex // guards isClosed
	isClosed bool
	using    sync.Mutex // guards from, which Close lets go while Next may run
	fault    error      // why the feed ended
}

// follower is one of the ways to follow a collection. It is used by one
// goroutine.
type follower interface {
	// next waits for changes, as Feed.Next does, without the token.
	next(ctx context.Context) (statedb.Batch, error)
	// place is where to go on after the last batch.
	place() place
	// close lets go of what the server keeps; it may be called again.
	close()
}

// place is a token: the identity of the collection that it is of, and where in
// its feed.
type place struct {
	Collection string `json:"c"`
	// Scanned is the last id of a collection that is being read; Stream is
	// where its change stream stands, or where it was opened before the reading
	// began.
	Scanned  string `json:"i,omitempty"`
	Scanning bool   `json:"s,omitempty"`
	Stream   []byte `json:"t,omitempty"`
}

func (p place) token() string {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // two texts
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func readPlace(token string) (place, error) {
	var p place
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || json.Unmarshal(data, &p) != nil || p.Collection == "" {
		return p, fmt.Errorf("%w: malformed", statedb.ErrBadToken)
	}
	return p, nil
}

// Changes opens the feed after a token. A token of another collection of the
// same name is refused.
func (db *DB) Changes(ctx context.Context, table string, since string) (statedb.Feed, error) {
	_, uuid, err := db.collection(ctx, table)
	if err != nil {
		return nil, err
	}
	var p place
	if since != "" {
		if p, err = readPlace(since); err != nil {
			return nil, err
		}
		if p.Collection != uuid {
			return nil, fmt.Errorf("%w: it is not of the collection %s.%s as it is now", statedb.ErrBadToken, db.opts.Name, table)
		}
	}
	p.Collection = uuid
	f := &feed{db: db, table: table}
	f.ctx, f.cancel = context.WithCancel(db.closed)
	if db.server.streams(db.opts) {
		f.from, err = db.openStream(ctx, table, p)
		if err != nil {
			f.cancel()
			return nil, db.fault(ctx, err)
		}
	} else {
		f.from = &poll{db: db, table: table, at: p}
	}
	return f, nil
}

// Close ends the feed, also while Next waits.
func (f *feed) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.isClosed {
		f.isClosed = true
		f.cancel()
		go f.release() // it asks the server, which nobody needs to wait for
	}
	return nil
}

func (f *feed) release() {
	f.using.Lock()
	defer f.using.Unlock()
	f.from.close()
}

// Next waits for changes.
func (f *feed) Next(outer context.Context) (statedb.Batch, error) {
	f.using.Lock()
	defer f.using.Unlock()
	if f.fault != nil {
		return statedb.Batch{}, f.fault
	}
	// Close reaches commands through f.ctx, the caller through its own.
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	defer context.AfterFunc(f.ctx, cancel)()
	err := f.ctx.Err()
	if err == nil {
		var batch statedb.Batch
		if batch, err = f.from.next(ctx); err == nil {
			batch.Token = f.from.place().token()
			return batch, nil
		}
	}
	f.mu.Lock()
	closed := f.isClosed
	f.mu.Unlock()
	if f.fault = f.db.fault(outer, err); closed {
		f.fault = statedb.ErrClosed
	}
	f.from.close()
	f.cancel()
	return statedb.Batch{}, f.fault
}

// change is a record's row in the feed.
func (r record) change() statedb.Change {
	return statedb.Change{ID: r.id, Rev: r.rev, Deleted: r.deleted}
}
