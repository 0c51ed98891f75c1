package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/configs"
	rooms "github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// backupSize is how many transactions a ledger that is backed up has at least.
func backupSize(t testing.TB, least int) int {
	text := os.Getenv("E2E_BACKUP")
	if text == "" {
		return least
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("E2E_BACKUP: %v", err)
	}
	return n
}

// TestBackup backs a ledger up on one backend while it is posted to, then what
// came since, and restores both on others. With E2E_BACKUP every backend is
// backed up, and restored on every other one.
func TestBackup(t *testing.T) {
	skipCommands(t)
	makers := map[string]nodeMaker{configs.Embedded: newNode}
	for _, b := range servers {
		makers[b.name] = func(t testing.TB, environ ...string) *node { return b.newNode(t, b.shared(t), environ...) }
	}
	for from, make := range makers {
		others := maps.Clone(makers)
		delete(others, from)
		if os.Getenv("E2E_BACKUP") == "" {
			switch from {
			case configs.Embedded: // on all others
			case configs.CouchDB:
				others = map[string]nodeMaker{configs.Embedded: newNode}
			default:
				continue
			}
		}
		t.Run(from, func(t *testing.T) {
			if from == configs.MongoDB && testing.Short() {
				t.Skip("not tested with -short: FerretDB, which stands in for MongoDB, is slow")
			}
			testBackup(t, make, others)
		})
	}
}

func testBackup(t *testing.T, newNode nodeMaker, targets map[string]nodeMaker) {
	pair := ledger.GenerateKeyPair()
	key := keyOf(pair)
	n := newNode(t, key...)
	n.start()
	l := startLoad(t, n, 2, 2, 1)
	least := backupSize(t, 200)
	if n.backend == configs.MongoDB { // see startLoad
		least = min(least, 150)
	}
	full, more := n.file("full.backup"), n.file("more.backup")
	eventually(t, "there is a ledger", func() (bool, string) { return l.accepted() > least/2, fmt.Sprint(l.accepted()) })
	backup := []string{"backup", "--backlog"}
	if n.backend == configs.Embedded { // which one process has open
		backup = append(backup, "--url", "http://"+n.addr)
	}
	n.wantDone(t, append(backup, full))
	n.wantDone(t, []string{"verify", full}, "The ledger is sound.")
	if n.backend == configs.Embedded {
		n.wantRefusal(t, []string{"backup", n.file("locked.backup")}, "backup FILE --url http://"+n.addr)
	}
	eventually(t, "there is more of it", func() (bool, string) { return l.accepted() > least, fmt.Sprint(l.accepted()) })
	l.stop()
	for _, r := range l.acceptedRecords() {
		eventually(t, "all is decided", func() (bool, string) {
			status, _, err := n.status(r.tx.ID)
			return err == nil && (status == "valid" || status == ""), status
		})
	}
	want := n.view(t, l)
	n.stop()
	n.wantDone(t, []string{"backup", "--since", full, more})
	n.wantDone(t, []string{"verify", more}, "The ledger is sound.", "1 before it")
	documents := n.documents(t)

	for name, newNode := range targets {
		t.Run("to "+name, func(t *testing.T) {
			if name == configs.MongoDB && testing.Short() {
				t.Skip("not tested with -short: FerretDB, which stands in for MongoDB, is slow")
			}
			target := newNode(t, key...)
			target.wantDone(t, []string{"restore", full, more})
			target.wantRefusal(t, []string{"restore", full, more}, "the database is not empty", "the table bigchain has documents")
			got := target.documents(t)
			for _, id := range slices.Sorted(maps.Keys(documents)) {
				if got[id] != documents[id] {
					t.Fatalf("%s: got %.300s, want %.300s", id, got[id], documents[id])
				}
			}
			if len(got) != len(documents) {
				t.Errorf("got %d documents, want %d", len(got), len(documents))
			}
			target.start()
			eventually(t, "the last transaction is valid", func() (bool, string) {
				got := target.view(t, l)
				for what, value := range want {
					if got[what] != value {
						return false, fmt.Sprintf("%s: got %.300q, want %.300q", what, got[what], value)
					}
				}
				return len(got) == len(want), fmt.Sprint(len(got), len(want))
			})
			target.mustBecomeValid(t, create(t, pair))
			target.stop()
			target.wantDone(t, []string{"verify"}, "The ledger is sound.")
		})
	}
}

