package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
)

// witness gathers all that a node and its commands let others see.
type witness struct {
	t       *testing.T
	secrets map[string]string // by what each is
	seen    int
}

// sees looks for secrets in a text.
func (w *witness) sees(where, text string) {
	w.t.Helper()
	w.seen += len(text)
	for what, secret := range w.secrets {
		if strings.Contains(text, secret) {
			w.t.Errorf("%s shows %s: %.300s", where, what, text)
		}
	}
}

// TestSecrets runs a node with a secret in every setting that takes one, at the
// lowest log level, provokes faults of all kinds, and looks for the secrets in
// all that comes out: answers, metrics, the log, what commands print, the
// process list, and the dump of a crash.
func TestSecrets(t *testing.T) {
	couch := couchtest.Start(t)
	pair := ledger.GenerateKeyPair()
	n, certFile := newTLSNode(t)
	maker := newCouchNode(t, couch.Address)
	n.environ = append(n.environ, maker.environ...)
	n.backend = maker.backend

	w := &witness{t: t, secrets: map[string]string{
		"the private key": pair.Private(), "the database's password": couch.Address.Password,
		"the database key's passphrase": "passphrase-of-the-database", "the server key's passphrase": "passphrase-of-the-server",
	}}
	token, said := n.newToken(t, "alice", "post")
	other, _ := n.newToken(t, "bob", "query")
	w.secrets["a token"], w.secrets["another token"] = token, other
	_, entry, _ := strings.Cut(said, "BIGCHAINDB_SERVER_TOKENS=")
	alice := strings.TrimSpace(entry)
	_, said = n.newToken(t, "carol", "all")
	_, entry, _ = strings.Cut(said, "BIGCHAINDB_SERVER_TOKENS=")
	n.environ = append(n.environ, "BIGCHAINDB_SERVER_TOKENS="+alice+":"+strings.TrimSpace(entry), "BIGCHAINDB_SERVER_ANONYMOUS=query",
		"BIGCHAINDB_KEYPAIR_PRIVATE="+pair.Private(), "BIGCHAINDB_DATABASE_KEYFILE_PASSPHRASE=passphrase-of-the-database",
		"BIGCHAINDB_SERVER_TLS_KEYFILE_PASSPHRASE=passphrase-of-the-server", "BIGCHAINDB_API_TOKEN="+token,
		"BIGCHAINDB_LOG_LEVEL_CONSOLE=notset", "BIGCHAINDB_SERVER_LOGLEVEL=notset", "BIGCHAINDB_LOG_FILE="+n.file("file.log"), "BIGCHAINDB_LOG_LEVEL_LOGFILE=notset")

	p := n.start()
	ask := func(method, path, authorization string, body []byte) answer {
		a, err := n.sendWith(method, path, body, http.Header{"Authorization": {authorization}})
		if err != nil {
			t.Fatal(err)
		}
		w.sees(method+" "+path, fmt.Sprint(a.status, a.header, string(a.body)))
		return a
	}
	tx := create(t, pair)
	for authorization, want := range map[string]int{"": 401, "Bearer " + other: 401, "Basic " + token: 401, "Bearer " + token: 202} {
		if a := ask(http.MethodPost, transactionsPath, authorization, tx.Bytes()); a.status != want {
			t.Errorf("POST with %.6s…: got %v, want %d", authorization, a, want)
		}
	}
	n.awaitValid(t, tx.ID)
	everything := func() {
		for _, path := range []string{"/", "/api/v1", "/metrics", "/healthz", "/readyz", "/debug/pprof/", "/api/v1/openapi.json", transactionsPath + tx.ID,
			"/api/v1/outputs?public_key=" + pair.Public, "/api/v1/blocks?tx_id=" + tx.ID, "/api/v1/votes?block_id=" + tx.ID, "/api/v1/votes?token=x&block_id=" + tx.ID, "/nothing"} {
			ask(http.MethodGet, path, "Bearer "+token, nil)
		}
		for _, body := range []string{"", "{}", `{"table":"votes","selector":{"$regex":1}}`, `{"table":"transactions","selector":{},"sort":["x"]}`, `{"table":"transactions","selector":{}}`} {
			ask(http.MethodPost, "/api/v1/query", "Bearer "+token, []byte(body))
			ask(http.MethodPost, transactionsPath, "Bearer "+token, []byte(body))
		}
		ask(http.MethodPost, transactionsPath, "Bearer "+token, create(t, pair).Bytes())
	}
	everything()
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid)); err == nil {
		w.sees("the process list", string(cmdline))
	}
	runs := func(want int, args ...string) {
		t.Helper()
		code, stdout, stderr := n.run(args...)
		w.sees(strings.Join(args, " "), stdout+stderr)
		if code != want {
			t.Errorf("%s: got code %d, want %d: %s", args, code, want, stderr)
		}
	}
	runs(0, "show-config")
	runs(0, "verify", "--url", "https://"+n.addr, "--ca-cert", certFile)
	runs(2, "verify", "--url", "https://"+n.addr) // whose certificate the system does not know
	runs(2, "verify", "--url", "https://user:"+token+"@"+n.addr)
	runs(0, "-y", "-c", n.file("copy"), "configure", "couchdb")
	w.sees("the written file", strings.ReplaceAll(readFile(t, n.file("copy")), pair.Private(), ""))

	// The database goes. Addresses are nobody's business either.
	w.secrets["the database's address"] = fmt.Sprintf("%s:%d", couch.Address.Host, couch.Address.Port)
	log := func() string { return n.tail(1 << 30) }
	couch.Kill()
	eventually(t, "the node sees that its database is gone", func() (bool, string) {
		a := ask(http.MethodGet, "/readyz", "", nil)
		return a.status == http.StatusServiceUnavailable, a.String()
	})
	everything()
	delete(w.secrets, "the database's address") // of which logs and commands may tell

	wrong := n.environ
	for _, set := range []string{"BIGCHAINDB_DATABASE_PASSWORD=wrong-" + couch.Address.Password, "BIGCHAINDB_DATABASE_HOST=u:" + couch.Address.Password + "@h",
		"BIGCHAINDB_SERVER_TOKENS=dave=all=" + token, "BIGCHAINDB_KEYPAIR_PRIVATE=x" + pair.Private()} {
		n.environ = append(wrong[:len(wrong):len(wrong)], set, "BIGCHAINDB_DATABASE_MAX_TRIES=1")
		runs(1, "init")
	}
	n.environ = wrong
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	n.wait(p, patience)
	w.sees("the log", log())
	w.sees("the log's file", readFile(t, n.file("file.log")))
	if text := log(); !strings.Contains(text, "goroutine ") || !strings.Contains(text, "request_id=") || !strings.Contains(text, "token=alice") {
		t.Error("the log has no dump, or does not tell of requests")
	}
	t.Logf("looked through %d bytes", w.seen)
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// newToken makes a token, and gives it and what the command said beside it.
func (n *node) newToken(t testing.TB, name, may string) (token, said string) {
	t.Helper()
	code, stdout, stderr := n.run("token", name, "--may", may)
	if code != 0 || !strings.HasPrefix(stdout, "clt_") || strings.Contains(stderr, strings.TrimSpace(stdout)) {
		t.Fatalf("token: got code %d, %q", code, stderr)
	}
	return strings.TrimSpace(stdout), stderr
}
