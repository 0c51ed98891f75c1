package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/logging"
	"github.com/couchledger/couchledger/node/ledger"
)

// user is somebody with a home folder who types commands.
type user struct {
	t       *testing.T
	home    string
	environ []string
}

// transcript is what was written somewhere; it can be read meanwhile.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func newUser(t *testing.T, environ ...string) *user {
	home := t.TempDir()
	return &user{t: t, home: home, environ: append([]string{"HOME=" + home}, environ...)}
}

// file is a path in the home folder.
func (u *user) file(name string) string { return filepath.Join(u.home, name) }

// run runs the command line, of words, with what is typed at prompts.
func (u *user) run(line, typed string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(context.Background(), strings.Fields(line), u.environ, strings.NewReader(typed), &out, &err)
	return code, out.String(), err.String()
}

// must runs a command line that is to end with the code and to have the parts
// on stderr, and returns what it wrote to stdout.
func (u *user) must(code int, line, typed string, parts ...string) (stdout string) {
	u.t.Helper()
	got, stdout, stderr := u.run(line, typed)
	if got != code {
		u.t.Errorf("%s: exit code %d, want %d; stderr %q", line, got, code, stderr)
	}
	for _, part := range parts {
		if !strings.Contains(stderr, part) {
			u.t.Errorf("%s: stderr %q does not have %q", line, stderr, part)
		}
	}
	return stdout
}

// settings reads a config file in the home folder.
func (u *user) settings(path string) configs.Settings {
	u.t.Helper()
	s, _, err := configs.Load(path, []string{"HOME=" + u.home})
	if err != nil || !s.FileExists {
		u.t.Fatalf("%s: exists %v, %v", path, s.FileExists, err)
	}
	return s
}

