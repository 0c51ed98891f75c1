// Package embedded keeps a ledger's documents in a folder of its own, in
// Pebble: no server to install. It passes the conformance suite of statedbtest
// and is the default.
//
// One process at a time has the folder open. Strings sort by their bytes, in
// ranges and in indexes. Any JSON object is held exactly, byte for byte.
// Writes return when they are on disk; nothing that could still be lost is
// shown to a reader, and no change is told before.
package embedded

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// Limits of one document and one batch. A larger batch is taken too, in one
// piece; the limit tells callers what is sensible.
const (
	maxDocumentBytes = 8_000_000
	maxBatch         = 1000
	// writers keep the disk and both of two cores busy.
	writers = 3
)

// Options of Open. The zero value is what a node uses.
type Options struct {
	// Logger gets the storage engine's messages: progress at debug level,
	// trouble as warnings and errors. Nil drops them.
	Logger *slog.Logger
	// CacheBytes is for blocks read from disk; 0 means 48 MB. The memory tables
	// come on top.
	CacheBytes int64
	// MemTableBytes is the size of one memory table, of which three may wait to
	// be written; 0 means 32 MB.
	MemTableBytes int
	// FS is where the folder is; nil is the machine's own file system.
	FS vfs.FS
}

// DB is a folder with one ledger's documents, or none yet.
type DB struct {
	store  *store
	admin  sync.Mutex // one Create, Drop or Close at a time
	ledger atomic.Pointer[ledger]
}

var _ statedb.DB = (*DB)(nil)

// ledger is the database between Create and Drop.
type ledger struct {
	tables  map[string]*table
	dropped chan struct{}
}

// table is the state of one table beside what is stored.
type table struct {
	code     byte
	instance uint64 // random; tells a table from one of an earlier database
	ledger   *ledger

	// lock is held by one writer from reading documents to the visibility of
	// its batch, but not while that goes to disk. A channel, so that waiting
	// for it can end with a context.
	lock chan struct{}

	// head is the last sequence number used, moved that of the last batch that
	// took a row out of the feed. Both are set before their batch is visible,
	// so that a reader who takes a snapshot and then head has at least what
	// the snapshot shows.
	head  atomic.Uint64
	moved atomic.Uint64

	progress sync.Mutex
	durable  uint64        // every batch up to this sequence number is on disk
	advanced chan struct{} // closed and replaced when durable grows

	// indexes are replaced with the lock held. deploying is held by the one
	// call of DeployIndexes that builds.
	indexes   atomic.Pointer[indexSet]
	deploying chan struct{}
}

// Open opens the folder, made with mode 0700 when it is missing. The folder
// need not hold a database yet: until Create the other methods return
// ErrNoDatabase. ErrLocked if it is open already.
func Open(path string, opts Options) (*DB, error) {
	s, err := openStore(path, opts)
	if err != nil {
		return nil, err
	}
	db := &DB{store: s}
	if err := db.load(); err != nil {
		s.close()
		return nil, fmt.Errorf("embedded: open %s: %w", path, err)
	}
	return db, nil
}

// load reads the tables' state from an existing database.
func (db *DB) load() error {
	version, err := db.read([]byte(metaKey))
	if err != nil || version == nil {
		return err
	}
	if err := checkFormat(string(version)); err != nil {
		return err
	}
	l := &ledger{tables: map[string]*table{}, dropped: make(chan struct{})}
	for _, name := range statedb.Tables {
		code := tableCodes[name]
		instance, err := db.readUint64(tableKey(code, kindInstance))
		if err != nil {
			return err
		}
		head, err := db.readUint64(tableKey(code, kindHead))
		if err != nil {
			return err
		}
		t := newTable(l, code, instance, head)
		set, err := db.loadIndexes(code)
		if err != nil {
			return fmt.Errorf("table %s: %w", name, err)
		}
		t.indexes.Store(set)
		l.tables[name] = t
	}
	db.ledger.Store(l)
	return nil
}

func checkFormat(text string) error {
	number, known := strings.CutPrefix(text, formatPrefix)
	found, err := strconv.Atoi(number)
	switch {
	case !known || err != nil || found < 1:
		return fmt.Errorf("the data has format %.40q, which no couchledger writes", text)
	case found > format:
		return fmt.Errorf("the data was written by a newer couchledger (format %d, this program knows %d): start that one, it is left as it is", found, format)
	}
	return nil
}

func newTable(l *ledger, code byte, instance, head uint64) *table {
	t := &table{
		code:      code,
		instance:  instance,
		ledger:    l,
		lock:      make(chan struct{}, 1),
		durable:   head,
		advanced:  make(chan struct{}),
		deploying: make(chan struct{}, 1),
	}
	t.head.Store(head)
	t.indexes.Store(&indexSet{})
	return t
}

// read returns a copy of what is stored under key, nil when there is nothing.
func (db *DB) read(key []byte) ([]byte, error) {
	value, closer, err := db.store.pebble.Get(key)
	if err == pebble.ErrNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, unavailable(err)
	}
	value = slices.Clone(value)
	return value, closer.Close()
}

func (db *DB) readUint64(key []byte) (uint64, error) {
	value, err := db.read(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("the entry %q is missing or damaged", key)
	}
	return binary.BigEndian.Uint64(value), nil
}

