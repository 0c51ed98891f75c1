package faultproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	patience = 10 * time.Second
	// silence is how long a connection is listened to that must say nothing.
	silence = 100 * time.Millisecond
)

// echo is a server that sends back what it gets, and says with ended when a
// connection of it is over.
func echo(t *testing.T) (port int, ended <-chan struct{}) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{}, 100)
	var workers sync.WaitGroup
	workers.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			workers.Go(func() {
				io.Copy(connection, connection)
				connection.Close()
				over <- struct{}{}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		workers.Wait()
	})
	return listener.Addr().(*net.TCPAddr).Port, over
}

// pair is a proxy before an echo.
func pair(t *testing.T) (*Proxy, <-chan struct{}) {
	port, ended := echo(t)
	return New(t, "127.0.0.1", port), ended
}

func dial(t *testing.T, p *Proxy) *net.TCPConn {
	t.Helper()
	connection, err := net.Dial("tcp", net.JoinHostPort(p.Host, strconv.Itoa(p.Port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	connection.SetDeadline(time.Now().Add(patience))
	return connection.(*net.TCPConn)
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// mustEnd reads until the connection's end, which must come, and returns what
// was read before.
func mustEnd(t *testing.T, c net.Conn) []byte {
	t.Helper()
	var all bytes.Buffer
	if _, err := all.ReadFrom(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection is still there")
	}
	return all.Bytes()
}

// mustBeSilent wants a connection that is there and says nothing.
func mustBeSilent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(silence))
	defer c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %d bytes, %v, want silence", n, err)
	}
}

func TestForwards(t *testing.T) {
	p, _ := pair(t)
	c := dial(t, p)
	large := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	go c.Write(large)
	mustRead(t, c, string(large))
	// One direction's end does not end the other.
	send(t, c, "bye")
	c.CloseWrite()
	if got := mustEnd(t, c); string(got) != "bye" {
		t.Errorf("got %q after half of the connection was closed", got)
	}
	if p.Hits() != 0 {
		t.Errorf("%d hits without a fault", p.Hits())
	}
}

func TestCut(t *testing.T) {
	p, ended := pair(t)
	one, two := dial(t, p), dial(t, p)
	for _, c := range []net.Conn{one, two} {
		send(t, c, "a")
		mustRead(t, c, "a")
	}
	p.Cut()
	for _, c := range []net.Conn{one, two} {
		mustEnd(t, c)
		select { // the server sees it, too
		case <-ended:
		case <-time.After(patience):
			t.Fatal("the server's half is still there")
		}
	}
	again := dial(t, p)
	send(t, again, "b")
	mustRead(t, again, "b")
}

func TestRefuse(t *testing.T) {
	p, _ := pair(t)
	old := dial(t, p)
	send(t, old, "a")
	mustRead(t, old, "a")
	p.Refuse(true)
	for range 3 {
		// The reset may be there before the connection is.
		if c, err := net.Dial("tcp", p.listener.Addr().String()); err == nil {
			c.SetDeadline(time.Now().Add(patience))
			if got := mustEnd(t, c); len(got) > 0 {
				t.Errorf("got %q", got)
			}
			c.Close()
		}
	}
	if p.Hits() != 3 {
		t.Errorf("%d hits, want 3", p.Hits())
	}
	send(t, old, "b")
	mustRead(t, old, "b")
	p.Refuse(false)
	c := dial(t, p)
	send(t, c, "c")
	mustRead(t, c, "c")
}

func TestHang(t *testing.T) {
	for name, end := range map[string]func(*Proxy){"off": func(p *Proxy) { p.Hang(false) }, "clear": (*Proxy).Clear} {
		p, _ := pair(t)
		old := dial(t, p)
		send(t, old, "a")
		mustRead(t, old, "a")
		p.Hang(true)
		young := dial(t, p)
		for _, c := range []net.Conn{old, young} {
			send(t, c, "late")
			mustBeSilent(t, c)
		}
		end(p)
		for _, c := range []net.Conn{old, young} {
			mustRead(t, c, "late")
		}
		// One that hangs can be cut.
		p.Hang(true)
		send(t, old, "never")
		p.Cut()
		if got := mustEnd(t, old); len(got) > 0 {
			t.Errorf("%s: got %q from a connection that hung", name, got)
		}
	}
}

func TestThrottle(t *testing.T) {
	p, _ := pair(t)
	c := dial(t, p)
	p.Throttle(100_000)
	begin := time.Now()
	send(t, c, strings.Repeat("x", 10_000)) // a tenth of a second each way
	if _, err := io.ReadFull(c, make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 150*time.Millisecond {
		t.Errorf("10,000 bytes to and fro took %v at 100,000 bytes per second, want more", took)
	}
	p.Throttle(0)
	send(t, c, "y")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestCutAfter(t *testing.T) {
	p, _ := pair(t)
	old := dial(t, p)
	send(t, old, "not counted")
	mustRead(t, old, "not counted")
	for hits, n := range []int{5, 1, 0, 100_000} {
		p.CutAfter(n)
		c := old // counts from now on
		if hits > 0 {
			c = dial(t, p)
		}
		go c.Write(bytes.Repeat([]byte("x"), n+1000))
		if got := mustEnd(t, c); len(got) != n {
			t.Errorf("got %d bytes, want %d", len(got), n)
		}
		if p.Hits() != hits+1 {
			t.Errorf("%d hits, want %d", p.Hits(), hits+1)
		}
	}
	p.Clear()
	c := dial(t, p)
	send(t, c, "whole")
	mustRead(t, c, "whole")
	if p.Hits() != 0 {
		t.Errorf("%d hits after Clear", p.Hits())
	}
}

func TestCutAfterRandom(t *testing.T) {
	p, _ := pair(t)
	const least, most = 10, 13
	p.CutAfterRandom(least, most)
	seen := map[int]bool{}
	for range 100 {
		c := dial(t, p)
		send(t, c, "0123456789012345678901234567890123456789")
		n := len(mustEnd(t, c))
		if n < least || n > most {
			t.Fatalf("got %d bytes", n)
		}
		seen[n] = true
	}
	if len(seen) != most-least+1 {
		t.Errorf("of %d to %d bytes only %v", least, most, seen)
	}
}

// A server that is not there ends the connection, and does not disturb others
// later.
func TestNoServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	p := New(t, "127.0.0.1", port)
	if got := mustEnd(t, dial(t, p)); len(got) > 0 {
		t.Errorf("got %q", got)
	}
}

// The proxy leaves nothing running, whatever it was doing.
func TestEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	for name, fault := range map[string]func(*Proxy){
		"nothing": func(*Proxy) {},
		"hang":    func(p *Proxy) { p.Hang(true) },
		"refuse":  func(p *Proxy) { p.Refuse(true) },
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := pair(t)
			for range 5 {
				c := dial(t, p)
				send(t, c, "a")
				mustRead(t, c, "a")
			}
			fault(p)
			var users sync.WaitGroup
			for range 5 {
				users.Go(func() { // the proxy may end it at any point
					c, err := net.Dial("tcp", p.listener.Addr().String())
					if err != nil {
						return
					}
					defer c.Close()
					c.Write([]byte("b"))
				})
			}
			users.Wait()
			p.close()
			if _, err := net.Dial("tcp", p.listener.Addr().String()); err == nil {
				t.Error("it still listens")
			}
		})
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left of %d", runtime.NumGoroutine(), before)
		}
	}
}
