package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/ledger"
)

// record is a posted transaction and what became of it, as its poster saw it.
type record struct {
	tx *ledger.Transaction
	// accepted: a POST was answered with 202. Without it, and with no refusal,
	// a connection broke and the node may have the transaction or not.
	accepted bool
	refused  string // the message of a 400
	valid    bool   // its status was "valid" once
	group    int    // rivals, of which at most one can win; 0 is none
}

// load posts transactions over several connections until it is stopped, and
// goes on across restarts of the node, as clients do.
type load struct {
	n      *node
	seed   uint64
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	records map[string]*record
	order   []*record
	groups  int
	lost    int // requests that got no answer
	faults  []string
	owners  []ledger.KeyPair
}

// startLoad starts clients of each kind: such that post CREATEs without
// waiting, such that transfer one asset on and on, and such that spend every
// output several times at once.
func startLoad(t testing.TB, n *node, flooders, chainers, cheaters int) *load {
	if n.backend == configs.MongoDB {
		flooders = 0 // FerretDB, which stands in for it, reads all of a table for most of what it is asked
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{n: n, ctx: ctx, cancel: cancel, records: map[string]*record{}, seed: newRand(t).Uint64()}
	t.Cleanup(func() { cancel(); l.work.Wait() })
	start := func(count int, run func(client)) {
		for range count {
			c := client{load: l, owner: ledger.GenerateKeyPair(), rand: rand.New(rand.NewPCG(l.seed, uint64(len(l.owners))))}
			l.owners = append(l.owners, c.owner)
			l.work.Go(func() {
				for ctx.Err() == nil {
					run(c)
				}
			})
		}
	}
	start(flooders, client.flood)
	start(chainers, client.chain)
	start(cheaters, client.cheat)
	return l
}

// stop ends the load and returns when no request is under way.
func (l *load) stop() {
	l.cancel()
	l.work.Wait()
}

// acceptedRecords lists the transactions answered with 202 so far.
func (l *load) acceptedRecords() []*record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*record
	for _, r := range l.order {
		if r.accepted {
			list = append(list, r)
		}
	}
	return list
}

func (l *load) accepted() int { return len(l.acceptedRecords()) }

// rivalries is how many outputs were spent several times so far.
func (l *load) rivalries() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.groups
}

func (l *load) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) < 20 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// owner makes a key pair whose outputs the audit looks at.
func (l *load) owner() ledger.KeyPair {
	l.mu.Lock()
	defer l.mu.Unlock()
	pair := ledger.GenerateKeyPair()
	l.owners = append(l.owners, pair)
	return pair
}

// note adds a transaction that the test itself posted.
func (l *load) note(tx *ledger.Transaction, accepted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &record{tx: tx, accepted: accepted}
	l.records[tx.ID] = r
	l.order = append(l.order, r)
}

// client is one user of the node.
type client struct {
	*load
	owner ledger.KeyPair
	rand  *rand.Rand
}

// create makes a CREATE with a few outputs.
func (c client) create() *ledger.Transaction {
	payments := make([]ledger.Payment, 1+c.rand.IntN(3))
	for i := range payments {
		payments[i] = ledger.PayTo(c.owner.Public, 1+c.rand.Int64N(9))
	}
	tx, err := ledger.NewCreate([]ledger.KeyPair{c.owner}, serialData(), none, payments...)
	if err != nil {
		panic(err)
	}
	return tx
}

func (c client) flood() { c.post(c.create(), 0) }

// chain makes an asset and transfers it a few times, splitting and merging.
func (c client) chain() {
	asset := c.create()
	if !c.post(asset, 0).accepted || !c.awaitValid(asset) {
		return
	}
	coins := coinsOf(asset)
	for range 1 + c.rand.IntN(6) {
		use := 1 + c.rand.IntN(len(coins))
		tx, err := spend(c.owner, c.owner.Public, c.rand.IntN(2) == 0, coins[:use]...)
		if err != nil {
			panic(err)
		}
		r := c.post(tx, 0)
		if r.refused != "" {
			c.fault("a TRANSFER of valid, unspent outputs was refused: %s\n%s", r.refused, tx.Bytes())
		}
		if !r.accepted || !c.awaitValid(tx) {
			return
		}
		coins = append(coins[use:], coinsOf(tx)...)
	}
}

