package httpapi

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/labstack/echo/v4"
)

const (
	// keepAlive is the idle time before and between TCP keep-alive probes.
	keepAlive = 30 * time.Second
	// maxIncoming bounds one message from a stream's client, in bytes. What it
	// says is ignored.
	maxIncoming = 64 << 10
	// closeWait is how long a client may take to answer a close frame.
	closeWait = 2 * time.Second
)

// streamValid opens the stream of transactions that become valid, from now on:
// one text message {"txid","assetid","blockid"} for each, in the order of
// decisions. A reader whose queue overflows, or who does not read for
// Options.WriteTimeout, is cut off without a close frame.
func (s *Server) streamValid(c echo.Context, _ query) error {
	r := c.Request()
	if _, err := parseQuery(r.URL.RawQuery, nil); err != nil {
		return err
	}
	if err := checkUpgrade(c, r); err != nil {
		return err
	}
	if err := s.checkOrigin(r); err != nil {
		return err
	}
	// Joined before the handshake is answered, so that the client gets every
	// event decided after its connection stands.
	st, err := s.hub.join()
	if err != nil {
		return err
	}
	defer s.hub.leave(st)
	taken := &takeover{ResponseWriter: c.Response().Writer, timeout: s.opts.WriteTimeout}
	socket, err := websocket.Accept(taken, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // checkOrigin has looked
		Subprotocols:       []string{streamProtocol},
	})
	if taken.conn == nil {
		s.log.Debug("a WebSocket handshake failed", "request_id", idOf(c), "remote", r.RemoteAddr, "error", err)
		return failure(http.StatusInternalServerError, "the connection cannot carry a WebSocket")
	}
	c.Response().Committed, c.Response().Status = true, http.StatusSwitchingProtocols
	if err != nil {
		_ = taken.conn.Close() // the handshake already failed
		return nil
	}
	st.connected(taken.conn.reset)
	s.feed(idOf(c), socket, taken.conn, st)
	return nil
}

// checkUpgrade refuses what is no WebSocket handshake with a JSON body;
// websocket.Accept would answer in plain text.
func checkUpgrade(c echo.Context, r *http.Request) error {
	if !hasToken(r.Header["Connection"], "upgrade") || !hasToken(r.Header["Upgrade"], "websocket") {
		header := c.Response().Header()
		header.Set("Connection", "Upgrade")
		header.Set("Upgrade", "websocket")
		return failure(http.StatusUpgradeRequired, "this resource is a WebSocket stream")
	}
	if r.Header.Get("Sec-WebSocket-Version") != "13" {
		c.Response().Header().Set("Sec-WebSocket-Version", "13")
		return failure(http.StatusBadRequest, "Sec-WebSocket-Version must be 13")
	}
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	if err != nil || len(key) != 16 || len(r.Header["Sec-Websocket-Key"]) != 1 {
		return failure(http.StatusBadRequest, "Sec-WebSocket-Key must be base64 of 16 bytes")
	}
	return nil
}

func hasToken(values []string, token string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// feed writes a stream's messages until it ends or its client goes. id is that
// of the request that opened it.
func (s *Server) feed(id string, socket *websocket.Conn, conn *corkedConn, st *stream) {
	defer func() { _ = socket.CloseNow() }() // after Close it does nothing
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		ignoreIncoming(socket)
	}()
	// The write timeout is the connection's own, so no context is needed,
	// which would cost a timer per message.
	ctx := context.Background()
	for {
		select {
		case <-st.wake:
		case <-st.done:
		case <-gone:
			return
		}
		for _, messages := range st.take() {
			if err := send(ctx, socket, conn, messages); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					s.hub.drop(st)
				}
				s.log.Debug("a stream broke", "request_id", id, "error", err)
				return
			}
			s.metrics.streamEvents.Add(float64(len(messages)))
		}
		switch st.ended() {
		case endGoingAway:
			timer := time.AfterFunc(closeWait, conn.reset)
			defer timer.Stop()
			_ = socket.Close(websocket.StatusGoingAway, "the node ends this stream") // the client may be gone
			return
		case endCut:
			return
		}
	}
}

func send(ctx context.Context, socket *websocket.Conn, conn *corkedConn, messages batch) error {
	conn.cork()
	for _, m := range messages {
		if err := socket.Write(ctx, websocket.MessageText, m); err != nil {
			return err
		}
	}
	return conn.uncork()
}

// ignoreIncoming reads until the connection ends, which also answers pings
// and close frames.
func ignoreIncoming(socket *websocket.Conn) {
	socket.SetReadLimit(maxIncoming)
	for {
		_, r, err := socket.Reader(context.Background())
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return
		}
	}
}

// takeover hands websocket.Accept the client's connection inside a corkedConn.
type takeover struct {
	http.ResponseWriter
	timeout time.Duration
	conn    *corkedConn // nil until hijacked
}

// Hijack implements http.Hijacker.
func (t *takeover) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if tcp := tcpOf(raw); tcp != nil {
		// A client without keep-alive is only noticed later.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive})
	}
	t.conn = &corkedConn{Conn: raw, timeout: t.timeout}
	rw.Writer.Reset(t.conn)
	return t.conn, rw, nil
}

// corkedConn can hold writes back, so that a block's thousand messages, each
// a frame that the WebSocket library flushes, go out in a few writes.
type corkedConn struct {
	net.Conn
	timeout time.Duration

	mu     sync.Mutex
	corked bool
	buf    []byte
}

// corkBytes is how much is held back at most.
const corkBytes = 64 << 10

// reset closes the connection and forgets what its client has not read.
func (c *corkedConn) reset() { reset(c.Conn) }

// lastWrite is how long Close may take to send what is held back.
const lastWrite = time.Second

// Close sends what is held back, where no other write is under way: it may end
// with the answer to the client's close frame.
func (c *corkedConn) Close() error {
	if c.mu.TryLock() {
		if len(c.buf) > 0 {
			_ = c.Conn.SetWriteDeadline(time.Now().Add(lastWrite))
			_, _ = c.Conn.Write(c.buf) // the client may be gone
			c.buf = nil
		}
		c.mu.Unlock()
	}
	return c.Conn.Close()
}

func (c *corkedConn) cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

func (c *corkedConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.flush()
}

// Write implements io.Writer.
func (c *corkedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p...)
	if c.corked && len(c.buf) < corkBytes {
		return len(p), nil
	}
	return len(p), c.flush()
}

func (c *corkedConn) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	// A connection without deadlines fails in Write.
	_ = c.Conn.SetWriteDeadline(time.Now().Add(c.timeout))
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}
