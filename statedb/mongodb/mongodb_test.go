package mongodb

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
	"github.com/couchledger/couchledger/statedb/statedbtest"
)

func TestMain(m *testing.M) { os.Exit(mongotest.Main(m)) }

// names makes names that no other test has used, on a server that is kept, too.
var names atomic.Int64

func freshName() string {
	return "test" + strconv.FormatInt(time.Now().UnixNano(), 36) + "_" + strconv.FormatInt(names.Add(1), 10)
}

func optionsFor(a mongotest.Address) Options {
	return Options{Host: a.Host, Port: a.Port, Login: a.Login, Password: a.Password, ReplicaSet: a.ReplicaSet, Name: freshName(), MaxTries: 1}
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
	address := mongotest.Shared(t)
	reopen := func(t *testing.T, db statedb.DB) statedb.DB {
		opts := db.(*DB).opts
		db.Close()
		return open(t, opts)
	}
	statedbtest.RunWith(t, statedbtest.Options{Reopen: reopen}, func(t *testing.T) statedb.DB {
		return open(t, optionsFor(address))
	})
}

func isFeed(test string) bool { return strings.HasPrefix(test, "Feed") }

// TestConformanceLikeMongoDB sends FerretDB what MongoDB is sent.
func TestConformanceLikeMongoDB(t *testing.T) {
	address := mongotest.Shared(t)
	statedbtest.RunWith(t, statedbtest.Options{Only: func(name string) bool { return !isFeed(name) }}, func(t *testing.T) statedb.DB {
		opts := optionsFor(address)
		opts.likeMongoDB = true
		return open(t, opts)
	})
}

// TestConformanceOfPolling follows changes without a change stream where the
// server has them.
func TestConformanceOfPolling(t *testing.T) {
	address := mongotest.Shared(t)
	db := open(t, optionsFor(address))
	defer db.Close()
	if !db.server.streams(db.opts) {
		t.Skip("TestConformance polls here")
	}
	statedbtest.RunWith(t, statedbtest.Options{Only: isFeed}, func(t *testing.T) statedb.DB {
		opts := optionsFor(address)
		opts.poll = true
		return open(t, opts)
	})
}
