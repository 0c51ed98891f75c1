package couchdb

import (
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
	"github.com/couchledger/couchledger/statedb/statedbtest"
)

func TestMain(m *testing.M) { os.Exit(couchtest.Main(m)) }

// names makes names that no other test has used, on a server that is kept, too.
var names atomic.Int64

func freshName() string {
	return "test" + strconv.FormatInt(time.Now().UnixNano(), 36) + "_" + strconv.FormatInt(names.Add(1), 10)
}

func optionsFor(a couchtest.Address) Options {
	return Options{Host: a.Host, Port: a.Port, Login: a.Login, Password: a.Password, Name: freshName(), MaxTries: 1, MaxRetries: 3}
}

func open(t testing.TB, opts Options) *DB {
	t.Helper()
	db, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestConformance(t *testing.T) {
	address := couchtest.Shared(t)
	reopen := func(t *testing.T, db statedb.DB) statedb.DB {
		opts := db.(*DB).opts
		db.Close()
		return open(t, opts)
	}
	statedbtest.RunWith(t, statedbtest.Options{Reopen: reopen}, func(t *testing.T) statedb.DB {
		return open(t, optionsFor(address))
	})
}

// TestSubstitute runs the suite over HTTP against a server from npm, so that a
// machine without CouchDB still talks the protocol. Its Mango is another one.
func TestSubstitute(t *testing.T) {
	address := couchtest.StartSubstitute(t)
	const sorts = "pouchdb-find sorts only by fields that the selector bounds"
	skip := map[string]string{
		"BookmarkOfAnotherQuery":           "pouchdb-server has no bookmarks",
		"BookmarksWhileDocumentsComeAndGo": "pouchdb-server has no bookmarks",
		"Operators":                        "pouchdb-find fails on arrays as arguments",
		"Sort":                             sorts,
		"SortOmitsConstants":               sorts,
		"NoIndex":                          sorts,
		"IndexOnExistingDocuments":         sorts,
		"PartialFilter":                    "pouchdb-find has no partial indexes",
		"IndexRedefined":                   "pouchdb-find fails to make an index that was deleted",
		"Explain":                          "pouchdb-find uses indexes that do not hold every match",
		"UnicodeIDs":                       "pouchdb-server's ranges leave out ids beyond Latin",
		"Lifecycle":                        "pouchdb-server deletes databases that are not there",
	}
	statedbtest.RunWith(t, statedbtest.Options{Skip: skip}, func(t *testing.T) statedb.DB {
		return open(t, optionsFor(address))
	})
}
