package main

import (
	"os"
	"strings"
	"testing"
)

func TestConfigureCouchDB(t *testing.T) {
	const question = "Database password? (preferably not here: leave it empty, and set BIGCHAINDB_DATABASE_PASSWORD where the node runs): "
	path := ".bigchaindb"
	ask := func(u *user, typed string, parts ...string) string {
		t.Helper()
		_, _, stderr := u.run("configure couchdb", typed)
		for _, part := range append(parts, "Ready to go!") {
			if !strings.Contains(stderr, part) {
				t.Errorf("typed %q: stderr %q does not have %q", typed, stderr, part)
			}
		}
		return stderr
	}

	u := newUser(t)
	ask(u, "\ndb1\n\nLedger\nledger\nyes\nbob\nhunter2\n\n",
		"Database host? (default `localhost`): Database port? (default `5984`): Database name? (default `bigchain`): "+
			"database.name: expected for couchdb a lower-case letter, and after it lower-case letters, digits and any of _()+-, got \"Ledger\"\n"+
			"Database name? (default `bigchain`): Database over TLS? (default `false`): Database login? (default none): "+question)
	s := u.settings(u.file(path))
	if db := s.Database; db.Host != "db1" || db.Port != 5984 || db.Name != "ledger" || !db.SSL || db.Login != "bob" || db.Password != "hunter2" {
		t.Errorf("got %#v", db)
	}

	// An empty password stays out of the file.
	u = newUser(t)
	ask(u, "\n\n\n\n\nbob\n\n\n", question)
	if s := u.settings(u.file(path)); s.Database.Login != "bob" || s.Database.Password != "" {
		t.Errorf("got %#v", s.Database)
	}

	// It is not asked for without a login, nor when the environment has it.
	u = newUser(t)
	if said := ask(u, "\n\n\n\n\n\n\n"); strings.Contains(said, "password") {
		t.Errorf("a password without a login: %q", said)
	}
	u = newUser(t, "BIGCHAINDB_DATABASE_PASSWORD=hunter2")
	said := ask(u, "\n\n\n\n\nbob\n\n", "BIGCHAINDB_DATABASE_PASSWORD is not written to the file")
	text, err := os.ReadFile(u.file(path))
	if err != nil || strings.Contains(said, "Database password?") || strings.Contains(string(text), "hunter2") {
		t.Errorf("the environment's password: %q, %s, %v", said, text, err)
	}
}

// What the other servers are asked for, in this order.
func TestConfigureMongoDBAndRethinkDB(t *testing.T) {
	const password = "Database password? (preferably not here: leave it empty, and set BIGCHAINDB_DATABASE_PASSWORD where the node runs): "
	for backend, c := range map[string]struct{ port, wrongName, replicaSet string }{
		"mongodb":   {"27017", "admin", "Database replicaset? (default `bigchain-rs`): "},
		"rethinkdb": {"28015", "rethinkdb", ""},
	} {
		typed := "\ndb1\n\n" + c.wrongName + "\nLedger\n"
		if c.replicaSet != "" {
			typed += "rs1\n"
		}
		u := newUser(t)
		_, _, stderr := u.run("configure "+backend, typed+"yes\nbob\nhunter2\n\n")
		asked := "Database host? (default `localhost`): Database port? (default `" + c.port + "`): Database name? (default `bigchain`): database.name: expected for " + backend
		after := "Database name? (default `bigchain`): " + c.replicaSet + "Database over TLS? (default `false`): Database login? (default none): " + password +
			"Stale transaction reassignment delay (in seconds)? (default `120`): "
		if !strings.Contains(stderr, asked) || !strings.Contains(stderr, after) || !strings.Contains(stderr, "Ready to go!") {
			t.Errorf("%s: stderr %q", backend, stderr)
		}
		db := u.settings(u.file(".bigchaindb")).Database
		if db.Backend != backend || db.Host != "db1" || db.Name != "Ledger" || !db.SSL || db.Login != "bob" || db.Password != "hunter2" ||
			c.replicaSet != "" && db.ReplicaSet != "rs1" {
			t.Errorf("%s: got %#v", backend, db)
		}
	}
}

// A file that others can read is told of by every command that reads it.
func TestOpenFileWithAPasswordDrawsWarning(t *testing.T) {
	u := newUser(t)
	path := u.write("c.json", `{"database": {"login": "bob", "password": "hunter2"}}`)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	const warning = " holds database.password and others may read it: chmod 600 "
	u.must(0, "show-config -c "+path, "", warning)
	u.must(1, "export-my-pubkey -c "+path, "", warning)
	u.must(1, "init -c "+path, "", warning)
	u.must(0, "-y drop -c "+path, "", warning)
	u.must(1, "indexes list -c "+path, "", warning)
	u.environ = append(u.environ, "BIGCHAINDB_KEYPAIR_PRIVATE=5C5Cknco7YxBRP9AgB1cbUVTL4FAcooxErLygw1DeG2D")
	if _, warnings, _, err := u.starts("-c " + path); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], warning) {
		t.Errorf("start: %q, %v", warnings, err)
	}
}

func TestStartSaysWhichTLSFileIsMissing(t *testing.T) {
	u := newUser(t, "BIGCHAINDB_DATABASE_BACKEND=couchdb", "BIGCHAINDB_DATABASE_SSL=true", "BIGCHAINDB_DATABASE_CA_CERT=~/ca.pem")
	_, _, _, err := u.starts("")
	if want := "database.ca_cert: the file " + u.file("ca.pem") + " does not exist"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if exists(u.file(".bigchaindb")) {
		t.Error("a file was written")
	}
}
