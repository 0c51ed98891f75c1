package kv

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/cockroachdb/pebble/v2"
)

// ErrNewer: a store was written by a program that knows a later format.
var ErrNewer = errors.New("was written by a newer couchledger")

// Step brings a store from one version of its format to the next.
type Step struct {
	Name string // what it does, for the log
	// Do puts what changes into a batch, which is applied whole and synced
	// together with the new version; nil where nothing changes.
	Do func(s *Store, b *pebble.Batch) error
}

// Upgrade brings a store to the latest version of its format, that is to the
// number of steps, and returns the names of those that it took. The version is
// the decimal number under key; a store without one has version 0, and an empty
// one becomes the latest without any step. ErrNewer if it is beyond that, and
// nothing is changed. After a crash the next call goes on.
func (s *Store) Upgrade(key []byte, steps []Step) (taken []string, err error) {
	version, err := s.version(key, len(steps))
	if err != nil {
		return nil, err
	}
	if version > len(steps) {
		return nil, fmt.Errorf("folder %s %w (format %d, this program knows %d): start that one, it is left as it is", s.folder, ErrNewer, version, len(steps))
	}
	for ; version < len(steps); version++ {
		step := steps[version]
		b := s.NewBatch()
		if step.Do != nil {
			err = step.Do(s, b)
		}
		if err == nil {
			err = b.Set(key, strconv.AppendInt(nil, int64(version+1), 10), nil)
		}
		if err != nil {
			return taken, errors.Join(fmt.Errorf("folder %s: upgrade to format %d, %s: %w", s.folder, version+1, step.Name, err), b.Close())
		}
		if err := s.Apply(b, pebble.Sync); err != nil {
			return taken, err
		}
		taken = append(taken, step.Name)
	}
	return taken, nil
}

// version reads the version of a store, and writes the latest to an empty one.
func (s *Store) version(key []byte, latest int) (int, error) {
	value, closer, err := s.Get(key)
	if err == nil {
		defer closer.Close()
		version, err := strconv.Atoi(string(value))
		if err != nil || version < 0 {
			return 0, fmt.Errorf("folder %s: its format %.20q is no number", s.folder, value)
		}
		return version, nil
	}
	if !errors.Is(err, pebble.ErrNotFound) {
		return 0, fmt.Errorf("folder %s: %w", s.folder, err)
	}
	it, err := s.NewIter(nil)
	if err != nil {
		return 0, fmt.Errorf("folder %s: %w", s.folder, err)
	}
	defer it.Close()
	if it.First() || it.Error() != nil {
		return 0, it.Error()
	}
	return latest, s.Set(key, strconv.AppendInt(nil, int64(latest), 10), pebble.Sync)
}
