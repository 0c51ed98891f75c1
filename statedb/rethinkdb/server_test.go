package rethinkdb

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

func isIn(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

// addUser makes a user, and gives it what rights says on the database.
func addUser(t *testing.T, db *DB, name, password string, rights map[string]any) {
	t.Helper()
	user := map[string]any{"id": name, "password": password}
	if _, err := db.run(t.Context(), "plant", r.DB(systemDatabase).Table("users").Insert(user, r.InsertOpts{Conflict: "replace"}), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := db.run(t.Context(), "plant", r.DB(db.opts.Name).Grant(name, rights), nil); err != nil {
		t.Fatal(err)
	}
}

func TestPasswords(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Start(t).Address))
	const name, password = `o'ne "two" <ü>\`, `s3cret "ü" \ =,`
	addUser(t, db, name, password, map[string]any{"read": true, "write": true, "config": true})
	opts := db.opts
	opts.Login, opts.Password = name, password
	full := open(t, opts)
	defer full.Close()
	if _, err := full.Create(t.Context()); err != nil {
		t.Errorf("Create by a user with all rights on the database: %v", err)
	}
	put(t, full, "a", `{}`)
	deploy(t, full, index("n", "n"))
	if _, token := follow(t, full, ""); token == "" {
		t.Error("a feed without a token")
	}

	opts.MaxTries = 0 // for ever
	for _, wrong := range []struct{ login, password string }{{name, "hunter2"}, {"nobody", password}, {"admin", "hunter2"}} {
		opts.Login, opts.Password = wrong.login, wrong.password
		_, err := Open(t.Context(), opts)
		if !errors.Is(err, statedb.ErrDenied) || !isIn(err, "database.password") || isIn(err, wrong.password) {
			t.Errorf("%q with %q: %v", wrong.login, wrong.password, err)
		}
	}

	addUser(t, db, "reader", "x", map[string]any{"read": true, "write": false, "config": false})
	opts.Login, opts.Password = "reader", "x"
	reader := open(t, opts)
	defer reader.Close()
	if d, err := reader.Get(t.Context(), table, []string{"a"}); err != nil || d[0].Rev == "" {
		t.Errorf("Get by a user who may read: %v", err)
	}
	if _, err := reader.Write(t.Context(), table, []statedb.Write{{ID: "b", Body: []byte(`{}`)}}); !errors.Is(err, statedb.ErrDenied) || !isIn(err, "read, write and config") {
		t.Errorf("Write by a user who may not: %v", err)
	}
	if err := reader.Drop(t.Context()); !errors.Is(err, statedb.ErrDenied) {
		t.Errorf("Drop by a user who may not: %v", err)
	}
}

func TestNoServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	var log bytes.Buffer
	_, err = Open(t.Context(), Options{
		Host: "127.0.0.1", Port: port, Name: "x", Password: "hunter2", MaxTries: 2, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if !errors.Is(err, statedb.ErrUnavailable) || !isIn(err, "tried 2 times") || isIn(err, "hunter2") {
		t.Errorf("Open without a server: %v", err)
	}
	if !strings.Contains(log.String(), "RethinkDB does not answer yet; trying again") || strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log: %s", &log)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Options{Host: "127.0.0.1", Port: port, Name: "x"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open for ever, with a context that ends: %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", "a b", "a/b", "ä", "a.b", "a`", systemDatabase, strings.Repeat("a", 128)} {
		if _, err := Open(t.Context(), Options{Host: "127.0.0.1", Port: 1, Name: name}); !isIn(err, "is no name for a RethinkDB database") {
			t.Errorf("the name %q: %v", name, err)
		}
	}
	if err := CheckName("bigchain-1_X"); err != nil {
		t.Error(err)
	}
}

