package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

// newDevNode is a node whose settings have RethinkDB on a port where nobody
// listens. Without RethinkDB the test is skipped.
func newDevNode(t *testing.T) (n *node, address string) {
	t.Helper()
	if _, err := exec.LookPath("rethinkdb"); err != nil {
		t.Skip("not tested: no rethinkdb on PATH")
	}
	address = freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	n = newNode(t, "BIGCHAINDB_DATABASE_BACKEND=rethinkdb", "BIGCHAINDB_DATABASE_HOST=127.0.0.1", "BIGCHAINDB_DATABASE_PORT="+port)
	n.backend = configs.RethinkDB
	t.Cleanup(func() { // what a test that failed has left
		n.kill()
		out, _ := exec.Command("pgrep", "-f", "--", "--directory "+n.file(".bigchaindb-rethinkdb")).Output() // there is none as a rule
		for _, pid := range strings.Fields(string(out)) {
			_ = exec.Command("kill", "-9", pid).Run() // it may have ended
		}
	})
	return n, address
}

// TestDevStartRethinkDB runs a node that starts its RethinkDB, and stops it
// after itself.
func TestDevStartRethinkDB(t *testing.T) {
	n, address := newDevNode(t)
	const flag = "--dev-start-rethinkdb"
	n.start(flag)
	alice := ledger.GenerateKeyPair()
	tx := create(t, alice)
	n.mustBecomeValid(t, tx)
	folder := n.file(".bigchaindb-rethinkdb")
	if _, err := os.Stat(filepath.Join(folder, "metadata")); err != nil {
		t.Error(err)
	}
	// What is accepted just before the node stops is written still: RethinkDB
	// ends last.
	last := create(t, alice)
	n.postAccepted(t, last)
	n.stop()
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("RethinkDB runs without the node")
	}
	if log := n.tail(10_000); strings.Contains(log, "the database fails") || strings.Contains(log, "has ended") {
		t.Errorf("RethinkDB was gone before the node:\n%s", n.tail(20))
	}

	// Again, on the same data; then RethinkDB is killed.
	n.start(flag)
	n.awaitValid(t, tx.ID)
	n.awaitValid(t, last.ID)
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(n.process.cmd.Process.Pid)).Output()
	pid, wrong := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil || wrong != nil {
		t.Fatalf("which process is RethinkDB: %q, %v", out, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node misses RethinkDB", func() (bool, string) {
		a, err := n.do(http.MethodGet, "/readyz", nil)
		return err == nil && a.status == http.StatusServiceUnavailable, fmt.Sprint(a, err)
	})
	const said = "RethinkDB has ended and is not started again"
	eventually(t, "the log says so", func() (bool, string) { return strings.Contains(n.tail(100), said), n.tail(5) })
	n.expectLog(said)
	n.stop()
}

// TestSetShardsAndReplicas spreads the tables of a ledger whose node runs over
// two servers.
func TestSetShardsAndReplicas(t *testing.T) {
	skipCommands(t)
	first := rethinktest.StartCluster(t, 2)[0]
	n := newNode(t, "BIGCHAINDB_DATABASE_BACKEND=rethinkdb", "BIGCHAINDB_DATABASE_HOST="+first.Host, fmt.Sprintf("BIGCHAINDB_DATABASE_PORT=%d", first.Port))
	n.backend = configs.RethinkDB
	const missing = "the database `bigchain` does not exist; `bigchaindb init` makes it"
	n.wantRefusal(t, []string{"set-shards", "2"}, missing)
	n.wantRefusal(t, []string{"set-replicas", "--dry-run", "2"}, missing)
	n.wantRefusal(t, []string{"add-replicas", "a:1"}, "is for the backends couchdb and mongodb, and database.backend is rethinkdb")
	n.start()
	alice := ledger.GenerateKeyPair()
	n.mustBecomeValid(t, create(t, alice))

	want := "TABLE         SHARDS  AFTER\nbacklog       1       3\nbigchain      1       3\nvotes         1       3\ntransactions  1       3\n"
	for range 2 { // it changes nothing
		if got := n.wantDone(t, []string{"set-shards", "3", "--dry-run"}, "Nothing was changed"); got != want {
			t.Errorf("got %s", got)
		}
	}
	n.wantDone(t, []string{"set-shards", "3"}, "`votes`: 3 shards, before 1.", "Now every table has 3 shards.")
	n.wantDone(t, []string{"set-shards", "3"}, "There is nothing to change: every table has 3 shards already.")
	n.wantDone(t, []string{"set-replicas", "2"}, "Now each shard of every table has 2 replicas.")
	n.wantRefusal(t, []string{"set-replicas", "3"}, "3 servers are needed and the cluster has 2")
	want = strings.NewReplacer("SHARDS  ", "REPLICAS  ", "1       3", "2         2").Replace(want)
	if got := n.wantDone(t, []string{"set-replicas", "2", "--dry-run"}, "There is nothing to change"); got != want {
		t.Errorf("got %s", got)
	}
	n.awaitReady(n.process) // tables that are being moved are away for a moment
	n.mustBecomeValid(t, create(t, alice))
	n.stop()
}
