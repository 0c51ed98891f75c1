package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
)

const (
	// lineOfOutage and lineOfRecovery are what the log says of an outage, once.
	lineOfOutage   = "the database fails; trying again until it works"
	lineOfRecovery = "the database works again"
	// noticed is how soon a node must say that its database is away, also
	// when that hangs rather than fails.
	noticed = 20 * time.Second
)

// wantRefusedPost posts until the answer is 503 with Retry-After: never
// anything else but 202.
func (l *load) wantRefusedPost(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(noticed)
	for owner := l.owner(); ; {
		start := time.Now()
		tx := create(t, owner)
		a, err := l.n.do(http.MethodPost, transactionsPath, tx.Bytes())
		l.note(tx, err == nil && a.status == http.StatusAccepted)
		switch {
		case err != nil:
			t.Fatalf("POST while the database is away: %v", err)
		case a.status == http.StatusServiceUnavailable:
			checkErrorBody(t, "POST while the database is away", a)
			if a.header.Get("Retry-After") == "" {
				t.Error("the 503 has no Retry-After")
			}
			if took := time.Since(start); took > noticed {
				t.Errorf("the 503 took %v", took)
			}
			return
		case a.status != http.StatusAccepted:
			t.Fatalf("POST while the database is away: got %v, want 503", a)
		case time.Now().After(deadline):
			t.Fatal("the database is away and posts are still accepted")
		}
	}
}

// wantDegraded wants readyz to say 503, and healthz that the process lives.
func (n *node) wantDegraded(t testing.TB) {
	t.Helper()
	eventually(t, "the node says that it is degraded", func() (bool, string) {
		a, err := n.do(http.MethodGet, "/readyz", nil)
		return err == nil && a.status == http.StatusServiceUnavailable, fmt.Sprint(a, err)
	})
	n.get(t, "/healthz")
}

// wantRecovery waits until the node is ready and takes transactions to the
// end, and logs how long that took.
func (l *load) wantRecovery(t testing.TB, what string) {
	t.Helper()
	n, start := l.n, time.Now()
	tx := create(t, l.owner())
	l.note(tx, true)
	eventually(t, "transactions are accepted again after "+what, func() (bool, string) {
		a, err := n.do(http.MethodPost, transactionsPath, tx.Bytes())
		return err == nil && a.status == http.StatusAccepted, fmt.Sprint(a, err)
	})
	n.awaitValid(t, tx.ID)
	eventually(t, "the node is ready again after "+what, func() (bool, string) {
		a, err := n.do(http.MethodGet, "/readyz", nil)
		return err == nil && a.status == http.StatusOK, fmt.Sprint(a, err)
	})
	t.Logf("%s: back %v after it was over", what, time.Since(start).Round(time.Millisecond))
}

// wantTold counts how often the log told of outages.
func (n *node) wantTold(t testing.TB, most int) {
	t.Helper()
	log := n.tail(1_000_000)
	outages, recoveries := strings.Count(log, lineOfOutage), strings.Count(log, lineOfRecovery)
	if outages < 1 || outages > most || recoveries != outages {
		t.Errorf("the log tells of %d outages and %d recoveries, want as many and 1 to %d", outages, recoveries, most)
	}
}

// wantAll checks the ledger after the faults: nothing acknowledged is lost.
func (l *load) wantAll(t testing.TB) {
	t.Helper()
	l.stop()
	a := auditLedger(t, l.n, l, auditOptions{})
	t.Logf("%d transactions posted, %d accepted, %d valid in %d blocks, %d groups of rivals",
		len(l.order), l.accepted(), len(a.valid), len(a.blocks), l.groups)
	if len(a.valid) < 20 || l.groups < 1 {
		t.Error("too little went on to show anything")
	}
}

// goesOn waits until the load got some more transactions accepted.
func (l *load) goesOn(t testing.TB) {
	t.Helper()
	before := l.accepted()
	eventually(t, "the load goes on", func() (bool, string) { return l.accepted() > before+10, fmt.Sprint(l.accepted() - before) })
}

// A node that starts before its CouchDB waits for it.
func TestCouchDBNotThereYet(t *testing.T) {
	server := couchtest.Start(t)
	server.Kill()
	n := newCouchNode(t, server.Address)
	p := n.launch()
	eventually(t, "the node tells that it waits", func() (bool, string) {
		return strings.Contains(n.tail(100), "CouchDB does not answer yet"), n.tail(5)
	})
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	n.awaitReady(p)
	n.mustBecomeValid(t, create(t, ledger.GenerateKeyPair()))
	n.stop()

	server.Kill()
	impatient := newCouchNode(t, server.Address, "BIGCHAINDB_DATABASE_MAX_TRIES=2")
	impatient.wantRefusal(t, []string{"start"}, "does not answer", "tried 2 times")
}

