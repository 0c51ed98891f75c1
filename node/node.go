// Package node runs a ledger node: what clients post goes to the backlog, from
// there into blocks, is voted on, decided, and streamed.
//
// Data flows one way. Blocks and votes in the shared database are the only
// truth; the node follows their feeds, checks every signature for itself, and
// keeps its own view in package chainstate. What it must not forget stands in
// package journal.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// Defaults of Options.
const (
	// DefaultReassignDelay is how long an entry of the backlog may lie with
	// one node before the next one takes it.
	DefaultReassignDelay = 120 * time.Second
	// DrainTime is how long a node that is told to stop keeps working on what
	// it has accepted.
	DrainTime = 10 * time.Second
)

// Options say how a node runs. DB, StatePath and Key must be set.
type Options struct {
	DB        statedb.DB
	StatePath string // a folder for chainstate and journal
	Key       ledger.KeyPair
	Keyring   []string        // public keys of the other members; one's own is tolerated
	Rules     consensus.Rules // nil: the ledger's; others than those are an error
	// Indexes are deployed while the node runs; by table.
	Indexes map[string][]statedb.Index
	// ReassignDelay is how long an entry of the backlog may lie with one node
	// before the next one takes it.
	ReassignDelay time.Duration
	// MaxBacklog is with how many undecided transactions posts are still
	// taken. 0 is as many as their bytes allow.
	MaxBacklog int
	Queries    QueryOptions
	Logger     *slog.Logger
	Registry   prometheus.Registerer // nil: metrics are counted for nobody
	FS         vfs.FS                // nil: the machine's own file system
	Clock      func() time.Time      // nil: time.Now

	patience time.Duration // of tests: defaultPatience
	drain    time.Duration // of tests: DrainTime
}

// Node is a ledger node. Make one with Open, then call Run.
type Node struct {
	*follower
	key       ledger.KeyPair
	members   []string                   // by configuration: keyring and self, sorted
	indexes   map[string][]statedb.Index // to deploy
	delay     time.Duration
	queries   QueryOptions
	patience  time.Duration    // with the database when it is asked for its health
	clock     func() time.Time // what others are told; never what a node itself measures time by
	drainTime time.Duration
	metrics   *metrics

	folders chainFolders
	journal *journal.Journal
	pauses  chan func(context.Context) error // to be run in the ledger loop

	backlog *backlog
	posts   chan post    // to the backlog writer
	unsure  unsureWrites // of it
	wroteIn atomic.Int64 // nanoseconds that its last write took
	maker   *maker
	voter   *voter
	effects *effects
	hub     *hub
	waiters waiters
	doubts  doubts

	withheld   withheld
	replicated atomic.Bool // the database is copied from others: see watchPeers

	caughtUp   chan struct{} // closed once both feeds have been read to their heads
	behind     catchingUp
	stopping   atomic.Bool
	deployed   atomic.Bool // the indexes are, as far as they can be
	reindexing reindexing
}

