package configs

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	if db.Password != "" && db.Login == "" {
		l.warn("database.password is set and database.login is not: the database is asked without either")
	}
	if db.SSL {
		return
	}
	for _, file := range db.tlsFiles() {
		if file.path != "" {
			l.warn(file.setting + " is set and database.ssl is not: the database is reached without TLS")
		}
	}
}

// nameFits says what the backend expects of database.name beyond what is
// expected of every name.
func nameFits(backend, name string) error {
	const letters, more = "abcdefghijklmnopqrstuvwxyz", "0123456789_()+-"
	if backend != CouchDB || name != "" && strings.Contains(letters, name[:1]) && strings.Trim(name, letters+more) == "" {
		return nil
	}
	return expectation("for couchdb a lower-case letter, and after it lower-case letters, digits and any of _()+-")
}

// tlsFile is a setting that names a PEM file, "" for none.
type tlsFile struct{ setting, path string }

func (d *Database) tlsFiles() []tlsFile {
	files := []tlsFile{
		{"database.ca_cert", d.CACert}, {"database.certfile", d.CertFile}, {"database.keyfile", d.KeyFile},
	}
	if d.Backend == MongoDB {
		files = append(files, tlsFile{"database.crlfile", d.CRLFile})
	}
	return files
}

// CheckTLS sees that the files for reaching the database over TLS can be read
// and are PEM. The error names the setting and the file. It is apart from Load,
// as commands that do not reach the database need none of them.
func (s Settings) CheckTLS() error {
	db := &s.Database
	if db.Backend == Embedded || !db.SSL {
		return nil
	}
	for _, file := range db.tlsFiles() {
		if file.path == "" {
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
		if block, _ := pem.Decode(data); block == nil {
			return fmt.Errorf("%s: the file %s is not PEM", file.setting, file.path)
		}
	}
	if db.Backend == CouchDB && (db.CertFile == "") != (db.KeyFile == "") {
		return errors.New("database.certfile and database.keyfile: only one of the two is set; a certificate needs its private key")
	}
	return nil
}
