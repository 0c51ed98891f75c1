// Package kv opens the node's own key-value stores, which are Pebble
// databases: the chainstate and the journal.
package kv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrLocked: another process has the folder open.
var ErrLocked = errors.New("in use by another process")

// Sizes of one store, in bytes. They keep a node with three stores well below
// 400 MB.
const (
	cacheSize    = 24 << 20
	memTableSize = 8 << 20
)

// bloomBits per key makes reads of absent keys, which validation does for
// every new transaction, cost no disk access in 99 of 100 cases.
const bloomBits = 10

// Open opens the store in a folder, which it makes with mode 0700. fs is nil
// for the machine's own file system.
func Open(folder string, fs vfs.FS) (*pebble.DB, error) {
	if fs == nil {
		fs = vfs.Default
		if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
			return nil, err
		}
	}
	if err := fs.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	cache := pebble.NewCache(cacheSize)
	defer cache.Unref()
	options := &pebble.Options{
		FS:                          fs,
		Cache:                       cache,
		MemTableSize:                memTableSize,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      quiet{},
	}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
		options.Levels[i].FilterType = pebble.TableFilter
	}
	db, err := pebble.Open(folder, options)
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, syscall.EAGAIN) || strings.Contains(err.Error(), "lock held"):
		return nil, fmt.Errorf("folder %s: %w", folder, ErrLocked)
	default:
		return nil, fmt.Errorf("open folder %s: %w", folder, err)
	}
}

// quiet drops Pebble's running commentary. What fails for good, such as a
// full disk under the write-ahead log, ends the process: state that may not be
// on disk must not be acted upon, and a restart repairs it.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("local store: "+format, args...))
}
