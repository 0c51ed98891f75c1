package httpapi

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
)

// dialRaw opens a connection to a server and sends text.
func dialRaw(t testing.TB, base, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// isCut waits until the other side has closed a connection.
func isCut(t testing.TB, conn net.Conn) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, conn)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// isOpen reports whether a connection answers a request.
func isOpen(t testing.TB, conn net.Conn) bool {
	t.Helper()
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return false
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == 200
}

// TestConnectionsGiveWay fills a server with connections that keep it waiting
// in every way, and opens more: the oldest of them go.
func TestConnectionsGiveWay(t *testing.T) {
	const most = 8
	s, base := start(t, fakenode.New(), Options{MaxConnections: most})
	opened := func() int { return int(metric(t, s, "couchledger_http_connections_open")) }
	var old []net.Conn
	for i, text := range []string{
		"",                                     // silent
		"GET / HTTP/1.1\r\nHost: x\r\nX-Slow:", // a header that does not end
		"POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", // a body that does not end
		"POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
	} {
		old = append(old, dialRaw(t, base, text))
		eventually(t, "the connection is not taken in", func() bool { return opened() == i+1 })
	}
	idle := dialRaw(t, base, "")
	if old = append(old, idle); !isOpen(t, idle) { // from now on it keeps the server waiting
		t.Fatal("the idle connection is not answered")
	}
	var young []net.Conn
	for len(young) < most {
		young = append(young, dialRaw(t, base, ""))
		if !isOpen(t, young[len(young)-1]) {
			t.Fatalf("new connection %d is not answered", len(young))
		}
	}
	for i, conn := range old {
		if !isCut(t, conn) {
			t.Errorf("old connection %d is still open", i)
		}
	}
	for i, conn := range young {
		if !isOpen(t, conn) {
			t.Errorf("new connection %d was cut", i)
		}
	}
	if got := metric(t, s, "couchledger_http_connections_evicted_total"); got != float64(len(old)) {
		t.Errorf("%v connections were evicted, want %d", got, len(old))
	}
	for _, conn := range young {
		conn.Close()
	}
	eventually(t, "connections stay open", func() bool { return opened() == 0 })
}

// metric reads a metric of a server without a connection.
func metric(t testing.TB, s *Server, name string) (value float64) {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// TestConnectionsAllBusy: while the node has a request to answer on each
// connection none is cut, and a new one is told to come again.
func TestConnectionsAllBusy(t *testing.T) {
	n := fakenode.New()
	asked, release := make(chan struct{}), make(chan struct{})
	n.Hook = func(method, _ string) error {
		if method == "Block" {
			asked <- struct{}{}
			<-release
		}
		return nil
	}
	s, base := start(t, n, Options{MaxConnections: 3})
	var busy []net.Conn
	for range 3 {
		busy = append(busy, dialRaw(t, base, "GET /api/v1/blocks/"+noID+" HTTP/1.1\r\nHost: x\r\n\r\n"))
		<-asked
	}
	late := dialRaw(t, base, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(late), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	wantError(t, "one too many", answer{resp.StatusCode, resp.Header, string(text)}, 503, "as many connections open as it may")
	if err != nil || resp.Header.Get("Retry-After") != "1" || !isRequestID(resp.Header.Get("X-Request-Id")) || !isCut(t, late) {
		t.Errorf("got %v, %v", resp.Header, err)
	}
	close(release)
	for _, conn := range busy {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != 404 {
			t.Errorf("a busy connection: got %v, %v", resp, err)
		}
	}
	eventually(t, "no connection gives way", func() bool { return isOpen(t, dialRaw(t, base, "")) })
	if got := metric(t, s, `couchledger_http_refused_total{reason="connections"}`); got < 1 {
		t.Errorf("%v refusals were counted", got)
	}
}

// TestClientConnections: one client's connections give way to its own.
func TestClientConnections(t *testing.T) {
	s, base := start(t, fakenode.New(), Options{MaxClientConnections: 2})
	var conns []net.Conn
	for range 3 {
		conns = append(conns, dialRaw(t, base, ""))
		eventually(t, "it is not taken in", func() bool { return isOpen(t, conns[len(conns)-1]) })
	}
	if !isCut(t, conns[0]) || !isOpen(t, conns[1]) || !isOpen(t, conns[2]) {
		t.Error("not the oldest one gave way")
	}
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}}
	conn, err := other.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Skipf("no second loopback address here: %v", err)
	}
	defer conn.Close()
	if !isOpen(t, conn) || !isOpen(t, conns[1]) {
		t.Error("another client's connection made one give way")
	}
	if got := metric(t, s, "couchledger_http_connections_open"); got != 3 {
		t.Errorf("%v connections are open, want 3", got)
	}
}

