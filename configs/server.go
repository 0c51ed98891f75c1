package configs

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// checkServer sees that what is set for a database server goes together.
func (l *loader) checkServer() {
	db := &l.settings.Database
	if db.Backend == Embedded {
		return
	}
	if err := nameFits(db.Backend, db.Name); err != nil {
		l.fault("database.name", l.sources["database.name"], fmt.Errorf("%w, got %s", err, quoted(db.Name)))
	}
	// RethinkDB's own user is meant without a name.
	if db.Password != "" && db.Login == "" && db.Backend != RethinkDB {
		l.warn("database.password is set and database.login is not: the database is asked without either")
	}
	if db.SSL {
		return
	}
	for _, file := range db.tlsFiles() {
		if file.path != "" && !db.forPeers(file) {
			l.warn(file.setting + " is set and database.ssl is not: the database is reached without TLS")
		}
	}
}

// nameFits says what the backend expects of database.name beyond what is
// expected of every name. What is refused here, the server would refuse later,
// or would mix with its own: dropping the ledger would drop that.
func nameFits(backend, name string) error {
	const (
		small   = "abcdefghijklmnopqrstuvwxyz"
		letters = small + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
		digits  = "0123456789"
		longest = 63 // bytes that MongoDB takes
	)
	switch backend {
	case CouchDB:
		if name == "" || !strings.Contains(small, name[:1]) || strings.Trim(name, small+digits+"_()+-") != "" {
			return expectation("for couchdb a lower-case letter, and after it lower-case letters, digits and any of _()+-")
		}
	case MongoDB:
		if len(name) > longest || slices.Contains([]string{"admin", "local", "config"}, strings.ToLower(name)) {
			return expectation("for mongodb a name of 63 bytes at most, and none of MongoDB's own: admin, local, config")
		}
	case RethinkDB:
		if strings.Trim(name, letters+digits+"_-") != "" || name == "rethinkdb" {
			return expectation("for rethinkdb letters, digits and any of _-, and not RethinkDB's own: rethinkdb")
		}
	}
	return nil
}

// tlsFile is a setting that names a file, "" for none.
type tlsFile struct{ setting, path string }

func (d *Database) tlsFiles() []tlsFile {
	return []tlsFile{
		{caSetting, d.CACert}, {"database.certfile", d.CertFile}, {"database.keyfile", d.KeyFile}, {crlSetting, d.CRLFile},
	}
}

// forPeers reports whether a file counts also without database.ssl: a CouchDB on the
// same machine may be reached without TLS, and those of peers with it.
func (d *Database) forPeers(file tlsFile) bool {
	return d.Backend == CouchDB && file.setting == caSetting
}

const caSetting = "database.ca_cert"

// crlSetting names a file that may be DER, as authorities publish it.
const crlSetting = "database.crlfile"

// CheckTLS sees that the files for reaching the database over TLS can be read
// and are PEM where they must be. The error names the setting and the file. It
// is apart from Load, as commands that do not reach the database need none of
// them.
func (s Settings) CheckTLS() error {
	db := &s.Database
	if db.Backend == Embedded || !db.SSL && db.Backend != CouchDB {
		return nil
	}
	ownKey := db.KeyFile != ""
	for _, file := range db.tlsFiles() {
		if file.path == "" || !db.SSL && !db.forPeers(file) {
			continue
		}
		data, err := os.ReadFile(file.path)
		var pathError *fs.PathError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s: the file %s does not exist", file.setting, file.path)
		case errors.As(err, &pathError):
			return fmt.Errorf("%s: the file %s cannot be read: %w", file.setting, file.path, pathError.Err)
		case err != nil:
			return fmt.Errorf("%s: %w", file.setting, err)
		}
		block, rest := pem.Decode(data)
		if block == nil && file.setting != crlSetting {
			return fmt.Errorf("%s: the file %s is not PEM", file.setting, file.path)
		}
		// The documents of MongoDB put a certificate and its key into one file.
		for ; block != nil && file.path == db.CertFile; block, rest = pem.Decode(rest) {
			ownKey = ownKey || strings.HasSuffix(block.Type, "PRIVATE KEY")
		}
	}
	if db.SSL && (db.CertFile != "") != ownKey {
		return errors.New("database.certfile and database.keyfile: a certificate and its private key are needed, in two files, or both in the certificate's file")
	}
	return nil
}
