package embedded

import (
	"context"
	"errors"

	"github.com/couchledger/couchledger/statedb"
)

// Find comes with statedb/mango.
func (db *DB) Find(ctx context.Context, name string, q statedb.Query) (statedb.Page, error) {
	return statedb.Page{}, errors.New("embedded: find: not yet")
}

// Explain comes with statedb/mango.
func (db *DB) Explain(ctx context.Context, name string, q statedb.Query) (statedb.Plan, error) {
	return statedb.Plan{}, errors.New("embedded: explain: not yet")
}
