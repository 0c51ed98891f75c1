package rethinkdb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/statedb"
)

// idleConnections is how many connections are kept for the next queries.
const idleConnections = 32

// oldest is the first version with what is used here.
const oldestMajor, oldestMinor = 2, 4

// acquire gives a connection that nobody else uses, an idle one when there is.
func (db *DB) acquire(ctx context.Context) (*conn, error) {
	if db.closed.Err() != nil {
		return nil, statedb.ErrClosed
	}
	if c := db.takeIdle(); c != nil {
		return c, nil
	}
	bound, cancel := db.bound(ctx)
	defer cancel()
	c, err := db.dial(bound)
	if err != nil {
		return nil, db.unreachable(ctx, err)
	}
	return c, nil
}

// takeIdle gives the connection used last that is whole; nil for none.
func (db *DB) takeIdle() *conn {
	db.mu.Lock()
	defer db.mu.Unlock()
	for len(db.idle) > 0 {
		last := len(db.idle) - 1
		c := db.idle[last]
		db.idle = db.idle[:last]
		if !c.isBroken() {
			return c
		}
	}
	return nil
}

// release keeps a connection for the next query.
func (db *DB) release(c *conn) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if c.isBroken() {
		return
	}
	if db.closed.Err() != nil || len(db.idle) >= idleConnections {
		c.close()
		return
	}
	db.idle = append(db.idle, c)
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

// unreachable gives the error of a connection that was not made or broke.
func (db *DB) unreachable(ctx context.Context, err error) error {
	switch {
	case db.closed.Err() != nil:
		return statedb.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, statedb.ErrDenied), errors.Is(err, errOldServer), errors.Is(err, errNotRethinkDB), errors.Is(err, statedb.ErrUnavailable):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: RethinkDB at %s did not answer in time: %w", statedb.ErrUnavailable, db.address, err)
	}
	return fmt.Errorf("%w: RethinkDB at %s: %w", statedb.ErrUnavailable, db.address, err)
}

// errOldServer is of versions that lack what is used here.
var errOldServer = errors.New("a newer RethinkDB is needed")

// checkVersion reads a version such as 2.4.4~0bookworm.
func (db *DB) checkVersion(version string) error {
	numbers := strings.SplitN(version, ".", 3)
	if len(numbers) < 2 {
		return fmt.Errorf("%w: the server at %s calls its version %.40q", errNotRethinkDB, db.address, version)
	}
	major, errMajor := strconv.Atoi(numbers[0])
	minor, errMinor := strconv.Atoi(strings.TrimRight(numbers[1], "~-+abcdefghijklmnopqrstuvwxyz"))
	if errMajor != nil || errMinor != nil {
		return fmt.Errorf("%w: the server at %s calls its version %.40q", errNotRethinkDB, db.address, version)
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return fmt.Errorf("%w: RethinkDB at %s is version %s; version %d.%d or newer is needed", errOldServer, db.address, version, oldestMajor, oldestMinor)
	}
	return nil
}
