package configs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFilePath(t *testing.T) {
	for _, c := range []struct {
		path    string
		environ []string
		want    string
		chosen  bool
	}{
		{"/c.json", []string{"HOME=/h", "BIGCHAINDB_CONFIG_PATH=/e"}, "/c.json", true},
		{"", []string{"HOME=/h", "BIGCHAINDB_CONFIG_PATH=/e"}, "/e", true},
		{"", []string{"HOME=/h", "BIGCHAINDB_CONFIG_PATH=~/e"}, "/h/e", true},
		{"", []string{"HOME=/h", "BIGCHAINDB_CONFIG_PATH="}, "/h/.bigchaindb", false},
		{"", []string{"HOME=/h"}, "/h/.bigchaindb", false},
		{"", nil, "", false},
	} {
		if got, chosen := FilePath(c.path, c.environ); got != c.want || chosen != c.chosen {
			t.Errorf("FilePath(%q, %q) = %q, %v, want %q, %v", c.path, c.environ, got, chosen, c.want, c.chosen)
		}
	}
}

// defaultLimits are those of server.limits.
var defaultLimits = Limits{
	HeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	BodyBytes: 4_000_000, HeaderBytes: 32 << 10,
}

func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		backend     string
		port, tries int
		path        string
	}{
		{Embedded, 0, 3, "/h/.bigchaindb-data"},
		{CouchDB, 5984, 10, "/h/.bigchaindb-data"},
		{MongoDB, 27017, 3, "/h/.bigchaindb-data"},
		{RethinkDB, 28015, 3, "/h/.bigchaindb-data"},
	} {
		s, warnings, err := Load("", []string{"HOME=/h", "BIGCHAINDB_DATABASE_BACKEND=" + c.backend})
		if err != nil || len(warnings) > 0 {
			t.Fatal(err, warnings)
		}
		want := Settings{
			Database: Database{
				Backend: c.backend, Host: "localhost", Port: c.port, Name: "bigchain", Path: c.path,
				ReplicaSet: "bigchain-rs", ConnectionTimeout: 5 * time.Second, MaxTries: c.tries,
				MaxRetries: 3, RequestTimeout: 35 * time.Second, InternalQueryLimit: 1000,
				TotalQueryLimit: 10000, AllowScans: true, MaxBatchUpdateSize: 1000,
			},
			State:                State{"/h/.bigchaindb-state"},
			Server:               Server{Bind: "localhost:9984", LogLevel: "info", Limits: defaultLimits},
			BacklogReassignDelay: 2 * time.Minute,
			ConsensusPlugin:      "majority",
			Log: Log{
				LevelConsole: "info", LevelLogfile: "info",
				DatefmtConsole: "%Y-%m-%d %H:%M:%S", DatefmtLogfile: "%Y-%m-%d %H:%M:%S",
				FmtConsole: DefaultFmt, FmtLogfile: DefaultFmt,
			},
			File: "/h/.bigchaindb",
		}
		if !reflect.DeepEqual(s, want) {
			t.Errorf("defaults of %s: got %+v\nwant %+v", c.backend, s, want)
		}
	}
}

