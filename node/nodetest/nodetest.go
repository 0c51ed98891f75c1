// Package nodetest tests a whole node, with its HTTP server and a client, on
// any database: what statedbtest is for an adapter, this is for the node on it.
package nodetest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/httpapi"
	"github.com/couchledger/couchledger/httpapi/client"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// patience is how long anything that must happen may take.
const patience = 2 * time.Minute

// posters is how many transactions are posted at a time.
const posters = 32

// run is a node that runs until the test ends.
type run struct {
	ctx    context.Context
	db     statedb.DB
	client *client.Client
}

// start makes a ledger in a database and runs its only node. The database
// stays open when the test ends.
func start(t *testing.T, db statedb.DB) *run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	t.Cleanup(cancel)
	key := ledger.GenerateKeyPair()
	if _, err := node.Init(ctx, db, key, nil, nil); err != nil {
		t.Fatal(err)
	}
	n, err := node.Open(ctx, node.Options{DB: db, StatePath: t.TempDir(), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	server := httpapi.New(n, httpapi.Options{Logger: slog.New(slog.DiscardHandler)})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 2)
	go func() { ended <- n.Run(work) }()
	go func() { ended <- server.Serve(listener) }()
	transport := &http.Transport{MaxIdleConnsPerHost: posters}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		wait, done := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer done()
		err := server.Shutdown(wait)
		stop()
		if err = errors.Join(err, <-ended, <-ended); err != nil {
			t.Error(err)
		}
	})
	c, err := client.New("http://"+listener.Addr().String(), client.WithHTTPClient(&http.Client{Transport: transport, Timeout: patience}))
	if err != nil {
		t.Fatal(err)
	}
	r := &run{ctx: ctx, db: db, client: c}
	eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
	return r
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s", patience, what)
		case <-tick.C:
		}
	}
}

// post posts transactions, many at a time.
func (r *run) post(t *testing.T, txs []*ledger.Transaction) {
	t.Helper()
	next := make(chan *ledger.Transaction)
	var group sync.WaitGroup
	for range posters {
		group.Go(func() {
			for tx := range next {
				if _, err := r.client.Post(r.ctx, tx, client.Async); err != nil {
					t.Errorf("post %s: %v", tx.ID, err)
				}
			}
		})
	}
	for _, tx := range txs {
		next <- tx
	}
	close(next)
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// awaitQueryable waits until transactions are in the table for queries. It asks
// for one at a time until that is there, to leave the database to the node.
func (r *run) awaitQueryable(t *testing.T, txs []*ledger.Transaction) {
	t.Helper()
	const atOnce = 500
	for part := range slices.Chunk(txs, atOnce) {
		missing := make([]string, len(part))
		for i, tx := range part {
			missing[i] = tx.ID
		}
		for len(missing) > 0 {
			eventually(t, "a transaction is in the table for queries", func() bool { return len(r.missing(t, missing[:1])) == 0 })
			missing = r.missing(t, missing)
		}
	}
}

// missing lists those of the ids that are not in the table for queries.
func (r *run) missing(t *testing.T, ids []string) []string {
	t.Helper()
	documents, err := r.db.Get(r.ctx, statedb.Transactions, ids)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, d := range documents {
		if d.Rev == "" {
			list = append(list, d.ID)
		}
	}
	return list
}
