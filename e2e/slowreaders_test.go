package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

// pressure is how many of something there are: some, or with PRESSURE=1 most.
func pressure(some, most int) int {
	switch {
	case os.Getenv("PRESSURE") != "":
		return most
	case testing.Short():
		return max(some/4, 1)
	}
	return some
}

// noGrowth is what a node may take at most under any of these pressures, in
// bytes: about twice what its heap is held to, which bursts may exceed.
const noGrowth = 800 << 20

// wantBounded checks and logs the most memory that the node had.
func (n *node) wantBounded(t testing.TB, what string) {
	t.Helper()
	most := n.peakMemory()
	t.Logf("%s: most memory %d MB", what, most>>20)
	if most > noGrowth && !raceEnabled {
		t.Errorf("%s: the node took %d MB, want at most %d", what, most>>20, noGrowth>>20)
	}
}

// largeTransaction makes a CREATE, or with from a TRANSFER of it, of some bytes.
func largeTransaction(t testing.TB, owner ledger.KeyPair, bytes int, from *ledger.Transaction) *ledger.Transaction {
	t.Helper()
	pad := canonical.ObjectOf(canonical.Member{Key: "pad", Value: canonical.StringOf(strings.Repeat("x", bytes))})
	to := []ledger.Payment{ledger.PayTo(owner.Public, 1)}
	var tx *ledger.Transaction
	var err error
	if from == nil {
		tx, err = ledger.NewCreate([]ledger.KeyPair{owner}, serialData(), pad, to...)
	} else {
		tx, err = ledger.NewTransfer(from.Asset, []ledger.Source{ledger.SourceOf(from, 0)}, pad, to, owner)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// slowClients are connections whose clients take little or nothing of what they
// asked for.
type slowClients struct {
	mu    sync.Mutex
	all   []net.Conn
	work  sync.WaitGroup
	ended chan struct{}
}

func newSlowClients(t testing.TB) *slowClients {
	s := &slowClients{ended: make(chan struct{})}
	t.Cleanup(s.end)
	return s
}

func (s *slowClients) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ended:
		return
	default:
		close(s.ended)
	}
	for _, c := range s.all {
		c.Close()
	}
	s.work.Wait()
}

// open opens a connection and sends nothing.
func (s *slowClients) open(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, conn)
	return conn.(*net.TCPConn)
}

// add opens a connection with a small window, sends a request, and reads the
// first line of the answer, "" if all were ended before it came. Then it takes a byte every so often, or with 0
// nothing any more.
func (s *slowClients) add(t testing.TB, addr, request string, every time.Duration) (status string) {
	t.Helper()
	conn := s.open(t, addr)
	if err := conn.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	status, err := bufio.NewReaderSize(conn, 16).ReadString('\n')
	select {
	case <-s.ended:
		return ""
	default:
	}
	if err != nil {
		t.Errorf("a slow client's first line: %v", err)
		return ""
	}
	if every > 0 {
		s.work.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for one := make([]byte, 1); ; {
				select {
				case <-s.ended:
					return
				case <-tick.C:
				}
				if _, err := conn.Read(one); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					return // it was cut off
				}
			}
		})
	}
	return strings.TrimSpace(status)
}

func getRequest(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: ledger\r\n\r\n" }

// postMany posts transactions over some connections and waits until all are valid.
func (n *node) postMany(t testing.TB, txs []*ledger.Transaction) {
	t.Helper()
	const posters = 16
	next := make(chan *ledger.Transaction)
	var group sync.WaitGroup
	for range posters {
		group.Go(func() {
			for tx := range next {
				for {
					a, err := n.do(http.MethodPost, transactionsPath, tx.Bytes())
					if err == nil && a.status == http.StatusAccepted {
						break
					}
					if err != nil || a.status != http.StatusServiceUnavailable {
						t.Errorf("POST: %v, %v", a, err)
						break
					}
					time.Sleep(10 * time.Millisecond) // as the answer asks for
				}
			}
		})
	}
	for _, tx := range txs {
		next <- tx
	}
	close(next)
	group.Wait()
	for _, tx := range txs {
		n.awaitValid(t, tx.ID)
	}
}

// TestSlowReaders has very many clients ask for a long list of large
// transactions and take a byte a second, and as many streams as there may be
// that nobody reads. Others are served meanwhile, and memory is bounded.
func TestSlowReaders(t *testing.T) {
	n := newNode(t)
	n.start()
	alice := ledger.GenerateKeyPair()
	asset := largeTransaction(t, alice, 100_000, nil)
	n.mustBecomeValid(t, asset)
	for last := asset; len(n.list(t, "/api/v1/outputs?public_key="+alice.Public)) < 60; {
		last = largeTransaction(t, alice, 100_000, last)
		n.mustBecomeValid(t, last)
	}
	n.wantBounded(t, "before")

	slow := newSlowClients(t)
	var served atomic.Int64
	lists, streams := pressure(200, 2000), pressure(200, 1000)
	var answers sync.WaitGroup // to lists, for some of which there is room later
	for range lists {
		answers.Go(func() {
			switch got := slow.add(t, n.addr, getRequest(transactionsPath+"?asset_id="+asset.ID), time.Second); got {
			case "HTTP/1.1 200 OK":
				served.Add(1)
			case "HTTP/1.1 503 Service Unavailable", "":
			default:
				t.Errorf("a list: %s", got)
			}
		})
	}
	eventually(t, "lists are served", func() (bool, string) { return served.Load() >= 20, fmt.Sprint(served.Load()) })
	var group sync.WaitGroup
	for range streams {
		group.Go(func() {
			if got := slow.add(t, n.addr, streamRequest, 0); got != "HTTP/1.1 101 Switching Protocols" {
				t.Errorf("a stream: %s", got)
			}
		})
	}
	group.Wait()
	n.wantBounded(t, fmt.Sprintf("%d slow lists and %d stalled streams", lists, streams))

	txs := make([]*ledger.Transaction, pressure(400, 5000))
	for i := range txs {
		txs[i] = create(t, alice)
	}
	begin := time.Now()
	n.postMany(t, txs)
	t.Logf("%s transactions became valid in %v meanwhile", strconv.Itoa(len(txs)), time.Since(begin).Round(time.Millisecond))
	n.get(t, "/readyz")
	n.get(t, transactionsPath+asset.ID)
	n.wantBounded(t, "with transactions passing")
	slow.end()
	answers.Wait()
	t.Logf("of %d slow lists %d were begun", lists, served.Load())
	eventually(t, "the streams are gone", func() (bool, string) {
		open, err := n.metric("couchledger_http_streams_open")
		return err == nil && open == 0, fmt.Sprint(open, err)
	})
	n.stop()
	n.wantDone(t, []string{"verify"}, "The ledger is sound.")
}
