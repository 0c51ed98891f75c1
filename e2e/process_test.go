package e2e

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
)

// wantRefusal runs a command that must end with code 1 and a short text that
// has all the parts.
func (n *node) wantRefusal(t testing.TB, args []string, parts ...string) {
	t.Helper()
	code, stdout, stderr := n.run(args...)
	if code != 1 || stdout != "" {
		t.Errorf("%s: got code %d, stdout %q, want code 1 and nothing on stdout", args, code, stdout)
	}
	for _, part := range parts {
		if !strings.Contains(stderr, part) {
			t.Errorf("%s: got %q, want %q in it", args, stderr, part)
		}
	}
	if strings.Count(stderr, "\n") > 5 || strings.Contains(stderr, "goroutine") {
		t.Errorf("%s: got %s, want a line or two", args, stderr)
	}
}

// wantDone runs a command that must end with code 0 and returns its stdout.
func (n *node) wantDone(t testing.TB, args []string, parts ...string) string {
	t.Helper()
	code, stdout, stderr := n.run(args...)
	if code != 0 {
		t.Errorf("%s: got code %d, want 0; stderr %q", args, code, stderr)
	}
	for _, part := range parts {
		if !strings.Contains(stdout+stderr, part) {
			t.Errorf("%s: got %q, want %q in it", args, stdout+stderr, part)
		}
	}
	return stdout
}

// TestSecondProcess starts a node twice: on one data folder, on one port, on
// one state folder. The first one runs on.
func TestSecondProcess(t *testing.T) {
	n := newNode(t)
	n.start()
	alice := ledger.GenerateKeyPair()
	start := []string{"start"}

	second := newNode(t)
	second.home = n.home // the same config, data and state, another port
	second.wantRefusal(t, start, n.data(), "in use by another process")
	second.wantRefusal(t, []string{"init"}, n.data(), "in use by another process")
	second.wantRefusal(t, []string{"-y", "drop"}, n.data(), "in use by another process")
	n.mustBecomeValid(t, create(t, alice))

	n.wantRefusal(t, []string{"indexes", "list"}, n.data(), "`POST http://"+n.addr+"/api/v1/query/explain`")
	n.wantRefusal(t, []string{"indexes", "explain", "votes", "{}"}, "query/explain")

	third := newNode(t)
	third.addr = n.addr // the same port, another ledger
	third.wantRefusal(t, start, "server.bind", n.addr)
	if _, err := os.Stat(third.data()); err == nil {
		t.Error("a node that cannot listen made a database")
	}
	n.mustBecomeValid(t, create(t, alice))

	fourth := newNode(t, "BIGCHAINDB_STATE_PATH="+n.state()) // its own data, the same state
	fourth.wantRefusal(t, start, n.state())
	n.mustBecomeValid(t, create(t, alice))
	if _, err := net.Dial("tcp", fourth.addr); err == nil {
		t.Errorf("somebody listens on %s", fourth.addr)
	}
}

// TestDropAndInit makes, drops and makes a ledger again with one config.
func TestDropAndInit(t *testing.T) {
	skipCommands(t)
	eachBackend(t, testDropAndInit)
}

func testDropAndInit(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.wantDone(t, []string{"-y", "configure", "embedded"})
	n.wantDone(t, []string{"-y", "drop"}, "does not exist")
	n.wantDone(t, []string{"init"}, "is made")
	n.wantDone(t, []string{"init"}, "already exists")
	key := strings.TrimSpace(n.wantDone(t, []string{"export-my-pubkey"}))

	alice := ledger.GenerateKeyPair()
	tx := create(t, alice)
	for range 2 {
		n.start()
		if got := checkRoots(t, n); got != key {
			t.Errorf("public_key: got %s, want that of export-my-pubkey, %s", got, key)
		}
		if status, _, err := n.status(tx.ID); status != "" || err != nil {
			t.Errorf("a new ledger knows a transaction: got %q, %v", status, err)
		}
		n.mustBecomeValid(t, tx)
		n.stop()
		n.wantDone(t, []string{"init"}, "already exists")
		n.wantDone(t, []string{"drop", "-y"}, "is dropped")
		n.wantDone(t, []string{"drop", "-y"}, "does not exist")
		if entries, err := os.ReadDir(n.state()); err == nil && len(entries) > 0 {
			t.Errorf("drop left state: %v", entries)
		}
	}
}

