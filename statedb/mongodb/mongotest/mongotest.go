// Package mongotest finds or starts a server for tests that speaks MongoDB's
// protocol: the one that MONGODB_URL names, or a private FerretDB over SQLite,
// which is built from its source once. Any machine with Go can do that.
package mongotest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/couchledger/couchledger/statedb/statedbtest/process"
)

// patience is how long a server may take to start.
const patience = 60 * time.Second

// Address tells how to reach a server.
type Address struct {
	Host            string
	Port            int
	Login, Password string
	ReplicaSet      string // "" for a server of its own
}

// Server is a private FerretDB.
type Server struct {
	Address
	process.Child
	program, folder string
}

// Start starts a private server that the test may kill, suspend and start
// again; it is gone when the test ends. Where it cannot be built the test is
// skipped.
func Start(t testing.TB) *Server {
	t.Helper()
	program, err := built()
	if err != nil {
		t.Skipf("not tested: no MONGODB_URL, and FerretDB cannot be built here: %v", err)
	}
	s, err := newServer(program, t.TempDir())
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

func newServer(program, folder string) (*Server, error) {
	ports, err := process.FreePorts(1)
	if err != nil {
		return nil, err
	}
	return &Server{Address: Address{Host: "127.0.0.1", Port: ports[0]}, program: program, folder: folder}, nil
}

func (s *Server) at() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// Start starts the server, with the data it had, and waits until it listens.
func (s *Server) Start() error {
	if err := s.Run(os.DevNull, []string{"DO_NOT_TRACK=1"}, s.program, s.at(), s.folder); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		connection, err := net.Dial("tcp", s.at())
		if err == nil {
			return connection.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("FerretDB does not listen at %s after %v: %w", s.at(), patience, err)
		}
	}
}

// shared is the server of all tests of a process that do not hurt it.
var shared process.Shared[Address]

// Main runs the tests and stops the shared server: the body of TestMain.
func Main(m *testing.M) int { return shared.Main(m) }

// Stop ends the shared server, for a TestMain with more to do than Main.
func Stop() { shared.Stop() }

// Shared gives the server that MONGODB_URL names, or a private one that all
// tests of this process share. Without one the test is skipped.
func Shared(t testing.TB) Address {
	t.Helper()
	return shared.Get(t, func(folder string) (Address, func(), error) {
		if text := os.Getenv("MONGODB_URL"); text != "" {
			address, err := parse(text)
			return address, nil, err
		}
		program, err := built()
		if err != nil {
			return Address{}, nil, fmt.Errorf("%w: no MONGODB_URL, and FerretDB cannot be built here: %w", process.ErrMissing, err)
		}
		s, err := newServer(program, folder)
		if err != nil {
			return Address{}, nil, err
		}
		return s.Address, s.Kill, s.Start()
	})
}

func parse(text string) (Address, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "mongodb" || u.Hostname() == "" {
		return Address{}, fmt.Errorf("MONGODB_URL: it is no address such as mongodb://user:password@localhost:27017/?replicaSet=rs")
	}
	port := 27017
	if u.Port() != "" {
		if port, err = strconv.Atoi(u.Port()); err != nil {
			return Address{}, fmt.Errorf("MONGODB_URL: the port %q is no number", u.Port())
		}
	}
	password, _ := u.User.Password()
	return Address{
		Host: u.Hostname(), Port: port, Login: u.User.Username(), Password: password,
		ReplicaSet: u.Query().Get("replicaSet"),
	}, nil
}
