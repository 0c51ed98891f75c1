package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/disk"
	"github.com/couchledger/couchledger/statedb"
)

// store is a Pebble store that fails honestly.
//
// Pebble means to end the process when its write-ahead log or its manifest
// cannot be written: it calls Logger.Fatalf or panics, with locks held. Here
// the store halts instead: the first such error is kept, every later
// operation and every one that waits gets it, and only opening the folder
// anew, in a new process, helps. On a full disk, and for want of file
// descriptors, what must be durable waits; new work is refused. A flush or compaction that fails, as on a full
// disk, is tried again by Pebble; until one succeeds writes are refused, since
// they would block when the memory tables are full.
type store struct {
	path   string
	pebble *pebble.DB
	lock   *pebble.Lock
	disk   *disk.Guard
	log    *slog.Logger

	mu       sync.Mutex
	closed   bool
	inflight sync.WaitGroup

	done     chan struct{} // closed by close
	halted   chan struct{} // closed with haltErr set
	haltOnce sync.Once
	haltErr  error

	endedFlush  atomic.Pointer[error] // what FlushEnd said last, failure or not
	failedFlush atomic.Pointer[error] // set while flushes fail
}

// Sizes for a node that is to stay under 400 MB with its chainstate beside it.
const (
	defaultCacheBytes = 48 << 20
	memTableBytes     = 32 << 20
	// memTables that may wait to be flushed, the one being written included.
	maxMemTables = 3
	// bloomBits a key keep false positives at 1 %.
	bloomBits  = 10
	blockBytes = 8 << 10
	// indexBlockBytes keep most files' indexes in one level.
	indexBlockBytes = 32 << 10
	maxOpenFiles    = 512
	maxCompactions  = 2
)

func openStore(path string, opts Options) (s *store, err error) {
	s = &store{path: path, log: opts.Logger, done: make(chan struct{}), halted: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	fsys := opts.FS
	if fsys == nil {
		fsys = vfs.Default
	}
	s.disk = disk.NewGuard(fsys, path, s.cannotWrite)
	if err := disk.MakeFolder(fsys, path); err != nil {
		return nil, fmt.Errorf("embedded: make the folder: %w", err)
	}
	if s.lock, err = lockFolder(fsys, path); err != nil {
		return nil, err
	}
	opened := make(chan error, 1)
	go func() { // Fatalf may end it
		db, err := pebble.Open(path, s.options(opts))
		s.pebble = db
		opened <- err
	}()
	select {
	case err = <-opened:
	case <-s.halted: // Pebble may go on, so the lock stays
		return nil, s.haltErr
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded: open %s: %w", path, err), s.lock.Close())
	}
	s.disk.Arm()
	return s, nil
}

func lockFolder(fsys vfs.FS, path string) (*pebble.Lock, error) {
	lock, err := pebble.LockDirectory(path, fsys)
	if err == nil {
		return lock, nil
	}
	// A file that cannot be made is a PathError; a lock that is held by another
	// process a bare errno, by this one a text.
	var pathError *fs.PathError
	var errno syscall.Errno
	if errors.As(err, &pathError) || !errors.As(err, &errno) && err.Error() != "lock held by current process" {
		return nil, fmt.Errorf("embedded: lock %s: %w", path, err)
	}
	return nil, fmt.Errorf("%w: the folder %s is open in another process; stop that one, or choose another folder",
		statedb.ErrLocked, path)
}

func (s *store) options(o Options) *pebble.Options {
	cacheBytes := o.CacheBytes
	if cacheBytes <= 0 {
		cacheBytes = defaultCacheBytes
	}
	tableBytes := o.MemTableBytes
	if tableBytes <= 0 {
		tableBytes = memTableBytes
	}
	opts := &pebble.Options{
		// Pebble takes the memory tables out of its cache.
		CacheSize:                   cacheBytes + maxMemTables*int64(tableBytes),
		MemTableSize:                uint64(tableBytes),
		MemTableStopWritesThreshold: maxMemTables,
		MaxOpenFiles:                maxOpenFiles,
		FormatMajorVersion:          pebble.FormatTableFormatV6,
		FS:                          s.disk.FS(),
		Lock:                        s.lock,
		Logger:                      logger{s},
		CompactionConcurrencyRange:  func() (int, int) { return 1, maxCompactions },
		EventListener: &pebble.EventListener{
			DataCorruption: func(info pebble.DataCorruptionInfo) { s.halt(fmt.Errorf("damaged data: %s", info)) },
			FlushEnd: func(info pebble.FlushInfo) {
				s.endedFlush.Store(&info.Err)
				s.failedFlush.Store(nil)
			},
			BackgroundError: s.backgroundError,
		},
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
		opts.Levels[i].BlockSize = blockBytes
		opts.Levels[i].IndexBlockSize = indexBlockBytes
	}
	return opts
}

// flushRetryDelay slows Pebble down, which tries a flush that failed again at
// once and for ever.
const flushRetryDelay = 20 * time.Millisecond

// backgroundError notices a flush that failed: FlushEnd has reported the same
// error just before. It reports one as well for a flush that had nothing to
// write, which is none.
func (s *store) backgroundError(err error) {
	if ended := s.endedFlush.Load(); ended != nil && *ended != nil && errors.Is(err, *ended) {
		if s.failedFlush.Swap(&err) == nil && !disk.Lacks(err) {
			s.log.Warn("embedded: a flush failed and is tried again", "error", err)
		}
		time.Sleep(flushRetryDelay)
		return
	}
	if !disk.Lacks(err) { // of which the node tells, once
		s.log.Warn("embedded: background error", "error", err)
	}
}

// cannotWrite halts the store when its log or manifest cannot be written.
// Errors of other files Pebble handles: flushes and compactions are tried again.
func (s *store) cannotWrite(name string, err error) bool {
	base := filepath.Base(name)
	if !strings.HasSuffix(base, ".log") && !strings.HasPrefix(base, "MANIFEST") {
		return false
	}
	s.halt(err)
	return true
}

// stopped is the error of a store that halted. It is ErrClosed, too, which ends
// the node: nothing but a new start helps.
type stopped struct{ error }

func (s stopped) Unwrap() error { return s.error }

func (stopped) Is(target error) bool { return target == statedb.ErrClosed }

// halt keeps the first fatal error and wakes everyone who waits.
func (s *store) halt(err error) {
	s.haltOnce.Do(func() {
		s.haltErr = stopped{fmt.Errorf("embedded: %w: the folder %s failed: %w; see to the disk and start again",
			statedb.ErrUnavailable, s.path, err)}
		close(s.halted)
		if !disk.Lacks(err) { // which ends a store only while it is opened or closed
			s.log.Error("embedded: the store stopped", "error", err)
		}
	})
}

// begin starts an operation; end ends it. Between the two Pebble stays open.
func (s *store) begin() error {
	select {
	case <-s.halted:
		return s.haltErr
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return statedb.ErrClosed
	}
	s.inflight.Add(1)
	return nil
}

func (s *store) end() { s.inflight.Done() }

// writable says why a write would not get through.
func (s *store) writable() error {
	if err := s.lacking(); err != nil {
		return err
	}
	if err := s.failedFlush.Load(); err != nil {
		return fmt.Errorf("embedded: %w: a flush failed and is being tried again: %w", statedb.ErrUnavailable, *err)
	}
	return nil
}

// lacking says what is lacking for new work, nil when nothing is.
func (s *store) lacking() error {
	if err := s.disk.Space(); err != nil {
		return fmt.Errorf("embedded: %w: %w", statedb.ErrUnavailable, err)
	}
	return nil
}

// heldUp is the answer to those who would wait for a write that waits for
// space. What became of theirs they must find out when there is some.
func (s *store) heldUp() error {
	if err := s.lacking(); err != nil {
		return err
	}
	return fmt.Errorf("embedded: %w: the disk was full", statedb.ErrUnavailable) // there is some already
}

// wait ends with the first of: ready, the context, a halted store, and, when
// closing matters, a closed one.
func (s *store) wait(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	default:
	}
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.disk.Held():
		return s.heldUp()
	case <-s.halted:
		return s.haltErr
	case <-s.done:
		return statedb.ErrClosed
	}
}