// TestOwnIndexes gives a ledger that has a transaction an index of the
// operator's: the next start deploys it, and a selector uses it.
func TestOwnIndexes(t *testing.T) {
	n := newNode(t)
	n.start()
	alice := ledger.GenerateKeyPair()
	n.mustBecomeValid(t, create(t, alice))
	built := func() int { return strings.Count(n.tail(10_000), "the indexes are built") }
	eventually(t, "the packaged indexes are built", func() (bool, string) { return built() == 1, n.tail(5) })
	n.stop()

	folder := n.file("own")
	n.environ = append(n.environ, "BIGCHAINDB_INDEXES_PATH="+folder)
	n.wantRefusal(t, []string{"start"}, "indexes.path: the folder "+folder+" does not exist")
	if err := os.MkdirAll(filepath.Join(folder, "transactions"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "transactions", "by_version.json"),
		[]byte(`{"index":{"fields":["version"]},"ddoc":"own","name":"by_version","type":"json"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.mustBecomeValid(t, create(t, alice))
	eventually(t, "the operator's index is built", func() (bool, string) { return built() == 2, n.tail(5) })
	n.stop()
	if list := n.wantDone(t, []string{"indexes", "list"}); strings.Count(list, " ready\n") != 8 || !strings.Contains(list, "operator's  ready") {
		t.Errorf("indexes list: %s", list)
	}
	n.wantDone(t, []string{"indexes", "explain", "transactions", `{"version":"0.10"}`}, "index: by_version (version)")
	n.start() // nothing to build, nothing to say
	n.mustBecomeValid(t, create(t, alice))
	n.stop()
	if built() != 2 {
		t.Errorf("a start without anything to build says so:\n%s", n.tail(20))
	}
}

// TestForeignState starts a node on the state of another ledger.
func TestForeignState(t *testing.T) {
	alice := ledger.GenerateKeyPair()
	genesisOf := func(n *node) string {
		tx := create(t, alice)
		n.mustBecomeValid(t, tx)
		return n.votes(t, "", n.list(t, "/api/v1/blocks?tx_id="+tx.ID)[0])[0].PreviousBlock
	}
	one, two := newNode(t), newNode(t)
	var ids []string
	for _, n := range []*node{one, two} {
		n.start()
		ids = append(ids, genesisOf(n))
		n.stop()
	}
	two.environ = []string{"BIGCHAINDB_STATE_PATH=" + one.state()}
	two.wantRefusal(t, []string{"start"}, ids[0], ids[1])
	two.environ = nil
	for _, n := range []*node{one, two} { // nothing was hurt
		n.start()
		n.mustBecomeValid(t, create(t, alice))
	}
}

// TestSettings gives wrong settings in the environment, and looks for secrets
// where there should be none.
func TestSettings(t *testing.T) {
	pair, other := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	for setting, value := range map[string]string{
		"SERVER_BIND":            "nowhere",
		"DATABASE_BACKEND":       "postgres",
		"BACKLOG_REASSIGN_DELAY": "soon",
		"KEYPAIR_PRIVATE":        "notakey",
		"KEYRING":                "notakey",
		"LOG_LEVEL_CONSOLE":      "loud",
		"CONSENSUS_PLUGIN":       "anarchy",
		"DATABASE_MAX_TRIES":     "-1",
		"DATABASE_SSL":           "perhaps",
		"SERVER_WORKERS":         "many",
	} {
		n := newNode(t, "BIGCHAINDB_"+setting+"="+value)
		code, _, stderr := n.run("start")
		name := strings.ToLower(setting)
		dotted := strings.Replace(name, "_", ".", 1)
		if code != 1 || !strings.Contains(stderr, name) && !strings.Contains(stderr, dotted) && !strings.Contains(stderr, "BIGCHAINDB_"+setting) {
			t.Errorf("BIGCHAINDB_%s=%s: got code %d, %q, want code 1 and the setting's name", setting, value, code, stderr)
		}
		if entries, _ := os.ReadDir(n.home); len(entries) > 0 {
			t.Errorf("BIGCHAINDB_%s=%s: start left %v", setting, value, entries)
		}
	}
	mixed := newNode(t, "BIGCHAINDB_KEYPAIR_PRIVATE="+pair.Private(), "BIGCHAINDB_KEYPAIR_PUBLIC="+other.Public)
	mixed.wantRefusal(t, []string{"start"}, "keypair")
	missing := newNode(t)
	missing.wantRefusal(t, []string{"-c", filepath.Join(missing.home, "no.json"), "init"}, "no.json", "does not exist")

	// Keys in the environment alone are enough, and stay there.
	n := newNode(t, "BIGCHAINDB_KEYPAIR_PRIVATE="+pair.Private(), "BIGCHAINDB_KEYPAIR_PUBLIC="+pair.Public,
		"BIGCHAINDB_DATABASE_PASSWORD=hunter2")
	n.start()
	if got := checkRoots(t, n); got != pair.Public {
		t.Errorf("public_key: got %s, want %s", got, pair.Public)
	}
	if _, err := os.Stat(n.file(".bigchaindb")); err == nil {
		t.Error("start made a config file though the keys are in the environment")
	}
	n.mustBecomeValid(t, create(t, pair))
	for _, path := range []string{"/", "/api/v1/", "/metrics", "/healthz", "/readyz"} {
		a, err := n.do(http.MethodGet, path, nil)
		if err != nil || a.status != http.StatusOK || strings.Contains(string(a.body), pair.Private()) {
			t.Errorf("GET %s: got %v, %v, want 200 without the private key", path, a, err)
		}
	}
	n.stop()
	if got := n.wantDone(t, []string{"export-my-pubkey"}); got != pair.Public+"\n" {
		t.Errorf("export-my-pubkey: got %q, want %q", got, pair.Public+"\n")
	}
	code, stdout, stderr := n.run("show-config")
	if code != 0 || !strings.Contains(stdout, pair.Public) {
		t.Errorf("show-config: got code %d, %q", code, stdout)
	}
	for _, secret := range []string{pair.Private(), "hunter2"} {
		if strings.Contains(stdout+stderr+n.tail(1000), secret) {
			t.Errorf("show-config or the log shows the secret %q", secret)
		}
	}
}