// setLedger completes the options with what the ledger says of itself. It returns
// the genesis block.
func (o *Options) setLedger(ctx context.Context) (*ledger.Block, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	genesis, err := readGenesis(ctx, o.DB, "")
	if several := (*OtherGenesisError)(nil); errors.As(err, &several) {
		known, err2 := foldersIn(o.StatePath, o.FS).genesis()
		if err = errors.Join(err, err2); known != "" && err2 == nil {
			o.Logger.Warn("a peer has another first block; this node keeps to its own", "component", "ledger", "first_blocks", several.IDs, "own", known)
			genesis, err = readGenesis(ctx, o.DB, known)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case o.Rules == nil:
		o.Rules, err = consensus.Of(genesis)
	default:
		err = consensus.Check(o.Rules, genesis)
	}
	return genesis, err
}

// Open prepares a node on a database that Init has prepared. It reads the
// local state and checks that it belongs to this ledger.
func Open(ctx context.Context, o Options) (*Node, error) {
	if o.ReassignDelay <= 0 {
		o.ReassignDelay = DefaultReassignDelay
	}
	if o.patience == 0 {
		o.patience = defaultPatience
	}
	if o.drain == 0 {
		o.drain = DrainTime
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if err := errUnfinished(o.StatePath); err != nil {
		return nil, err
	}
	genesis, err := o.setLedger(ctx)
	if err != nil {
		return nil, err
	}
	o.Queries.setDefaults()
	n := &Node{
		follower: newFollower(o.DB, o.Rules, o.Logger),
		key:      o.Key, indexes: o.Indexes, delay: o.ReassignDelay, queries: o.Queries, patience: o.patience, clock: o.Clock, drainTime: o.drain,
		folders:    foldersIn(o.StatePath, o.FS),
		reindexing: reindexing{wake: make(chan *reindexRun, 1)},
		pauses:     make(chan func(context.Context) error),
		members:    membersOf(o.Key.Public, o.Keyring),
		posts:      make(chan post, maxWaiting),
		unsure:     unsureWrites{wake: make(chan struct{}, 1)},
		withheld:   withheld{told: map[string]bool{}},
		caughtUp:   make(chan struct{}),
		behind:     catchingUp{told: time.Now()}, // a short way needs no line in the log
	}
	n.observer, n.genesis = n, genesis
	peers, err := hasPeers(ctx, n.db)
	if err != nil {
		return nil, err
	}
	n.replicated.Store(peers)
	if n.journal, err = journal.Open(filepath.Join(o.StatePath, journalFolder), o.Key.Public, o.FS); err != nil {
		return nil, err
	}
	// What it has counted of this node's votes is to be found again.
	n.allVotes = n.journal.Fresh()
	if n.state, err = n.folders.open(); err != nil {
		return nil, errors.Join(err, n.journal.Close())
	}
	for _, step := range slices.Concat(n.journal.Upgraded(), n.state.Upgraded()) {
		n.log.Info("upgraded the local state", "step", step)
	}
	n.backlog = newBacklog(n, o.MaxBacklog)
	n.maker = newMaker(n)
	n.voter = newVoter(n)
	n.effects = newEffects(n)
	n.hub = newHub()
	n.metrics = newMetrics(n, o.Registry)
	if err := n.adoptGenesis(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *Node) close() error {
	err := n.state.Close()
	if err == nil {
		err = n.folders.settle()
	}
	return errors.Join(err, n.journal.Close())
}

func membersOf(self string, keyring []string) []string {
	members := append(slices.Clone(keyring), self)
	slices.Sort(members)
	return slices.Compact(members)
}

// Run works until ctx ends, then finishes what it has accepted, for DrainTime
// at most, and closes the local state. The error is nil after such a stop.
func (n *Node) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := n.maker.restore(); err != nil {
		return errors.Join(err, n.close())
	}
	if err := n.voter.restore(); err != nil {
		return errors.Join(err, n.close())
	}
	if err := n.effects.proveAgain(); err != nil {
		return errors.Join(err, n.close())
	}
	tasks := map[string]func(context.Context) error{
		"bigchain feed":  n.followBlocks,
		"votes feed":     n.followVotes,
		"ledger":         n.runLedger,
		"backlog writer": n.writePosts,
		"backlog feed":   n.followBacklog,
		"block":          n.maker.run,
		"block writer":   n.maker.write,
		"vote writer":    n.voter.write,
		"effects":        n.effects.run,
		"stale":          n.watchStale,
		"federation":     n.tendFederation,
		"health":         n.watchDatabase,
		"backlog probe":  n.endOutage,
		"indexes":        n.deployIndexes,
		"reindex":        n.runReindexing,
		"peers":          n.watchPeers,
	}
	var group sync.WaitGroup
	failed := make(chan error, len(tasks))
	for name, task := range tasks {
		group.Go(func() {
			if err := task(work); err != nil && work.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	var err error
	select {
	case err = <-failed:
		n.stopping.Store(true)
	case <-ctx.Done():
		n.stopping.Store(true)
		n.drain()
	}
	cancel()
	n.state.GiveUp()
	n.journal.GiveUp()
	group.Wait()
	n.hub.close()
	return errors.Join(err, n.close())
}

// drain waits until what was accepted is decided.
func (n *Node) drain() {
	deadline := time.NewTimer(n.drainTime)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !n.backlog.idle() || !n.maker.drained() || !n.effects.idle() {
		select {
		case <-deadline.C:
			n.log.Warn("stopping with undecided transactions; they stay in the backlog", "waiting", n.backlog.len())
			return
		case <-tick.C:
		}
	}
}

// isCaughtUp reports whether both feeds have been read to their heads.
func (n *Node) isCaughtUp() bool {
	select {
	case <-n.caughtUp:
		return true
	default:
		return false
	}
}
