// Package rethinktest finds or starts a RethinkDB for tests: the one that
// RETHINKDB_URL names, or private ones from the command rethinkdb on PATH, on
// free loopback ports with folders of their own.
package rethinktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb/statedbtest/process"
)

const (
	// command is the server's program.
	command = "rethinkdb"
	// Login is the user that every server has; its password is empty.
	Login = "admin"
	// patience is how long a server may take to start.
	patience = 60 * time.Second
	// defaultPort is RethinkDB's own for drivers.
	defaultPort = 28015
	// cacheMegabytes keeps private servers small.
	cacheMegabytes = 200
)

// Address tells how to reach a server.
type Address struct {
	Host            string
	Port            int
	Login, Password string
}

// Server is a private RethinkDB.
type Server struct {
	Address
	ClusterPort int
	Name        string // as the cluster calls it
	folder      string
	settings    []string
	process.Child
}

// Available reports whether a private server can be started.
func Available() bool {
	_, err := exec.LookPath(command)
	return err == nil
}

// Start starts a private server that the test may stop, kill and start again;
// it is gone when the test ends. settings are more options of its command
// line. Without an installed RethinkDB the test is skipped.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	if !Available() {
		t.Skipf("not tested: no %s on PATH", command)
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

// StartCluster starts n servers that are one cluster.
func StartCluster(t testing.TB, n int) []*Server {
	t.Helper()
	first := Start(t)
	servers := []*Server{first}
	for range n - 1 {
		servers = append(servers, Start(t, "--join", fmt.Sprintf("127.0.0.1:%d", first.ClusterPort)))
	}
	return servers
}

// newServer chooses ports and a folder.
func newServer(folder string, settings []string) (*Server, error) {
	ports, err := process.FreePorts(2)
	if err != nil {
		return nil, err
	}
	return &Server{
		Address:     Address{Host: "127.0.0.1", Port: ports[0], Login: Login},
		ClusterPort: ports[1], Name: fmt.Sprintf("server_%d", ports[1]), folder: folder, settings: settings,
	}, nil
}

// Start starts the server and waits until it answers.
func (s *Server) Start() error {
	err := s.Run(s.logFile(), nil, command, append([]string{
		"--directory", filepath.Join(s.folder, "data"),
		"--driver-port", strconv.Itoa(s.Port), "--cluster-port", strconv.Itoa(s.ClusterPort),
		"--server-name", s.Name, "--bind", "127.0.0.1", "--no-http-admin", "--no-update-check",
		"--cache-size", strconv.Itoa(cacheMegabytes),
	}, s.settings...)...)
	if err != nil {
		return err
	}
	return s.awaitUp()
}

func (s *Server) logFile() string { return filepath.Join(s.folder, "log") }

func (s *Server) awaitUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(s.Host, strconv.Itoa(s.Port)))
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			log, _ := os.ReadFile(s.logFile())
			return fmt.Errorf("RethinkDB does not answer after %v: %v\n%s", patience, err, log)
		}
	}
}

// shared is the server of all tests of a process that do not hurt it.
var shared process.Shared[Address]

// Main runs the tests and stops the shared server: the body of TestMain.
func Main(m *testing.M) int { return shared.Main(m) }

// Stop ends the shared server, for a TestMain with more to do than Main.
func Stop() { shared.Stop() }

// Shared gives the server that RETHINKDB_URL names, or a private one that all
// tests of this process share. Without one the test is skipped.
func Shared(t testing.TB) Address {
	t.Helper()
	return shared.Get(t, func(folder string) (Address, func(), error) {
		if text := os.Getenv("RETHINKDB_URL"); text != "" {
			address, err := parse(text)
			return address, nil, err
		}
		if !Available() {
			return Address{}, nil, fmt.Errorf("%w: no %s on PATH, and RETHINKDB_URL is not set", process.ErrMissing, command)
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
	if err != nil || u.Hostname() == "" || u.Scheme != "rethinkdb" {
		// The text may hold a password, and so may the parser's error.
		return Address{}, errors.New("RETHINKDB_URL is no address such as rethinkdb://admin:secret@localhost:28015")
	}
	port := defaultPort
	if u.Port() != "" {
		if port, err = strconv.Atoi(u.Port()); err != nil {
			return Address{}, fmt.Errorf("RETHINKDB_URL: %w", err)
		}
	}
	login := Login
	if u.User != nil && u.User.Username() != "" {
		login = u.User.Username()
	}
	password, _ := u.User.Password()
	return Address{Host: u.Hostname(), Port: port, Login: login, Password: password}, nil
}
