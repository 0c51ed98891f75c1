package kv

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/couchledger/couchledger/disk"
)

// needsSpace tells operations that a full disk fails. A sync is none.
func needsSpace(op errorfs.Op) bool {
	return op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpReuseForWrite
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 seconds: %s", what)
		}
	}
}

// TestFullDisk fills the disk again and again: what is written waits, reads go
// on, and nothing that was synced is lost, nor is a word of it said to fail.
func TestFullDisk(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EMFILE} {
		t.Run(errno.Error(), func(t *testing.T) {
			var full atomic.Bool
			memory := vfs.NewCrashableMem()
			s := mustOpen(t, "db", errorfs.Wrap(memory, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if full.Load() && needsSpace(op) && (errno != syscall.EMFILE || op.Kind != errorfs.OpFileWrite) {
					return errno
				}
				return nil
			})))
			value := make([]byte, 64<<10)
			if err := s.Set([]byte("before"), value, pebble.Sync); err != nil {
				t.Fatal(err)
			}
			const writers, each = 4, 100
			var group sync.WaitGroup
			var written atomic.Int64
			for w := range writers {
				group.Go(func() {
					for i := range each {
						if err := s.Set(fmt.Appendf(nil, "%d/%d", w, i), value, &pebble.WriteOptions{Sync: i%2 == 0}); err != nil {
							t.Error(err)
							return
						}
						written.Add(1)
					}
				})
			}
			for round := range 3 {
				eventually(t, "writers write", func() bool { return int(written.Load()) > round*writers*each/4 })
				full.Store(true)
				eventually(t, "the store says that it cannot write", func() bool { return errors.Is(s.Space(), disk.ErrLacks) })
				if _, closer, err := s.Get([]byte("before")); err != nil {
					t.Errorf("a read on a full disk: %v", err)
				} else {
					closer.Close()
				}
				full.Store(false)
			}
			group.Wait()
			eventually(t, "the store says that it can write", func() bool { return s.Space() == nil })
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, "db", memory.CrashClone(vfs.CrashCloneCfg{}))
			defer s.Close()
			for w := range writers {
				for i := range each {
					if _, closer, err := s.Get(fmt.Appendf(nil, "%d/%d", w, i)); err != nil {
						t.Fatalf("%d/%d: %v", w, i, err)
					} else {
						closer.Close()
					}
				}
			}
		})
	}
}

// TestCloseOnFullDisk: a store whose writes wait can be closed.
func TestCloseOnFullDisk(t *testing.T) {
	var full atomic.Bool
	s := mustOpen(t, "db", errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && needsSpace(op) {
			return syscall.ENOSPC
		}
		return nil
	})))
	full.Store(true)
	done := make(chan error, 1)
	go func() { done <- s.Set([]byte("k"), nil, pebble.Sync) }()
	eventually(t, "the write waits", func() bool { return s.Space() != nil })
	s.GiveUp()
	if err := <-done; !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the write that waited: got %v, want ErrFailed with the reason", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestOpenOnFullDisk: a store on a full disk is not opened, and says why.
func TestOpenOnFullDisk(t *testing.T) {
	_, err := Open("db", Small, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if needsSpace(op) {
			return syscall.ENOSPC
		}
		return nil
	})))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want that there is no space", err)
	}
}
