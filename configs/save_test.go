package configs

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
)

var update = flag.Bool("update", false, "write the sample anew")

// sample is the commented config file of the embedded backend, from the table.
func sample() []byte {
	var out bytes.Buffer
	out.WriteString(`# A config file for the embedded backend: every setting that it has, at its
# default. Save it as $HOME/.bigchaindb.yaml, say, and start the node with
#   bigchaindb -c $HOME/.bigchaindb.yaml start
# A value in the environment, under the name given with each setting, goes
# before the file's; null, or leaving a setting out, gives the default.
# Paths may begin with ~; relative ones are relative to this file.
`)
	s := Settings{Database: Database{Backend: Embedded}}
	for _, row := range table {
		row.byDefault(&s)
	}
	var current []string // the sections that are open
	for _, row := range table {
		if !row.of(Embedded) {
			continue
		}
		sections := strings.Split(row.path, ".")
		name := sections[len(sections)-1]
		sections = sections[:len(sections)-1]
		out.WriteByte('\n')
		for i, section := range sections {
			if i >= len(current) || current[i] != section {
				fmt.Fprintf(&out, "%s%s:\n", strings.Repeat("  ", i), section)
				current = nil
			}
		}
		current = sections
		indent := strings.Repeat("  ", len(sections))
		fmt.Fprintf(&out, "%s# %s\n", indent, row.doc)
		if row.fallback != "" {
			fmt.Fprintf(&out, "%s# Default: %s.\n", indent, row.fallback)
		}
		fmt.Fprintf(&out, "%s# %s\n%s%s: %s\n", indent, row.env(), indent, name, row.value(&s).Bytes())
	}
	return out.Bytes()
}