// A user that CouchDB does not know, or who lacks rights, is told so at once.
func TestCouchDBDenied(t *testing.T) {
	server := couchtest.Start(t)
	for _, test := range []struct {
		name    string
		environ []string
		parts   []string
	}{
		{"wrong password", []string{"BIGCHAINDB_DATABASE_PASSWORD=wrong"}, []string{"does not let the user \"admin\"", "database.password"}},
		{"no user", []string{"BIGCHAINDB_DATABASE_LOGIN=", "BIGCHAINDB_DATABASE_PASSWORD="}, []string{"wants a user", "BIGCHAINDB_DATABASE_PASSWORD"}},
		{"no admin", []string{"BIGCHAINDB_DATABASE_LOGIN=reader", "BIGCHAINDB_DATABASE_PASSWORD=reader"}, []string{"\"reader\" is not a server admin"}},
	} {
		if test.name == "no admin" {
			server.Do(t, http.MethodPut, "/_users/org.couchdb.user:reader", `{"name":"reader","password":"reader","roles":[],"type":"user"}`, http.StatusCreated)
		}
		n := newCouchNode(t, server.Address, test.environ...)
		n.wantRefusal(t, []string{"start"}, test.parts...)
		if log := n.tail(100); strings.Contains(log, "wrong") || strings.Contains(log, "secret") {
			t.Errorf("%s: a password is in the output:\n%s", test.name, log)
		}
	}
}

// CouchDB is killed under load and comes back.
func TestCouchDBKilled(t *testing.T) {
	server := couchtest.Start(t)
	n := newCouchNode(t, server.Address)
	n.start()
	l := startLoad(t, n, 2, 4, 2)
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		l.goesOn(t)
		server.Kill()
		n.wantDegraded(t)
		l.wantRefusedPost(t)
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		l.wantRecovery(t, "a kill")
	}
	l.wantAll(t)
	n.wantTold(t, 2*rounds) // it may work for a moment before it is whole
}

// CouchDB accepts connections and never answers.
func TestCouchDBHangs(t *testing.T) {
	server := couchtest.Start(t)
	n := newCouchNode(t, server.Address)
	n.start()
	l := startLoad(t, n, 2, 2, 2)
	l.goesOn(t)
	if err := server.Suspend(); err != nil {
		t.Fatal(err)
	}
	l.wantRefusedPost(t)
	n.wantDegraded(t)
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	l.wantRecovery(t, "a hang")
	l.wantAll(t)
}

// Requests fail, are cut, or applied and not answered.
func TestCouchDBRequestsFail(t *testing.T) {
	address := couchtest.Shared(t)
	for _, test := range []struct {
		name   string
		fault  func() *couchtest.Fault
		always bool // nothing works while the fault lasts
	}{
		{"500", func() *couchtest.Fault { return &couchtest.Fault{Status: http.StatusInternalServerError} }, true},
		{"503", func() *couchtest.Fault { return &couchtest.Fault{Status: http.StatusServiceUnavailable} }, true},
		{"disk full", func() *couchtest.Fault {
			return &couchtest.Fault{Part: "_bulk_docs", Status: http.StatusInternalServerError}
		}, true},
		{"cut before _bulk_docs", func() *couchtest.Fault { return &couchtest.Fault{Part: "_bulk_docs", Times: 5} }, false},
		{"cut after _bulk_docs", func() *couchtest.Fault { return &couchtest.Fault{Part: "_bulk_docs", Times: 5, Forward: true} }, false},
		{"cut within _bulk_docs", func() *couchtest.Fault {
			return &couchtest.Fault{Part: "_bulk_docs", Times: 5, Forward: true, Bytes: 30}
		}, false},
		{"cut after _purge", func() *couchtest.Fault { return &couchtest.Fault{Part: "_purge", Times: 5, Forward: true} }, false},
		{"cut within _all_docs", func() *couchtest.Fault {
			return &couchtest.Fault{Part: "_all_docs", Times: 5, Forward: true, Bytes: 100}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy := couchtest.NewProxy(t, address)
			n := newCouchNode(t, proxy.Address)
			n.start()
			l := startLoad(t, n, 2, 2, 2)
			l.goesOn(t)
			fault := proxy.Set(test.fault())
			if test.always {
				l.wantRefusedPost(t)
				n.wantDegraded(t)
			} else {
				eventually(t, "the fault strikes", func() (bool, string) { return fault.Hits() >= fault.Times, fmt.Sprint(fault.Hits()) })
			}
			proxy.Clear()
			l.wantRecovery(t, test.name)
			l.wantAll(t)
			if test.always {
				n.wantTold(t, 3)
			}
		})
	}
}

