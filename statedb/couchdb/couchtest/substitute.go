package couchtest

import (
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// substitute is the command of the npm package pouchdb-server, which speaks
// CouchDB's protocol, without bookmarks.
const substitute = "pouchdb-server"

// StartSubstitute starts a server that speaks CouchDB's protocol and needs
// Node.js only. Without one on PATH the test is skipped.
func StartSubstitute(t testing.TB) Address {
	t.Helper()
	command, err := exec.LookPath(substitute)
	if err != nil {
		t.Skipf("not tested: no %s on PATH (npm install -g %s)", substitute, substitute)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := Address{Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port}
	listener.Close()
	server := exec.Command(command, "--in-memory", "--no-stdout-logs", "--host", address.Host, "--port", strconv.Itoa(address.Port))
	server.Dir = t.TempDir() // it writes its configuration and log there
	server.Stdout, server.Stderr = io.Discard, io.Discard
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // its status is that of a killed process
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		response, err := http.Get(address.URL())
		if err == nil {
			response.Body.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer after %v: %v", substitute, patience, err)
		}
	}
}
