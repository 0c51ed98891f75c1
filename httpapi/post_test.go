package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node/ledger"
)

func TestPost(t *testing.T) {
	n := fakenode.New()
	_, base := start(t, n, Options{})
	body := string(fakenode.CreateTx(someKey, 1, 1))
	for _, contentType := range []string{"application/json", "text/plain", "", "application/x-www-form-urlencoded", "nonsense;;"} {
		for _, path := range []string{"/api/v1/transactions/", "/api/v1/transactions", "/api/v1/transactions?mode=async"} {
			req, err := http.NewRequest(http.MethodPost, base+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", contentType)
			if got := send1(t, req); got.status != 202 || got.body != body {
				t.Errorf("POST %s as %q: got %d %s", path, contentType, got.status, got.body)
			}
		}
	}
	spaced := strings.ReplaceAll(body, ",", " ,\n\t")
	if got := do(t, http.MethodPost, base+"/api/v1/transactions", spaced); got.status != 202 || got.body != body {
		t.Errorf("POST with white space: got %d %s, want the canonical form", got.status, got.body)
	}
	for what, bad := range map[string]string{
		"empty": "", "truncated": body[:50], "not JSON": "hello", "not an object": "[1]", "NaN": "NaN",
		"duplicate keys": `{"a":1,"a":2}`, "invalid UTF-8": "{\"a\":\"\xff\"}", "unknown field": strings.Replace(body, `"id"`, `"extra":1,"id"`, 1),
		"wrong id": strings.Replace(body, `"serial":1`, `"serial":2`, 1), "GENESIS": strings.Replace(body, "CREATE", "GENESIS", 1),
		"100,000 levels": strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000),
		"400 digits":     strings.Replace(body, `"amount":1`, `"amount":`+strings.Repeat("9", 400), 1),
	} {
		wantError(t, what, do(t, http.MethodPost, base+"/api/v1/transactions", bad), 400, "")
	}
}

