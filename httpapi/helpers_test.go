package httpapi

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
)

// An owner and an id that nothing in the tests has.
const (
	someKey = "4K9sWUMFwTgaDGPfdynrbxWqWS6sWmKbZoTjxLtVUibD"
	noID    = "04c00267af82c161b4bf2ad4a47d1ddbfeb47eef1a14b8d51f37d6ee00ea5cdd"
)

// patience is how long anything that must happen may take.
const patience = 20 * time.Second

// start serves n on a loopback port until the test ends and returns the
// server and its address, http://127.0.0.1:<port>.
func start(t testing.TB, n node.API, opts Options) (*Server, string) {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := New(n, opts)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		// Shutdown waits for connections that were dialled and not used.
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, "http://" + l.Addr().String()
}

// answer is what came back on a request.
type answer struct {
	status int
	header http.Header
	body   string
}

func do(t testing.TB, method, url, body string) answer {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return send1(t, req)
}

func send1(t testing.TB, req *http.Request) answer {
	t.Helper()
	client := http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: reading the body: %v", req.Method, req.URL, err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func get(t testing.TB, url string) answer {
	t.Helper()
	return do(t, http.MethodGet, url, "")
}

// post posts a transaction that must be accepted and returns its id.
func post(t testing.TB, base string, body []byte) string {
	t.Helper()
	got := do(t, http.MethodPost, base+"/api/v1/transactions/", string(body))
	if got.status != http.StatusAccepted {
		t.Fatalf("POST: got %d %s, want 202", got.status, got.body)
	}
	tx, err := ledger.ParseTransaction(body)
	if err != nil {
		t.Fatal(err)
	}
	return tx.ID
}

// wantError checks an error answer: status, content type and shape of the
// body, and that its message holds part.
func wantError(t testing.TB, what string, got answer, status int, part string) {
	t.Helper()
	if got.status != status {
		t.Errorf("%s: got status %d %s, want %d", what, got.status, got.body, status)
		return
	}
	if ct := got.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("%s: got Content-Type %q, want application/json", what, ct)
	}
	var body struct {
		Status  int
		Message string
	}
	decode(t, got.body, &body)
	if body.Status != status || body.Message == "" || !strings.Contains(body.Message, part) {
		t.Errorf("%s: got body %s, want status %d and a message with %q", what, got.body, status, part)
	}
}

func pageOf(limit int) node.Page { return node.Page{Limit: limit} }
