// Package faultproxy stands between a client and a database server in tests,
// and makes faults of the network: cut, refused, silent and slow connections. It
// forwards bytes, whatever they mean.
package faultproxy

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Proxy listens on a loopback port and forwards every connection to one
// server. All methods may be called at any time from many goroutines.
type Proxy struct {
	// Host and Port are where the proxy listens.
	Host string
	Port int

	target   string
	listener net.Listener
	running  context.Context
	stop     context.CancelFunc
	workers  sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond // hang went off, or a link was cut
	links   map[*link]struct{}
	refuse  bool
	hang    bool
	rate    int        // bytes per second of one direction of a connection; 0 is no limit
	budget  func() int // answer bytes that a connection may have; nil for all
	hits    int
}

// New starts a proxy to the server at host and port, which need not be there
// yet. It ends with the test, and its connections with it.
func New(t testing.TB, host string, port int) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port,
		target: net.JoinHostPort(host, strconv.Itoa(port)), listener: listener, links: map[*link]struct{}{},
	}
	p.changed = sync.NewCond(&p.mu)
	p.running, p.stop = context.WithCancel(context.Background())
	p.workers.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Cut closes all connections now. New ones are taken.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut()
	}
}

// Refuse has new connections reset as soon as they are made, as by a server
// that is starting. Those that are there go on; Cut ends them.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// Hang forwards nothing and keeps all connections open, new ones too, as a
// network that loses every packet. What was sent meanwhile goes on when it is
// off again.
func (p *Proxy) Hang(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hang = on
	p.changed.Broadcast()
}

// Throttle lets each connection carry so many bytes per second either way, as a
// server or a line that is slow; 0 ends that.
func (p *Proxy) Throttle(bytesPerSecond int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = bytesPerSecond
}

// pace waits as long as n bytes take, or until the proxy ends.
func (p *Proxy) pace(n int) {
	p.mu.Lock()
	rate := p.rate
	p.mu.Unlock()
	if rate == 0 || n == 0 {
		return
	}
	timer := time.NewTimer(time.Duration(n) * time.Second / time.Duration(rate))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.running.Done():
	}
}

// CutAfter cuts each connection when n more bytes came from the server: those
// that are there and those to come. With 0 it is cut when the server begins to
// answer.
func (p *Proxy) CutAfter(n int) { p.cutAfter(func() int { return n }) }

// CutAfterRandom is CutAfter with a number of bytes from least to most for
// each connection, all equally likely.
func (p *Proxy) CutAfterRandom(least, most int) {
	p.cutAfter(func() int { return least + rand.IntN(most-least+1) })
}

func (p *Proxy) cutAfter(budget func() int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budget = budget
	for l := range p.links {
		l.left = budget()
	}
}

// Hits is how many connections Refuse, CutAfter and CutAfterRandom ended since
// the proxy was made or cleared.
func (p *Proxy) Hits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

// Clear ends every fault and counts hits from zero.
func (p *Proxy) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse, p.hang, p.rate, p.budget, p.hits = false, false, 0, nil, 0
	p.changed.Broadcast()
}

// close ends the proxy and waits for its goroutines.
func (p *Proxy) close() {
	p.stop()
	p.listener.Close()
	p.Cut()
	p.workers.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of this connection only
		}
		if l := p.admit(client.(*net.TCPConn)); l != nil {
			p.workers.Go(l.run)
		}
	}
}

// admit makes a link of a new connection, or ends it: nil.
func (p *Proxy) admit(client *net.TCPConn) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse || p.running.Err() != nil {
		p.hits++
		client.SetLinger(0) // a reset, not an orderly end
		client.Close()
		return nil
	}
	l := &link{proxy: p, client: client}
	if p.budget != nil {
		l.left = p.budget()
	}
	p.links[l] = struct{}{}
	return l
}

// link is one connection with its other half to the server. Its fields but
// proxy and client are the proxy's mutex's.
type link struct {
	proxy  *Proxy
	client *net.TCPConn
	server *net.TCPConn // nil until it is made
	gone   bool         // both halves are closed
	left   int          // answer bytes until it is cut; counts only while the proxy has a budget
}

// cut closes both halves; the proxy's mutex is held.
func (l *link) cut() {
	l.gone = true
	l.client.Close()
	if l.server != nil {
		l.server.Close()
	}
	delete(l.proxy.links, l)
	l.proxy.changed.Broadcast()
}

func (l *link) run() {
	defer l.end()
	var dialer net.Dialer
	connection, err := dialer.DialContext(l.proxy.running, "tcp", l.proxy.target)
	if err != nil {
		return // the client sees it closed
	}
	server := connection.(*net.TCPConn)
	if !l.join(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.copy(server, l.client, false) })
	both.Go(func() { l.copy(l.client, server, true) })
	both.Wait()
}

// end cuts the link unless that was done.
func (l *link) end() {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	if !l.gone {
		l.cut()
	}
}

// join makes the server's connection the other half, or closes it when the
// link was cut meanwhile.
func (l *link) join(server *net.TCPConn) bool {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	if l.gone {
		server.Close()
		return false
	}
	l.server = server
	return true
}

// copy forwards one direction until its end, which it passes on, or until the
// link is cut. answers tells that from is the server.
func (l *link) copy(to, from *net.TCPConn, answers bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		l.proxy.pace(n)
		allowed, last := l.pass(n, answers)
		if _, wrong := to.Write(buffer[:allowed]); wrong != nil || last {
			l.end()
			return
		}
		if errors.Is(err, io.EOF) {
			to.CloseWrite() // the other direction may have more to say
			return
		}
		if err != nil {
			l.end()
			return
		}
	}
}

// pass waits while the proxy hangs and tells how many of n bytes may go on,
// and whether the link is to be cut after them.
func (l *link) pass(n int, answers bool) (allowed int, last bool) {
	p := l.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.hang && !l.gone {
		p.changed.Wait()
	}
	if l.gone {
		return 0, true
	}
	if !answers || n == 0 || p.budget == nil {
		return n, false
	}
	allowed = min(n, l.left)
	if l.left -= allowed; l.left == 0 {
		p.hits++
		return allowed, true
	}
	return allowed, false
}