func (u *user) write(name, text string) string {
	u.t.Helper()
	if err := os.WriteFile(u.file(name), []byte(text), 0o600); err != nil {
		u.t.Fatal(err)
	}
	return u.file(name)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestHelpAndVersion(t *testing.T) {
	u := newUser(t)
	for _, line := range []string{"-v", "--version"} {
		if got, want := u.must(0, line, ""), "bigchaindb 0.10.0\ncouchledger "+ownVersion+"\n"; got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
	for _, line := range []string{"", "-h", "--help", "help"} {
		got := u.must(0, line, "")
		for _, part := range []string{"configure", "show-config", "export-my-pubkey", "init", "drop", "start", "--config", "--yes", "--log-level", "--dev-allow-temp-keypair"} {
			if !strings.Contains(got, part) {
				t.Errorf("%q: no %s in the help %q", line, part, got)
			}
		}
	}
	if got := u.must(0, "configure -h", ""); !strings.Contains(got, "configure BACKEND") {
		t.Errorf("configure -h: got %q", got)
	}
}

func TestUsageErrors(t *testing.T) {
	u := newUser(t)
	for line, parts := range map[string][]string{
		"bogus":                                {`"bogus"`, "bigchaindb --help"},
		"shwo-config":                          {"did you mean show-config?"},
		"--nope start":                         {"--nope"},
		"start --nope":                         {"--nope", "Usage: bigchaindb start"},
		"start now":                            {`"now"`},
		"configure":                            {"embedded, couchdb, mongodb, rethinkdb"},
		"configure a b":                        {"one backend"},
		"configure postgres":                   {`"postgres"`, "embedded, couchdb, mongodb, rethinkdb"},
		"-l LOUD show-config":                  {"--log-level", "CRITICAL", `"LOUD"`},
		"-l NOTSET show-config":                {"--log-level"},
		"show-config -c":                       {"-c"},
		"-c - show-config":                     {"--config -"},
		"start -c -":                           {"--config -"},
		"-y=maybe show-config":                 {"maybe"},
		"show-config --dev-allow-temp-keypair": {"--dev-allow-temp-keypair", "start"},
	} {
		if out := u.must(2, line, "", parts...); out != "" {
			t.Errorf("%s: stdout %q", line, out)
		}
	}
	if entries, err := os.ReadDir(u.home); err != nil || len(entries) > 0 {
		t.Errorf("usage errors left %v, %v", entries, err)
	}
}

func TestConfigureTakingDefaults(t *testing.T) {
	for _, backend := range configs.Backends {
		for _, line := range []string{"-y configure " + backend, "configure -y " + backend, "configure " + backend + " --yes-please"} {
			u := newUser(t)
			path := u.file(".bigchaindb")
			if out := u.must(0, line, "", "Generating keypair\nConfiguration written to "+path+"\nReady to go!\n"); out != "" {
				t.Errorf("%s: stdout %q", line, out)
			}
			s := u.settings(path)
			if s.Database.Backend != backend || s.KeyPair.Private == "" {
				t.Errorf("%s: got %+v", line, s)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("%s: mode %v, %v", line, info.Mode(), err)
			}
		}
	}
}

func TestConfigureWithPath(t *testing.T) {
	u := newUser(t)
	path := u.file("new.json")
	for _, line := range []string{"-y -c " + path + " configure embedded", "configure embedded --yes --config=" + path} {
		u.must(0, line, "", "Configuration written to "+path)
		first := u.settings(path)
		u.must(0, line, "", "kept as "+path+".bak")
		if kept := u.settings(path + ".bak"); kept.KeyPair != first.KeyPair {
			t.Errorf("the kept file has another key pair")
		}
		for _, name := range []string{path, path + ".bak"} {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	u.environ = append(u.environ, "BIGCHAINDB_CONFIG_PATH="+path)
	u.must(0, "-y configure embedded", "", "Configuration written to "+path)
	u.settings(path)
	u.must(1, "-y configure embedded -c "+u.file("no/such/folder"), "", "cannot be written", "no/such")
	u.environ = nil
	u.must(1, "-y configure embedded", "", "HOME", "-c")
}

func TestConfigureAsks(t *testing.T) {
	u := newUser(t)
	path := u.file(".bigchaindb")
	u.must(0, "configure mongodb", "0.0.0.0:99\nmdb\nx\n70000\n27018\nledger\n\n\n\n60\n",
		"API Server bind? (default `localhost:9984`): ",
		"Database host? (default `localhost`): ",
		"Database port? (default `27017`): database.port: expected a whole number from 1 to 65535, got \"x\"\nDatabase port?",
		"Database name? (default `bigchain`): ",
		"Database replicaset? (default `bigchain-rs`): ",
		"Stale transaction reassignment delay (in seconds)? (default `120`): ",
		"Ready to go!")
	s := u.settings(path)
	if s.Server.Bind != "0.0.0.0:99" || s.Database.Host != "mdb" || s.Database.Port != 27018 || s.Database.Name != "ledger" ||
		s.Database.ReplicaSet != "bigchain-rs" || s.BacklogReassignDelay != time.Minute {
		t.Errorf("got %+v", s)
	}

	question := "Config file `" + path + "` exists, do you want to override it?"
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, typed := range []string{"n\n", "\n", "maybe\n"} {
		u.must(0, "configure embedded", typed, question, "Nothing was written.")
	}
	u.must(1, "configure embedded", "", question, "the input ended", "-y")
	u.must(1, "configure embedded", "y\nlocalhost:1\n", question, "the input ended")
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) || exists(path+".bak") {
		t.Errorf("the file changed: %q, %v", after, err)
	}
	u.must(0, "configure embedded", "y\n\ndata\n\n\n", question, "Database path? (default `"+path+"-data`): ", "kept as "+path+".bak")
	if kept, err := os.ReadFile(path + ".bak"); err != nil || !bytes.Equal(kept, before) {
		t.Errorf("kept: %q, %v", kept, err)
	}
	work, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if s := u.settings(path); s.Database.Path != filepath.Join(work, "data") {
		t.Errorf("database.path is %s", s.Database.Path)
	}
}

func TestConfigureToStdout(t *testing.T) {
	u := newUser(t)
	for line, typed := range map[string]string{"-y -c - configure couchdb": "", "configure couchdb -c -": strings.Repeat("\n", 7)} {
		out := u.must(0, line, typed, "Generating keypair", "Ready to go!")
		var config struct {
			Database struct {
				Backend string
				Port    int
				Path    *string
			}
			Keypair struct{ Public, Private string }
		}
		if err := json.Unmarshal([]byte(out), &config); err != nil || config.Database.Backend != "couchdb" || config.Database.Port != 5984 {
			t.Errorf("%s: got %s, %v", line, out, err)
		}
		if pair, err := ledger.KeyPairFromPrivate(config.Keypair.Private); err != nil || pair.Public != config.Keypair.Public {
			t.Errorf("%s: a key pair that is none: %v", line, err)
		}
	}
	if out := u.must(0, "-y -c - configure embedded", ""); strings.Contains(out, u.home) {
		t.Errorf("the file is bound to this home: %s", out)
	}
	if exists(u.file(".bigchaindb")) || exists("-") {
		t.Error("a file was written")
	}
}

func TestShowConfigAndExport(t *testing.T) {
	u := newUser(t, "BIGCHAINDB_DATABASE_PASSWORD=hunter2", "BIGCHAINDB_NOPE=1")
	u.must(1, "export-my-pubkey", "", "public key is not set", "configure")
	u.must(0, "-y configure couchdb", "")
	s := u.settings(u.file(".bigchaindb"))
	if got := u.must(0, "export-my-pubkey", "", "warning: BIGCHAINDB_NOPE"); got != s.KeyPair.Public+"\n" {
		t.Errorf("export-my-pubkey: got %q, want %s", got, s.KeyPair.Public)
	}
	out := u.must(0, "show-config -l DEBUG", "")
	var shown map[string]map[string]any
	if err := json.Unmarshal([]byte(strings.NewReplacer(`"backlog_reassign_delay": 120,`, "", `"consensus_plugin": "majority",`, "", `"keyring": [],`, "").Replace(out)), &shown); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for path, want := range map[string]any{
		"keypair.private": configs.Mask, "keypair.public": s.KeyPair.Public, "database.password": configs.Mask,
		"database.backend": "couchdb", "log.level_console": "debug", "log.level_logfile": "info", "server.loglevel": "debug",
	} {
		section, name, _ := strings.Cut(path, ".")
		if got := shown[section][name]; got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
	if strings.Contains(out, "hunter2") || strings.Contains(out, string(s.KeyPair.Private)) {
		t.Errorf("a secret is in %s", out)
	}
}

func TestMissingAndMalformedFiles(t *testing.T) {
	u := newUser(t)
	path := u.file("none.json")
	for _, command := range []string{"show-config", "export-my-pubkey", "init", "-y drop"} {
		u.must(1, "-c "+path+" "+command, "", path+" does not exist", "bigchaindb -c "+path+" configure embedded")
	}
	bad := u.write("bad.json", `{"database": {"prot": 1}, "keyring": "x"}`)
	for _, command := range []string{"show-config", "export-my-pubkey", "init", "-y drop", "start"} {
		if out := u.must(1, command+" -c "+bad, "", "database.prot", "database.port", "keyring", bad); out != "" {
			t.Errorf("%s: stdout %q", command, out)
		}
	}
	// Images name a file that need not be there.
	u.environ = append(u.environ, "BIGCHAINDB_CONFIG_PATH="+path)
	u.must(0, "show-config", "", path, "does not exist")
	if exists(path) {
		t.Error("show-config wrote a file")
	}
}

// starts gives the settings that start would run with, and what it says.
func (u *user) starts(line string) (configs.Settings, []string, string, error) {
	u.t.Helper()
	var stderr bytes.Buffer
	a := &app{environ: u.environ, stderr: &stderr, stdout: &stderr}
	root := a.root()
	if err := root.ParseFlags(strings.Fields(line)); err != nil {
		u.t.Fatal(err)
	}
	s, warnings, err := a.startSettings()
	return s, warnings, stderr.String(), err
}

func TestStartMakesAFile(t *testing.T) {
	pair := ledger.GenerateKeyPair()
	for _, given := range []string{"home", "option", "environment"} {
		u := newUser(t)
		path, line := u.file(".bigchaindb"), ""
		switch given {
		case "option":
			path = u.file("mine.json")
			line = "-c " + path
		case "environment":
			path = u.file("mine.yaml")
			u.environ = append(u.environ, "BIGCHAINDB_CONFIG_PATH="+path)
		}
		first, warnings, said, err := u.starts(line)
		want := "No config file found: made " + path + " for the embedded backend, with a new key pair.\n"
		if err != nil || len(warnings) > 0 || said != want {
			t.Fatalf("%s: said %q, %q, %v, want %q", given, said, warnings, err, want)
		}
		if s := u.settings(path); s.KeyPair != first.KeyPair || s.Database.Path != path+"-data" || first.KeyPair.Private == "" {
			t.Errorf("%s: wrote %+v, runs with %+v", given, s, first)
		}
		again, _, said, err := u.starts(line)
		if err != nil || said != "" || again.KeyPair != first.KeyPair {
			t.Errorf("%s: the second start said %q, %v", given, said, err)
		}

		// A file without a key pair is the operator's: it is not written over.
		u.write(filepath.Base(path), "{}")
		_, _, _, err = u.starts(line)
		if err == nil || !strings.Contains(err.Error(), "configure embedded") || !strings.Contains(err.Error(), "--dev-allow-temp-keypair") || !strings.Contains(err.Error(), "BIGCHAINDB_KEYPAIR_PRIVATE") {
			t.Errorf("%s: no key pair: got %v", given, err)
		}
		// The environment's is enough.
		u.environ = append(u.environ, "BIGCHAINDB_KEYPAIR_PRIVATE="+pair.Private(), "BIGCHAINDB_KEYPAIR_PUBLIC="+pair.Public)
		if s, _, _, err := u.starts(line); err != nil || s.KeyPair.Public != pair.Public {
			t.Errorf("%s: a key pair in the environment: %v, %v", given, s.KeyPair, err)
		}
	}
}

func TestStartWithoutAFile(t *testing.T) {
	pair := ledger.GenerateKeyPair()
	keys := []string{"BIGCHAINDB_KEYPAIR_PRIVATE=" + pair.Private(), "BIGCHAINDB_KEYPAIR_PUBLIC=" + pair.Public}

	u := newUser(t, keys...)
	s, warnings, said, err := u.starts("-l ERROR")
	if err != nil || len(warnings) > 0 || said != "" || s.KeyPair.Public != pair.Public || s.Log.LevelConsole != "error" {
		t.Errorf("keys in the environment: %+v, %q, %q, %v", s, warnings, said, err)
	}
	if _, warnings, _, err = u.starts("--dev-allow-temp-keypair"); err != nil || len(warnings) != 1 {
		t.Errorf("keys in the environment and a temporary pair: %q, %v, want a warning", warnings, err)
	}

	u = newUser(t)
	s, warnings, _, err = u.starts("--dev-allow-temp-keypair")
	if err != nil || s.KeyPair.Private == "" || len(warnings) != 1 || strings.Contains(warnings[0], string(s.KeyPair.Private)) {
		t.Errorf("a temporary pair: %+v, %q, %v", s, warnings, err)
	}

	half := newUser(t, "BIGCHAINDB_KEYPAIR_PUBLIC="+pair.Public)
	for _, line := range []string{"", "--dev-allow-temp-keypair"} {
		if _, _, _, err := half.starts(line); err == nil || !strings.Contains(err.Error(), "keypair.private is not set") {
			t.Errorf("half a pair: %v", err)
		}
	}
	other := newUser(t, "BIGCHAINDB_DATABASE_BACKEND=mongodb", "BIGCHAINDB_DATABASE_SSL=true", "BIGCHAINDB_DATABASE_CA_CERT=/nowhere")
	if _, _, _, err := other.starts(""); err == nil || !strings.Contains(err.Error(), "database.ca_cert") {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, u := range []*user{u, half, other} {
		if exists(u.file(".bigchaindb")) {
			t.Errorf("%v: a file was written", u.environ)
		}
	}
}

func TestInitNeedsAKeyPair(t *testing.T) {
	newUser(t).must(1, "init", "", "this node has no key pair", "configure embedded")
}

func TestDrop(t *testing.T) {
	u := newUser(t)
	const question = "Do you want to drop `bigchain` database? [y/n]: "
	u.must(0, "-y drop", "", "Cannot drop `bigchain`: the database does not exist.")
	u.must(0, "drop", "y\n", question, "Cannot drop")
	if entries, err := os.ReadDir(u.home); err != nil || len(entries) > 0 {
		t.Errorf("drop left %v, %v", entries, err)
	}

	s, _, err := configs.Load("", u.environ)
	if err != nil {
		t.Fatal(err)
	}
	logger, _, err := logging.New(s)
	if err != nil {
		t.Fatal(err)
	}
	db, err := openDatabase(t.Context(), s, logger, nil)
	if err != nil {
		t.Fatal(err)
	}
	if created, err := db.Create(t.Context()); err != nil || !created {
		t.Fatal(created, err)
	}
	u.must(1, "-y drop", "", "in use by another process")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	u.must(0, "drop", "n\n", question, "Nothing was dropped.")
	u.must(1, "drop", "", question, "the input ended")
	u.must(0, "drop", "yes", question, "The database `bigchain` is dropped.")
	u.must(0, "drop -y", "", "Cannot drop")
}

func TestSignals(t *testing.T) {
	signals := make(chan os.Signal, 2)
	aborted := make(chan struct{})
	ctx, cancel := untilSignal(t.Context(), signals, func() { close(aborted) })
	defer cancel()
	if ctx.Err() != nil {
		t.Fatal("stopped before any signal")
	}
	signals <- os.Interrupt
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the first signal did not stop it")
	}
	select {
	case <-aborted:
		t.Fatal("the first signal aborted it")
	default:
	}
	signals <- os.Interrupt
	select {
	case <-aborted:
	case <-time.After(10 * time.Second):
		t.Fatal("the second signal did not abort it")
	}
}
