package kv

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// Value returns a copy of what is under a key, nil where there is nothing.
func (s *Store) Value(k []byte) ([]byte, error) {
	value, closer, err := s.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append(make([]byte, 0, len(value)), value...), nil
}

// Each calls do with every record from the key lower to before upper, in order;
// both slices are only good until it returns.
func (s *Store) Each(ctx context.Context, lower, upper []byte, do func(k, v []byte) error) error {
	it, err := s.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := do(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}
