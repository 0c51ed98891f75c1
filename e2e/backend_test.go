package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
	"github.com/couchledger/couchledger/statedb/embedded"
)

// nodeMaker is newNode, for one backend.
type nodeMaker func(t testing.TB, environ ...string) *node

// eachBackend runs a test on every backend that can be had here.
func eachBackend(t *testing.T, test func(t *testing.T, newNode nodeMaker)) {
	t.Run("embedded", func(t *testing.T) { test(t, newNode) })
	t.Run("couchdb", func(t *testing.T) {
		address := couchtest.Shared(t)
		test(t, func(t testing.TB, environ ...string) *node { return newCouchNode(t, address, environ...) })
	})
}

// ledgers counts the ledgers that tests made on servers.
var ledgers atomic.Int64

// newCouchNode is newNode with a ledger of its own in a CouchDB, which is
// deleted when the test ends.
func newCouchNode(t testing.TB, address couchtest.Address, environ ...string) *node {
	t.Helper()
	name := fmt.Sprintf("e2e%s_%d", strconv.FormatInt(time.Now().UnixNano(), 36), ledgers.Add(1))
	n := newNode(t, append(couchEnviron(address, name), environ...)...)
	n.backend = configs.CouchDB
	n.store = func() (statedb.DB, error) {
		return couchdb.Open(context.Background(), couchdb.Options{
			Host: address.Host, Port: address.Port, Login: address.Login, Password: address.Password, Name: name, MaxTries: 1,
		})
	}
	t.Cleanup(func() {
		n.kill()
		db, err := n.store()
		if err != nil {
			return // the server is gone, and the ledger with it
		}
		defer db.Close()
		_ = db.Drop(context.Background()) // it may never have been made
	})
	return n
}

func couchEnviron(address couchtest.Address, name string) []string {
	return []string{
		"BIGCHAINDB_DATABASE_BACKEND=couchdb", "BIGCHAINDB_DATABASE_HOST=" + address.Host,
		"BIGCHAINDB_DATABASE_PORT=" + strconv.Itoa(address.Port), "BIGCHAINDB_DATABASE_NAME=" + name,
		"BIGCHAINDB_DATABASE_LOGIN=" + address.Login, "BIGCHAINDB_DATABASE_PASSWORD=" + address.Password,
	}
}

// openEmbedded opens the database of a stopped node with the default backend.
func (n *node) openEmbedded() (statedb.DB, error) { return embedded.Open(n.data(), embedded.Options{}) }

func TestMain(m *testing.M) {
	remove, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := couchtest.Main(m)
	remove()
	os.Exit(code)
}