// The changes feeds are cut again and again, in the middle of rows too.
func TestCouchDBFeedsCut(t *testing.T) {
	proxy := couchtest.NewProxy(t, couchtest.Shared(t))
	n := newCouchNode(t, proxy.Address)
	n.start()
	l := startLoad(t, n, 2, 2, 2)
	for round := range 5 {
		l.goesOn(t)
		fault := proxy.Set(&couchtest.Fault{Part: "_changes", Times: 6, Forward: true, Bytes: int64(50 + 333*round)})
		proxy.CutAll("_changes")
		eventually(t, "the feeds are cut", func() (bool, string) { return fault.Hits() >= fault.Times, fmt.Sprint(fault.Hits()) })
	}
	proxy.Clear()
	l.wantRecovery(t, "cut feeds")
	l.wantAll(t)
}

// A database is deleted underneath and brought back.
func TestCouchDBDatabaseDeleted(t *testing.T) {
	server := couchtest.Start(t)
	for _, table := range []string{statedb.Backlog, statedb.Bigchain, statedb.Votes, statedb.Transactions} {
		t.Run(table, func(t *testing.T) {
			n := newCouchNode(t, server.Address)
			n.start()
			l := startLoad(t, n, 2, 2, 2)
			l.goesOn(t)
			l.stop()
			eventually(t, "everything is decided", func() (bool, string) {
				entries, err := n.metric("couchledger_backlog_entries")
				return err == nil && entries == 0, fmt.Sprint(entries, err)
			})
			name, copied := n.ledger()+"_"+table, n.ledger()+"_copy"
			server.Replicate(t, name, copied)
			server.Do(t, http.MethodDelete, "/"+name, "", http.StatusOK)
			n.wantDegraded(t)
			l.wantRefusedPost(t)
			server.Replicate(t, copied, name)
			l.wantRecovery(t, "the loss of "+table)
			auditLedger(t, n, l, auditOptions{})
			n.wantTold(t, 2)
			server.Do(t, http.MethodDelete, "/"+copied, "", http.StatusOK)
		})
	}
}

// ledger is the name of the node's ledger on its server.
func (n *node) ledger() string {
	for _, line := range n.environ {
		if name, ok := strings.CutPrefix(line, "BIGCHAINDB_DATABASE_NAME="); ok {
			return name
		}
	}
	n.t.Fatal("the node has no ledger on a server")
	return ""
}

// What CouchDB cannot hold exactly is refused at POST, by its path, before
// anything is written.
func TestCouchDBUnsupported(t *testing.T) {
	n := newCouchNode(t, couchtest.Shared(t))
	n.start()
	owner := ledger.GenerateKeyPair()
	for data, path := range map[string]string{
		`{"w":[1,-0.0]}`:                         "asset.data.w.1",
		`{"deep":{"tiny":5e-324}}`:               "asset.data.deep.tiny",
		`{"n":` + strings.Repeat("7", 309) + `}`: "asset.data.n",
	} {
		value, err := canonical.Parse([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		tx, err := ledger.NewCreate([]ledger.KeyPair{owner}, value, canonical.Value{}, ledger.PayTo(owner.Public, 1))
		if err != nil {
			t.Fatal(err)
		}
		n.wantError(t, http.MethodPost, transactionsPath, tx.Bytes(), http.StatusBadRequest, path, "CouchDB")
	}
	n.mustBecomeValid(t, create(t, owner))
}

// Blocks are closed before they are larger than the server's documents.
func TestCouchDBSmallDocuments(t *testing.T) {
	const size, count, each = 60_000, 60, 5_000
	server := couchtest.Start(t, "[couchdb]", fmt.Sprintf("max_document_size = %d", size))
	n := newCouchNode(t, server.Address)
	n.start()
	owner := ledger.GenerateKeyPair()
	var txs []*ledger.Transaction
	for i := range count {
		data := canonical.ObjectOf(canonical.Member{Key: "text", Value: canonical.StringOf(fmt.Sprint(i, strings.Repeat(".", each)))})
		tx, err := ledger.NewCreate([]ledger.KeyPair{owner}, data, canonical.Value{}, ledger.PayTo(owner.Public, 1))
		if err != nil {
			t.Fatal(err)
		}
		txs = append(txs, tx)
	}
	var posts sync.WaitGroup
	for _, tx := range txs {
		posts.Go(func() { n.postAccepted(t, tx) })
	}
	posts.Wait()
	blocks := map[string]bool{}
	for _, tx := range txs {
		n.awaitValid(t, tx.ID)
		for _, block := range n.list(t, "/api/v1/blocks?tx_id="+tx.ID) {
			blocks[block] = true
		}
	}
	if len(blocks) < count*each/size {
		t.Errorf("%d blocks hold %d transactions of %d bytes, with documents of %d at most", len(blocks), count, each, size)
	}
}
