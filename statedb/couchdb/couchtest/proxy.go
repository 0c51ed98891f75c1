package couchtest

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Fault is what a Proxy does to requests in place of just forwarding them.
// The zero Fault hits every request and cuts its connection unforwarded.
type Fault struct {
	// Part of the path of the requests it hits, such as _bulk_docs; "" for all.
	Part string
	// Times is how many requests it hits; 0 is no limit.
	Times int

	// Status answers with a status instead of forwarding.
	Status int
	// Hang never answers, until the fault is over or the client gives up.
	Hang bool
	// Forward lets the request through and then cuts the connection: after
	// Bytes of the answer's body, or before its beginning when Bytes is 0.
	Forward bool
	Bytes   int64

	hits atomic.Int64
	over context.Context
	end  context.CancelFunc
}

// Hits is how many requests the fault has hit.
func (f *Fault) Hits() int { return int(f.hits.Load()) }

// Proxy stands between a node and its CouchDB, and makes faults.
type Proxy struct {
	Address
	server *http.Server

	mu    sync.Mutex
	fault *Fault // nil forwards everything
	open  map[*http.Request]context.CancelFunc
}

// NewProxy starts a proxy to a server; it ends with the test.
func NewProxy(t testing.TB, to Address) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Address: to, open: map[*http.Request]context.CancelFunc{}}
	p.Host, p.Port = "127.0.0.1", listener.Addr().(*net.TCPAddr).Port
	target := &url.URL{Scheme: "http", Host: net.JoinHostPort(to.Host, strconv.Itoa(to.Port))}
	forward := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1, // a feed's lines go on as they come
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.server = &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(forward, w, r) }),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go p.server.Serve(listener)
	t.Cleanup(func() {
		p.Clear()
		p.server.Close()
	})
	return p
}

// Set makes a fault from now on, in place of another.
func (p *Proxy) Set(f *Fault) *Fault {
	f.over, f.end = context.WithCancel(context.Background())
	f.hits.Store(0)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault != nil {
		p.fault.end()
	}
	p.fault = f
	return f
}

// Clear ends the fault.
func (p *Proxy) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault != nil {
		p.fault.end()
	}
	p.fault = nil
}

// CutAll cuts the connections of the requests under way with this part in
// their path.
func (p *Proxy) CutAll(part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r, cut := range p.open {
		if strings.Contains(r.URL.Path, part) {
			cut()
		}
	}
}

// track makes a request one that CutAll can cut; done ends that.
func (p *Proxy) track(r *http.Request) (tracked *http.Request, done func()) {
	ctx, cut := context.WithCancel(r.Context())
	tracked = r.WithContext(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[tracked] = cut
	return tracked, func() {
		cut()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, tracked)
	}
}

// hit returns the fault of a request, or nil.
func (p *Proxy) hit(r *http.Request) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.fault
	if f == nil || !strings.Contains(r.URL.Path, f.Part) || f.Times > 0 && f.Hits() >= f.Times {
		return nil
	}
	f.hits.Add(1)
	return f
}

func (p *Proxy) serve(forward http.Handler, w http.ResponseWriter, r *http.Request) {
	r, done := p.track(r)
	defer done()
	f := p.hit(r)
	switch {
	case f == nil:
		forward.ServeHTTP(w, r)
		return
	case f.Status != 0:
		io.Copy(io.Discard, r.Body)
		http.Error(w, `{"error":"made_by_the_test","reason":"a fault"}`, f.Status)
		return
	case f.Hang:
		select {
		case <-f.over.Done():
		case <-r.Context().Done():
		}
	case f.Forward:
		forward.ServeHTTP(&cutWriter{ResponseWriter: w, left: f.Bytes}, r)
	}
	panic(http.ErrAbortHandler) // cuts the connection
}

// cutWriter lets some bytes of a body through, then cuts the connection.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cutWriter) WriteHeader(status int) {
	if w.left == 0 {
		panic(http.ErrAbortHandler)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *cutWriter) Write(b []byte) (int, error) {
	if int64(len(b)) < w.left {
		w.left -= int64(len(b))
		return w.ResponseWriter.Write(b)
	}
	w.ResponseWriter.Write(b[:w.left])
	http.NewResponseController(w.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
