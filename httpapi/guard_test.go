package httpapi

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node"
)

// sendWith sends a GET, or another method before a space, with headers.
func sendWith(t testing.TB, url string, header http.Header) answer {
	t.Helper()
	method, address, found := strings.Cut(url, " ")
	if !found {
		method, address = http.MethodGet, url
	}
	req, err := http.NewRequest(method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	return send1(t, req)
}

// TestRequestIDs: each answer has an id, the client's own if it is harmless, and
// the log lines of the request have it, too.
func TestRequestIDs(t *testing.T) {
	var log lockedBuffer
	n := fakenode.New()
	n.Hook = func(method, _ string) error {
		if method == "Block" {
			panic("kaputt")
		}
		return nil
	}
	_, base := start(t, n, Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	seen := map[string]bool{}
	for _, path := range []string{"/", "/healthz", "/metrics", "/nothing", "/api/v1/blocks", "/api/v1/blocks/" + noID, "OPTIONS /api/v1"} {
		method, path, found := strings.Cut(path, " ")
		if !found {
			method, path = http.MethodGet, method
		}
		got := do(t, method, base+path, "")
		id := got.header.Get("X-Request-Id")
		if !isRequestID(id) || seen[id] {
			t.Errorf("%s: got X-Request-Id %q", path, id)
		}
		seen[id] = true
		if method != http.MethodOptions {
			eventually(t, "the log has no line of the request for "+path, func() bool { return strings.Contains(log.text(), "request_id="+id) })
		}
		if got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got headers %v", path, got.header)
		}
	}
	for given, taken := range map[string]bool{"abc-1._Z": true, strings.Repeat("x", 64): true, strings.Repeat("x", 65): false, "a b": false, "a\"": false, "ä": false, "": false} {
		got := sendWith(t, base+"/api/v1/blocks/"+noID, http.Header{"X-Request-Id": {given}})
		id := got.header.Get("X-Request-Id")
		if (id == given) != taken {
			t.Errorf("X-Request-Id %q: got %q", given, id)
		}
		wantError(t, "a panic", got, 500, "internal error, request "+id)
		if !strings.Contains(log.text(), "request_id="+id+" method=GET route=/api/v1/blocks/:id panic=kaputt") {
			t.Errorf("the log does not tell of the panic of request %s", id)
		}
	}
}

// TestLogHoldsNoSecrets: what clients put into headers and unknown parameters.
func TestLogHoldsNoSecrets(t *testing.T) {
	var log lockedBuffer
	_, base := start(t, fakenode.New(), Options{
		Tokens: []Token{{Name: "alice", Hash: HashToken("right"), May: MayQuery}},
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	for _, path := range []string{"/api/v1/blocks?token=hunter2", "/api/v1/blocks?hunter2", "/?password=hunter2&limit=5", "/api/v1/blocks?tx%5Fid=hunter2"} {
		got := sendWith(t, base+path, http.Header{"Authorization": {"Bearer hunter2"}, "Cookie": {"hunter2"}})
		if strings.Contains(got.body, "hunter2") && !strings.Contains(path, "?hunter2") { // that is a parameter's name
			t.Errorf("%s: got %s", path, got.body)
		}
	}
	sendWith(t, base+"/api/v1/votes?block_id="+noID, http.Header{"Authorization": {"Bearer right"}})
	eventually(t, "the last request is not logged", func() bool { return strings.Contains(log.text(), `uri="/api/v1/votes`) })
	text := log.text()
	if strings.Contains(text, "hunter2") || strings.Contains(text, "right") || !strings.Contains(text, "limit=5") {
		t.Errorf("got log %s", text)
	}
	if !strings.Contains(text, "token=alice") {
		t.Errorf("the log does not name the token's owner: %s", text)
	}
}

func TestRates(t *testing.T) {
	now := time.Now()
	l := newRates(10, 3)
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for i := range 3 {
		if err := l.take(a, now); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	err, _ := l.take(a, now).(*httpError)
	if err == nil || err.status != 429 || err.retry < 90*time.Millisecond || err.retry > 110*time.Millisecond {
		t.Fatalf("got %+v, want a 429 for 100 ms", err)
	}
	if err := l.take(b, now); err != nil {
		t.Errorf("another client: %v", err)
	}
	if err := l.take(a, now.Add(err.retry)); err != nil {
		t.Errorf("after the time that was named: %v", err)
	}
	if newRates(0, 5).take(a, now) != nil {
		t.Error("no bound refuses")
	}
	six := func(text string) netip.Addr { return netip.MustParseAddr(text) }
	l = newRates(1, 1)
	if l.take(six("2001:db8::1"), now) != nil || l.take(six("2001:db8::ffff:2%eth0"), now) == nil || l.take(six("2001:db8:0:1::1"), now) != nil {
		t.Error("the addresses of one /64 are not one client")
	}
	for i := range maxClients + 100 {
		l.take(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if len(l.clients) != maxClients || l.recent.Len() != maxClients {
		t.Errorf("%d clients are remembered, want %d", len(l.clients), maxClients)
	}
}

// Whatever comes, a client gets no more than the burst and what the time gives.
func TestRatesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond, burst := rapid.IntRange(1, 100).Draw(t, "rate"), rapid.IntRange(1, 50).Draw(t, "burst")
		l := newRates(perSecond, burst)
		begin := time.Now()
		now, taken := begin, 0
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "ms")) * time.Millisecond)
			if l.take(netip.MustParseAddr("::1"), now) == nil {
				taken++
			}
		}
		if most := float64(burst) + float64(perSecond)*now.Sub(begin).Seconds() + 0.01; float64(taken) > most {
			t.Fatalf("%d were taken, at most %.2f may be", taken, most)
		}
	})
}

