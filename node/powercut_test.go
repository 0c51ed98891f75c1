package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/embedded"
)

// cutsWanted is how often the power is cut: some, or CUTS.
func cutsWanted(t *testing.T, some int) int {
	if testing.Short() {
		some = max(some/4, 2)
	}
	if text := os.Getenv("CUTS"); text != "" {
		var err error
		if some, err = strconv.Atoi(text); err != nil {
			t.Fatalf("CUTS: %v", err)
		}
	}
	return some
}

// cutsOfOne is how many cuts one ledger gets before the next one is made.
const cutsOfOne = 8

// promises are what a node said before the power was cut.
type promises struct {
	mu       sync.Mutex
	accepted map[string]*ledger.Transaction // what a post was acknowledged for
	valid    map[string]bool                // what clients were told is valid
	votes    map[string]string              // id → vote that others could see
}

func newPromises() *promises {
	return &promises{accepted: map[string]*ledger.Transaction{}, valid: map[string]bool{}, votes: map[string]string{}}
}

func (p *promises) accept(tx *ledger.Transaction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted[tx.ID] = tx
}

func (p *promises) tellValid(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.valid[id] = true
}

// now returns what has been promised up to this moment.
func (p *promises) now() *promises {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &promises{accepted: maps.Clone(p.accepted), valid: maps.Clone(p.valid), votes: maps.Clone(p.votes)}
}

func (p *promises) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.accepted)
}

// watchVotes notes the votes that anybody can see.
func (p *promises) watchVotes(ctx context.Context, db statedb.DB) {
	feed, err := db.Changes(ctx, statedb.Votes, "")
	if err != nil {
		return // it ends
	}
	defer feed.Close()
	for {
		batch, err := feed.Next(ctx)
		if err != nil {
			return
		}
		for _, c := range batch.Changes {
			documents, err := db.Get(ctx, statedb.Votes, []string{c.ID})
			if err != nil {
				return
			}
			p.mu.Lock()
			p.votes[c.ID] = string(documents[0].Body)
			p.mu.Unlock()
		}
	}
}

// burden posts CREATEs, large ones among them, and TRANSFERs, three of which
// always spend the same output, until it is stopped.
type burden struct {
	*promises
	stop func()
}

func (n *testNode) burden(p *promises, posters int) *burden {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	post := func(tx *ledger.Transaction) bool {
		if _, err := n.Submit(ctx, tx.Bytes()); err != nil {
			return false
		}
		p.accept(tx)
		return true
	}
	becomesValid := func(tx *ledger.Transaction) bool {
		// What another member refused nobody here is told of.
		limited, done := context.WithTimeout(ctx, 2*time.Second)
		defer done()
		if n.Await(limited, tx.ID) != nil {
			return false
		}
		p.tellValid(tx.ID)
		return true
	}
	for range posters {
		owner := ledger.GenerateKeyPair()
		group.Go(func() {
			for serial := 0; ctx.Err() == nil; serial++ {
				if serial%4 == 0 {
					post(largeCreate(owner, serial))
				}
				asset, err := ledger.NewCreate([]ledger.KeyPair{owner}, serialOf(serial), noMetadata, ledger.PayTo(owner.Public, 1))
				if err != nil {
					panic(err)
				}
				if !post(asset) {
					sleep(ctx, time.Millisecond) // it is stopping, or not yet ready
					continue
				}
				if !becomesValid(asset) {
					continue
				}
				spend := func() *ledger.Transaction {
					tx, err := ledger.NewTransfer(asset.Asset, []ledger.Source{ledger.SourceOf(asset, 0)}, noMetadata,
						[]ledger.Payment{ledger.PayTo(ledger.GenerateKeyPair().Public, 1)}, owner)
					if err != nil {
						panic(err)
					}
					return tx
				}
				var rivals sync.WaitGroup
				for range 2 {
					tx := spend()
					rivals.Go(func() {
						if post(tx) {
							becomesValid(tx)
						}
					})
				}
				rivals.Wait()
				// One that another node accepted, which is to be refused.
				late := spend()
				results, err := n.db.Write(ctx, statedb.Backlog, []statedb.Write{{ID: late.ID, Body: backlogDocument(late, n.key.Public, 0)}})
				if err == nil && results[0].Err == nil {
					p.accept(late)
				}
			}
		})
	}
	group.Go(func() { p.watchVotes(ctx, n.db) })
	return &burden{p, func() { cancel(); group.Wait() }}
}

// checkPromises checks a node that has come back: what was promised holds, the
// ledger is sound.
func (n *testNode) checkPromises(t *testing.T, p *promises) {
	t.Helper()
	for id := range p.accepted {
		eventually(t, "transaction "+id+" is decided", func() bool {
			status, err := n.TransactionStatus(t.Context(), id)
			var refused *RefusedError
			switch {
			case status == "valid":
				return true
			case errors.As(err, &refused) && !p.valid[id] && strings.Contains(refused.Reason, "DoubleSpend"):
				return true
			case errors.Is(err, ErrNotFound), errors.As(err, &refused):
				t.Fatalf("transaction %s was accepted, told valid: %v, and is gone: %v", id, p.valid[id], err)
			}
			return false
		})
	}
	n.checkLedger(t, p.accepted)
	n.checkVerified(t)
}

