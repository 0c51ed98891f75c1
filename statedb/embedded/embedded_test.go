package embedded

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/statedbtest"
	"github.com/couchledger/couchledger/statedb/statedbtest/differential"
)

// opened opens a folder for a test and closes it at the end.
func opened(tb testing.TB, path string, opts Options) *DB {
	tb.Helper()
	db, err := Open(path, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	return db
}

// created is opened with a new database in a folder of its own.
func created(tb testing.TB) *DB {
	tb.Helper()
	db := opened(tb, tb.TempDir(), Options{})
	if _, err := db.Create(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return db
}

// TestNewerFormat: data of a newer program is refused, and left.
func TestNewerFormat(t *testing.T) {
	path := t.TempDir()
	for format, want := range map[string]string{
		"couchledger 2": "was written by a newer couchledger (format 2, this program knows 1)",
		"leveldb":       "which no couchledger writes",
	} {
		path := filepath.Join(path, format)
		db := opened(t, path, Options{})
		if _, err := db.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.store.pebble.Set([]byte(metaKey), []byte(format), pebble.Sync), db.Close()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("format %q: got %v, want %s", format, err, want)
			}
		}
	}
}

func TestConformance(t *testing.T) {
	paths := map[statedb.DB]string{}
	open := func(t *testing.T, path string) statedb.DB {
		db := opened(t, path, Options{})
		paths[db] = path
		return db
	}
	statedbtest.RunWith(t, statedbtest.Options{
		Reopen: func(t *testing.T, db statedb.DB) statedb.DB {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, paths[db])
		},
	}, func(t *testing.T) statedb.DB { return open(t, t.TempDir()) })
}

// runSelf runs one test of this binary in a process of its own.
func runSelf(t *testing.T, test string, env ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+test+"$")
	command.Env = append(os.Environ(), env...)
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// TestAsCouchDB: generated selectors find what a real CouchDB found.
func TestAsCouchDB(t *testing.T) {
	differential.CheckRecorded(t, opened(t, t.TempDir(), Options{}))
}
