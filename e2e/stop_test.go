package e2e

import (
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"
)

// stopLimit is how long a node may take to stop: ten seconds for running
// requests, ten to finish what it accepted, and some on a busy machine.
const stopLimit = 25 * time.Second

// TestGracefulStop stops a node under load. What it accepted it has decided
// when it ends, or takes up again at the next start.
func TestGracefulStop(t *testing.T) { eachBackend(t, testGracefulStop) }

func testGracefulStop(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.start()
	l := startLoad(t, n, 4, 3, 2)
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	random := newRand(t)
	for range rounds {
		before := l.accepted()
		eventually(t, "the load goes on", func() (bool, string) { return l.accepted() > before+30, "" })
		anyMoment(random, 200*time.Millisecond)
		began := time.Now()
		n.signal()
		if code := n.wait(n.process, stopLimit); code != 0 {
			t.Fatalf("exit code after SIGTERM: got %d, want 0", code)
		}
		t.Logf("stopped after %v", time.Since(began))
		accepted := l.acceptedRecords()
		n.start()
		for _, r := range slices.Backward(accepted) { // the last ones first, before the node can make up for it
			status, reason, err := n.status(r.tx.ID)
			if err != nil {
				t.Fatal(err)
			}
			if status == "backlog" || status == "undecided" {
				t.Errorf("transaction %s was accepted before the stop and is %q after the start, want it decided", r.tx.ID, status)
			}
			if status == "" && reason == "no such transaction" {
				t.Errorf("transaction %s was accepted before the stop and is lost", r.tx.ID)
			}
		}
	}
	l.stop()
	auditLedger(t, n, l, auditOptions{})
}

// TestSecondSignal ends a node that still waits for a request, at once.
func TestSecondSignal(t *testing.T) {
	n := newNode(t)
	p := n.start()
	// A body that does not arrive keeps the server from stopping.
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n", transactionsPath, n.addr)
	head := make([]byte, len("HTTP/1.1 100"))
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 100" {
		t.Fatalf("the request is not under way: got %q, %v", head, err)
	}
	n.signal()
	eventually(t, "the node stops to listen", func() (bool, string) {
		c, err := net.Dial("tcp", n.addr)
		if err == nil {
			c.Close()
		}
		return err != nil, ""
	})
	select {
	case <-p.done:
		t.Fatalf("the node ended with code %d though a request runs", p.code)
	default:
	}
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := n.wait(p, 2*time.Second); code != 1 {
		t.Errorf("exit code after the second signal: got %d, want 1", code)
	}
	t.Logf("ended %v after the second signal", time.Since(began))
	n.expectLog("stopped at once by a second signal")
	n.start()
}
