package embedded

import (
	"os"
	"os/exec"
	"testing"

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
