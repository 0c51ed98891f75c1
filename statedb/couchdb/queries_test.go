package couchdb_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/nodetest"
	"github.com/couchledger/couchledger/statedb/couchdb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
)

// TestQueriesOverHTTP runs a node on CouchDB and queries it.
func TestQueriesOverHTTP(t *testing.T) {
	a := couchtest.Shared(t)
	db, err := couchdb.Open(t.Context(), couchdb.Options{
		Host: a.Host, Port: a.Port, Login: a.Login, Password: a.Password,
		Name: fmt.Sprintf("queries%d", time.Now().UnixNano()), MaxTries: 1, MaxRetries: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(db.Drop(context.WithoutCancel(t.Context())), db.Close()); err != nil {
			t.Error(err)
		}
	})
	nodetest.Queries(t, db, 10_000)
}
