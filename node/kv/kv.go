// Package kv opens the node's own key-value stores, which are Pebble
// databases: the chainstate and the journal.
package kv

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/disk"
)

// ErrLocked: another process has the folder open.
var ErrLocked = errors.New("in use by another process")

// Size is how much memory a store takes, in bytes.
type Size struct {
	Cache    int64
	MemTable uint64 // of one table; maxMemTables may wait to be flushed
}

// Sizes that keep a node with an embedded database well below 400 MB.
var (
	Large = Size{Cache: 64 << 20, MemTable: 16 << 20} // for the chainstate
	Small = Size{Cache: 4 << 20, MemTable: 4 << 20}   // for the journal
)

const (
	maxMemTables = 3
	blockBytes   = 8 << 10
)

// bloomBits per key makes reads of absent keys, which validation does for
// every new transaction, cost no disk access in 99 of 100 cases.
const bloomBits = 10

// Tuner is a file system that has its stores differ from a node's, as one in
// memory has on which a test opens thousands of them.
type Tuner interface {
	Tune(*pebble.Options)
}

// Open opens the store in a folder, which it makes with mode 0700. fs is nil
// for the machine's own file system.
func Open(folder string, size Size, fs vfs.FS) (*Store, error) {
	if fs == nil {
		fs = vfs.Default
	}
	if err := disk.MakeFolder(fs, folder); err != nil {
		return nil, err
	}
	s := &Store{folder: folder, failed: make(chan struct{})}
	s.disk = disk.NewGuard(fs, folder, s.cannotWrite)
	err := s.write(func() (err error) {
		options := s.options(size)
		if t, ok := fs.(Tuner); ok {
			t.Tune(options)
		}
		s.DB, err = pebble.Open(folder, options)
		return err
	})
	switch {
	case err == nil:
		s.disk.Arm()
		return s, nil
	case isLocked(err):
		return nil, fmt.Errorf("folder %s: %w", folder, ErrLocked)
	case errors.Is(err, ErrFailed):
		return nil, err
	default:
		return nil, fmt.Errorf("open folder %s: %w", folder, err)
	}
}

// isLocked tells a lock that is held by another process, a bare errno, or by
// this one, a text, from a lock file that cannot be made.
func isLocked(err error) bool {
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		return false
	}
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "lock held")
}

func (s *Store) options(size Size) *pebble.Options {
	options := &pebble.Options{
		FS: s.disk.FS(),
		// Pebble takes the memory tables out of its cache.
		CacheSize:                   size.Cache + maxMemTables*int64(size.MemTable),
		MemTableSize:                size.MemTable,
		MemTableStopWritesThreshold: maxMemTables,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      logger{s},
		EventListener: &pebble.EventListener{
			// Not Fatalf, which would end the goroutine that reads.
			DataCorruption: func(info pebble.DataCorruptionInfo) { s.fail(fmt.Errorf("damaged data: %s", info)) },
		},
	}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
		options.Levels[i].FilterType = pebble.TableFilter
		options.Levels[i].BlockSize = blockBytes
	}
	return options
}
