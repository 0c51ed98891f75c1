package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node"
)

// listen opens a stream. Its connection is cut when the test ends.
func listen(t testing.TB, base string, header http.Header) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, base+"/api/v1/streams/valid_tx", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func events(from, count int) []node.Event {
	list := make([]node.Event, count)
	for i := range list {
		list[i] = node.Event{TxID: fmt.Sprintf("%064d", from+i), AssetID: fmt.Sprintf("%064x", from+i), BlockID: fmt.Sprintf("%064d", from)}
	}
	return list
}

func message(e node.Event) string {
	return fmt.Sprintf(`{"txid":"%s","assetid":"%s","blockid":"%s"}`, e.TxID, e.AssetID, e.BlockID)
}

// expect reads one message per event.
func expect(t testing.TB, conn *websocket.Conn, want []node.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i, e := range want {
		kind, text, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if kind != websocket.MessageText || string(text) != message(e) {
			t.Fatalf("message %d: got %v %s, want %s", i, kind, text, message(e))
		}
	}
}

func TestStream(t *testing.T) {
	n := fakenode.New()
	_, base := start(t, n, Options{})
	first := listen(t, base, nil)
	foreign := listen(t, base, http.Header{"Origin": {base}})

	all := append(events(0, 1000), events(5000, 1)...)
	n.Publish(all[:1000])
	n.Publish(all[1000:])
	expect(t, first, all)

	// What clients send is ignored; later ones get later events only.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, text := range []string{"hello", `{"subscribe":"everything"}`, strings.Repeat("x", maxIncoming)} {
		if err := first.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	late := listen(t, base, nil)
	more := events(10_000, 3)
	n.Publish(more)
	expect(t, first, more)
	expect(t, late, more)
	expect(t, foreign, append(all, more...))
	if got := n.Subscribers(); got != 1 {
		t.Errorf("three streams take %d subscriptions of the node, want 1", got)
	}

	// A real transaction's event.
	id := post(t, base, fakenode.CreateTx(someKey, 1, 1))
	var blocks []string
	decode(t, get(t, base+"/api/v1/blocks?tx_id="+id).body, &blocks)
	expect(t, late, []node.Event{{TxID: id, AssetID: id, BlockID: blocks[0]}})

	for _, conn := range []*websocket.Conn{first, foreign, late} {
		if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	eventually(t, "the node keeps a subscription nobody reads", func() bool { return n.Subscribers() == 0 })
}

func eventually(t testing.TB, failure string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal(failure)
		}
		time.Sleep(time.Millisecond)
	}
}

// rawListen opens a stream whose client never reads, with a small window.
func rawListen(t testing.TB, base string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET /api/v1/streams/valid_tx HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	reply := make([]byte, len("HTTP/1.1 101"))
	if _, err := io.ReadFull(conn, reply); err != nil || string(reply) != "HTTP/1.1 101" {
		t.Fatalf("handshake: %s, %v", reply, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestSlowReaderIsDropped(t *testing.T) {
	for name, opts := range map[string]Options{
		"queue overflows":    {StreamQueue: 5000},
		"write takes long":   {WriteTimeout: 50 * time.Millisecond},
		"both, many at once": {StreamQueue: 5000, WriteTimeout: 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			n := fakenode.New()
			_, base := start(t, n, opts)
			slow := rawListen(t, base)
			quick := listen(t, base, nil)
			// The slow one is cut after as much as the buffers of the system
			// and its queue hold; the quick one misses nothing.
			for i := range 40 {
				batch := events(1000*i, 1000)
				n.Publish(batch)
				expect(t, quick, batch)
			}
			if err := slow.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(slow)
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				t.Error("the slow reader was not dropped")
			}
			if len(text) > 40_000*len(message(node.Event{})) {
				t.Errorf("the slow reader got everything, %d bytes", len(text))
			}
			eventually(t, "the drop is not counted", func() bool { // once the connection is closed
				return strings.Contains(get(t, base+"/metrics").body, "couchledger_http_streams_dropped_total 1")
			})
		})
	}
}

func TestStreamsEnd(t *testing.T) {
	goingAway := func(t *testing.T, conn *websocket.Conn, what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("%s: got %v, want status 1001", what, err)
		}
	}
	n := fakenode.New()
	s, base := start(t, n, Options{MaxStreams: 3})
	conn := listen(t, base, nil)
	n.EndSubscriptions()
	goingAway(t, conn, "the node ended it")

	conn = listen(t, base, nil) // the server subscribes anew
	batch := events(0, 10)
	n.Publish(batch)
	expect(t, conn, batch)

	eventually(t, "the ended stream still counts", func() bool {
		return strings.Contains(get(t, base+"/metrics").body, "couchledger_http_streams_open 1")
	})
	deaf := rawListen(t, base) // answers no close frame
	rawListen(t, base)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, resp, err := websocket.Dial(ctx, base+"/api/v1/streams/valid_tx/", nil)
	if err == nil || resp.StatusCode != 503 {
		t.Errorf("one stream too many: got %v", err)
	}
	last := events(100, 10)
	n.Publish(last)
	expect(t, conn, last)
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	goingAway(t, conn, "shutdown")
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if _, err := io.Copy(io.Discard, deaf); err != nil {
		t.Logf("the deaf client saw %v", err)
	}
	if got := n.Subscribers(); got != 0 {
		t.Errorf("%d subscriptions are left", got)
	}
}

// TestShutdownInAHurry cuts what does not end by itself.
func TestShutdownInAHurry(t *testing.T) {
	s, base := start(t, fakenode.New(), Options{})
	rawListen(t, base)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begin := time.Now()
	if err := s.Shutdown(ctx); err == nil && time.Since(begin) > closeWait {
		t.Errorf("it took %v", time.Since(begin))
	}
}

func TestHandshakeErrors(t *testing.T) {
	_, base := start(t, fakenode.New(), Options{})
	good := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
	for name, test := range map[string]struct {
		value  string
		status int
	}{
		"Connection": {"close", 426}, "Upgrade": {"h2c", 426}, "Sec-WebSocket-Version": {"8", 400}, "Sec-WebSocket-Key": {"short", 400},
	} {
		req, err := http.NewRequest(http.MethodGet, base+"/api/v1/streams/valid_tx", nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range good {
			req.Header.Set(k, v)
		}
		req.Header.Set(name, test.value)
		wantError(t, name, send1(t, req), test.status, "")
	}
}
