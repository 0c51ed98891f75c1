package httpapi

import (
	"bytes"
	sequence "container/list"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/couchledger/couchledger/canonical"
)

// gate is a listener that bounds the open connections. It is always either the
// client's turn on a connection or the node's: the client's while it is idle,
// sends a request, or reads an answer. When there is no room, the connection on
// which it has been the client's turn for longest gives way to the new one. So
// sockets that idle, trickle or do not read cannot keep others out, however
// many they are. Only when the node has requests to answer on all of them the
// new one is turned away.
type gate struct {
	net.Listener
	most      int // open at once
	perClient int // open at once of one client, 0 for no bound
	tls       bool
	// writeTimeout is Options.WriteTimeout.
	writeTimeout time.Duration
	metrics      *metrics
	goodbyes     chan struct{} // one for each that is being turned away

	mu      sync.Mutex
	pressed time.Time // when press last looked
	open    int
	waiting sequence.List // of *gatedConn: the client's turn, for longest first
	clients map[netip.Prefix]*clientConns
}

// clientConns are one client's connections.
type clientConns struct {
	open    int
	waiting sequence.List // as the gate's
}

// maxGoodbyes is how many connections are turned away with an answer at once;
// beyond it they are just closed.
const maxGoodbyes = 64

func newGate(l net.Listener, opts Options, m *metrics) *gate {
	return &gate{
		Listener: l, most: opts.MaxConnections, perClient: opts.MaxClientConnections, tls: opts.TLS != nil, writeTimeout: opts.WriteTimeout, metrics: m,
		goodbyes: make(chan struct{}, maxGoodbyes), clients: map[netip.Prefix]*clientConns{},
	}
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		admitted, victim, reason := g.admit(conn)
		if victim != nil {
			g.metrics.evicted.Inc()
			victim.cut()
		}
		if admitted != nil {
			return admitted, nil
		}
		g.metrics.refused.WithLabelValues(refusedConnection).Inc()
		g.turnAway(conn, reason)
	}
}

// admit takes a connection in, and names the one that gives way to it. Where
// none can, nothing is admitted.
func (g *gate) admit(conn net.Conn) (admitted, victim *gatedConn, reason string) {
	addr, _ := parseAddr(conn.RemoteAddr().String())
	key := clientKey(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	client := g.clients[key]
	if client == nil {
		client = &clientConns{}
	}
	switch {
	case g.perClient > 0 && client.open >= g.perClient:
		if victim = first(&client.waiting); victim == nil {
			return nil, nil, "this client has as many connections open as it may"
		}
	case g.open >= g.most:
		if victim = first(&g.waiting); victim == nil {
			return nil, nil, "the node has as many connections open as it may"
		}
	}
	if victim != nil {
		g.release(victim)
	}
	g.clients[key] = client
	c := &gatedConn{Conn: conn, gate: g, key: key, client: client}
	g.open++
	client.open++
	g.metrics.connections.Set(float64(g.open))
	c.enqueue()
	return c, victim, ""
}

// mostSpared bounds how many connections are looked at for one that gives way.
const mostSpared = 256

// first is the connection that gives way: the first one that waits, nil when
// none does. A request that has arrived, and that the node has not come to read
// in a rush of new connections, spares its connection.
func first(waiting *sequence.List) *gatedConn {
	spared := 0
	for e := waiting.Front(); e != nil && spared < mostSpared; e = e.Next() {
		c := e.Value.(*gatedConn)
		if c.answering || !hasUnread(c.Conn) {
			return c
		}
		spared++
	}
	if e := waiting.Front(); e != nil {
		return e.Value.(*gatedConn)
	}
	return nil
}

// release takes a connection out of the count, once. The lock is held.
func (g *gate) release(c *gatedConn) {
	if c.released {
		return
	}
	c.released = true
	c.dequeue()
	g.open--
	g.metrics.connections.Set(float64(g.open))
	if c.client.open--; c.client.open == 0 {
		delete(g.clients, c.key)
	}
}

// press cuts the connections whose clients have not taken an answer for so long:
// others wait for the room that it takes. However many wait and press, it looks
// once in pressEvery: it walks over all connections.
func (g *gate) press(stall time.Duration) {
	var victims []*gatedConn
	g.mu.Lock()
	if time.Since(g.pressed) < pressEvery {
		g.mu.Unlock()
		return
	}
	g.pressed = time.Now()
	for e := g.waiting.Front(); e != nil; e = e.Next() {
		c := e.Value.(*gatedConn)
		if time.Since(c.since) < stall {
			break // as are all behind it
		}
		if c.writing {
			victims = append(victims, c)
		}
	}
	g.mu.Unlock()
	for _, c := range victims {
		g.metrics.evicted.Inc()
		c.cut()
	}
}

// turnAway answers a connection that there is no room for.
func (g *gate) turnAway(conn net.Conn, reason string) {
	select {
	case g.goodbyes <- struct{}{}:
	default:
		_ = conn.Close() // whoever it is gets no answer
		return
	}
	go func() {
		defer func() { <-g.goodbyes }()
		defer conn.Close()
		if g.tls {
			return // a handshake for this is more than it is worth
		}
		const patience = time.Second
		_ = conn.SetDeadline(time.Now().Add(patience)) // else Write and Read fail
		body := canonical.AppendString([]byte(`{"status":503,"message":`), reason)
		body = append(body, '}')
		answer := &http.Response{
			StatusCode: http.StatusServiceUnavailable, ProtoMajor: 1, ProtoMinor: 1, Close: true, ContentLength: int64(len(body)),
			Header: http.Header{"Content-Type": jsonType, "Retry-After": {"1"}, headerRequestID: {requestID(nil)}},
			Body:   io.NopCloser(bytes.NewReader(body)),
		}
		if answer.Write(conn) != nil {
			return
		}
		// Closed with something unread, it would take the answer back.
		if tcp, ok := conn.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, conn, firstRead)
		}
	}()
}