// What answers may be something else, too old, or rubbish.
func TestOtherServers(t *testing.T) {
	ok := func(fields string) string { return `{"success":true` + fields + "}\x00" }
	version := func(v string) string {
		return ok(`,"min_protocol_version":0,"max_protocol_version":0,"server_version":"` + v + `"`)
	}
	for said, want := range map[string]string{
		"HTTP/1.1 400 Bad Request\r\n\r\n\x00":                                "is not RethinkDB",
		strings.Repeat("x", 20_000):                                           "is not RethinkDB",
		"ERROR: Received an unsupported protocol version.\x00":                "is not RethinkDB",
		`{"success":false,"error_code":1,"error":"busy"}` + "\x00":            "busy",
		version("2.4.4") + ok(`,"authentication":"r=x"`):                      "malformed",
		version("2.4.4") + ok(`,"authentication":"r=x,s=AA==,i=99999999999"`): "malformed",
		version("2.4.4") + "[]\x00":                                           "is not RethinkDB",
		"":                                                                    "EOF",
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 1000))
				_, _ = c.Write([]byte(said))
				c.Close()
			}
		}()
		opts := Options{Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, Name: "x", MaxTries: 1}
		if _, err := Open(t.Context(), opts); !isIn(err, want) {
			t.Errorf("%.60q: %v, want %q", said, err, want)
		}
		listener.Close()
	}
	db := &DB{address: "somewhere"}
	for version, want := range map[string]string{
		"2.4.4~0bookworm (GCC 12.2.0)": "", "2.4.0": "", "2.5.0-beta": "", "3.0": "", "2.10.1": "",
		"2.3.6": "version 2.3.6; version 2.4 or newer is needed", "1.16.3": "2.4 or newer is needed", "x": "is not RethinkDB", "": "is not RethinkDB",
	} {
		if err := db.checkVersion(version); (err != nil) != (want != "") || want != "" && !isIn(err, want) {
			t.Errorf("version %q: %v, want %q", version, err, want)
		}
	}
}

// certificate makes a key and a certificate that signs itself.
func certificate(t *testing.T) (keyFile, certFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	keyFile, certFile = filepath.Join(folder, "key.pem"), filepath.Join(folder, "cert.pem")
	for file, block := range map[string]*pem.Block{keyFile: {Type: "EC PRIVATE KEY", Bytes: private}, certFile: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return keyFile, certFile, pool
}

// Over TLS the certificate is checked.
func TestTLS(t *testing.T) {
	key, cert, pool := certificate(t)
	server := rethinktest.Start(t, "--driver-tls-key", key, "--driver-tls-cert", cert)
	opts := optionsFor(server.Address)
	opts.TLS = &tls.Config{}
	if _, err := Open(t.Context(), opts); !isIn(err, "is not trusted; database.ca_cert") {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
	opts.TLS = &tls.Config{RootCAs: pool}
	db := made(t, opts)
	put(t, db, "a", `{}`)
	if rows, _ := follow(t, db, ""); len(rows) != 1 {
		t.Errorf("the feed over TLS: %v", rows)
	}
	opts.TLS, opts.ConnectTimeout = nil, time.Second
	if _, err := Open(t.Context(), opts); !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("without TLS: %v, want ErrUnavailable", err)
	}
}

// A table that another program made may have another key.
func TestForeignTable(t *testing.T) {
	db := open(t, optionsFor(rethinktest.Shared(t)))
	defer db.Close()
	for _, create := range []r.Term{r.DBCreate(db.opts.Name), r.DB(db.opts.Name).TableCreate(statedb.Votes)} {
		if _, err := db.run(t.Context(), "plant", create, nil); err != nil {
			t.Fatal(err)
		}
	}
	defer db.Drop(context.WithoutCancel(t.Context()))
	if _, err := db.Create(t.Context()); !isIn(err, "the table votes of") || !isIn(err, `its primary key is "id" and not _id`) {
		t.Errorf("Create over another program's table: %v", err)
	}
}

// The counters tell what was asked and how it went.
func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	opts := optionsFor(rethinktest.Shared(t))
	opts.Registry = registry
	db := open(t, opts)
	defer db.Close()
	if _, err := db.Get(t.Context(), table, []string{"a"}); !errors.Is(err, statedb.ErrNoDatabase) {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				found = found || family.GetName() == "couchledger_rethinkdb_requests_total" && label.GetValue() == "no_database"
			}
		}
	}
	if !found {
		t.Errorf("no counter of a request without a database: %v", families)
	}
}
