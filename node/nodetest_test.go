package node_test

import (
	"path/filepath"
	"testing"

	"github.com/couchledger/couchledger/node/nodetest"
	"github.com/couchledger/couchledger/statedb/embedded"
)

func TestQueriesOverHTTP(t *testing.T) {
	db, err := embedded.Open(filepath.Join(t.TempDir(), "data"), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	nodetest.Queries(t, db, 10_000)
}
