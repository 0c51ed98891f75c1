package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// reindexBackends runs a test on the embedded store, and on CouchDB if asked to
// and not with -short; with E2E_REINDEX set on every backend that is there.
func reindexBackends(t *testing.T, onCouchDB bool, test func(t *testing.T, newNode nodeMaker)) {
	if os.Getenv("E2E_REINDEX") != "" {
		eachBackend(t, test)
		return
	}
	t.Run("embedded", func(t *testing.T) { test(t, newNode) })
	if onCouchDB && !testing.Short() {
		t.Run(servers[0].name, func(t *testing.T) {
			a := servers[0].shared(t)
			test(t, func(t testing.TB, environ ...string) *node { return servers[0].newNode(t, a, environ...) })
		})
	}
}

// TestReindex has a node under load make all anew, kills it meanwhile, and lets
// the command do it for the stopped node. Nothing that was accepted is lost, and
// no reader is refused.
func TestReindex(t *testing.T) { reindexBackends(t, false, testReindex) }

func testReindex(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.start()
	l := startLoad(t, n, 2, 4, 2)
	random := newRand(t)
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	goesOn := func() {
		before := l.accepted()
		eventually(t, "the load goes on", func() (bool, string) { return l.accepted() > before+30, "" })
	}
	for range rounds {
		goesOn()
		n.wantDone(t, []string{"reindex"}, "Documents for queries: ", " 0 mended", "The node decided nothing for ")
		goesOn()
		cmd := n.command("reindex")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		anyMoment(random, 300*time.Millisecond)
		n.kill()
		_ = cmd.Wait() // the node is gone, or it was done
		if random.IntN(2) == 0 {
			n.wantDone(t, []string{"reindex"}, "Done in")
		}
		n.start()
	}
	l.stop()
	auditLedger(t, n, l, auditOptions{}) // which stops the node
	n.wantDone(t, []string{"reindex"}, " 0 mended, 0 written, 0 removed")
	n.wantDone(t, []string{"verify"}, "The ledger is sound.")
}

// TestReindexMends damages the table for queries and the chainstate of a
// stopped node.
func TestReindexMends(t *testing.T) { reindexBackends(t, false, testReindexMends) }

func testReindexMends(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.wantRefusal(t, []string{"reindex"}, "key pair")
	n.wantDone(t, []string{"-y", "configure", "embedded"})
	n.wantRefusal(t, []string{"reindex"}, "`bigchaindb init` makes it")
	n.start()
	alice := ledger.GenerateKeyPair()
	tx := create(t, alice)
	n.mustBecomeValid(t, tx)
	n.stop()
	n.damage(t, func(statedb.DB) (table, id string) { return statedb.Transactions, tx.ID })
	manifests, err := filepath.Glob(filepath.Join(n.chainstate(), "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatal(manifests, err)
	}
	for _, name := range manifests {
		if err := os.WriteFile(name, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.wantRefusal(t, []string{"start"}, "chainstate", "`bigchaindb reindex` makes it anew")
	n.wantDone(t, []string{"reindex"}, " 1 right, 0 mended, 1 written, 0 removed")
	n.wantDone(t, []string{"verify"}, "The ledger is sound.")
	n.start()
	n.mustBecomeValid(t, create(t, alice))

	n.wantRefusal(t, []string{"-y", "reindex", "--after-restore"}, "a node runs", "stop it first")
	if code, _, stderr := n.run("reindex", "--dry-run"); code != 2 || !strings.Contains(stderr, "--after-restore") {
		t.Errorf("--dry-run alone: got code %d, %s", code, stderr)
	}
	n.kill() // which leaves the socket
	n.start()
	n.wantDone(t, []string{"reindex"}, "0 removed")
}

// TestAfterRestore copies a database, document by document, while its node
// works, puts the copy in its place and brings it in order.
func TestAfterRestore(t *testing.T) { reindexBackends(t, true, testAfterRestore) }

func testAfterRestore(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.start()
	l := startLoad(t, n, 2, 2, 1)
	eventually(t, "there is a ledger", func() (bool, string) { return l.accepted() > 60, "" })
	copied := map[string][]statedb.Write{}
	// Votes first and transactions last: what came meanwhile is there in part.
	read := func(db statedb.DB, table string) {
		for page := (statedb.Range{Limit: 20}); ; {
			found, err := db.Range(t.Context(), table, page)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range found.Documents {
				copied[table] = append(copied[table], statedb.Write{ID: d.ID, Body: d.Body})
			}
			if page.Bookmark = found.Bookmark; page.Bookmark == "" {
				return
			}
		}
	}
	order := []string{statedb.Votes, statedb.Bigchain, statedb.Backlog, statedb.Transactions}
	if n.backend == "embedded" { // which one process has open
		l.stop()
		n.stop()
	}
	db, err := n.store()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range order {
		read(db, table)
		if n.backend != "embedded" {
			before := l.accepted()
			eventually(t, "the load goes on", func() (bool, string) { return l.accepted() > before+8, "" })
		}
	}
	if n.backend != "embedded" {
		l.stop()
		n.stop()
	} else {
		copied[statedb.Votes] = copied[statedb.Votes][:len(copied[statedb.Votes])*9/10]
	}
	if err := db.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	for table, writes := range copied {
		for len(writes) > 0 {
			part := writes[:min(len(writes), db.Limits().MaxBatch)]
			writes = writes[len(part):]
			if _, err := db.Write(t.Context(), table, part); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	n.wantDone(t, []string{"reindex", "--after-restore", "--dry-run"}, "the last decided one is ", "To be deleted: ", "Nothing was changed.")
	n.wantDone(t, []string{"-y", "reindex", "--after-restore"}, "To be deleted: ", "Done in ")
	n.wantDone(t, []string{"verify"}, "The ledger is sound.")
	n.start()
	n.mustBecomeValid(t, create(t, ledger.GenerateKeyPair()))
	n.stop()
	n.wantDone(t, []string{"verify"}, "The ledger is sound.")
	n.wantDone(t, []string{"reindex", "--after-restore", "-y"}, "To be deleted: 0 entries of the backlog, 0 blocks after the last decided one, 0 votes.")
}