func TestPostCommit(t *testing.T) {
	n := fakenode.New()
	n.Manual = true
	submitted := make(chan struct{}, 10)
	n.Hook = func(method, _ string) error {
		if method == "Await" {
			submitted <- struct{}{}
		}
		return nil
	}
	s, base := start(t, n, Options{CommitWait: patience})
	commit := func(serial int, then func()) answer {
		t.Helper()
		got := make(chan answer, 1)
		go func() {
			got <- do(t, http.MethodPost, base+"/api/v1/transactions?mode=commit", string(fakenode.CreateTx(someKey, serial, 1)))
		}()
		<-submitted
		then()
		return <-got
	}
	if got := commit(1, func() { n.Decide("valid") }); got.status != 200 || got.body != string(fakenode.CreateTx(someKey, 1, 1)) {
		t.Errorf("valid: got %d %s", got.status, got.body)
	}
	reason := "Invalid transaction (DoubleSpend): too late"
	wantError(t, "refused", commit(2, func() { n.Refuse(reason) }), 400, reason)

	// A stopping server does not keep its clients waiting.
	got := commit(3, func() {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	if got.status != 202 || got.body != string(fakenode.CreateTx(someKey, 3, 1)) {
		t.Errorf("stopped: got %d %s", got.status, got.body)
	}

	_, base = start(t, n, Options{CommitWait: time.Millisecond})
	if got := commit(4, func() {}); got.status != 202 {
		t.Errorf("no verdict in time: got %d %s", got.status, got.body)
	}
}

func TestBodyLimits(t *testing.T) {
	n := fakenode.New()
	const limit = 200_000
	_, base := start(t, n, Options{MaxBodyBytes: limit})
	url := base + "/api/v1/transactions"
	body := string(fakenode.CreateTx(someKey, 1, 1))
	pad := func(size int) string { return body + strings.Repeat(" ", size-len(body)) }
	chunked := func(text string) *http.Request {
		req, err := http.NewRequest(http.MethodPost, url, io.MultiReader(strings.NewReader(text)))
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	for _, size := range []int{len(body), smallBody - 1, smallBody, smallBody + 1, limit - 1, limit} {
		if got := do(t, http.MethodPost, url, pad(size)); got.status != 202 {
			t.Errorf("%d bytes: got %d %s", size, got.status, got.body)
		}
		if got := send1(t, chunked(pad(size))); got.status != 202 {
			t.Errorf("%d bytes, chunked: got %d %s", size, got.status, got.body)
		}
	}
	wantError(t, "one too many", do(t, http.MethodPost, url, pad(limit+1)), 413, "large")
	wantError(t, "one too many, chunked", send1(t, chunked(pad(limit+1))), 413, "large")
	wantError(t, "20 MB", do(t, http.MethodPost, url, pad(20<<20)), 413, "large")

	for what, raw := range map[string]string{
		"short body": "POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"bad chunk":  "POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, raw)
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil && resp.StatusCode != 400 {
			t.Errorf("%s: got %s", what, resp.Status)
		}
		conn.Close()
	}
}

// TestLargeBodiesTakeTurns posts more large bodies at once than may be
// validated at once.
func TestLargeBodiesTakeTurns(t *testing.T) {
	n := fakenode.New()
	var mu sync.Mutex
	now, most := 0, 0
	n.Hook = func(method, body string) error {
		if method != "Submit" {
			return nil
		}
		mu.Lock()
		now += len(body)
		most = max(most, now)
		mu.Unlock()
		for range 100 { // give the others a chance to get in
			_, _ = ledger.ParseTransaction(fakenode.CreateTx(someKey, 1, 1))
		}
		mu.Lock()
		now -= len(body)
		mu.Unlock()
		return nil
	}
	const limit = 200_000
	_, base := start(t, n, Options{MaxBodyBytes: limit})
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			body := string(fakenode.CreateTx(someKey, i, 1)) + strings.Repeat(" ", 80_000)
			if got := do(t, http.MethodPost, base+"/api/v1/transactions", body); got.status != 202 {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}
	wg.Wait()
	if most > limit {
		t.Errorf("%d bytes were validated at once, more than %d", most, limit)
	}
}

func TestBudget(t *testing.T) {
	b := newBudget(10)
	if err := b.wait(t.Context(), 100, nil); err != nil { // more than all is all
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.wait(gone, 1, nil); err == nil {
		t.Error("a waiter whose client is gone got a share")
	}
	served := make(chan int64)
	for _, bytes := range []int64{6, 4} {
		go func() {
			if err := b.wait(t.Context(), bytes, nil); err != nil {
				t.Error(err)
			}
			served <- bytes
		}()
	}
	b.give(100)
	if got := <-served + <-served; got != 10 {
		t.Errorf("got shares of %d", got)
	}
	b.give(6)
	b.give(4)
	if b.free != b.total || len(b.waiters) != 0 {
		t.Errorf("got %d of %d free and %d waiters", b.free, b.total, len(b.waiters))
	}
}

// TestSlowClients opens connections that send next to nothing.
func TestSlowClients(t *testing.T) {
	_, base := start(t, fakenode.New(), Options{ReadTimeout: 300 * time.Millisecond, HeaderTimeout: 100 * time.Millisecond})
	for what, raw := range map[string]string{
		"nothing":       "",
		"half a header": "GET / HTTP/1.1\r\nHost: x\r\nX-Sl",
		"half a body":   "POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
		"huge header":   "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100_000),
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, raw); err != nil && what != "huge header" {
			t.Fatalf("%s: %v", what, err)
		}
		text, err := io.ReadAll(conn)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%s: the connection was left open", what)
		}
		if what == "half a body" && !strings.Contains(string(text), "408") {
			t.Errorf("%s: got %q, want 408", what, text)
		}
		conn.Close()
	}
}

func TestMaxRequests(t *testing.T) {
	n := fakenode.New()
	var mu sync.Mutex
	now, most := 0, 0
	n.Hook = func(string, string) error {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		for range 20 {
			fakenode.CreateTx(someKey, 1, 1)
		}
		mu.Lock()
		now--
		mu.Unlock()
		return nil
	}
	_, base := start(t, n, Options{MaxRequests: 2})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { wantError(t, "GET", get(t, base+"/api/v1/blocks/"+noID), 404, "") })
	}
	wg.Wait()
	if most > 2 {
		t.Errorf("%d requests ran at once, want at most 2", most)
	}
}
