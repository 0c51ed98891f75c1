package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
)

// verified is what `verify --json` prints.
type verified struct {
	Findings []verify.Finding
	Checked  verify.Report
	Sound    bool
}

// TestVerify verifies a ledger while its node runs, kills the command at random
// moments when the node is stopped, lets it go on, and damages the ledger.
func TestVerify(t *testing.T) { eachBackend(t, testVerify) }

func testVerify(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.start()
	l := startLoad(t, n, 4, 2, 1)
	least := 1500
	if testing.Short() || n.backend == configs.MongoDB { // FerretDB, which stands in for it, is slow
		least = 150
	}
	running := []string{"verify", "--url", "http://" + n.addr}
	eventually(t, "there is a ledger", func() (bool, string) { return l.accepted() > least/3, "" })
	n.wantDone(t, running, "The ledger is sound.")
	if n.backend != "embedded" { // which one process has open
		n.wantDone(t, []string{"verify"}, "The ledger is sound.")
	}
	eventually(t, "there is more of it", func() (bool, string) { return l.accepted() > least, "" })
	l.stop()
	last := l.acceptedRecords()[l.accepted()-1].tx
	n.awaitValid(t, last.ID)
	n.stop()

	random := newRand(t)
	begin := time.Now()
	n.wantDone(t, []string{"verify"})
	whole := time.Since(begin)
	for range 5 {
		cmd := n.command("verify")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		anyMoment(random, whole)
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
	report := n.verify(t, 0)
	if !report.Sound || report.Checked.Transactions < least || report.Checked.Blocks.Valid == 0 {
		t.Errorf("got %+v", report)
	}

	n.damage(t, func(db statedb.DB) (table, id string) {
		page, err := db.Range(t.Context(), statedb.Votes, statedb.Range{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		return statedb.Votes, page.Documents[0].ID
	})
	if report := n.verify(t, 1); report.Sound || report.Checked.Blocks.Undecided != 1 {
		t.Errorf("with a vote removed: got %+v", report.Checked)
	}
	n.damage(t, func(statedb.DB) (table, id string) { return statedb.Bigchain, "genesis" })
	report = n.verify(t, 1)
	want := verify.Finding{Table: statedb.Bigchain, ID: "genesis", Rule: verify.GenesisMissing, Seen: "there is no such document"}
	found := false
	for _, f := range report.Findings {
		found = found || f == want
	}
	if !found {
		t.Errorf("with the claim on the first block removed: no %+v", want)
	}
}

// verify runs the command, which must end with the code.
func (n *node) verify(t testing.TB, want int) (report verified) {
	t.Helper()
	code, stdout, stderr := n.run("verify", "--json")
	if code != want {
		t.Errorf("verify: got code %d, want %d; stderr %q", code, want, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("verify: %v in %.300q", err, stdout)
	}
	return report
}

// damage removes a document of a stopped node's ledger.
func (n *node) damage(t testing.TB, choose func(statedb.DB) (table, id string)) {
	t.Helper()
	db, err := n.store()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	table, id := choose(db)
	if err := db.Remove(t.Context(), table, []string{id}); err != nil {
		t.Fatal(err)
	}
}
