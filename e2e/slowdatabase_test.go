package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
	"github.com/couchledger/couchledger/statedb/statedbtest/faultproxy"
)

// TestSlowDatabase posts far more than a slow database takes. What is accepted
// is decided in the end, for the rest there is a 503 with Retry-After, and what
// waits in the node's memory is bounded.
func TestSlowDatabase(t *testing.T) {
	a := couchAddress(couchtest.Shared(t))
	proxy := faultproxy.New(t, a.host, a.port)
	a.host, a.port = proxy.Host, proxy.Port
	n := servers[0].newNode(t, a)
	n.start()
	proxy.Throttle(pressure(2<<20, 4<<20))
	alice := ledger.GenerateKeyPair()
	txs := make([]*ledger.Transaction, pressure(60, 3000))
	for i := range txs {
		txs[i] = largeTransaction(t, alice, pressure(10_000, 20_000), nil)
	}
	var busy, next atomic.Int64
	var posters sync.WaitGroup
	begin := time.Now()
	for range 64 {
		posters.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(txs) {
					return
				}
				for {
					a, err := n.do(http.MethodPost, transactionsPath, txs[i].Bytes())
					if err != nil || a.status != http.StatusServiceUnavailable {
						if err != nil || a.status != http.StatusAccepted {
							t.Errorf("POST: %v, %v", a, err)
						}
						break
					}
					busy.Add(1)
					if a.header.Get("Retry-After") == "" {
						t.Errorf("a 503 without Retry-After: %v", a)
					}
					time.Sleep(100 * time.Millisecond) // less than it asks for
				}
			}
		})
	}
	posters.Wait()
	t.Logf("%d transactions accepted in %v, %d times 503", len(txs), time.Since(begin).Round(time.Millisecond), busy.Load())
	n.wantBounded(t, "a slow database")
	proxy.Throttle(0) // what is accepted is decided, sooner or later
	for _, tx := range txs {
		n.awaitValid(t, tx.ID)
	}
	n.stop()
	n.wantDone(t, []string{"verify"}, "The ledger is sound.")
}

// TestLargePosts posts transactions of almost a megabyte from many clients at
// once, and reads them in large lists and pages.
func TestLargePosts(t *testing.T) {
	n := newNode(t)
	n.start()
	alice := ledger.GenerateKeyPair()
	var clients sync.WaitGroup
	count := pressure(30, 400)
	all := make([]*ledger.Transaction, count)
	for i := range all {
		all[i] = largeTransaction(t, alice, 900_000, nil)
	}
	for _, tx := range all {
		clients.Go(func() {
			for {
				a, err := n.do(http.MethodPost, transactionsPath, tx.Bytes())
				if err == nil && a.status == http.StatusAccepted {
					return
				}
				var slow net.Error // all of them have waited for their turn
				if timeout := errors.As(err, &slow) && slow.Timeout(); !timeout && (err != nil || a.status != http.StatusServiceUnavailable) {
					t.Errorf("POST: %v, %v", a, err)
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	clients.Wait()
	for _, tx := range all {
		n.awaitValid(t, tx.ID)
	}
	n.wantBounded(t, fmt.Sprintf("%d large posts at once", count))
	for range pressure(10, 100) {
		clients.Go(func() {
			a, err := n.do(http.MethodPost, "/api/v1/query", []byte(`{"table":"transactions","limit":1000,"start_key":"0"}`))
			if err != nil || a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
				t.Errorf("a huge page: %v, %v", a, err)
			}
		})
	}
	clients.Wait()
	n.wantBounded(t, "huge pages")
}

// fewFiles is how many file descriptors a node may have in TestFewDescriptors.
const fewFiles = 160

// TestFewDescriptors opens more connections than the node has descriptors for.
// The node lives, and goes on when they are gone; nothing is lost.
func TestFewDescriptors(t *testing.T) {
	n := newNode(t, "BIGCHAINDB_SERVER_LIMITS_CONNECTIONS=100000") // else it keeps some back
	// The shell lowers the limit for the program that replaces it.
	wrapped := n.file("limited")
	script := "#!/bin/sh\nulimit -n " + strconv.Itoa(fewFiles) + "\nexec " + program + ` "$@"` + "\n"
	if err := os.WriteFile(wrapped, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	n.program = wrapped
	n.start()
	l := startLoad(t, n, 2, 2, 1)
	rounds := pressure(2, 10)
	for range rounds {
		l.goesOn(t)
		slow := newSlowClients(t)
		for range 2 * fewFiles {
			slow.open(t, n.addr)
		}
		eventually(t, "all descriptors are taken", func() (bool, string) {
			entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(n.process.cmd.Process.Pid), "fd"))
			return len(entries) >= fewFiles-1, fmt.Sprint(len(entries), err)
		})
		before := l.accepted()
		eventually(t, "clients that are connected are served", func() (bool, string) { return l.accepted() > before+100, fmt.Sprint(l.accepted() - before) })
		slow.end()
		l.wantRecovery(t, "a lack of descriptors")
	}
	n.wantBounded(t, "no descriptors left")
	l.wantAll(t)
	if log := n.tail(10_000); strings.Contains(log, syscall.EMFILE.Error()) && strings.Count(log, "\n") > 1000 {
		t.Error("the log is full of it")
	}
}
