package differential_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
	"github.com/couchledger/couchledger/statedb/mongodb"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
	"github.com/couchledger/couchledger/statedb/rethinkdb"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
	"github.com/couchledger/couchledger/statedb/statedbtest/differential"
)

func TestMain(m *testing.M) {
	code := m.Run()
	couchtest.Stop()
	mongotest.Stop()
	rethinktest.Stop()
	os.Exit(code)
}

// TestAllAdapters loads the same 2,000 documents into every database that can
// be had here and asks all of them the same selectors: the rows are those of the
// embedded store, and in its order where strings sort alike. There are 20
// selectors, since FerretDB reads the whole table for each; DIFFERENTIAL_FULL=1
// asks 200, which takes minutes.
func TestAllAdapters(t *testing.T) {
	name := fmt.Sprintf("all%d", time.Now().UnixNano())
	var others []statedb.DB
	add := func(backend string, open func(t *testing.T) (statedb.DB, error)) {
		t.Run(backend+" is here", func(sub *testing.T) {
			db, err := open(sub)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			others = append(others, db)
		})
	}
	add("couchdb", func(t *testing.T) (statedb.DB, error) {
		a := couchtest.Shared(t)
		return couchdb.Open(t.Context(), couchdb.Options{Host: a.Host, Port: a.Port, Login: a.Login, Password: a.Password, Name: name, MaxTries: 1})
	})
	add("mongodb", func(t *testing.T) (statedb.DB, error) {
		a := mongotest.Shared(t)
		return mongodb.Open(t.Context(), mongodb.Options{Host: a.Host, Port: a.Port, Login: a.Login, Password: a.Password, Name: name, MaxTries: 1})
	})
	add("rethinkdb", func(t *testing.T) (statedb.DB, error) {
		a := rethinktest.Shared(t)
		return rethinkdb.Open(t.Context(), rethinkdb.Options{Host: a.Host, Port: a.Port, Login: a.Login, Password: a.Password, Name: name, MaxTries: 1})
	})
	if len(others) == 0 {
		t.Skip("not tested: no database beside the embedded one")
	}
	opts := differential.Options{Seed: 4, Documents: 2000, Selectors: 20, Fit: true}
	switch {
	case os.Getenv("DIFFERENTIAL_FULL") != "":
		opts.Selectors = 200
	case testing.Short():
		opts.Seed, opts.Documents = 1, 200 // of so few documents, seed 4 finds too little
	}
	differential.Run(t, opts, opened(t), others...)
}
