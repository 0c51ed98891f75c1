package process

import (
	"errors"
	"os"
	"sync"
	"testing"
)

// ErrMissing: there is no such server here. A test that needs it is skipped; the error
// says what is missing.
var ErrMissing = errors.New("not tested")

// Shared is the server of all tests of a process that do not hurt it, at an address of
// the kind A.
type Shared[A any] struct {
	once    sync.Once
	address A
	folder  string
	kill    func()
	err     error
}

// Get gives the server. The first call finds it, or starts one in a folder, with kill
// to end it. Where there is none the test is skipped.
func (s *Shared[A]) Get(t testing.TB, find func(folder string) (address A, kill func(), err error)) A {
	t.Helper()
	s.once.Do(func() {
		if s.folder, s.err = os.MkdirTemp("", "couchledger-server"); s.err == nil {
			s.address, s.kill, s.err = find(s.folder)
		}
	})
	if errors.Is(s.err, ErrMissing) {
		t.Skip(s.err)
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.address
}

// Stop ends the server, for a TestMain with more to do than Main.
func (s *Shared[A]) Stop() {
	if s.kill != nil {
		s.kill()
	}
	if s.folder != "" {
		os.RemoveAll(s.folder)
	}
}

// Main runs the tests and stops the server: the body of TestMain.
func (s *Shared[A]) Main(m *testing.M) int {
	code := m.Run()
	s.Stop()
	return code
}