// cheat spends an output several times at about the same time.
func (c client) cheat() {
	asset := c.create()
	if !c.post(asset, 0).accepted || !c.awaitValid(asset) {
		return
	}
	c.mu.Lock()
	c.groups++
	group := c.groups
	c.mu.Unlock()
	var rivals sync.WaitGroup
	records := make([]*record, 2+c.rand.IntN(2))
	for i := range records {
		tx, err := spend(c.owner, c.owner.Public, false, coinsOf(asset)[0])
		if err != nil {
			panic(err)
		}
		give, late := c.rand.IntN(2) == 0, time.Duration(c.rand.IntN(30))*time.Millisecond
		rivals.Go(func() {
			time.Sleep(late) // some come when another is in a block already
			records[i] = c.postOnce(tx, group, give)
		})
	}
	rivals.Wait()
	for _, r := range records {
		if r.refused != "" && !strings.Contains(r.refused, "(DoubleSpend)") {
			c.fault("one of several spends of an output: got %q, want a DoubleSpend", r.refused)
		}
	}
	// At times the next asset waits for the fate of this one, at times not.
	if c.rand.IntN(2) == 0 {
		for _, r := range records {
			if r.accepted {
				c.awaitFate(r.tx)
			}
		}
	}
}

// post posts a transaction. Half of those whose answer is lost are posted
// again until there is one.
func (c client) post(tx *ledger.Transaction, group int) *record {
	return c.postOnce(tx, group, c.rand.IntN(2) == 0)
}

func (c client) postOnce(tx *ledger.Transaction, group int, give bool) *record {
	r := &record{tx: tx, group: group}
	c.mu.Lock()
	c.records[tx.ID] = r
	c.order = append(c.order, r)
	c.mu.Unlock()
	for c.ctx.Err() == nil {
		a, err := c.n.do(http.MethodPost, transactionsPath, tx.Bytes())
		c.mu.Lock()
		switch {
		case err != nil:
			c.lost++
		case a.status == http.StatusAccepted:
			r.accepted = true
		case a.status == http.StatusBadRequest:
			r.refused = messageOf(a)
		}
		c.mu.Unlock()
		switch {
		case err == nil && a.status == http.StatusServiceUnavailable:
		case err == nil && (r.accepted || r.refused != ""):
			return r
		case err == nil:
			c.fault("POST: got %v\n%s", a, tx.Bytes())
			return r
		case give && !strings.Contains(err.Error(), "connection refused"):
			return r
		}
		c.pause()
	}
	return r
}

// pause lets a moment pass before the same is asked again.
func (c client) pause() {
	select {
	case <-c.ctx.Done():
	case <-time.After(2 * time.Millisecond):
	}
}

// awaitValid waits for an accepted transaction that nothing is wrong with.
func (c client) awaitValid(tx *ledger.Transaction) bool {
	status, reason := c.awaitFate(tx)
	if status != "valid" && c.ctx.Err() == nil {
		c.fault("transaction %s was accepted and breaks no rule, but is gone: %s", tx.ID, reason)
	}
	return status == "valid"
}

// awaitFate waits until a transaction is valid or refused.
func (c client) awaitFate(tx *ledger.Transaction) (status, reason string) {
	for c.ctx.Err() == nil {
		status, reason, err := c.n.status(tx.ID)
		if err == nil && (status == "valid" || status == "") {
			c.mu.Lock()
			c.records[tx.ID].valid = status == "valid"
			c.mu.Unlock()
			return status, reason
		}
		if err != nil && strings.HasPrefix(err.Error(), "status of") && !strings.Contains(err.Error(), ": 503 ") {
			c.fault("%v", err)
		}
		c.pause()
	}
	return "", ""
}