func TestSampleIsTheDefaults(t *testing.T) {
	const name = "sample.yaml"
	if *update {
		if err := os.WriteFile(name, sample(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, sample()) {
		t.Errorf("%s is not what the table says; go test ./configs -update writes it anew", name)
	}
	got, warnings, err := Load(name, home(t))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want, _, err := Load(filepath.Join(t.TempDir(), name), home(t))
	if err != nil {
		t.Fatal(err)
	}
	// Only where the file is differs.
	got.File, got.FileExists, want.File = "", false, ""
	got.Database.Path, got.State.Path = want.Database.Path, want.State.Path
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	tree, err := decode(committed, formatYAML)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table {
		value, ok := tree, true
		for key := range strings.SplitSeq(row.path, ".") {
			if ok {
				value, ok = value.Get(key)
			}
		}
		if ok != row.of(Embedded) {
			t.Errorf("the sample has %s: %v, want %v", row.path, ok, row.of(Embedded))
		}
	}
}

// fresh is a config file's settings with nothing at its default that the
// backend has a use for.
func fresh(t *testing.T, backend, path string) Settings {
	t.Helper()
	s, _, err := New(backend, path, home(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range settingCases {
		row := byPath[c.path]
		if c.path == "database.backend" || row.located || !row.of(backend) {
			continue
		}
		value, err := canonical.Parse([]byte(c.inFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := row.set(&s, value, origin{}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestSaveAndLoad(t *testing.T) {
	for _, backend := range Backends {
		for _, name := range []string{".bigchaindb", "c.json", "c.yaml", "c.toml"} {
			path := filepath.Join(t.TempDir(), name)
			want := fresh(t, backend, path)
			if backup, err := want.Save(path, false); err != nil || backup != "" {
				t.Fatalf("Save: %q, %v", backup, err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("%s: mode %v, %v, want 0600", name, info.Mode(), err)
			}
			got, warnings, err := Load(path, home(t))
			if err != nil || len(warnings) > 0 {
				t.Fatalf("%s of %s: %v %q", name, backend, err, warnings)
			}
			want.FileExists = true
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s of %s: got %+v\nwant %+v", name, backend, got, want)
			}
			// Moved with its folder, the file takes its data along.
			moved := filepath.Join(t.TempDir(), name)
			if err := os.Rename(path, moved); err != nil {
				t.Fatal(err)
			}
			got, _, err = Load(moved, home(t))
			if err != nil || got.State.Path != moved+"-state" || got.Database.Path != moved+"-data" {
				t.Errorf("moved: %s, %s, %v", got.State.Path, got.Database.Path, err)
			}
		}
	}
}

func TestSaveKeepsFoldersThatWereGiven(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	s, _, err := New(Embedded, path, home(t, "BIGCHAINDB_DATABASE_PATH=/d", "BIGCHAINDB_STATE_PATH=/s"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Save(path, false); err != nil {
		t.Fatal(err)
	}
	got, _, err := Load(path, home(t))
	if err != nil || got.Database.Path != "/d" || got.State.Path != "/s" {
		t.Errorf("got %s, %s, %v", got.Database.Path, got.State.Path, err)
	}
}

func TestSaveLosesNoFile(t *testing.T) {
	path := writeConfig(t, "c", "first")
	s := fresh(t, Embedded, path)
	if _, err := s.Save(path, false); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("Save over a file: %v, want fs.ErrExist", err)
	}
	must := func(name, want string) {
		t.Helper()
		got, err := os.ReadFile(name)
		if err != nil || string(got) != want {
			t.Errorf("%s: %.40q, %v, want %.40q", name, got, err, want)
		}
	}
	must(path, "first")
	for _, next := range []string{"second", "third"} {
		if backup, err := s.Save(path, true); err != nil || backup != path+".bak" {
			t.Fatalf("Save: %q, %v", backup, err)
		}
		if err := os.WriteFile(path, []byte(next), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Save(path, true); err != nil {
		t.Fatal(err)
	}
	must(path+".bak", "third")
	must(path+".bak.2", "second")
	must(path+".bak.1", "first")
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.tmp")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestSaveThroughALink(t *testing.T) {
	path := writeConfig(t, "real", "first")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Skip(err)
	}
	if _, err := fresh(t, Embedded, link).Save(link, true); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	if got, err := os.ReadFile(path + ".bak"); err != nil || string(got) != "first" {
		t.Errorf("the backup: %q, %v", got, err)
	}
}

func TestSaveFails(t *testing.T) {
	s := fresh(t, Embedded, "/c")
	_, err := s.Save(filepath.Join(t.TempDir(), "missing", "c"), false)
	mustName(t, "no such folder", err, "cannot be written", "missing")
	_, err = s.Save(t.TempDir(), true)
	mustName(t, "a folder", err, "config file")
}

// A file that configure writes takes from the environment what is not secret.
func TestNew(t *testing.T) {
	s, warnings, err := New(MongoDB, "/c", home(t, "BIGCHAINDB_DATABASE_HOST=mdb", "BIGCHAINDB_DATABASE_BACKEND=couchdb",
		"BIGCHAINDB_DATABASE_PASSWORD=hunter2", "BIGCHAINDB_KEYPAIR_PRIVATE="+privateKey, "BIGCHAINDB_KEYPAIR_PUBLIC="+publicKey))
	if err != nil {
		t.Fatal(err)
	}
	if s.Database.Backend != MongoDB || s.Database.Port != 27017 || s.Database.Host != "mdb" || s.Database.Password != "" || s.KeyPair != (KeyPair{}) {
		t.Errorf("got %#v", s)
	}
	all := strings.Join(warnings, "\n")
	for _, part := range []string{"BIGCHAINDB_DATABASE_BACKEND=couchdb", "BIGCHAINDB_DATABASE_PASSWORD", "BIGCHAINDB_KEYPAIR_PRIVATE", "BIGCHAINDB_KEYPAIR_PUBLIC"} {
		if !strings.Contains(all, part) {
			t.Errorf("no warning of %s in %q", part, warnings)
		}
	}
	if len(warnings) != 4 || strings.Contains(all, "hunter2") {
		t.Errorf("warnings %q", warnings)
	}
	_, _, err = New(MongoDB, "/c", home(t, "BIGCHAINDB_DATABASE_PORT=x"))
	mustName(t, "New", err, "BIGCHAINDB_DATABASE_PORT")
}

func TestSet(t *testing.T) {
	s := fresh(t, CouchDB, "/c")
	if err := s.Set("database.port", "99", nil); err != nil || s.Database.Port != 99 {
		t.Errorf("got %d, %v", s.Database.Port, err)
	}
	if err := s.Set("database.port", "", nil); err != nil || s.Database.Port != 99 {
		t.Errorf("empty: got %d, %v", s.Database.Port, err)
	}
	mustName(t, "Set", s.Set("database.port", "x", nil), "a whole number", `"x"`)
	mustName(t, "Set", s.Set("database.prot", "1", nil), "database.port")
}

func TestPrompts(t *testing.T) {
	for backend, want := range map[string]string{
		Embedded: "server.bind=localhost:9984 database.path=/h/.bigchaindb-data database.name=bigchain backlog_reassign_delay=120",
		RethinkDB: "server.bind=localhost:9984 database.host=localhost database.port=28015 database.name=bigchain database.ssl=false " +
			"database.login= database.password= backlog_reassign_delay=120",
		CouchDB: "server.bind=localhost:9984 database.host=localhost database.port=5984 database.name=bigchain database.ssl=false " +
			"database.login= database.password= backlog_reassign_delay=120",
		MongoDB: "server.bind=localhost:9984 database.host=localhost database.port=27017 database.name=bigchain database.replicaset=bigchain-rs " +
			"database.ssl=false database.login= database.password= backlog_reassign_delay=120",
	} {
		s, _, err := New(backend, "", []string{"HOME=/h"})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range s.Prompts(nil) {
			if p.Secret != (p.Path == "database.password") {
				t.Errorf("%s: secret is %v", p.Path, p.Secret)
			}
			got = append(got, p.Path+"="+p.Default)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s asks for %s, want %s", backend, got, want)
		}
	}
}

// A secret that the environment has is not asked for: it would go before the
// answer.
func TestPromptsLeaveOutSecretsOfTheEnvironment(t *testing.T) {
	environ := []string{"HOME=/h", "BIGCHAINDB_DATABASE_PASSWORD=hunter2", "BIGCHAINDB_DATABASE_LOGIN=bob"}
	s, _, err := New(CouchDB, "", environ)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Prompts(environ) {
		if p.Path == "database.password" {
			t.Error("database.password is asked for")
		}
		if p.Path == "database.login" && p.Default != "bob" {
			t.Errorf("database.login has the default %q", p.Default)
		}
	}
}
