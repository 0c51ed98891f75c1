package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
	driver "github.com/couchledger/couchledger/httpapi/client"
	"github.com/couchledger/couchledger/node/ledger"
)

// TestSoak measures what a node takes for a minute, then loads it for
// E2E_SOAK=1h with 70 % of that while nodes and servers are restarted and
// clients hang up. What a database takes falls as it grows (a million documents
// with random keys cost CouchDB about twice what the first do), so it is measured
// again every quarter of an hour. Every accepted transaction must become valid.
// What memory and latency did is logged as a plot, and written to E2E_SOAK_CSV.
func TestSoak(t *testing.T) {
	text := os.Getenv("E2E_SOAK")
	if text == "" {
		t.Skip("not tested: a long load with restarts; E2E_SOAK=1h runs it")
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("E2E_SOAK: %v", err)
	}
	t.Run(configs.Embedded, func(t *testing.T) { testSoak(t, length, newNode(t), nil) })
	for _, b := range servers {
		if b.name == configs.MongoDB {
			continue // FerretDB, which stands in for it, reads all of a table for most of what it is asked
		}
		t.Run(b.name, func(t *testing.T) {
			s, a := b.own(t)
			testSoak(t, length, b.newNode(t, a), s)
		})
	}
}

const (
	soakShare   = 0.7 // of the measured limit
	soakClients = 64
	soakWindow  = 10 * time.Second
)

func testSoak(t *testing.T, length time.Duration, n *node, s server) {
	n.start()
	k := newSoak(t, n)
	k.minute = min(time.Minute, length/10)
	churn := newChurn(t, n, s, length)
	k.setRate(churn)
	windows := k.watch(churn, length)
	k.settle()
	n.stop()
	if out, err := n.command("verify").CombinedOutput(); err != nil { // it takes longer than commands otherwise may
		t.Errorf("verify: %v\n%s", err, out)
	}
	t.Logf("%d accepted, all valid; %d posts without answer, %d refused for a moment, %d hung up; restarts: %s",
		k.accepted.Load(), k.lost.Load(), k.busy.Load(), k.hungUp.Load(), churn)
	reportSoak(t, windows)
}

// soak is a load with a fixed rate whose transactions are followed until valid.
type soak struct {
	t      testing.TB
	n      *node
	driver *driver.Client

	minute  time.Duration // that a measurement takes
	rate    atomic.Int64  // transactions per second to post
	tickets chan struct{} // one for each transaction to post
	coins   chan *sent    // valid CREATEs to spend
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup

	accepted, valid, lost, busy, hungUp atomic.Int64

	mu      sync.Mutex
	pending map[string]*sent
	posts   []time.Duration // POST to 202, of this window
	finals  []time.Duration // POST to valid
}

// sent is a transaction on its way.
type sent struct {
	tx       *ledger.Transaction
	owner    ledger.KeyPair
	at       time.Time
	accepted bool
}

func newSoak(t testing.TB, n *node) *soak {
	c, err := driver.New("http://" + n.addr)
	if err != nil {
		t.Fatal(err)
	}
	k := &soak{t: t, n: n, driver: c, tickets: make(chan struct{}, soakClients), coins: make(chan *sent, 1000), pending: map[string]*sent{}}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.work.Go(k.follow)
	k.work.Go(k.ask)
	for range soakClients {
		k.work.Go(k.post)
	}
	t.Cleanup(func() { k.cancel(); k.work.Wait() })
	return k
}

// setRate measures the limit, waits until what that has left is valid, and sets
// the load by it. What happens meanwhile is not in the figures.
func (k *soak) setRate(c *churn) {
	c.note(time.Now().Add(time.Hour))
	defer func() { c.note(time.Now().Add(2 * soakWindow)) }()
	k.rate.Store(0)
	limit := k.measure(k.minute)
	k.drain()
	k.rate.Store(int64(soakShare * limit))
	k.t.Logf("after %d valid transactions: limit %.0f per second, load %d", k.valid.Load(), limit, k.rate.Load())
}

// measure returns how many transactions per second become valid when there is
// always one more to post.
func (k *soak) measure(length time.Duration) float64 {
	end := time.After(length)
	var from int64
	var begin time.Time
	warm := time.After(length / 4)
	for {
		select {
		case k.tickets <- struct{}{}:
		case <-warm:
			from, begin = k.valid.Load(), time.Now()
		case <-end:
			return float64(k.valid.Load()-from) / time.Since(begin).Seconds()
		}
	}
}

