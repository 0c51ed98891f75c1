package embedded

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/statedb"
)

// instanceDigits of a token are the table's instance in hexadecimal.
const instanceDigits = 16

// maxRows of one batch of changes.
const maxRows = 1000

// feed reads rows by sequence number, up to what is on disk.
type feed struct {
	db *DB
	t  *table

	position  uint64 // the last sequence number that was told
	toldAll   bool   // a batch said CaughtUp
	closeOnce sync.Once
	closed    chan struct{}
	err       error
}

// Changes opens the feed. A token is a sequence number and the table's
// instance, "<decimal>-<16 hex digits>"; one of a table that was dropped, one
// beyond the table's last change, and anything else is ErrBadToken.
func (db *DB) Changes(ctx context.Context, name string, since string) (statedb.Feed, error) {
	t, err := db.begin(ctx, name)
	if err != nil {
		return nil, err
	}
	defer db.store.end()
	f := &feed{db: db, t: t, closed: make(chan struct{})}
	if since == "" {
		return f, nil
	}
	number, instance, _ := strings.Cut(since, "-")
	f.position, err = strconv.ParseUint(number, 10, 64)
	if err != nil || len(instance) != instanceDigits || strconv.FormatUint(f.position, 10) != number {
		return nil, fmt.Errorf("%w: %q is malformed", statedb.ErrBadToken, since)
	}
	if instance != f.instance() {
		return nil, fmt.Errorf("%w: %q is of another table, or of a database that was dropped since", statedb.ErrBadToken, since)
	}
	if head := t.head.Load(); f.position > head {
		return nil, fmt.Errorf("%w: %q is beyond the last change, %d", statedb.ErrBadToken, since, head)
	}
	return f, nil
}

func (f *feed) instance() string { return fmt.Sprintf("%016x", f.t.instance) }

func (f *feed) token() string { return strconv.FormatUint(f.position, 10) + "-" + f.instance() }

// Next returns the changes after the last ones.
func (f *feed) Next(ctx context.Context) (statedb.Batch, error) {
	if f.err != nil {
		return statedb.Batch{}, f.err
	}
	batch, err := f.next(ctx)
	if err != nil {
		f.err = fmt.Errorf("embedded: changes feed: %w", err)
		return statedb.Batch{}, f.err
	}
	return batch, nil
}

func (f *feed) next(ctx context.Context) (statedb.Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return statedb.Batch{}, err
		}
		select {
		case <-f.closed:
			return statedb.Batch{}, statedb.ErrClosed
		default:
		}
		batch, advanced, err := f.read(ctx)
		if err != nil {
			return statedb.Batch{}, err
		}
		if len(batch.Changes) > 0 || batch.CaughtUp && !f.toldAll {
			f.toldAll = f.toldAll || batch.CaughtUp
			batch.Token = f.token()
			return batch, nil
		}
		if !batch.CaughtUp {
			continue
		}
		select {
		case <-advanced:
		case <-ctx.Done():
		case <-f.closed:
		case <-f.t.ledger.dropped:
		case <-f.db.store.done:
			return statedb.Batch{}, statedb.ErrClosed
		case <-f.db.store.halted:
			return statedb.Batch{}, f.db.store.haltErr
		}
	}
}

// read collects the rows that are on disk and moves the position past them.
func (f *feed) read(ctx context.Context) (batch statedb.Batch, advanced <-chan struct{}, err error) {
	if err := f.db.store.begin(); err != nil {
		return batch, nil, err
	}
	defer f.db.store.end()
	if err := f.t.exists(); err != nil {
		return batch, nil, err
	}
	durable, advanced := f.t.state()
	if durable <= f.position {
		batch.CaughtUp = true
		return batch, advanced, nil
	}
	lower := appendChangeKey(nil, f.t.code, f.position+1)
	upper := appendChangeKey(nil, f.t.code, durable+1)
	iter, err := f.db.store.pebble.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return batch, nil, unavailable(err)
	}
	moved := f.t.moved.Load() // after the snapshot: covers every batch in it
	more := false
	position := durable
	for iter.First(); iter.Valid(); iter.Next() {
		if len(batch.Changes) == maxRows {
			more = true
			break
		}
		change, err := readChange(iter.Value())
		if err != nil {
			iter.Close()
			return batch, nil, err
		}
		batch.Changes = append(batch.Changes, change)
		position = binary.BigEndian.Uint64(iter.Key()[seqOffset:])
	}
	if err := iter.Error(); err != nil {
		iter.Close()
		return batch, nil, unavailable(err)
	}
	if err := iter.Close(); err != nil {
		return batch, nil, unavailable(err)
	}
	// A batch not yet on disk may have taken rows away that the snapshot
	// therefore lacks. Were it lost in a crash, they would be back, behind a
	// token given out now. So wait for it.
	if err := f.db.waitDurable(ctx, f.t, moved); err != nil {
		return batch, nil, err
	}
	if !more {
		position = durable
	}
	f.position = position
	durable, advanced = f.t.state()
	batch.CaughtUp = !more && durable <= f.position
	return batch, advanced, f.t.exists()
}

// Close ends the feed; a Next that waits returns ErrClosed.
func (f *feed) Close() error {
	f.closeOnce.Do(func() { close(f.closed) })
	return nil
}