// Two config files in one folder must not share their data.
func TestFoldersBesideTheFile(t *testing.T) {
	folder := t.TempDir()
	seen := map[string]string{}
	for _, name := range []string{"node", "node.json", "node.yaml", "other.json"} {
		s, _, err := Load(filepath.Join(folder, name), home(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{s.Database.Path, s.State.Path} {
			if other := seen[path]; other != "" || filepath.Dir(path) != folder {
				t.Errorf("%s puts its data into %s, beside %s", name, path, other)
			}
			seen[path] = name
		}
	}
	_, _, err := Load("", nil)
	mustName(t, "no HOME", err, "database.path", "state.path", "BIGCHAINDB_STATE_PATH", "HOME")
	_, _, err = Load("", []string{"BIGCHAINDB_STATE_PATH=/s", "BIGCHAINDB_DATABASE_PATH=/d"})
	if err != nil {
		t.Errorf("no HOME, folders given: %v", err)
	}
	for _, path := range []string{"/d", "/d/s", "/"} {
		_, _, err = Load("", []string{"BIGCHAINDB_STATE_PATH=" + path, "BIGCHAINDB_DATABASE_PATH=/d"})
		mustName(t, "state in "+path, err, "state.path", "apart from database.path")
	}
}

func TestRelativePaths(t *testing.T) {
	path := writeConfig(t, "c", `{"database": {"path": "data"}, "log": {"file": "~/node.log"}}`)
	s, _, err := Load(path, []string{"HOME=/h", "BIGCHAINDB_STATE_PATH=state"})
	if err != nil {
		t.Fatal(err)
	}
	work, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want string }{
		{s.Database.Path, filepath.Join(filepath.Dir(path), "data")},
		{s.State.Path, filepath.Join(work, "state")},
		{s.Log.File, "/h/node.log"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

func TestFilesOfBigchainDB(t *testing.T) {
	wsserver := "wsserver.* is ignored: WebSocket streams are on server.bind"
	for _, c := range []struct {
		name     string
		backend  string
		warnings []string
		want     func(*Settings) // changes to the rethinkdb file's settings
	}{
		{"bigchaindb-0.10-rethinkdb.json", RethinkDB, []string{wsserver}, func(*Settings) {}},
		{"bigchaindb-0.10-mongodb.json", MongoDB, []string{"log.port is ignored: the node logs from one process", wsserver}, func(s *Settings) {
			s.Server = Server{Bind: "0.0.0.0:9984", LogLevel: "info", Workers: 5, Threads: 5, Limits: defaultLimits}
			s.Database.Host = "mdb-svc"
			s.Database.Port = 27017
			s.Keyring = []string{otherKey, thirdKey}
			s.BacklogReassignDelay = 30 * time.Second
			s.Log = Log{
				File: "/var/log/bigchaindb.log", ErrorFile: "/var/log/bigchaindb-errors.log",
				LevelConsole: "info", LevelLogfile: "debug", DatefmtConsole: "%x %X %Z", DatefmtLogfile: "%c %z",
				FmtConsole:     "%(asctime)s [%(levelname)s] (%(name)s) %(message)s",
				FmtLogfile:     "%(asctime)s [%(levelname)s] %(message)s %(process)d",
				GranularLevels: map[string]string{"bichaindb.backend": "info", "bichaindb.core": "debug"},
			}
		}},
		{"bigchaindb-0.5.json", RethinkDB, []string{
			"api_endpoint is ignored: links are made from each request's own address",
			"server.timeout is ignored: it was Gunicorn's",
			"statsd.* and graphite.* are ignored: the node does not report to them",
		}, func(s *Settings) {
			s.ConsensusPlugin = "default"
			s.Log.File, s.Log.ErrorFile = "", ""
		}},
	} {
		path, err := filepath.Abs(filepath.Join("testdata", c.name))
		if err != nil {
			t.Fatal(err)
		}
		s, warnings, err := Load(path, home(t, "BIGCHAINDB_DATABASE_BACKEND="+c.backend))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		warnings = slices.DeleteFunc(warnings, func(line string) bool { return strings.Contains(line, "chmod 600") })
		slices.Sort(warnings)
		if !slices.Equal(warnings, c.warnings) {
			t.Errorf("%s: warnings %q, want %q", c.name, warnings, c.warnings)
		}
		want := Settings{
			KeyPair: KeyPair{publicKey, privateKey},
			Database: Database{
				Backend: c.backend, Host: "localhost", Port: 28015, Name: "bigchain", Path: path + "-data",
				ReplicaSet: "bigchain-rs", ConnectionTimeout: 5 * time.Second, MaxTries: 3,
				MaxRetries: 3, RequestTimeout: 35 * time.Second, InternalQueryLimit: 1000,
				TotalQueryLimit: 10000, AllowScans: true, MaxBatchUpdateSize: 1000,
			},
			State:                State{path + "-state"},
			Server:               Server{Bind: "localhost:9984", LogLevel: "info", Limits: defaultLimits},
			BacklogReassignDelay: 2 * time.Minute,
			ConsensusPlugin:      "majority",
			Log: Log{
				File: "/home/alice/bigchaindb.log", ErrorFile: "/home/alice/bigchaindb-errors.log",
				LevelConsole: "info", LevelLogfile: "info", DatefmtConsole: DefaultDatefmt, DatefmtLogfile: DefaultDatefmt,
				FmtConsole: DefaultFmt, FmtLogfile: DefaultFmt,
			},
			File: path, FileExists: true,
		}
		c.want(&want)
		if !reflect.DeepEqual(s, want) {
			t.Errorf("%s: got %+v\nwant %+v", c.name, s, want)
		}
	}
}

// Retired settings are accepted from the environment as from a file, and the
// documents' example with log.level_file, which was never read, too.
func TestRetiredSettings(t *testing.T) {
	s, warnings, err := load(t, "c", `{"log": {"level_file": "debug"}, "wsserver": null, "CONFIGURED": true}`,
		"BIGCHAINDB_WSSERVER_HOST=localhost", "BIGCHAINDB_WSSERVER_PORT=9985", "BIGCHAINDB_API_ENDPOINT=http://x")
	if err != nil || len(warnings) != 3 || s.Log.LevelLogfile != "info" {
		t.Errorf("got %q, %v, want three warnings", warnings, err)
	}
}

func TestUnknownKeys(t *testing.T) {
	for _, c := range []struct {
		text  string
		parts []string
	}{
		{`{"databse": {"host": "x"}}`, []string{"databse (in ", "did you mean database?"}},
		{`{"database": {"hots": "x"}}`, []string{"database.hots (in ", "did you mean database.host?"}},
		{`{"Database": {"host": "x"}}`, []string{"Database (in ", "did you mean database?"}},
		{`{"database": {"KEY": 1}, "zzzzzzzz": 2}`, []string{"database.KEY (in ", "zzzzzzzz (in ", "there is no such setting"}},
		{`{"wsserver": {"nope": 1}}`, []string{"wsserver.nope"}},
		{`{"database": {"port": {"number": 1}}}`, []string{"database.port", "got an object"}},
		{`{"database": 5}`, []string{"database (in ", "a section"}},
		{`{"keyring": {"a": "b"}}`, []string{"keyring"}},
		{`{"": 1}`, []string{"there is no such setting"}},
		{`{"` + strings.Repeat("x", 5000) + `": 1}`, []string{"there is no such setting"}},
	} {
		_, _, err := load(t, "c", c.text)
		if err == nil {
			t.Errorf("%.100s: no error", c.text)
			continue
		}
		for _, part := range c.parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%.100s: error %q does not have %q", c.text, err, part)
			}
		}
	}
}

func TestMalformedFiles(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 100000)
	for _, c := range []struct {
		name, text string
		parts      []string
	}{
		{"c", " ", []string{"invalid JSON in line 1"}},
		{"c", "{\n  \"keyring\": []\n  \"server\": {}\n}", []string{"invalid JSON in line 3, column 3"}},
		{"c", `{"keyring": [], "keyring": []}`, []string{"line 1", "keyring"}},
		{"c", `{"keyring": [`, []string{"invalid JSON"}},
		{"c", `[]`, []string{"expected an object", "array"}},
		{"c", `null`, []string{"expected an object"}},
		{"c", "{\"keyring\": \"\xff\"}", []string{"UTF-8"}},
		{"c", deep, []string{"invalid JSON"}},
		{"c", "{" + strings.Repeat(" ", maxFileBytes) + "}", []string{"longer than"}},
		{"c.yaml", "keyring: []\nkeyring: []\n", []string{"invalid YAML", "line 2", "is there already"}},
		{"c.yaml", "server: [\n", []string{"invalid YAML"}},
		{"c.yml", "a\n", []string{"expected an object", "string"}},
		{"c.yaml", "keyring: []\n---\nkeyring: []\n", []string{"one document"}},
		{"c.yaml", "database: {name: 2001-01-01}\n", []string{"database.name", "in quotes"}},
		{"c.yaml", "database: {1: x}\n", []string{"the name of a setting"}},
		{"c.yaml", "log: &a {file: /l}\nstate: *a\n", []string{"line 2", "aliases"}},
		{"c.yaml", "log:\n  <<: {file: /l}\n", []string{"the name of a setting"}},
		{"c.yaml", "{" + strings.Repeat("a,", maxFileBytes/4) + "}", []string{"is there already"}},
		{"c.yaml", "backlog_reassign_delay: .nan\n", []string{"backlog_reassign_delay"}},
		{"c.yaml", strings.Repeat("{a: ", 50) + strings.Repeat("}", 50), []string{"stand in each other"}},
		{"c.toml", "keyring = []\nkeyring = []\n", []string{"invalid TOML"}},
		{"c.toml", "keyring = \n", []string{"invalid TOML in line 1"}},
		{"c.toml", "[database]\nname = 2001-01-01\n", []string{"database.name", "in quotes"}},
	} {
		_, _, err := load(t, c.name, c.text)
		what := c.name + ": " + c.text[:min(60, len(c.text))]
		mustName(t, what, err, append(c.parts, "config file")...)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the error takes more than one line: %q", what, err)
		}
	}
	_, _, err := Load(t.TempDir(), home(t))
	mustName(t, "a folder", err, "cannot be read", "folder")
	for _, text := range []string{"# nothing is set\n", "{}\n", "null\n"} {
		if _, _, err := load(t, "c.yaml", text); err != nil {
			t.Errorf("YAML %q: %v", text, err)
		}
	}
}