// pace hands out tickets at a rate until ctx ends. What the node could not take
// in an outage is not made up for.
func (k *soak) pace(ctx context.Context) {
	const step = 10 * time.Millisecond
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	owed := 0.0
	last := time.Now()
	for {
		select {
		case now := <-ticker.C:
			rate := float64(k.rate.Load())
			owed = min(owed+now.Sub(last).Seconds()*rate, rate)
			last = now
		case <-ctx.Done():
			return
		}
		for ; owed >= 1; owed-- {
			select {
			case k.tickets <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// post posts one transaction for each ticket: a TRANSFER where a CREATE became
// valid, else a CREATE.
func (k *soak) post() {
	owner := ledger.GenerateKeyPair()
	for {
		select {
		case <-k.tickets:
		case <-k.ctx.Done():
			return
		}
		var tx *ledger.Transaction
		var err error
		select {
		case s := <-k.coins:
			tx, err = spend(s.owner, s.owner.Public, false, coinsOf(s.tx)...)
		default:
			tx, err = ledger.NewCreate([]ledger.KeyPair{owner}, serialData(), none, ledger.PayTo(owner.Public, 2))
		}
		if err != nil {
			panic(err)
		}
		k.send(tx, owner)
	}
}

// send posts until there is an answer, as a client does.
func (k *soak) send(tx *ledger.Transaction, owner ledger.KeyPair) {
	k.mu.Lock()
	k.pending[tx.ID] = &sent{tx: tx, owner: owner, at: time.Now()}
	k.mu.Unlock()
	for k.ctx.Err() == nil {
		begin := time.Now()
		a, err := k.n.do(http.MethodPost, transactionsPath, tx.Bytes())
		switch {
		case err != nil:
			k.lost.Add(1)
		case a.status == http.StatusAccepted:
			k.accepted.Add(1)
			k.mu.Lock()
			if s := k.pending[tx.ID]; s != nil {
				s.accepted = true
			}
			k.posts = append(k.posts, time.Since(begin))
			k.mu.Unlock()
			return
		case a.status == http.StatusServiceUnavailable:
			k.busy.Add(1)
		default:
			k.t.Errorf("POST: got %v\n%s", a, tx.Bytes())
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-k.ctx.Done():
		}
	}
}

// become notes that a transaction is valid.
func (k *soak) become(id string) {
	k.mu.Lock()
	s := k.pending[id]
	delete(k.pending, id)
	if s != nil {
		k.finals = append(k.finals, time.Since(s.at))
	}
	k.mu.Unlock()
	if s == nil {
		return
	}
	k.valid.Add(1)
	if s.tx.Operation == ledger.Create {
		select {
		case k.coins <- s:
		default: // there is enough to spend
		}
	}
}

// follow reads the stream of valid transactions.
func (k *soak) follow() {
	for k.ctx.Err() == nil {
		stream, err := k.driver.Stream(k.ctx)
		for err == nil {
			var e driver.Event
			if e, err = stream.Next(k.ctx); err == nil {
				k.become(e.TxID)
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-k.ctx.Done():
		}
	}
}

// ask looks for what became valid while no stream was open.
func (k *soak) ask() {
	for k.ctx.Err() == nil {
		select {
		case <-time.After(2 * time.Second):
		case <-k.ctx.Done():
			return
		}
		for _, id := range k.waitingFor(5 * time.Second) {
			if status, _, err := k.n.status(id); err == nil && status == "valid" {
				k.become(id)
			}
		}
	}
}

// waitingFor lists up to 1000 transactions that were posted so long ago.
func (k *soak) waitingFor(d time.Duration) (ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, s := range k.pending {
		if s.accepted && time.Since(s.at) > d && len(ids) < 1000 {
			ids = append(ids, id)
		}
	}
	return ids
}

// drain waits until everything that was accepted is valid, as long as some more
// becomes so.
func (k *soak) drain() {
	for left := 1; left > 0; {
		before := k.valid.Load()
		eventually(k.t, "more of what was accepted is valid", func() (bool, string) {
			waiting := k.waitingFor(0)
			left = len(waiting)
			return left == 0 || k.valid.Load() > before, fmt.Sprintf("%d are not, such as %s", left, strings.Join(waiting[:min(left, 3)], ", "))
		})
	}
}

// settle ends the load when everything that was accepted is valid.
func (k *soak) settle() {
	k.drain()
	k.cancel()
	k.work.Wait()
}

// hangUp is a client that goes away in the middle.
func (k *soak) hangUp(random *rand.Rand) {
	conn, err := net.DialTimeout("tcp", k.n.addr, time.Second)
	if err != nil {
		return // the node is down
	}
	defer conn.Close()
	k.hungUp.Add(1)
	text := []string{
		"GET /api/v1/transactions/" + strings.Repeat("0", 64) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /api/v1/transactions/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{\"id\":",
		"GET /api/v1/streams/valid_tx HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 49\r\n\r\n{\"table\":\"transactions\",\"selector\":{},\"limit\":10}",
	}[random.IntN(4)]
	_, _ = conn.Write([]byte(text[:1+random.IntN(len(text))])) // to be cut short
	if random.IntN(2) == 0 {
		_ = conn.SetReadDeadline(time.Now().Add(time.Duration(random.IntN(2000)) * time.Millisecond))
		_, _ = conn.Read(make([]byte, 64))
	}
}

// churn restarts what a load runs on.
type churn struct {
	t       testing.TB
	n       *node
	server  server // nil for embedded
	every   time.Duration
	random  *rand.Rand
	stopped int // nodes
	killed  int
	servers int

	mu    sync.Mutex
	until time.Time // what a restart does to the figures is over; far away during one
}

// newChurn plans twelve restarts of the length of a load.
func newChurn(t testing.TB, n *node, s server, length time.Duration) *churn {
	return &churn{t: t, n: n, server: s, every: length / 13, random: newRand(t)}
}

func (c *churn) String() string {
	return fmt.Sprintf("%d × node stopped, %d × node killed, %d × server killed", c.stopped, c.killed, c.servers)
}

// strike restarts one thing, in turn.
func (c *churn) strike(round int) {
	c.note(time.Now().Add(time.Hour))
	defer func() { c.note(time.Now().Add(2 * soakWindow)) }()
	switch {
	case c.server != nil && round%3 == 2:
		c.servers++
		c.server.Kill()
		if err := c.server.Start(); err != nil {
			c.t.Error(err)
		}
		return
	case round%2 == 0:
		c.stopped++
		c.n.stop()
	default:
		c.killed++
		c.n.kill()
	}
	c.n.start()
}

func (c *churn) note(until time.Time) {
	c.mu.Lock()
	c.until = until
	c.mu.Unlock()
}

// lately tells whether a restart is in the figures of the last window.
func (c *churn) lately() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.until)
}

// window is what was seen in one soakWindow.
type window struct {
	at                time.Duration
	valid             float64 // per second
	post50, post99    time.Duration
	final50, final99  time.Duration
	memory, heap      float64 // MB
	goroutines, files float64
	backlog           float64
	struck            bool // something was restarted in it, or shortly before
}

// watch runs the load for its time, restarts things, and looks at it once per
// window.
func (k *soak) watch(c *churn, length time.Duration) (list []window) {
	ctx, cancel := context.WithTimeout(k.ctx, length)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { k.pace(ctx) })
	random := newRand(k.t)
	work.Go(func() {
		for ctx.Err() == nil {
			k.hangUp(random)
			time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond) // a few each second
		}
	})
	work.Go(func() { list = k.sample(ctx, c) })
	for round := 0; ; round++ {
		select {
		case <-time.After(c.every):
			c.strike(round)
			if round%3 == 2 {
				k.setRate(c)
			}
		case <-ctx.Done():
			work.Wait()
			return list
		}
	}
}

// sample looks at the load once per window until ctx ends.
func (k *soak) sample(ctx context.Context, c *churn) (list []window) {
	begin := time.Now()
	before := k.valid.Load()
	k.take()
	ticker := time.NewTicker(soakWindow)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return list
		}
		w := window{at: time.Since(begin)}
		posts, finals := k.take()
		w.post50, w.post99 = quantile(posts, 0.5), quantile(posts, 0.99)
		w.final50, w.final99 = quantile(finals, 0.5), quantile(finals, 0.99)
		now := k.valid.Load()
		w.valid, before = float64(now-before)/soakWindow.Seconds(), now
		err := errors.Join(
			k.read(&w.memory, "process_resident_memory_bytes", 1<<20), k.read(&w.heap, "go_memstats_heap_inuse_bytes", 1<<20),
			k.read(&w.goroutines, "go_goroutines", 1), k.read(&w.files, "process_open_fds", 1),
			k.read(&w.backlog, "couchledger_backlog_entries", 1))
		w.struck = err != nil || c.lately()
		list = append(list, w)
	}
}

func (k *soak) read(to *float64, metric string, unit float64) error {
	value, err := k.n.metric(metric)
	*to = value / unit
	return err
}

// take returns the latencies since the last call.
func (k *soak) take() (posts, finals []time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	posts, finals = k.posts, k.finals
	k.posts, k.finals = nil, nil
	return posts, finals
}

func quantile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, int(p*float64(len(list))))]
}
