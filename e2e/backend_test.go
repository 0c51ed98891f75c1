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
	"github.com/couchledger/couchledger/statedb/mongodb"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
	"github.com/couchledger/couchledger/statedb/rethinkdb"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

// address tells how to reach a database server.
type address struct {
	host            string
	port            int
	login, password string
}

// server is a database server of a test's own.
type server interface {
	Kill()
	Start() error
	Suspend() error
	Resume() error
}

// backend is a database server that nodes can run on.
type backend struct {
	name   string // as database.backend has it
	title  string // as messages have it
	shared func(testing.TB) address
	own    func(testing.TB) (server, address)
	open   func(a address, ledger string) (statedb.DB, error)
}

var servers = []backend{
	{
		name: configs.CouchDB, title: "CouchDB",
		shared: func(t testing.TB) address { return couchAddress(couchtest.Shared(t)) },
		own: func(t testing.TB) (server, address) {
			s := couchtest.Start(t)
			return s, couchAddress(s.Address)
		},
		open: func(a address, ledger string) (statedb.DB, error) {
			return couchdb.Open(context.Background(), couchdb.Options{
				Host: a.host, Port: a.port, Login: a.login, Password: a.password, Name: ledger, MaxTries: 1,
			})
		},
	},
	{
		name: configs.MongoDB, title: "MongoDB",
		shared: func(t testing.TB) address { return mongoAddress(mongotest.Shared(t)) },
		own: func(t testing.TB) (server, address) {
			s := mongotest.Start(t)
			return s, mongoAddress(s.Address)
		},
		open: func(a address, ledger string) (statedb.DB, error) {
			return mongodb.Open(context.Background(), mongodb.Options{
				Host: a.host, Port: a.port, Login: a.login, Password: a.password, Name: ledger, MaxTries: 1,
			})
		},
	},
	{
		name: configs.RethinkDB, title: "RethinkDB",
		shared: func(t testing.TB) address { return rethinkAddress(rethinktest.Shared(t)) },
		own: func(t testing.TB) (server, address) {
			s := rethinktest.Start(t)
			return s, rethinkAddress(s.Address)
		},
		open: func(a address, ledger string) (statedb.DB, error) {
			return rethinkdb.Open(context.Background(), rethinkdb.Options{
				Host: a.host, Port: a.port, Login: a.login, Password: a.password, Name: ledger, MaxTries: 1,
			})
		},
	},
}

func mongoAddress(a mongotest.Address) address { return address{a.Host, a.Port, a.Login, a.Password} }

func rethinkAddress(a rethinktest.Address) address {
	return address{a.Host, a.Port, a.Login, a.Password}
}

func couchAddress(a couchtest.Address) address { return address{a.Host, a.Port, a.Login, a.Password} }

// nodeMaker is newNode, for one backend.
type nodeMaker func(t testing.TB, environ ...string) *node

// eachBackend runs a test on every backend that can be had here.
func eachBackend(t *testing.T, test func(t *testing.T, newNode nodeMaker)) {
	t.Run("embedded", func(t *testing.T) { test(t, newNode) })
	eachServer(t, func(t *testing.T, b backend) {
		a := b.shared(t)
		test(t, func(t testing.TB, environ ...string) *node { return b.newNode(t, a, environ...) })
	})
}

// eachServer runs a test for every backend that is a server.
func eachServer(t *testing.T, test func(t *testing.T, b backend)) {
	for _, b := range servers {
		t.Run(b.name, func(t *testing.T) {
			if testing.Short() && b.name == configs.MongoDB {
				t.Skip("not tested with -short: FerretDB, which stands in for MongoDB, is slow")
			}
			if testing.Short() && raceEnabled && b.name == configs.RethinkDB {
				t.Skip("not tested with -race -short: the node's code is the same as with CouchDB, and the adapter is tested for itself")
			}
			test(t, b)
		})
	}
}

// eachServerAtOnce is eachServer for tests that mostly wait.
func eachServerAtOnce(t *testing.T, test func(t *testing.T, b backend)) {
	eachServer(t, func(t *testing.T, b backend) {
		t.Parallel()
		test(t, b)
	})
}

// ledgers counts the ledgers that tests made on servers.
var ledgers atomic.Int64

// newNode is newNode with a ledger of its own on a server, which is dropped
// when the test ends.
func (b backend) newNode(t testing.TB, a address, environ ...string) *node {
	t.Helper()
	name := fmt.Sprintf("e2e%s_%d", strconv.FormatInt(time.Now().UnixNano(), 36), ledgers.Add(1))
	n := newNode(t, append(b.environ(a, name), environ...)...)
	n.backend = b.name
	n.store = func() (statedb.DB, error) { return b.open(a, name) }
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

func (b backend) environ(a address, ledger string) []string {
	return []string{
		"BIGCHAINDB_DATABASE_BACKEND=" + b.name, "BIGCHAINDB_DATABASE_HOST=" + a.host,
		"BIGCHAINDB_DATABASE_PORT=" + strconv.Itoa(a.port), "BIGCHAINDB_DATABASE_NAME=" + ledger,
		"BIGCHAINDB_DATABASE_LOGIN=" + a.login, "BIGCHAINDB_DATABASE_PASSWORD=" + a.password,
	}
}

// newCouchNode is newNode on a CouchDB.
func newCouchNode(t testing.TB, a couchtest.Address, environ ...string) *node {
	t.Helper()
	return servers[0].newNode(t, couchAddress(a), environ...)
}

// openEmbedded opens the database of a stopped node with the default backend.
func (n *node) openEmbedded() (statedb.DB, error) { return embedded.Open(n.data(), embedded.Options{}) }

func TestMain(m *testing.M) {
	remove, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	couchtest.Stop()
	mongotest.Stop()
	rethinktest.Stop()
	remove()
	os.Exit(code)
}