// A file of something else is refused without a page of faults.
func TestFaultsAreBounded(t *testing.T) {
	var text strings.Builder
	for n := range 50000 {
		fmt.Fprintf(&text, "%q: 1,", fmt.Sprint("database_hosx", n))
	}
	_, _, err := load(t, "c", "{"+text.String()+`"x": 1}`)
	if err == nil || strings.Count(err.Error(), "\n") >= mostFaults {
		t.Errorf("got %.2000v", err)
	}
}

func TestSeveralFaultsAreAllNamed(t *testing.T) {
	_, _, err := load(t, "c", `{"server": {"bind": 1}, "keyring": 2}`, "BIGCHAINDB_DATABASE_PORT=x")
	mustName(t, "three faults", err, "server.bind", "keyring", "BIGCHAINDB_DATABASE_PORT")
}

func TestEnvironment(t *testing.T) {
	_, warnings, err := load(t, "c", "", "BIGCHAINDB_DATABASE_HOTS=x", "BIGCHAINDB_SOMETHING_ELSE=y", "OTHER=z", "BIGCHAINDB_CONFIG_PATH=/c")
	want := []string{
		"BIGCHAINDB_DATABASE_HOTS in the environment is not the name of a setting; did you mean BIGCHAINDB_DATABASE_HOST?",
		"BIGCHAINDB_SOMETHING_ELSE in the environment is not the name of a setting",
	}
	if err != nil || !slices.Equal(warnings, want) {
		t.Errorf("got %q, %v, want %q", warnings, err, want)
	}

	// BIGCHAINDB_LOG is the section, which its settings' own names go before.
	s, _, err := load(t, "c", `{"log": {"level_console": "error", "level_logfile": "error", "file": "/l"}}`,
		`BIGCHAINDB_LOG={"level_console": "debug", "level_logfile": "debug"}`, "BIGCHAINDB_LOG_LEVEL_CONSOLE=critical")
	if err != nil || s.Log.LevelConsole != "critical" || s.Log.LevelLogfile != "debug" || s.Log.File != "/l" {
		t.Errorf("got %+v, %v", s.Log, err)
	}
	_, _, err = load(t, "c", "", `BIGCHAINDB_LOG=debug`)
	mustName(t, "BIGCHAINDB_LOG", err, "BIGCHAINDB_LOG", "JSON object")
	_, _, err = load(t, "c", "", `BIGCHAINDB_LOG={"levle_console": 1}`)
	mustName(t, "BIGCHAINDB_LOG", err, "BIGCHAINDB_LOG", "log.levle_console", "log.level_console")
}

