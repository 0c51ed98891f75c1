package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
)

// abuse is how much of each abuse a run has. E2E_ABUSE=1 asks for the full run.
type abuse struct {
	slow      int           // of each: headers, bodies and readers that trickle
	idle      int           // silent sockets, and as many that are kept alive
	streams   int           // that nobody reads
	resets    int           // HTTP/2 streams opened and reset at once
	pipelined int           // requests sent at once
	lasts     time.Duration // at least
}

// abuseRun gives the size of this run, and the settings that make a short one
// see the same limits as a long one.
func abuseRun(t *testing.T) (a abuse, environ []string) {
	if os.Getenv("E2E_ABUSE") != "" {
		return abuse{slow: 400, idle: 5000, streams: 1100, resets: 100_000, pipelined: 5000, lasts: time.Minute}, nil
	}
	a = abuse{slow: 40, idle: 300, streams: 40, resets: 5_000, pipelined: 2000, lasts: 2 * time.Second}
	connections := "400"
	if testing.Short() {
		a = abuse{slow: 10, idle: 120, streams: 10, resets: 1_000, pipelined: 200}
		connections = "200"
	}
	const limits = "BIGCHAINDB_SERVER_LIMITS_"
	return a, []string{
		limits + "CONNECTIONS=" + connections, limits + "HEADER_TIMEOUT=2s", limits + "READ_TIMEOUT=3s", limits + "WRITE_TIMEOUT=2s", limits + "IDLE_TIMEOUT=3s",
	}
}

// attack is what the abusers of one node share.
type attack struct {
	t *testing.T
	n *node
	abuse
	over chan struct{} // closed when it is over
	all  sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newAttack(t *testing.T, n *node, a abuse) *attack {
	return &attack{t: t, n: n, abuse: a, over: make(chan struct{})}
}

// open opens a connection that is closed when the attack is over at the latest;
// nil when the node has none to give.
func (a *attack) open() *net.TCPConn {
	conn, err := net.DialTimeout("tcp", a.n.addr, patience)
	if err != nil {
		a.t.Errorf("a connection for abuse: %v", err)
		return nil
	}
	a.mu.Lock()
	a.conns = append(a.conns, conn)
	a.mu.Unlock()
	return conn.(*net.TCPConn)
}

// each runs work on so many connections.
func (a *attack) each(count int, work func(*net.TCPConn)) {
	for range count {
		if conn := a.open(); conn != nil {
			a.all.Go(func() { work(conn) })
		}
	}
}

// trickle writes text, then a byte now and then, until the node has had enough.
func (a *attack) trickle(text, bytes string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		if _, err := conn.Write([]byte(text)); err != nil {
			return
		}
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-a.over:
				return
			case <-ticker.C:
			}
			if _, err := conn.Write([]byte{bytes[i%len(bytes)]}); err != nil {
				return
			}
		}
	}
}

// sip asks for a long list many times over, and reads a byte now and then.
func (a *attack) sip(path string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		_ = conn.SetReadBuffer(4 << 10) // it goes without, more slowly
		request := strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n", 200)
		if _, err := conn.Write([]byte(request)); err != nil {
			return
		}
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for one := make([]byte, 1); ; {
			select {
			case <-a.over:
				return
			case <-ticker.C:
			}
			if _, err := conn.Read(one); err != nil {
				return
			}
		}
	}
}

// stay sends text, and then nothing.
func (a *attack) stay(text string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		_, _ = conn.Write([]byte(text)) // it may have been cut already
		<-a.over
	}
}

// end ends the attack and closes what it opened.
func (a *attack) end() {
	close(a.over)
	a.mu.Lock()
	for _, conn := range a.conns {
		conn.Close()
	}
	a.mu.Unlock()
	a.all.Wait()
}

// goodClient reads and posts, and is answered each time.
type goodClient struct {
	n     *node
	owner ledger.KeyPair
	tx    *ledger.Transaction // that it reads
	over  chan struct{}
	done  sync.WaitGroup

	mu      sync.Mutex
	answers int
	again   int // requests that were sent twice, as their connection was cut
	slowest time.Duration
	faults  []string
}

