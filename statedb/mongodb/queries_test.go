package mongodb_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/nodetest"
	"github.com/couchledger/couchledger/statedb/mongodb"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
)

// TestQueriesOverHTTP runs a node on MongoDB and queries it.
func TestQueriesOverHTTP(t *testing.T) {
	if testing.Short() {
		t.Skip("not tested with -short: FerretDB is slow")
	}
	a := mongotest.Shared(t)
	db, err := mongodb.Open(t.Context(), mongodb.Options{
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
	// FerretDB reads all of a table for every page.
	nodetest.Queries(t, db, 1000)
}