// apply makes a batch visible, calls applied, waits until it is on disk, and
// calls synced. Both run in a goroutine of its own, so that a caller whose
// context ends, or a store that halts, does not wait for Pebble. The caller's
// begin passes to that goroutine, which ends it.
func (s *store) apply(ctx context.Context, batch *pebble.Batch, applied, synced func()) error {
	outcome := make(chan error, 1)
	go func() {
		err := errors.New("the commit did not finish") // when Fatalf ends the goroutine
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("%v", r)
			}
			if err != nil {
				s.halt(err)
				err = s.haltErr
			}
			outcome <- err
			s.end()
		}()
		if err = s.pebble.ApplyNoSyncWait(batch, pebble.Sync); err != nil {
			return
		}
		applied()
		if err = batch.SyncWait(); err != nil {
			return
		}
		synced()
		err = batch.Close()
	}()
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.disk.Held():
		return s.heldUp()
	case <-s.halted:
		return s.haltErr
	}
}

// close waits for the operations under way and closes Pebble. A halted store
// is left as it is: Pebble may hold its locks for ever, and the folder stays
// locked until the process ends.
func (s *store) close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	s.disk.GiveUp()
	s.mu.Unlock()

	idle := make(chan struct{})
	go func() {
		s.inflight.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-s.halted:
		return s.endErr()
	}
	closed := make(chan error, 1)
	go func() { closed <- s.pebble.Close() }() // which a full disk may stop
	select {
	case err := <-closed:
		return errors.Join(err, s.lock.Close())
	case <-s.halted:
		return s.endErr()
	}
}

// endErr is what close says of a store that halted: nil when that was for want
// of space in the end. What was acknowledged is on disk; the rest is as after a
// crash.
func (s *store) endErr() error {
	if disk.Lacks(s.haltErr) {
		return nil
	}
	return s.haltErr
}

// logger passes Pebble's messages on.
type logger struct{ s *store }

func (l logger) Infof(format string, args ...any) {
	if l.s.log.Enabled(context.Background(), slog.LevelDebug) {
		l.s.log.Debug("pebble: " + fmt.Sprintf(format, args...))
	}
}

func (l logger) Errorf(format string, args ...any) {
	l.s.log.Warn("pebble: " + fmt.Sprintf(format, args...))
}

// Fatalf must not return. It halts the store and ends the goroutine that called
// it, which is one of Pebble's own or of this package's.
func (l logger) Fatalf(format string, args ...any) {
	// Not all of the arguments that are errors stand at a %w.
	for _, arg := range args {
		if err, ok := arg.(error); ok && disk.Lacks(err) {
			l.s.halt(err)
		}
	}
	l.s.halt(fmt.Errorf(format, args...))
	runtime.Goexit()
}
