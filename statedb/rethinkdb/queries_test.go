package rethinkdb_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/nodetest"
	"github.com/couchledger/couchledger/statedb/rethinkdb"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

// TestQueriesOverHTTP runs a node on RethinkDB and queries it.
func TestQueriesOverHTTP(t *testing.T) {
	a := rethinktest.Shared(t)
	db, err := rethinkdb.Open(t.Context(), rethinkdb.Options{
		Host: a.Host, Port: a.Port, Login: a.Login, Password: a.Password,
		Name: fmt.Sprintf("queries%d", time.Now().UnixNano()), MaxTries: 1,
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
