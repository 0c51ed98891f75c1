package kv

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

func TestUpgrade(t *testing.T) {
	key := []byte("format")
	set := func(k string) func(*Store, *pebble.Batch) error {
		return func(_ *Store, b *pebble.Batch) error { return b.Set([]byte(k), []byte("x"), nil) }
	}
	broken := errors.New("broken")
	fails := func(_ *Store, b *pebble.Batch) error { return errors.Join(b.Set([]byte("half"), nil, nil), broken) }
	steps := []Step{{"first", set("a")}, {"second", nil}, {"third", set("b")}}
	has := func(s *Store, k string) bool {
		_, closer, err := s.Get([]byte(k))
		if err == nil {
			closer.Close()
		}
		return err == nil
	}
	for _, test := range []struct {
		name    string
		before  map[string]string
		steps   []Step
		want    []string
		err     string
		present string
	}{
		{"an empty store", nil, steps, nil, "", "format"},
		{"older than versions", map[string]string{"k": "v"}, steps, []string{"first", "second", "third"}, "", "format a b"},
		{"of version 1", map[string]string{"format": "1"}, steps, []string{"second", "third"}, "", "format b"},
		{"the latest", map[string]string{"format": "3"}, steps, nil, "", "format"},
		{"newer", map[string]string{"format": "4"}, steps, nil, "was written by a newer couchledger (format 4, this program knows 3)", "format"},
		{"no number", map[string]string{"format": "x"}, steps, nil, `its format "x" is no number`, "format"},
		{"a step fails", map[string]string{"format": "1"}, []Step{steps[0], steps[1], {"third", fails}}, []string{"second"}, "upgrade to format 3, third: broken", "format"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := mustOpen(t, filepath.Join(t.TempDir(), "db"), nil)
			defer s.Close()
			for k, v := range test.before {
				if err := s.Set([]byte(k), []byte(v), pebble.Sync); err != nil {
					t.Fatal(err)
				}
			}
			taken, err := s.Upgrade(key, test.steps)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) || !slices.Equal(taken, test.want) {
				t.Errorf("got %v, %v, want %v, %s", taken, err, test.want, test.err)
			}
			if has(s, "half") {
				t.Error("a step that failed left a part of itself")
			}
			for k := range strings.FieldsSeq(test.present) {
				if !has(s, k) {
					t.Errorf("%s is missing", k)
				}
			}
			if test.err != "" {
				return
			}
			if taken, err := s.Upgrade(key, test.steps); err != nil || taken != nil {
				t.Errorf("again: got %v, %v, want nothing to do", taken, err)
			}
		})
	}
}