func startGoodClient(t *testing.T, n *node) *goodClient {
	c := &goodClient{n: n, owner: ledger.GenerateKeyPair(), over: make(chan struct{})}
	c.tx = create(t, c.owner)
	n.mustBecomeValid(t, c.tx)
	// Posts come over connections of their own, as one that idled may be cut,
	// and nobody repeats a POST unasked.
	transport := n.http.Transport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	fresh := &node{t: t, addr: n.addr, scheme: n.scheme, http: &http.Client{Transport: transport, Timeout: patience}}
	c.done.Go(func() {
		for c.goesOn(5 * time.Millisecond) {
			c.ask(n, http.MethodGet, transactionsPath+c.tx.ID, nil, http.StatusOK)
			c.ask(n, http.MethodGet, "/api/v1/outputs?public_key="+c.owner.Public, nil, http.StatusOK)
		}
	})
	c.done.Go(func() {
		for c.goesOn(20 * time.Millisecond) {
			c.ask(fresh, http.MethodPost, transactionsPath, create(t, c.owner).Bytes(), http.StatusAccepted)
		}
	})
	return c
}

func (c *goodClient) goesOn(pause time.Duration) bool {
	select {
	case <-c.over:
		return false
	case <-time.After(pause):
		return true
	}
}

func (c *goodClient) ask(n *node, method, path string, body []byte, want int) {
	a, err := n.do(method, path, body)
	again := err != nil
	if again { // cut in the rush, before the node had seen more than a connection
		a, err = n.do(method, path, body)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if again {
		c.again++
	}
	c.answers++
	c.slowest = max(c.slowest, a.took)
	if err != nil || a.status != want {
		c.faults = append(c.faults, fmt.Sprintf("%s %.60s: %v, %v", method, path, a, err))
	}
}

// end stops the client and judges the answers.
func (c *goodClient) end(t *testing.T) {
	t.Helper()
	close(c.over)
	c.done.Wait()
	t.Logf("the good client asked %d times, %d of them twice; the slowest answer took %v", c.answers, c.again, c.slowest)
	if few := max(3, c.answers/100); c.again > few {
		t.Errorf("%d of %d connections of the good client were cut, want at most %d", c.again, c.answers, few)
	}
	if len(c.faults) > 0 || c.answers < 20 {
		t.Errorf("of %d requests of the good client %d were not answered: %q", c.answers, len(c.faults), c.faults[:min(5, len(c.faults))])
	}
}

// footprint is what a node uses.
type footprint struct {
	files      int
	goroutines float64
	resident   float64 // bytes
}

func (n *node) footprint() footprint {
	n.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.process.cmd.Process.Pid))
	if err != nil {
		n.t.Skipf("no /proc here: %v", err)
	}
	f := footprint{files: len(entries)}
	for name, value := range map[string]*float64{"go_goroutines": &f.goroutines, "process_resident_memory_bytes": &f.resident} {
		if *value, err = n.metric(name); err != nil {
			n.t.Error(err)
		}
	}
	return f
}

func (f footprint) String() string {
	return fmt.Sprintf("%d files, %.0f goroutines, %.0f MB", f.files, f.goroutines, f.resident/1e6)
}

// wantBackTo waits until a node uses about what it used before.
func (n *node) wantBackTo(t *testing.T, before footprint) {
	t.Helper()
	eventually(t, "the node is back to "+before.String(), func() (bool, string) {
		n.http.CloseIdleConnections()
		now := n.footprint()
		return now.files <= before.files+20 && now.goroutines <= before.goroutines+30, now.String()
	})
	after := n.footprint()
	t.Logf("before: %v; after: %v; peak of resident memory: %d MB", before, after, n.peakMemory()>>20)
	if os.Getenv("E2E_ABUSE") != "" {
		n.wantMemoryBack(t, before)
	}
	if got := after.resident; got > badInputMemory && !raceEnabled {
		t.Errorf("resident memory: got %.0f MB, want at most %d", got/1e6, badInputMemory>>20)
	}
}

// wantMemoryBack waits until an idle node has given back what it used. The
// runtime of Go looks for garbage every two minutes at least.
func (n *node) wantMemoryBack(t *testing.T, before footprint) {
	t.Helper()
	const extra, limit = 150e6, 6 * time.Minute
	began := time.Now()
	for {
		now := n.footprint()
		if now.resident <= before.resident+extra {
			t.Logf("after %v: %v", time.Since(began).Round(time.Second), now)
			return
		}
		if time.Since(began) > limit {
			t.Errorf("resident memory is %v after %v", now, limit)
			return
		}
		time.Sleep(time.Second)
	}
}

