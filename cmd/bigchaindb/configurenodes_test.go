package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/ledger"
)

// Each of the nodes has keys of its own and exactly the others' in its keyring;
// they share a database and nothing else.
func TestConfigureNodes(t *testing.T) {
	u := newUser(t, "BIGCHAINDB_DATABASE_NAME=shared", "BIGCHAINDB_CONSENSUS_PLUGIN=two-thirds")
	folder := u.file("confiles")
	u.must(0, "configure --nodes 4 "+folder, "", "bcdb_conf3", "localhost:9987", "Ready to go!")
	var keys []string
	var all []configs.Settings
	for i := range 4 {
		s := u.settings(filepath.Join(folder, "bcdb_conf"+string(rune('0'+i))))
		pair, err := ledger.KeyPairFromPrivate(string(s.KeyPair.Private))
		if err != nil || pair.Public != s.KeyPair.Public {
			t.Fatalf("node %d: key pair %v, %v", i, s.KeyPair, err)
		}
		keys, all = append(keys, s.KeyPair.Public), append(all, s)
	}
	for i, s := range all {
		if want := slices.Concat(keys[:i], keys[i+1:]); !slices.Equal(s.Keyring, want) {
			t.Errorf("node %d: keyring %v, want %v", i, s.Keyring, want)
		}
		if want := "localhost:" + []string{"9984", "9985", "9986", "9987"}[i]; s.Server.Bind != want {
			t.Errorf("node %d: server.bind %s, want %s", i, s.Server.Bind, want)
		}
		if s.Database.Backend != configs.CouchDB || s.Database.Name != "shared" || s.ConsensusPlugin != "two-thirds" {
			t.Errorf("node %d: %+v", i, s)
		}
		if i > 0 && s.State.Path == all[0].State.Path {
			t.Errorf("node %d: state.path %s is the first one's, too", i, s.State.Path)
		}
	}

	// What is there is asked for, and kept.
	u.must(0, "configure --nodes 2 "+folder, "n\n", "2 of the config files exist", "Nothing was written.")
	if got := u.settings(filepath.Join(folder, "bcdb_conf0")); got.KeyPair.Public != keys[0] {
		t.Error("a refused configure wrote a file")
	}
	u.must(0, "-y configure --nodes 2 rethinkdb "+folder, "")
	if got := u.settings(filepath.Join(folder, "bcdb_conf0")); got.KeyPair.Public == keys[0] || got.Database.Backend != configs.RethinkDB || len(got.Keyring) != 1 {
		t.Errorf("written anew: %+v", got)
	}
	old, err := os.ReadFile(filepath.Join(folder, "bcdb_conf0.bak"))
	if err != nil || !strings.Contains(string(old), keys[0]) {
		t.Errorf("what was there is not kept: %v", err)
	}
}

func TestConfigureNodesWrongly(t *testing.T) {
	u := newUser(t)
	for line, part := range map[string]string{
		"configure --nodes 4":                         "takes the folder",
		"configure --nodes 0 " + u.file("a"):          "from 1 to 100, got 0",
		"configure --nodes 101 " + u.file("a"):        "from 1 to 100, got 101",
		"configure --nodes many " + u.file("a"):       `"many"`,
		"configure --nodes 3 embedded " + u.file("a"): "cannot share the embedded database",
		"configure --nodes 3 oracle " + u.file("a"):   `no backend "oracle"`,
		"-c x configure --nodes 3 " + u.file("a"):     "leave -c out",
		"configure a b":                               "takes one backend",
	} {
		u.must(2, line, "", part)
	}
	u = newUser(t, "BIGCHAINDB_SERVER_BIND=localhost:80")
	u.must(1, "configure --nodes 3 "+u.file("a"), "", "BIGCHAINDB_SERVER_BIND is in the environment")
	u = newUser(t)
	u.write("plain", "")
	u.must(1, "configure --nodes 3 "+u.file("plain"), "", "plain")
	if exists(u.file("a")) {
		t.Error("a refused configure made a folder")
	}
}

// A node with other rules than its ledger's says so and ends.
func TestStartWithOtherRules(t *testing.T) {
	u := newUser(t)
	u.must(0, "-y configure embedded", "")
	u.must(0, "init", "")
	u.environ = append(u.environ, "BIGCHAINDB_CONSENSUS_PLUGIN=two-thirds")
	for _, command := range []string{"init", "start"} {
		u.must(1, command, "", `decides by the rules "majority"`, `Set consensus_plugin to "majority"`)
	}
	u.must(0, "verify", "") // takes the ledger's
}