// gatedConn is a connection that a gate counts.
type gatedConn struct {
	net.Conn
	gate   *gate
	key    netip.Prefix
	client *clientConns

	// Under the gate's lock.
	running int // requests that the node has to answer
	// answering: a request has been read, and its answer is not out. What is
	// unread then is no reason to spare the connection.
	answering bool
	// writing: an answer waits for the client to take it.
	writing  bool
	since    time.Time         // that it has been the client's turn
	place    *sequence.Element // in gate.waiting; nil while it is the node's turn
	mine     *sequence.Element // in client.waiting
	released bool
}

// NetConn is the connection beneath, as tls.Conn has it.
func (c *gatedConn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *gatedConn) Close() error {
	c.gate.mu.Lock()
	c.gate.release(c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// cut closes the connection and forgets what the client has not read.
func (c *gatedConn) cut() { reset(c.Conn) }

// reset closes a connection and forgets what its client has not read, which
// the system would keep for as long as the client trickles.
func reset(conn net.Conn) {
	if tcp := tcpOf(conn); tcp != nil {
		_ = tcp.SetLinger(0) // it is closed either way
		_ = tcp.Close()      // and not by way of TLS, whose Close says goodbye first
	}
	_ = conn.Close()
}

// tcpOf finds the TCP connection beneath; nil where there is none.
func tcpOf(conn net.Conn) *net.TCPConn {
	for {
		switch c := conn.(type) {
		case *net.TCPConn:
			return c
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// busy says that the node has one more request to answer on the connection,
// and waits that the next move is the client's. Both do nothing on nil: a
// server that is not behind a gate.
func (c *gatedConn) busy() {
	if c == nil {
		return
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.running++
	c.answering, c.writing = true, false
	c.dequeue()
}

func (c *gatedConn) waits() {
	if c == nil {
		return
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.running--; c.running == 0 && !c.released {
		c.enqueue()
	}
}

// writes is waits, and says that an answer waits for the client to take it.
func (c *gatedConn) writes() {
	if c == nil {
		return
	}
	c.waits()
	c.gate.mu.Lock()
	c.writing = true
	c.gate.mu.Unlock()
}

// idles is waits, and says that an answer is out.
func (c *gatedConn) idles() {
	if c == nil {
		return
	}
	c.waits()
	c.gate.mu.Lock()
	c.answering = c.running > 0
	c.gate.mu.Unlock()
}

func (c *gatedConn) enqueue() {
	c.since = time.Now()
	c.place = c.gate.waiting.PushBack(c)
	c.mine = c.client.waiting.PushBack(c)
}

func (c *gatedConn) dequeue() {
	if c.place != nil {
		c.gate.waiting.Remove(c.place)
		c.client.waiting.Remove(c.mine)
		c.place, c.mine = nil, nil
	}
}

type connKey struct{}

// withConn gives the requests of a connection their gatedConn.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	for {
		switch c := conn.(type) {
		case *gatedConn:
			return context.WithValue(ctx, connKey{}, c)
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return ctx
		}
	}
}

// connOf is the connection of a request, nil when there is no gate.
func connOf(r *http.Request) *gatedConn {
	c, _ := r.Context().Value(connKey{}).(*gatedConn)
	return c
}