func TestOpenFileWithSecretsDrawsWarning(t *testing.T) {
	for text, held := range map[string]string{
		nested("keypair.private", `"`+privateKey+`"`):                                                                               "holds keypair.private and others",
		`{"database": {"backend": "couchdb", "login": "bob", "password": "hunter2"}}`:                                               "holds database.password and others",
		`{"keypair": {"private": "` + privateKey + `"}, "database": {"backend": "couchdb", "login": "bob", "password": "hunter2"}}`: "holds keypair.private and database.password and others",
		`{"database": {"backend": "couchdb", "login": "bob"}}`:                                                                      "",
	} {
		path := writeConfig(t, "c", text)
		for mode, open := range map[os.FileMode]bool{0o600: false, 0o640: true, 0o604: true} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			// A password from elsewhere is not the file's.
			_, warnings, err := Load(path, home(t, "BIGCHAINDB_DATABASE_PASSWORD=other", "BIGCHAINDB_DATABASE_LOGIN=bob"))
			if said := strings.Join(warnings, "\n"); err != nil || (said != "") != (open && held != "") || open && !strings.Contains(said, held) || strings.Contains(said, "hunter2") {
				t.Errorf("%s with mode %o: got %q, %v, want %q", text, mode, warnings, err, held)
			}
		}
	}
}

// FuzzLoad reads any text as a file of each format: no panic, and an error or
// settings that can be shown.
func FuzzLoad(f *testing.F) {
	for _, name := range []string{"testdata/bigchaindb-0.10-mongodb.json", "testdata/bigchaindb-0.5.json", "sample.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for i := range 3 {
			f.Add(text, uint8(i))
		}
	}
	f.Add([]byte("[log.granular_levels]\na = \"debug\"\n"), uint8(formatTOML))
	f.Add([]byte("a: &a [*a]\n<<: {b: c}\n"), uint8(formatYAML))
	f.Fuzz(func(t *testing.T, text []byte, kind uint8) {
		tree, err := decode(text, format(kind%3))
		if err != nil {
			return
		}
		l := newLoader("/c", []string{"HOME=/h"})
		l.file(tree)
		s, _, err := l.finish()
		if err != nil {
			return
		}
		again, err := decode(s.JSON(), formatJSON)
		if err != nil {
			t.Fatal(err)
		}
		l = newLoader("/c", []string{"HOME=/h"})
		l.file(again)
		same, _, err := l.finish()
		if err != nil || !bytes.Equal(same.JSON(), s.JSON()) {
			t.Fatalf("%v\ngot  %s\nwant %s", err, same.JSON(), s.JSON())
		}
	})
}
