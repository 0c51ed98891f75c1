package kv

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/disk"
)

// ErrFailed is wrapped by what a Store answers once its folder could not be
// written, or holds damaged data: state that may not be on disk must not be
// acted upon. Only opening
// it anew, in a new process, helps; what was lost then is as after a crash.
var ErrFailed = errors.New("failed")

// Store is a Pebble database that fails honestly.
//
// Pebble means to end the process when its write-ahead log or its manifest
// cannot be written, and tries again for ever, while writes block, when a table
// cannot. Here the store fails instead: every later write, and every one under
// way, gets the error, so that the node can stop and say why in one sentence.
// On a full disk, and for want of file descriptors, writes wait.
//
// Reads are Pebble's own. Writes go through the methods below, but for batches
// in the making, which Apply takes.
type Store struct {
	*pebble.DB
	folder string

	disk   *disk.Guard
	failed chan struct{} // closed with err set
	once   sync.Once
	err    error
}

// Apply makes a batch visible, durable with pebble.Sync, and closes it.
func (s *Store) Apply(batch *pebble.Batch, o *pebble.WriteOptions) error {
	return s.write(func() error { return errors.Join(s.DB.Apply(batch, o), batch.Close()) })
}

// Set writes one key.
func (s *Store) Set(k, v []byte, o *pebble.WriteOptions) error {
	return s.write(func() error { return s.DB.Set(k, v, o) })
}

// Delete removes one key.
func (s *Store) Delete(k []byte, o *pebble.WriteOptions) error {
	return s.write(func() error { return s.DB.Delete(k, o) })
}

// DeleteRange removes the keys from start to before end.
func (s *Store) DeleteRange(start, end []byte, o *pebble.WriteOptions) error {
	return s.write(func() error { return s.DB.DeleteRange(start, end, o) })
}

// Compact has deleted keys in a range out of the way of scans.
func (s *Store) Compact(ctx context.Context, start, end []byte) error {
	return s.write(func() error { return s.DB.Compact(ctx, start, end, false) })
}

// Space returns nil when the store can take new work, else what is lacking, as
// disk.Guard has it.
func (s *Store) Space() error { return s.disk.Space() }

// GiveUp has writes fail that wait for space, for good.
func (s *Store) GiveUp() { s.disk.GiveUp() }

// Close closes the folder. A store that failed is left as it is: Pebble may
// hold its locks for ever, and the folder stays locked until the process ends.
func (s *Store) Close() error {
	s.GiveUp()
	select {
	case <-s.failed:
		return nil
	default:
	}
	err := s.write(s.DB.Close)
	if disk.Lacks(err) { // what was synced is there; the rest is as after a crash
		return nil
	}
	return err
}

// write runs do in a goroutine of its own, which Pebble may stop for good.
func (s *Store) write(do func() error) error {
	select {
	case <-s.failed:
		return s.err
	default:
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				s.fail(fmt.Errorf("%v", r))
			}
		}()
		done <- do()
	}()
	select {
	case err := <-done:
		return err
	case <-s.failed:
		return s.err
	}
}

// cannotWrite fails the store: all that is written here matters.
func (s *Store) cannotWrite(_ string, err error) bool {
	s.fail(err)
	return true
}

// fail keeps the first error and wakes everyone who waits.
func (s *Store) fail(err error) {
	s.once.Do(func() {
		s.err = fmt.Errorf("folder %s %w: %w; see to the disk and start again", s.folder, ErrFailed, err)
		close(s.failed)
	})
}

// logger drops Pebble's running commentary.
type logger struct{ s *Store }

func (logger) Infof(string, ...any)  {}
func (logger) Errorf(string, ...any) {}

// Fatalf must not return. It ends the goroutine that called it, which is one
// of Pebble's own or that of write.
func (l logger) Fatalf(format string, args ...any) {
	l.s.fail(fmt.Errorf(format, args...))
	runtime.Goexit()
}
