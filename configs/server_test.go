package configs

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A file for couchdb and the environment give what the adapter needs, the
// environment before the file.
func TestCouchDBSettings(t *testing.T) {
	s, warnings, err := load(t, "c.yaml", "database: {backend: couchdb, host: db1, name: ledger_1, ssl: true, ca_cert: ca.pem, shards: 2, replicas: 1}\n",
		"BIGCHAINDB_DATABASE_HOST=db2", "BIGCHAINDB_DATABASE_LOGIN=bob", "BIGCHAINDB_DATABASE_PASSWORD=hunter2", "BIGCHAINDB_DATABASE_MAX_RETRIES=5")
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	db := s.Database
	if db.Host != "db2" || db.Port != 5984 || db.Name != "ledger_1" || !db.SSL || db.Login != "bob" || db.Password != "hunter2" ||
		filepath.Base(db.CACert) != "ca.pem" || !filepath.IsAbs(db.CACert) || db.Shards != 2 || db.Replicas != 1 || db.MaxRetries != 5 || db.MaxTries != 10 {
		t.Errorf("got %#v", db)
	}
}

func TestNamesForCouchDB(t *testing.T) {
	const expects = "for couchdb a lower-case letter"
	for _, name := range []string{"Ledger", "1ledger", "_ledger", "lédger", "led;ger"} {
		for _, backend := range []string{CouchDB, MongoDB} {
			_, _, err := Load("", home(t, "BIGCHAINDB_DATABASE_BACKEND="+backend, "BIGCHAINDB_DATABASE_NAME="+name))
			s := fresh(t, backend, "/c")
			before := s.Database.Name
			setting := s.Set("database.name", name, nil)
			if backend == MongoDB {
				if err != nil || setting != nil {
					t.Errorf("%s for mongodb: %v, %v", name, err, setting)
				}
				continue
			}
			mustName(t, name, err, "database.name (BIGCHAINDB_DATABASE_NAME)", expects, name)
			mustName(t, name, setting, expects)
			if s.Database.Name != before {
				t.Errorf("%s was taken", s.Database.Name)
			}
		}
	}
	for _, name := range []string{"a", "led_ger(1)+x-2"} {
		if _, _, err := Load("", home(t, "BIGCHAINDB_DATABASE_BACKEND=couchdb", "BIGCHAINDB_DATABASE_NAME="+name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNamesForMongoDBAndRethinkDB(t *testing.T) {
	for backend, names := range map[string]struct{ good, bad []string }{
		MongoDB:   {[]string{"Ledger", "lédger", "led-ger_1", strings.Repeat("x", 63), "admins"}, []string{"admin", "Local", "config", strings.Repeat("x", 64)}},
		RethinkDB: {[]string{"Ledger", "led-ger_1", "1"}, []string{"rethinkdb", "lédger", "led+ger", "led;ger"}},
	} {
		for _, name := range names.bad {
			_, _, err := Load("", home(t, "BIGCHAINDB_DATABASE_BACKEND="+backend, "BIGCHAINDB_DATABASE_NAME="+name))
			mustName(t, name, err, "database.name (BIGCHAINDB_DATABASE_NAME)", "expected for "+backend)
			s := fresh(t, backend, "/c")
			mustName(t, name, s.Set("database.name", name, nil), "expected for "+backend)
		}
		for _, name := range names.good {
			if _, _, err := Load("", home(t, "BIGCHAINDB_DATABASE_BACKEND="+backend, "BIGCHAINDB_DATABASE_NAME="+name)); err != nil {
				t.Errorf("%s for %s: %v", name, backend, err)
			}
		}
	}
}

func TestServerSettingsThatDoNotGoTogether(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string // in the one warning; "" for none
	}{
		{[]string{"BIGCHAINDB_DATABASE_PASSWORD=x"}, "database.login is not"},
		{[]string{"BIGCHAINDB_DATABASE_PASSWORD=x", "BIGCHAINDB_DATABASE_LOGIN=bob"}, ""},
		{[]string{"BIGCHAINDB_DATABASE_CERTFILE=/cert"}, "database.certfile is set and database.ssl is not"},
		{[]string{"BIGCHAINDB_DATABASE_CERTFILE=/cert", "BIGCHAINDB_DATABASE_SSL=true"}, ""},
		{[]string{"BIGCHAINDB_DATABASE_CA_CERT=/ca"}, ""}, // of peers
	} {
		_, warnings, err := Load("", home(t, slices.Concat(c.env, []string{"BIGCHAINDB_DATABASE_BACKEND=couchdb"})...))
		said := strings.Join(warnings, "\n")
		if err != nil || c.want == "" && said != "" || c.want != "" && (len(warnings) != 1 || !strings.Contains(said, c.want)) {
			t.Errorf("%q: got %q, %v, want %q", c.env, warnings, err, c.want)
		}
		if _, warnings, err := Load("", home(t, c.env...)); err != nil || len(warnings) > 0 {
			t.Errorf("%q with the embedded backend: %q, %v", c.env, warnings, err)
		}
	}
}

func TestCheckTLS(t *testing.T) {
	folder := t.TempDir()
	sound := filepath.Join(folder, "sound.pem")
	if err := os.WriteFile(sound, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(folder, "other")
	if err := os.WriteFile(other, []byte("not PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(folder, "missing.pem")
	for setting, field := range map[string]func(*Database) *string{
		"database.ca_cert":  func(d *Database) *string { return &d.CACert },
		"database.certfile": func(d *Database) *string { return &d.CertFile },
		"database.keyfile":  func(d *Database) *string { return &d.KeyFile },
		"database.crlfile":  func(d *Database) *string { return &d.CRLFile },
	} {
		for path, reason := range map[string]string{missing: "does not exist", folder: "cannot be read", other: "is not PEM"} {
			s := Settings{Database: Database{Backend: MongoDB, SSL: true}}
			*field(&s.Database) = path
			if setting == "database.crlfile" && path == other {
				if err := s.CheckTLS(); err != nil { // it may be DER
					t.Errorf("%s: %v", setting, err)
				}
				continue
			}
			err := s.CheckTLS()
			mustName(t, setting, err, setting+": the file "+path, reason)
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: more than one line: %v", setting, err)
			}
			s.Database.SSL = false
			if err := s.CheckTLS(); err != nil {
				t.Errorf("%s without TLS: %v", setting, err)
			}
			s.Database.Backend = CouchDB
			if err := s.CheckTLS(); (err != nil) != (setting == "database.ca_cert") { // which is of peers, too
				t.Errorf("%s without TLS and with peers: %v", setting, err)
			}
			s.Database.SSL, s.Database.Backend = true, Embedded
			if err := s.CheckTLS(); err != nil {
				t.Errorf("%s with the embedded backend: %v", setting, err)
			}
		}
	}
	s := Settings{Database: Database{Backend: CouchDB, SSL: true, CACert: sound, CertFile: sound}}
	mustName(t, "a certificate alone", s.CheckTLS(), "database.certfile and database.keyfile")
	s.Database.CertFile, s.Database.KeyFile = "", sound
	mustName(t, "a key alone", s.CheckTLS(), "database.certfile and database.keyfile")
	both := filepath.Join(folder, "both.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})...)
	if err := os.WriteFile(both, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Database.CertFile, s.Database.KeyFile = both, ""
	if err := s.CheckTLS(); err != nil {
		t.Errorf("a certificate and its key in one file: %v", err)
	}
	s.Database.CertFile = sound
	s.Database.KeyFile = sound
	if err := s.CheckTLS(); err != nil {
		t.Errorf("all there: %v", err)
	}
}
