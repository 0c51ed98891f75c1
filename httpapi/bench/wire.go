package bench

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// wire is one HTTP/1.1 connection used by one goroutine. net/http's client
// hands every request through two more goroutines, which on a machine shared
// with the node is a good part of what is measured.
type wire struct {
	url   *url.URL
	tls   *tls.Config
	token string
	conn  net.Conn // nil until needed, and after an error
	in    *bufio.Reader
	out   []byte
}

// response is an answer, read whole.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (r *run) dial() (*wire, error) {
	u, err := url.Parse(r.opts.URL)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return &wire{url: u, tls: r.opts.TLS, token: r.opts.Token}, nil
}

func (w *wire) close() {
	if w.conn != nil {
		_ = w.conn.Close() // nothing is under way
		w.conn = nil
	}
}

// wireTimeout bounds a request. Nothing the tool asks for may take longer.
const wireTimeout = time.Minute

// do sends a request and reads the answer. A connection that the node closed
// in the meantime is replaced once; all requests of the tool may be repeated.
func (w *wire) do(method, path string, body []byte) (response, error) {
	kept := w.conn != nil
	resp, err := w.once(method, path, body)
	if err != nil && kept && !errors.Is(err, errTimeout) {
		resp, err = w.once(method, path, body)
	}
	return resp, err
}

var errTimeout = errors.New("no answer in time")

func (w *wire) once(method, path string, body []byte) (response, error) {
	if err := w.connect(); err != nil {
		return response{}, err
	}
	w.out = append(w.out[:0], method+" "+path+" HTTP/1.1\r\nHost: "+w.url.Host...)
	if w.token != "" {
		w.out = append(w.out, "\r\nAuthorization: Bearer "+w.token...)
	}
	if body != nil {
		w.out = append(w.out, "\r\nContent-Type: application/json\r\nContent-Length: "...)
		w.out = strconv.AppendInt(w.out, int64(len(body)), 10)
	}
	w.out = append(w.out, "\r\n\r\n"...)
	w.out = append(w.out, body...)
	resp, err := w.exchange()
	if err != nil {
		w.close()
		if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
			err = errTimeout
		}
	}
	return resp, err
}

func (w *wire) connect() (err error) {
	if w.conn != nil {
		return nil
	}
	host, port := w.url.Hostname(), w.url.Port()
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	if w.url.Scheme == "https" {
		if port == "" {
			port = "443"
		}
		w.conn, err = tls.DialWithDialer(dialer, "tcp", net.JoinHostPort(host, port), w.tls)
	} else {
		if port == "" {
			port = "80"
		}
		w.conn, err = dialer.Dial("tcp", net.JoinHostPort(host, port))
	}
	if err != nil {
		w.conn = nil
		return err
	}
	w.in = bufio.NewReaderSize(w.conn, 16<<10)
	return nil
}

func (w *wire) exchange() (response, error) {
	if err := w.conn.SetDeadline(time.Now().Add(wireTimeout)); err != nil {
		return response{}, err
	}
	if _, err := w.conn.Write(w.out); err != nil {
		return response{}, err
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	r := response{status: resp.StatusCode, header: resp.Header}
	if resp.ContentLength >= 0 {
		r.body = make([]byte, resp.ContentLength)
		_, err = io.ReadFull(resp.Body, r.body)
	} else {
		r.body, err = io.ReadAll(resp.Body)
	}
	if err == nil && resp.Close {
		w.close()
	}
	return r, err
}

// nextPage gives path and query of the next page of a list, "" on the last.
func (r response) nextPage() string {
	target, ok := strings.CutSuffix(r.header.Get("Link"), `>; rel="next"`)
	u, err := url.Parse(strings.TrimPrefix(target, "<"))
	if !ok || err != nil {
		return ""
	}
	return u.RequestURI()
}

// failure names an answer or error by its kind, without ids, for counting.
func failure(resp response, err error) string {
	if err != nil {
		for _, known := range []error{errTimeout, io.EOF, io.ErrUnexpectedEOF} {
			if errors.Is(err, known) {
				return known.Error()
			}
		}
		var op *net.OpError
		if errors.As(err, &op) {
			return op.Op + ": " + op.Err.Error()
		}
		return err.Error()
	}
	var body struct{ Message string }
	_ = json.Unmarshal(resp.body, &body) // whoever answered may not be a node
	kind := body.Message
	if before, _, ok := strings.Cut(kind, "): "); ok {
		kind = before + ")"
	}
	const most = 60
	if len(kind) > most {
		kind = kind[:most] + "…"
	}
	return strings.TrimSpace(strconv.Itoa(resp.status) + " " + kind)
}