// TestStreamsDoNotGiveWay: a stream is the node's turn for as long as it lasts.
func TestStreamsDoNotGiveWay(t *testing.T) {
	n := fakenode.New()
	_, base := start(t, n, Options{MaxConnections: 2})
	stream := listen(t, base, nil)
	for range 5 {
		if !isOpen(t, dialRaw(t, base, "")) {
			t.Fatal("a new connection is not answered")
		}
	}
	all := events(0, 10)
	n.Publish(all)
	expect(t, stream, all)
}

// TestSlowReaderIsCut: whoever does not read a long answer is cut after
// Options.WriteTimeout, though the whole answer may take longer.
func TestSlowReaderIsCut(t *testing.T) {
	n := fakenode.New()
	_, base := start(t, n, Options{WriteTimeout: 200 * time.Millisecond})
	for i := range 3 {
		post(t, base, fakenode.CreateTx(someKey, i, 1000))
	}
	conn := dialRaw(t, base, strings.Repeat("GET /api/v1/outputs?limit=1000&public_key="+someKey+" HTTP/1.1\r\nHost: x\r\n\r\n", 1000))
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is not cut", func() bool {
		_, err := io.WriteString(conn, strings.Repeat("GET /api/v1/outputs?limit=1000&public_key="+someKey+" HTTP/1.1\r\nHost: x\r\n\r\n", 100))
		return err != nil
	})
}

// TestTLS: the same over TLS, with HTTP/2 and HTTP/1.1, links and streams.
func TestTLS(t *testing.T) {
	ts := httptest.NewTLSServer(nil) // for its certificate
	defer ts.Close()
	var log lockedBuffer
	n := fakenode.New()
	s, base := start(t, n, Options{
		TLS: &tls.Config{Certificates: ts.TLS.Certificates}, MaxConnections: 4, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	secure := "https" + strings.TrimPrefix(base, "http")
	for _, two := range []bool{false, true} {
		transport := ts.Client().Transport.(*http.Transport).Clone()
		transport.ForceAttemptHTTP2 = two
		client := &http.Client{Transport: transport, Timeout: patience}
		resp, err := client.Get(secure + "/")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || (resp.ProtoMajor == 2) != two || resp.Header.Get("X-Request-Id") == "" ||
			!bytes.Contains(text, []byte(`"api_v1":"`+secure+`/api/v1/"`)) || !bytes.Contains(text, []byte(`"streams_v1":"wss`)) {
			t.Errorf("HTTP/2 %v: got %v %s, %v", two, resp, text, err)
		}
		// A body, so that a connection changes hands on the way.
		resp, err = client.Post(secure+"/api/v1/transactions", "application/json", bytes.NewReader(fakenode.CreateTx(someKey, 1, 3)))
		if err != nil || resp.StatusCode != 202 {
			t.Fatalf("POST: got %v, %v", resp, err)
		}
		resp.Body.Close()
		transport.CloseIdleConnections()
	}
	eventually(t, "connections stay open", func() bool { return metric(t, s, "couchledger_http_connections_open") == 0 })
	plain := dialRaw(t, base, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(plain), nil)
	if err != nil || resp.StatusCode != 400 {
		t.Errorf("plain HTTP: got %v, %v, want 400", resp, err)
	}
	for range 10 {
		dialRaw(t, base, "") // never shakes hands
	}
	client := &http.Client{Transport: ts.Client().Transport, Timeout: patience}
	resp, err = client.Get(secure + "/healthz")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("behind ten silent connections: %v, %v", resp, err)
	}
	client.CloseIdleConnections()
}