// checkVerified audits the whole ledger.
func (n *testNode) checkVerified(t *testing.T) {
	t.Helper()
	_, err := verify.Run(t.Context(), n.db, verify.Options{Derived: true, Finding: func(f verify.Finding) error {
		t.Errorf("verify: %+v", f)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// checkVotes checks that the votes which others could see are the node's, as
// its journal has them, before it has read any back.
func (n *testNode) checkVotes(t *testing.T, p *promises) {
	t.Helper()
	for id, want := range p.votes {
		block, voter, _ := strings.Cut(id, ":")
		if voter != n.key.Public {
			continue
		}
		vote, err := n.journal.Vote(block)
		if err != nil || vote == nil {
			t.Errorf("the journal forgot the vote on block %s, which others had seen: %v", block, err)
		} else if string(vote.Bytes()) != want {
			t.Errorf("the vote on block %s is %s, others had seen %s", block, vote.Bytes(), want)
		}
	}
}

// powered is a machine with one disk, of which a power cut leaves what was
// synced, and chance decides about the rest.
type powered struct {
	*promises
	t      *testing.T
	random *rand.Rand
	key    ledger.KeyPair
	disk   *vfs.MemFS
	starts int
}

func (m *powered) cut() *vfs.MemFS {
	percent := 0
	if m.random.IntN(3) > 0 {
		percent = m.random.IntN(101)
	}
	return m.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: m.random})
}

// start runs a node on the disk, with an index that is not there yet.
func (m *powered) start() *testNode {
	m.t.Helper()
	m.starts++
	db, err := embedded.Open("home/data", embedded.Options{FS: m.disk, MemTableBytes: 256 << 10})
	if err != nil {
		m.t.Fatalf("open the database after a power cut: %v", err)
	}
	index := statedb.Index{Name: "own", Fields: []statedb.SortField{{Field: fmt.Sprintf("asset.data.serial%d", m.starts)}}}
	n := openNode(m.t, "home", m.key, sharing(db), func(o *Options) {
		o.FS = m.disk
		o.Indexes = map[string][]statedb.Index{statedb.Transactions: {index}}
	})
	n.checkVotes(m.t, m.now())
	n.run()
	stop := n.stop
	n.stop = sync.OnceValue(func() error { return errors.Join(stop(), db.Close()) })
	m.t.Cleanup(func() { n.stop() })
	return n
}

// moment lets a random time pass, so that a cut hits anything.
func (m *powered) moment(most time.Duration) { time.Sleep(time.Duration(m.random.Int64N(int64(most)))) }

// TestPowerCut cuts the power of a node under load, while it catches up, builds
// an index, or derives its chainstate anew, and again after that. What was
// acknowledged is there each time, no vote is forgotten, the ledger is sound.
func TestPowerCut(t *testing.T) {
	left := cutsWanted(t, 8)
	for ledgers := 0; left > 0; ledgers++ {
		cuts := min(left, cutsOfOne)
		left -= cuts
		t.Run(fmt.Sprint(ledgers), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			m := &powered{
				promises: newPromises(), t: t, random: rand.New(rand.NewPCG(seed, 1)),
				key: ledger.GenerateKeyPair(), disk: vfs.NewCrashableMem(),
			}
			early := 0
			for range cuts {
				n := m.start()
				for m.random.IntN(3) == 0 { // before it is what it was
					early++
					m.moment(20 * time.Millisecond)
					n = m.restart(n)
				}
				eventually(t, "the node is ready", func() bool { return n.Ready() == nil })
				n.checkVerified(t)
				b := n.burden(m.promises, 4)
				before := m.count()
				eventually(t, "the load goes on", func() bool { return m.count() > before+20 })
				m.moment(50 * time.Millisecond)
				m.cutUnder(n, b)
			}
			n := m.start()
			n.checkPromises(t, m.now())
			t.Logf("%d cuts under load and %d early ones: %d transactions accepted, %d told valid, %d votes seen", cuts, early, len(m.accepted), len(m.valid), len(m.votes))
			if len(m.accepted) < 20*cuts || len(m.valid) < 5*cuts || len(m.votes) < cuts {
				t.Error("too little went on to show anything")
			}
		})
	}
}

// restart cuts the power of a node and starts another on what is left.
func (m *powered) restart(n *testNode) *testNode {
	m.t.Helper()
	disk := m.cut()
	if err := n.stop(); err != nil {
		m.t.Error(err)
	}
	m.disk = disk
	return m.start()
}

// cutUnder cuts the power under load. Of what is promised after that moment
// nothing counts.
func (m *powered) cutUnder(n *testNode, b *burden) {
	m.t.Helper()
	promised := m.now()
	disk := m.cut()
	b.stop()
	if err := n.stop(); err != nil {
		m.t.Error(err)
	}
	m.promises, m.disk = promised, disk
	if m.random.IntN(4) == 0 { // the chainstate is derived anew
		if err := disk.RemoveAll("home/state/" + chainstateFolder); err != nil {
			m.t.Fatal(err)
		}
	}
}