// keyOf has a node use a key pair.
func keyOf(pair ledger.KeyPair) (environ []string) {
	return []string{"BIGCHAINDB_KEYPAIR_PRIVATE=" + pair.Private(), "BIGCHAINDB_KEYPAIR_PUBLIC=" + pair.Public}
}

// view is what clients see of a ledger: each transaction's status and each
// owner's unspent outputs, in no order.
func (n *node) view(t testing.TB, l *load) map[string]string {
	t.Helper()
	view := map[string]string{}
	for _, r := range l.order {
		status, _, err := n.status(r.tx.ID)
		if err != nil {
			t.Fatal(err)
		}
		view["status of "+r.tx.ID] = status
	}
	for _, owner := range l.owners {
		outputs := n.list(t, "/api/v1/outputs?unspent=true&public_key="+owner.Public)
		slices.Sort(outputs)
		view["outputs of "+owner.Public] = strings.Join(outputs, " ")
	}
	return view
}

// documents are the blocks and votes in a stopped node's database, in canonical
// form.
func (n *node) documents(t testing.TB) map[string]string {
	t.Helper()
	db, err := n.store()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all := map[string]string{}
	for _, table := range []string{statedb.Bigchain, statedb.Votes} {
		for r := (statedb.Range{Limit: 50}); ; {
			page, err := db.Range(t.Context(), table, r)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range page.Documents {
				tree, err := canonical.Parse(d.Body)
				if err != nil {
					t.Fatal(err)
				}
				all[table+"/"+d.ID] = string(tree.Bytes())
			}
			if r.Bookmark = page.Bookmark; r.Bookmark == "" {
				break
			}
		}
	}
	return all
}

// filledNode is a stopped node whose ledger has some transactions, and a backup
// of it.
func filledNode(t testing.TB, environ ...string) (n *node, file string) {
	t.Helper()
	n = newNode(t, environ...)
	n.start()
	l := startLoad(t, n, 2, 1, 0)
	eventually(t, "there is a ledger", func() (bool, string) { return l.accepted() > 100, fmt.Sprint(l.accepted()) })
	l.stop()
	n.stop()
	file = n.file("ledger.backup")
	n.wantDone(t, []string{"backup", file})
	return n, file
}

// TestRestoreOlder restores an older backup of a node that went on, and lost
// its database or its disk.
func TestRestoreOlder(t *testing.T) {
	skipCommands(t)
	n, file := filledNode(t)
	n.start()
	later := create(t, ledger.GenerateKeyPair())
	n.mustBecomeValid(t, later)
	n.stop()

	for _, lost := range []string{"database", "disk"} {
		args := []string{"restore", file}
		n.remove(n.data())
		if lost == "disk" {
			n.remove(n.state())
		} else {
			n.wantRefusal(t, args, "1 votes", "--set-journal-aside")
			n.wantDone(t, append(args, "--set-journal-aside"), "The journal was moved to ")
			args = nil
		}
		if args != nil {
			n.wantDone(t, args)
		}
		n.start()
		if status, _, err := n.status(later.ID); status != "" || err != nil {
			t.Errorf("what came after the backup: got %q, %v", status, err)
		}
		n.mustBecomeValid(t, later) // a client may post it again
		n.mustBecomeValid(t, create(t, ledger.GenerateKeyPair()))
		n.stop()
		n.wantDone(t, []string{"verify"}, "The ledger is sound.")
	}
}

// TestRestoreKilled kills a restore at random moments. Until it is complete no
// node starts on the database, and no other backup goes into it.
func TestRestoreKilled(t *testing.T) {
	skipCommands(t)
	eachBackend(t, testRestoreKilled)
}

