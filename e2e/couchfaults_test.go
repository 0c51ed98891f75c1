package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
)

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

// What others write and nobody can parse stops nobody.
func TestCouchDBTooDeep(t *testing.T) {
	server := couchtest.Shared(t)
	n := newCouchNode(t, server)
	n.expected = append(n.expected, "a document is not a", "a document is no statement")
	n.start()
	alice := ledger.GenerateKeyPair()
	first := create(t, alice)
	n.mustBecomeValid(t, first)
	block := n.list(t, "/api/v1/blocks?tx_id="+first.ID)[0]
	deep := `{"vote":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`
	stranger := ledger.GenerateKeyPair().Public
	for id, table := range map[string]string{
		strings.Repeat("d", 64): statedb.Backlog, strings.Repeat("e", 64): statedb.Bigchain,
		ledger.StatementPrefix + "00000001:" + stranger: statedb.Bigchain, ledger.VoteID(block, stranger): statedb.Votes,
	} {
		server.Do(t, http.MethodPut, "/"+n.ledger()+"_"+table+"/"+id, deep, http.StatusCreated)
	}
	n.mustBecomeValid(t, create(t, alice))
	eventually(t, "all three are faults", func() (bool, string) {
		told := string(n.get(t, "/api/v1/faults").body)
		return strings.Count(told, "is not a") >= 2 && strings.Contains(told, "is no statement"), told
	})
	if votes := string(n.get(t, "/api/v1/votes?block_id="+block).body); !strings.Contains(votes, block) || strings.Contains(votes, stranger) {
		t.Errorf("the votes are %s", votes)
	}
	for _, table := range statedb.Tables {
		a, err := n.do(http.MethodPost, "/api/v1/query", []byte(`{"table":"`+table+`","selector":{}}`))
		if err != nil || a.status != http.StatusOK || strings.Contains(string(a.body), "[[[") {
			t.Errorf("a query of %s: %v, %v", table, a, err)
		}
	}
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
			t.Parallel()
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
			t.Parallel()
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