// unavailable wraps an error of the storage engine.
func unavailable(err error) error {
	return fmt.Errorf("embedded: %w: %w", statedb.ErrUnavailable, err)
}

// Create makes the database when there is none.
func (db *DB) Create(ctx context.Context) (bool, error) {
	db.admin.Lock()
	defer db.admin.Unlock()
	if err := db.store.begin(); err != nil {
		return false, err
	}
	if db.ledger.Load() != nil {
		db.store.end()
		return false, nil
	}
	l := &ledger{tables: map[string]*table{}, dropped: make(chan struct{})}
	batch := db.store.pebble.NewBatch()
	err := batch.Set([]byte(metaKey), fmt.Appendf(nil, "%s%d", formatPrefix, format), nil)
	for _, name := range statedb.Tables {
		var instance [8]byte
		rand.Read(instance[:])
		code := tableCodes[name]
		l.tables[name] = newTable(l, code, binary.BigEndian.Uint64(instance[:]), 0)
		if err == nil {
			err = batch.Set(tableKey(code, kindInstance), instance[:], nil)
		}
		if err == nil {
			err = batch.Set(tableKey(code, kindHead), make([]byte, 8), nil)
		}
	}
	if err != nil {
		db.store.end()
		return false, unavailable(err)
	}
	// Made only once: a caller that gives up must not leave the tables half
	// known, so the commit goes on without its context.
	if err := db.store.apply(context.WithoutCancel(ctx), batch, func() {}, func() {}); err != nil {
		return false, err
	}
	db.ledger.Store(l)
	return true, nil
}

// Drop deletes all documents and everything about them. Open feeds end with
// ErrNoDatabase.
func (db *DB) Drop(ctx context.Context) error {
	db.admin.Lock()
	defer db.admin.Unlock()
	if err := db.store.begin(); err != nil {
		return err
	}
	l := db.ledger.Load()
	if l == nil {
		db.store.end()
		return statedb.ErrNoDatabase
	}
	for _, t := range l.tables {
		if err := db.acquire(ctx, t); err != nil {
			db.store.end()
			return err
		}
		defer func() { <-t.lock }()
	}
	batch := db.store.pebble.NewBatch()
	if err := batch.DeleteRange(wholeStart, wholeEnd, nil); err != nil {
		db.store.end()
		return unavailable(err)
	}
	if err := db.store.apply(context.WithoutCancel(ctx), batch, func() {}, func() {}); err != nil {
		return err
	}
	db.ledger.Store(nil)
	close(l.dropped)
	return nil
}

// acquire takes the table's lock. It does not check that the table is still
// there; writers do, with it held.
func (db *DB) acquire(ctx context.Context, t *table) error { return db.take(ctx, t.lock) }

func (db *DB) take(ctx context.Context, lock chan struct{}) error {
	select {
	case lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-db.store.disk.Held():
		return db.store.heldUp()
	case <-db.store.halted:
		return db.store.haltErr
	}
}

// begin starts an operation on a table; the caller calls db.store.end when it
// returns without an error.
func (db *DB) begin(ctx context.Context, name string) (*table, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := db.store.begin(); err != nil {
		return nil, err
	}
	l := db.ledger.Load()
	if l == nil {
		db.store.end()
		return nil, statedb.ErrNoDatabase
	}
	t := l.tables[name]
	if t == nil {
		db.store.end()
		return nil, fmt.Errorf("%w: there is no table %q", statedb.ErrNoDatabase, name)
	}
	return t, nil
}

// exists returns ErrNoDatabase after the table was dropped. Readers ask when
// they are done, since a read while Drop is at work may see a part.
func (t *table) exists() error {
	select {
	case <-t.ledger.dropped:
		return statedb.ErrNoDatabase
	default:
		return nil
	}
}

// synced tells that everything up to seq is on disk.
func (t *table) synced(seq uint64) {
	t.progress.Lock()
	defer t.progress.Unlock()
	if seq > t.durable {
		t.durable = seq
		close(t.advanced)
		t.advanced = make(chan struct{})
	}
}

// state returns what is on disk and a channel that closes when it is more.
func (t *table) state() (durable uint64, advanced <-chan struct{}) {
	t.progress.Lock()
	defer t.progress.Unlock()
	return t.durable, t.advanced
}

// waitDurable waits until everything up to seq is on disk.
func (db *DB) waitDurable(ctx context.Context, t *table, seq uint64) error {
	for {
		durable, advanced := t.state()
		if durable >= seq {
			return nil
		}
		if err := db.store.wait(ctx, advanced); err != nil {
			return err
		}
	}
}

// Health returns nil when the store takes reads and writes.
func (db *DB) Health(ctx context.Context) error {
	if _, err := db.begin(ctx, statedb.Backlog); err != nil {
		return err
	}
	defer db.store.end()
	return db.store.writable()
}

// Limits of a document are CouchDB's defaults.
func (db *DB) Limits() statedb.Limits {
	return statedb.Limits{MaxDocumentBytes: maxDocumentBytes, MaxBatch: maxBatch, Writers: writers}
}

// Check finds nothing: every JSON object is held exactly.
func (db *DB) Check(canonical.Value) error { return nil }

// Close closes the folder; what was written is on disk already. Open feeds end
// with ErrClosed.
func (db *DB) Close() error {
	db.admin.Lock()
	defer db.admin.Unlock()
	return db.store.close()
}
