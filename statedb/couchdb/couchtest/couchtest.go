// Package couchtest finds or starts a CouchDB for tests: the one that
// COUCHDB_URL names, or a private one from /opt/couchdb, where the official
// package lives, on a free loopback port with a folder of its own.
package couchtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb/statedbtest/process"
)

const (
	installed = "/opt/couchdb"
	// Login and Password are of a private server's admin.
	Login    = "admin"
	Password = "secret"
	// patience is how long a server may take to start.
	patience = 60 * time.Second
)

// Address tells how to reach a server.
type Address struct {
	Host            string
	Port            int
	Login, Password string
}

// URL is the address with its credentials.
func (a Address) URL() string {
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(a.Host, strconv.Itoa(a.Port))}
	if a.Login != "" {
		u.User = url.UserPassword(a.Login, a.Password)
	}
	return u.String()
}

// Do sends a request with a JSON body, "" for none, and wants a status.
func (a Address) Do(t testing.TB, method, path, body string, status int) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, a.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != status {
		t.Fatalf("%s %s: got %s, %v, %s; want %d", method, path, response.Status, err, answer, status)
	}
	return string(answer)
}

// Replicate copies a database to another one, which is made.
func (a Address) Replicate(t testing.TB, source, target string) {
	t.Helper()
	a.Do(t, http.MethodPost, "/_replicate",
		fmt.Sprintf(`{"source":%q,"target":%q,"create_target":true}`, a.URL()+"/"+source, a.URL()+"/"+target), http.StatusOK)
}

// Server is a private CouchDB.
type Server struct {
	Address
	process.Child
	folder string
}

// Available reports whether a private server can be started.
func Available() bool {
	_, err := os.Stat(filepath.Join(installed, "bin/couchdb"))
	return err == nil
}

// Start starts a private server that the test may stop, kill and start again;
// it is gone when the test ends. Without an installed CouchDB the test is
// skipped.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	if !Available() {
		t.Skipf("not tested: no CouchDB in %s", installed)
	}
	s, err := newServer(t.TempDir(), settings)
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// newServer writes the configuration. settings are lines of it, sections in
// front: "[couchdb]", "max_document_size = 1000".
func newServer(folder string, settings []string) (*Server, error) {
	ports, err := process.FreePorts(1)
	if err != nil {
		return nil, err
	}
	port := ports[0]
	s := &Server{Address: Address{Host: "127.0.0.1", Port: port, Login: Login, Password: Password}, folder: folder}
	data := filepath.Join(folder, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	// CouchDB takes a password that no test has to keep secret through 600,000 rounds,
	// which is most of what it does where users are made.
	ini := fmt.Sprintf(`[couchdb]
database_dir = %[1]s
view_index_dir = %[1]s
uuid = 00000000000000000000000000000001
single_node = true
[chttpd]
bind_address = 127.0.0.1
port = %[2]d
[chttpd_auth]
iterations = 1000
[admins]
%[3]s = %[4]s
[log]
writer = file
file = %[5]s
level = warning
%[6]s
`, data, port, Login, Password, filepath.Join(folder, "couch.log"), strings.Join(settings, "\n"))
	if err := os.WriteFile(filepath.Join(folder, "local.ini"), []byte(ini), 0o600); err != nil {
		return nil, err
	}
	// Without a name the Erlang node needs no port mapper and no cookie.
	args, err := os.ReadFile(filepath.Join(installed, "etc/vm.args"))
	if err != nil {
		return nil, err
	}
	var kept []string
	for line := range strings.Lines(string(args)) {
		if !strings.HasPrefix(line, "-name") && !strings.HasPrefix(line, "-setcookie") {
			kept = append(kept, line)
		}
	}
	return s, os.WriteFile(filepath.Join(folder, "vm.args"), []byte(strings.Join(kept, "")), 0o600)
}

// Start starts the server and waits until it answers and has its databases
// for users and replication.
func (s *Server) Start() error {
	err := s.Run(os.DevNull, []string{
		"COUCHDB_ARGS_FILE=" + filepath.Join(s.folder, "vm.args"),
		"COUCHDB_INI_FILES=" + filepath.Join(installed, "etc/default.ini") + " " + filepath.Join(s.folder, "local.ini"),
	}, filepath.Join(installed, "bin/couchdb"))
	if err != nil {
		return err
	}
	return s.awaitUp()
}

func (s *Server) awaitUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/_users", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(s.folder, "couch.log"))
			return fmt.Errorf("CouchDB does not answer after %v: %v\n%s", patience, err, log)
		}
	}
}

// shared is the server of all tests of a process that do not hurt it.
var shared process.Shared[Address]

// Main runs the tests and stops the shared server: the body of TestMain.
func Main(m *testing.M) int { return shared.Main(m) }

// Stop ends the shared server, for a TestMain with more to do than Main.
func Stop() { shared.Stop() }

// Shared gives the server that COUCHDB_URL names, or a private one that all
// tests of this process share. Without one the test is skipped.
func Shared(t testing.TB) Address {
	t.Helper()
	return shared.Get(t, func(folder string) (Address, func(), error) {
		if text := os.Getenv("COUCHDB_URL"); text != "" {
			address, err := parse(text)
			return address, nil, err
		}
		if !Available() {
			return Address{}, nil, fmt.Errorf("%w: no CouchDB in %s, and COUCHDB_URL is not set", process.ErrMissing, installed)
		}
		s, err := newServer(folder, nil)
		if err != nil {
			return Address{}, nil, err
		}
		return s.Address, s.Kill, s.Start()
	})
}

func parse(text string) (Address, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return Address{}, fmt.Errorf("COUCHDB_URL: %q is no address such as http://admin:secret@localhost:5984", text)
	}
	port := 5984
	if u.Port() != "" {
		if port, err = strconv.Atoi(u.Port()); err != nil {
			return Address{}, fmt.Errorf("COUCHDB_URL: %w", err)
		}
	}
	password, _ := u.User.Password()
	return Address{Host: u.Hostname(), Port: port, Login: u.User.Username(), Password: password}, nil
}