// TestAbuse attacks a node in all ways that need no TLS, at once. Meanwhile a
// good client reads and posts.
func TestAbuse(t *testing.T) {
	if raceEnabled && testing.Short() {
		t.Skip("not tested with -race -short: the detector makes half a minute of it; httpapi's own tests and TestAbuseTLS run with it")
	}
	size, environ := abuseRun(t)
	n := newNode(t, environ...)
	n.start()
	rich := ledger.GenerateKeyPair()
	n.mustBecomeValid(t, create(t, rich, slices.Repeat([]int64{1}, streamed)...))
	list := "/api/v1/outputs?public_key=" + rich.Public
	good := startGoodClient(t, n)
	before := n.footprint()

	a := newAttack(t, n, size)
	began := time.Now()
	const head = " HTTP/1.1\r\nHost: x\r\n"
	a.each(a.slow, a.trickle("GET /"+head+"X-Slow: ", "x"))
	a.each(a.slow, a.trickle("GET /"+head, "X: y\r\n"))
	a.each(a.slow, a.trickle("POST "+transactionsPath+head+"Content-Length: 100000\r\n\r\n{", " "))
	a.each(a.slow, a.trickle("POST "+transactionsPath+head+"Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"))
	a.each(a.slow, a.sip(list))
	a.each(a.slow, a.sip(list+"&limit=1000"))
	a.each(a.streams, a.stay(streamRequest))
	a.each(a.idle, a.stay(""))
	a.each(a.idle, a.stay("GET /healthz"+head+"\r\n"))
	for began, rounds := time.Now(), 0; rounds == 0 || time.Since(began) < a.lasts; rounds++ {
		a.badFrames()
		a.badRequests()
		a.pipelines()
		a.bombs()
	}
	evicted, err := n.metric("couchledger_http_connections_evicted_total")
	if err != nil || evicted == 0 {
		t.Errorf("%v connections gave way, %v, want some", evicted, err)
	}
	during := n.footprint()
	good.end(t)
	a.end()
	t.Logf("attacked for %v with %d connections, of which %.0f gave way; meanwhile: %v", time.Since(began), len(a.conns), evicted, during)
	n.wantBackTo(t, before)
	n.mustBecomeValid(t, create(t, rich))
	if tail := n.tail(10_000); strings.Contains(tail, "panic") {
		t.Error("the log has a panic")
	}
}

// pipelines sends thousands of requests at once, and wants as many answers.
func (a *attack) pipelines() {
	conn := a.open()
	if conn == nil {
		return
	}
	defer conn.Close()
	request := "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	a.all.Go(func() {
		_, _ = conn.Write([]byte(strings.Repeat(request, a.pipelined))) // what is missing, the count tells
	})
	reader := newResponses(conn)
	for i := range a.pipelined {
		status, _, err := reader.next()
		if err != nil || status != http.StatusOK {
			a.t.Errorf("pipelined request %d: got %d, %v", i, status, err)
			return
		}
	}
}

// bombs posts small bodies that would be large ones, if anybody unpacked them,
// and bodies that are too large.
func (a *attack) bombs() {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	for range 64 {
		_, _ = w.Write(make([]byte, 1<<20)) // to memory
	}
	_ = w.Close()
	for _, b := range []struct {
		path, encoding string
		body           []byte
	}{
		{transactionsPath, "gzip", packed.Bytes()}, {"/api/v1/query", "gzip", packed.Bytes()}, {transactionsPath, "", make([]byte, 5_000_000)},
	} {
		req, err := http.NewRequest(http.MethodPost, "http://"+a.n.addr+b.path, bytes.NewReader(b.body))
		if err != nil {
			a.t.Fatal(err)
		}
		req.Header.Set("Content-Encoding", b.encoding)
		resp, err := a.n.http.Do(req)
		if err != nil {
			continue // a body that it does not read, the node may cut
		}
		resp.Body.Close()
		if resp.StatusCode/100 != 4 {
			a.t.Errorf("a body of %d bytes, %s: got %d, want a refusal", len(b.body), strconv.Quote(b.encoding), resp.StatusCode)
		}
	}
}
