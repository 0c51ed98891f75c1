package e2e

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// streamRequest asks for a stream.
const streamRequest = "GET /api/v1/streams/valid_tx HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// responses reads answers from a connection.
type responses struct {
	conn net.Conn
	in   *bufio.Reader
}

func newResponses(conn net.Conn) *responses {
	return &responses{conn: conn, in: bufio.NewReader(conn)}
}

func (r *responses) next() (status int, body string, err error) {
	if err := r.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(r.in, nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// frame is a WebSocket frame, masked with zeroes.
func frame(first byte, payload string) string {
	out := []byte{first, 0x80 | byte(min(len(payload), 126))}
	if len(payload) > 125 {
		out = binary.BigEndian.AppendUint16(out, uint16(len(payload)))
	}
	return string(append(out, 0, 0, 0, 0)) + payload
}

// badFrames sends each kind of broken WebSocket frame on a stream of its own:
// the node ends each of them.
func (a *attack) badFrames() {
	var round sync.WaitGroup
	defer round.Wait()
	long := func(length uint64) string {
		return string(binary.BigEndian.AppendUint64([]byte{0x81, 0x80 | 127}, length)) + "\x00\x00\x00\x00xx"
	}
	for name, bad := range map[string]string{
		"unmasked":                    "\x81\x02hi",
		"reserved bits":               frame(0xf1, "hi"),
		"unknown opcode":              frame(0x83, "hi"),
		"unknown control opcode":      frame(0x8b, "hi"),
		"fragmented ping":             frame(0x09, "hi"),
		"long ping":                   frame(0x89, strings.Repeat("x", 126)),
		"continuation of nothing":     frame(0x80, "hi"),
		"a text within a text":        frame(0x01, "h") + frame(0x81, "i"),
		"length of 2^63":              long(1 << 63),
		"length of 2^63-1":            long(1<<63-1) + strings.Repeat("x", 1<<17),
		"more than a message may":     long(1<<20) + strings.Repeat("x", 1<<17),
		"close code 0":                frame(0x88, "\x00\x00"),
		"close code 1005":             frame(0x88, "\x03\xed"),
		"close of one byte":           frame(0x88, "\x03"),
		"close without a reason":      frame(0x88, ""),
		"close with invalid UTF-8":    frame(0x88, "\x03\xe8\xff\xfe"),
		"invalid UTF-8, then a close": frame(0x81, "\xff\xfe") + frame(0x88, "\x03\xe8"),
		"half a header and the end":   "\x81",
	} {
		conn := a.open()
		if conn == nil {
			return
		}
		round.Go(func() {
			defer conn.Close()
			if err := brokenStream(conn, bad); err != nil {
				a.t.Errorf("a WebSocket frame, %s: %v", name, err)
			}
		})
	}
}

func brokenStream(conn *net.TCPConn, bad string) error {
	if _, err := io.WriteString(conn, streamRequest); err != nil {
		return err
	}
	r := newResponses(conn)
	status, _, err := r.next()
	if err != nil || status == http.StatusServiceUnavailable { // as many streams as there may be
		return err
	}
	if status != http.StatusSwitchingProtocols {
		return fmt.Errorf("got %d, want 101", status)
	}
	if _, err := io.WriteString(conn, bad); err != nil {
		return nil // the node has ended it
	}
	if len(bad) == 1 {
		_ = conn.CloseWrite() // else the node rightly waits
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var timeout net.Error
	if _, err := io.Copy(io.Discard, r.in); errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("the stream goes on")
	}
	return nil
}

// badRequests sends requests that are none, or are meant to be read in two ways.
// What the node answers it answers in the 400s, and without more than it says.
func (a *attack) badRequests() {
	var round sync.WaitGroup
	defer round.Wait()
	const host = " HTTP/1.1\r\nHost: x\r\n"
	post := "POST " + transactionsPath + host
	const smuggled = "GET " + smuggledPath + " HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, bad := range []string{
		"\r\n\r\n\r\n", "nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",                            // no host
		"GET /" + host + "Host: y\r\n\r\n",                  // two hosts
		"GET / HTTP/1.1\r\nHost: a b/c\r\n\r\n",             // none that is one
		"G\x00T /" + host + "\r\n",                          // methods
		"GET@ / " + host + "\r\n",                           //
		strings.Repeat("A", 100_000) + " /" + host + "\r\n", //
		"GET /" + strings.Repeat("a", 1<<20) + host + "\r\n",
		"GET /" + host + "X: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
		"GET /" + host + strings.Repeat("X: y\r\n", 100_000) + "\r\n",
		"GET /" + host + " folded: x\r\n\r\n", "GET /" + host + "No-Colon\r\n\r\n", "GET /" + host + "Sp ace: x\r\n\r\n", "GET /" + host + "X: a\x00b\r\n\r\n",
		post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   " + smuggled,
		post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		post + "Content-Length: -1\r\n\r\n" + smuggled,
		post + "Content-Length: +2\r\n\r\n{}" + smuggled,
		post + "Content-Length: 99999999999999999999\r\n\r\n{}",
		post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
		post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + smuggled,
		post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
		post + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + smuggled,
		post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" + smuggled,
		post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n" + smuggled,
		post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}",
		post + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n" + smuggled,
		post + "Transfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("x", 100_000) + "\r\n{}\r\n0\r\n\r\n",
		post + "Expect: 200-ok\r\nContent-Length: 2\r\n\r\n{}",
		"CONNECT db.example:5984" + host + "\r\n", "TRACE /" + host + "\r\n", "OPTIONS *" + host + "\r\n", "BREW /api/v1" + host + "\r\n",
		"GET http://user:hunter2@elsewhere.example/nothing" + host + "\r\n", "GET https:nothing" + host + "\r\n", "GET //elsewhere.example/x" + host + "\r\n",
		"GET /..%2f..%2fetc/passwd" + host + "\r\n", "GET /%2e%2e/%2e%2e/etc/passwd" + host + "\r\n", "GET /api/v1/../../metrics%00" + host + "\r\n",
		"GET /api/v1/transactions/%" + host + "\r\n", "GET /api/v1/blocks/%00%ff%0d%0aX:y" + host + "\r\n", "GET /api/v1/transactions/" + strings.Repeat("%41", 5000) + host + "\r\n",
		"GET /api/v1/outputs?public_key=%" + host + "\r\n", "GET /api/v1/outputs?" + strings.Repeat("a&", 10_000) + host + "\r\n",
	} {
		conn := a.open()
		if conn == nil {
			return
		}
		round.Go(func() {
			defer conn.Close()
			a.badRequest(conn, bad)
		})
	}
}

func (a *attack) badRequest(conn *net.TCPConn, bad string) {
	name := fmt.Sprintf("%.60q", bad)
	// Beside the reading, as the node need not read all of it.
	a.all.Go(func() {
		if _, err := io.WriteString(conn, bad); err == nil {
			_ = conn.CloseWrite() // then no answer is left that could be waited for
		}
	})
	r := newResponses(conn)
	for {
		status, body, err := r.next()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			a.t.Errorf("%s: nothing happens", name)
		}
		if err != nil {
			return // the connection has ended
		}
		known := status/100 == 4 || status == http.StatusNotImplemented || status == http.StatusHTTPVersionNotSupported ||
			status == http.StatusServiceUnavailable || status == http.StatusOK && strings.HasPrefix(bad, "OPTIONS *")
		if !known || len(body) > 2000 || strings.Contains(body, "goroutine") || strings.Contains(body, "hunter2") {
			a.t.Errorf("%s: got %d %.300s", name, status, body)
		}
		if strings.Contains(bad, smuggledPath) && status == http.StatusNotFound {
			a.t.Errorf("%s: a request in the body was answered: %d %s", name, status, body)
		}
	}
}

// smuggledPath is asked for in bodies only.
const smuggledPath = "/smuggled"