func testRestoreKilled(t *testing.T, newNode nodeMaker) {
	key := keyOf(ledger.GenerateKeyPair())
	source, file := filledNode(t, key...)
	want := source.documents(t)
	other := source.file("other.backup") // of the same ledger, and not the same file
	source.wantDone(t, []string{"backup", "--backlog", other})
	n := newNode(t, key...)
	random := newRand(t)
	begin := time.Now()
	n.wantDone(t, []string{"restore", file})
	most := time.Since(begin)
	n.wantDone(t, []string{"-y", "drop"})
	unfinished, rounds := 0, 4
	if testing.Short() {
		rounds = 2
	}
	if text := os.Getenv("E2E_KILLS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatalf("E2E_KILLS: %v", err)
		}
	}
	for range rounds {
		cmd := n.command("restore", file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(most / 2) // it begins with verifying
		anyMoment(random, most/2)
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if n.marked(t) {
			unfinished++
			n.wantRefusal(t, []string{"start"}, "unfinished restore", "restore` again", "drop")
			n.wantRefusal(t, []string{"init"}, "unfinished restore")
			n.wantRefusal(t, []string{"restore", other}, "unfinished restore of another backup")
			if random.IntN(2) == 0 {
				n.wantDone(t, []string{"-y", "drop"})
			}
		} else { // it did not begin, or is complete
			n.run("-y", "drop")
		}
	}
	t.Logf("unfinished %d times of %d", unfinished, rounds)
	if code, _, stderr := n.run("restore", file); code != 0 && !strings.Contains(stderr, "the database is not empty") {
		t.Fatalf("restore: got code %d, %s", code, stderr)
	}
	if got := n.documents(t); !maps.Equal(got, want) {
		t.Errorf("got %d documents, want the %d of the backup", len(got), len(want))
	}
	n.start()
	n.mustBecomeValid(t, create(t, ledger.GenerateKeyPair()))
	n.stop()
	n.wantDone(t, []string{"verify"}, "The ledger is sound.")
}

// marked reports whether the database of a stopped node says that a restore is
// not complete.
func (n *node) marked(t testing.TB) bool {
	t.Helper()
	if n.backend == configs.Embedded {
		if _, err := os.Stat(n.data()); err != nil {
			return false
		}
	}
	db, err := n.store()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// A server may still carry out what a killed restore asked for last, which
	// after the claim on the first block is to remove the mark.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		documents, err := db.Get(t.Context(), statedb.Bigchain, []string{rooms.RestoreMarker, "genesis"})
		switch {
		case err != nil || documents[0].Rev == "":
			return false
		case documents[1].Rev == "" || time.Now().After(deadline):
			return true
		}
	}
}

// TestRestoreRefuses gives restore files that are not sound backups: nothing is
// written.
func TestRestoreRefuses(t *testing.T) {
	skipCommands(t)
	source, file := filledNode(t)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(whole)
	flipped[len(flipped)/2] ^= 4
	n := newNode(t)
	n.wantDone(t, []string{"-y", "configure", "embedded"})
	for name, c := range map[string]struct {
		content []byte
		says    string
	}{
		"truncated": {whole[:len(whole)-len(whole)/3], "it was cut off"},
		"flipped":   {flipped, "its checksum is not right"},
		"twice":     {append(slices.Clone(whole), whole...), "between its manifest and its end"},
		"newer":     {append([]byte("couchledger-backup 2 full\n"), whole...), "format \"2\""},
		"other":     {[]byte(strings.Repeat("Dear diary,\n", 100)), "does not begin with"},
		"empty":     {nil, "does not begin with"},
	} {
		path := n.file(name)
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		n.wantRefusal(t, []string{"restore", path}, path, c.says)
		if code, _, stderr := n.run("verify", path); code != 2 || !strings.Contains(stderr, c.says) {
			t.Errorf("verify of a %s file: got code %d, %q", name, code, stderr)
		}
	}
	if _, err := os.Stat(n.data()); err == nil {
		t.Error("a refused file left a database")
	}

	// A ledger that is not sound.
	source.damage(t, func(db statedb.DB) (table, id string) {
		page, err := db.Range(t.Context(), statedb.Bigchain, statedb.Range{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		return statedb.Bigchain, page.Documents[0].ID
	})
	damaged := filepath.Join(n.home, "damaged")
	source.wantDone(t, []string{"backup", damaged})
	n.wantRefusal(t, []string{"restore", damaged}, "does not hold a sound ledger", "block-missing")
	if _, err := os.Stat(n.data()); err == nil {
		t.Error("an unsound ledger left a database")
	}
	source.wantRefusal(t, []string{"backup", file}, "exists already", "--force")
	source.wantDone(t, []string{"backup", "--force", file})
	source.wantRefusal(t, []string{"backup", "--since", n.file("other"), n.file("more")}, "does not begin with")
}