func TestRateOverHTTP(t *testing.T) {
	_, base := start(t, fakenode.New(), Options{Rate: 1, Burst: 2, TrustForwarded: true})
	client := func(addr string) http.Header { return http.Header{"X-Forwarded-For": {"6.6.6.6, " + addr}} }
	for range 2 {
		if got := sendWith(t, base+"/", client("1.2.3.4")); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	got := sendWith(t, base+"/", client("1.2.3.4"))
	wantError(t, "one too many", got, 429, "more often than it may")
	if seconds, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || seconds != 1 {
		t.Errorf("got Retry-After %q, want 1", got.header.Get("Retry-After"))
	}
	if got := sendWith(t, base+"/", client("1.2.3.5")); got.status != 200 {
		t.Errorf("another client: got %d", got.status)
	}
	for range 5 {
		if got := sendWith(t, base+"/healthz", client("1.2.3.4")); got.status != 200 {
			t.Errorf("a probe: got %d", got.status)
		}
	}
	if text := get(t, base+"/metrics").body; !strings.Contains(text, `couchledger_http_refused_total{reason="rate"} 1`) {
		t.Error("the metrics do not count the refusal")
	}
}

// TestChunkedBodiesEndConnections: where such a body ends others may see
// otherwise, so nothing behind it is taken for a request.
func TestChunkedBodiesEndConnections(t *testing.T) {
	_, base := start(t, fakenode.New(), Options{})
	const next = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	for body, want := range map[string]int{
		"Content-Length: 2\r\n\r\n{}": 2, "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n": 1,
		"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 1,
	} {
		conn := dialRaw(t, base, "POST /api/v1/transactions HTTP/1.1\r\nHost: x\r\n"+body+next)
		if err := errors.Join(conn.(*net.TCPConn).CloseWrite(), conn.SetReadDeadline(time.Now().Add(patience))); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(conn)
		if got := strings.Count(string(text), "HTTP/1.1 "); err != nil || got != want {
			t.Errorf("%q: got %d answers, %v, want %d", body, got, err, want)
		}
	}
}

func TestClientOf(t *testing.T) {
	trusting, plain := New(fakenode.New(), Options{TrustForwarded: true}), New(fakenode.New(), Options{})
	for header, want := range map[string]string{
		"": "10.0.0.9", "1.2.3.4": "1.2.3.4", "evil, 1.2.3.4": "1.2.3.4", "9.9.9.9, 8.8.8.8, 1.2.3.4": "1.2.3.4", "1.1.1.1,2.2.2.2:80": "2.2.2.2", "nonsense": "10.0.0.9",
		"[2001:db8::1]:80": "2001:db8::1", "::ffff:1.2.3.4": "1.2.3.4", "1.2.3.4,": "10.0.0.9",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "10.0.0.9:1234"
		if header != "" {
			r.Header.Set("X-Forwarded-For", header)
		}
		if got := trusting.clientOf(r).String(); got != want {
			t.Errorf("X-Forwarded-For %q: got %s, want %s", header, got, want)
		}
		if got := plain.clientOf(r).String(); got != "10.0.0.9" {
			t.Errorf("untrusted X-Forwarded-For %q: got %s", header, got)
		}
	}
}

func FuzzParseAddr(f *testing.F) {
	for _, text := range []string{"1.2.3.4:5", "[::1]:80", "::1", "fe80::1%eth0", "[fe80::1%25x]:1", "]["} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		addr, ok := parseAddr(text)
		if ok != addr.IsValid() || ok && !clientKey(addr).IsValid() || addr.Is4In6() {
			t.Errorf("%q: got %v, %v", text, addr, ok)
		}
	})
}

