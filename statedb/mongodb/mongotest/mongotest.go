// Package mongotest finds or starts a server for tests that speaks MongoDB's
// protocol: the one that MONGODB_URL names, or a private FerretDB over SQLite,
// which is built from its source once. Any machine with Go can do that.
package mongotest

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
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
	program, folder string

	mu      sync.Mutex
	stdin   io.Closer // its end ends the server, also when the test is killed
	process *exec.Cmd
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
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	return &Server{Address: Address{Host: "127.0.0.1", Port: port}, program: program, folder: folder}, nil
}

func (s *Server) at() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// Start starts the server, with the data it had, and waits until it listens.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	command := exec.Command(s.program, s.at(), s.folder)
	command.Dir = s.folder
	command.Env = append(os.Environ(), "DO_NOT_TRACK=1")
	stdin, err := command.StdinPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	s.stdin, s.process = stdin, command
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

// Kill ends the server at once, as a power cut would, and waits until it is gone.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill()
	_ = s.process.Wait() // its status is that of a killed process
	s.stdin.Close()
	s.process = nil
}

// Suspend stops the server from doing anything: connections are accepted by
// the kernel and never answered. Resume lets it go on.
func (s *Server) Suspend() error { return process.Suspend(s.process.Process) }

// Resume ends Suspend.
func (s *Server) Resume() error { return s.process.Process.Signal(syscall.SIGCONT) }

// shared is the server of all tests of a process that do not hurt it.
var shared struct {
	once    sync.Once
	server  *Server
	address Address
	missing error // why there is none
	err     error
}

// Main runs the tests and stops the shared server: the body of TestMain.
func Main(m *testing.M) int {
	code := m.Run()
	Stop()
	return code
}

// Stop ends the shared server, for a TestMain with more to do than Main.
func Stop() {
	if shared.server != nil {
		shared.server.Kill()
		os.RemoveAll(shared.server.folder)
	}
}

// Shared gives the server that MONGODB_URL names, or a private one that all
// tests of this process share. Where there is none the test is skipped.
func Shared(t testing.TB) Address {
	t.Helper()
	shared.once.Do(func() {
		if text := os.Getenv("MONGODB_URL"); text != "" {
			shared.address, shared.err = parse(text)
			return
		}
		program, err := built()
		if err != nil {
			shared.missing = err
			return
		}
		var folder string
		if folder, shared.err = os.MkdirTemp("", "mongotest"); shared.err != nil {
			return
		}
		if shared.server, shared.err = newServer(program, folder); shared.err == nil {
			shared.err = shared.server.Start()
			shared.address = shared.server.Address
		}
	})
	if shared.missing != nil {
		t.Skipf("not tested: no MONGODB_URL, and FerretDB cannot be built here: %v", shared.missing)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.address
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