// TestNothingInternal has each call fail with errors that hold what is nobody's
// business, in each way that has an answer of its own.
func TestNothingInternal(t *testing.T) {
	const secret = "10.9.8.7:5984"
	var fault error
	n := fakenode.New()
	n.Hook = func(string, string) error { return fault }
	_, base := start(t, n, Options{})
	for _, err := range []error{
		fmt.Errorf("*pebble.DB at /var/lib/secret: %s", secret), fmt.Errorf("%w: dial tcp %s: refused", node.ErrBusy, secret),
		fmt.Errorf("asking %s: %w", secret, errClosed{}), fmt.Errorf("%s: %w", secret, node.ErrNotFound), fmt.Errorf("%s: %w", secret, node.ErrBadCursor),
	} {
		fault = err
		for _, path := range []string{"/api/v1/transactions/" + noID, "/api/v1/outputs?public_key=" + someKey, "/api/v1/statuses?block_id=" + noID,
			"/api/v1/votes?block_id=" + noID, "POST /api/v1/transactions", "POST /api/v1/query"} {
			method, path, found := strings.Cut(path, " ")
			if !found {
				method, path = http.MethodGet, method
			}
			got := do(t, method, base+path, `{"table":"votes","selector":{}}`)
			if got.status < 400 || strings.Contains(got.body, secret) || strings.Contains(got.body, "secret") || strings.Contains(got.body, "pebble") {
				t.Errorf("%s with %v: got %d %s", path, err, got.status, got.body)
			}
		}
	}
	for _, path := range []string{"/debug/pprof/", "/debug/vars", "/debug/pprof/profile"} {
		if got := get(t, base+path); got.status != 404 {
			t.Errorf("%s: got %d, want 404", path, got.status)
		}
	}
}

// errClosed is an error of a type of its own.
type errClosed struct{}

func (errClosed) Error() string { return "use of closed connection" }

// TestCatchingUp: what a node answers before it has read the whole ledger says so.
func TestCatchingUp(t *testing.T) {
	fake := fakenode.New()
	_, base := start(t, fake, Options{})
	if got := get(t, base+"/api/v1/blocks?tx_id="+noID); got.header.Get("X-Catching-Up") != "" {
		t.Errorf("caught up: got X-Catching-Up %q", got.header.Get("X-Catching-Up"))
	}
	fake.Behind = &node.CatchUp{Blocks: 7, Votes: 28, Newest: time.Unix(1_500_000_000, 0)}
	const want = "7 blocks and 28 votes read, the newest block of 2017-07-14T02:40:00Z"
	if got := get(t, base+"/api/v1/blocks?tx_id="+noID); got.status != 200 || got.header.Get("X-Catching-Up") != want {
		t.Errorf("behind: got %d, X-Catching-Up %q, want %q", got.status, got.header.Get("X-Catching-Up"), want)
	}
}
