package simulator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// world is one schedule: nodes, their databases, what happens to them, and what
// must hold.
type world struct {
	plan
	pool   *pool
	random *rand.Rand
	trace  *trace
	stores []*store // one, or one for each member
	links  []*link  // between them
	// doubted are the blocks on which a liar voted both ways.
	doubted map[string]bool
	nodes   []*member
	liars   []*liar
	load    load
	facts   facts
	names   map[string]string
	steps   int
	calm    bool // no faults any more
	failed  error

	mu       sync.Mutex
	pending  []*call
	arrivals int
	posted   []posting // that ended in this step
}

// member is an honest member of the federation and its machine.
type member struct {
	w     *world
	place int
	key   ledger.KeyPair
	store *store
	// gone is set where it stays down once the faults stop.
	gone bool
	// moved is set when it may have learnt something since it was looked at.
	moved bool

	disk  *vfs.MemFS
	power *power
	runs  int
	line  *line // nil while it is down
	node  *node.Node
	ended bool // of the present run; guarded by w.mu
	err   error
	// clients is what those wait by who post to it.
	clients context.Context
	leave   context.CancelFunc
	// left is what a power cut within a step left of the disk; guarded by w.mu.
	left *vfs.MemFS
	stop sync.WaitGroup
}

func newWorld(p *pool, seed uint64, limits limits) *world {
	w := &world{pool: p, random: rand.New(rand.NewPCG(seed, 1)), names: map[string]string{}, doubted: map[string]bool{}}
	w.plan = newPlan(w.random, limits)
	count := 1
	if w.replicated {
		count = w.members
	}
	for range count {
		s := newStore()
		p.begin(s, w.members, w.ruleName())
		w.stores = append(w.stores, s)
	}
	if w.replicated {
		w.connect()
	}
	places := w.random.Perm(w.members)
	for i, place := range places {
		s := w.stores[place%count]
		if i < w.lying {
			w.liars = append(w.liars, newLiar(w, place, s))
		} else {
			w.nodes = append(w.nodes, &member{w: w, place: place, key: p.members[place], store: s, disk: vfs.NewCrashableMem()})
		}
	}
	slices.SortFunc(w.nodes, func(a, b *member) int { return a.place - b.place })
	for i := range w.dying {
		w.nodes[i].gone = true
	}
	w.facts.begin(w)
	return w
}

// note tells the trace.
func (w *world) note(format string, args ...any) {
	if w.trace != nil {
		w.trace.add(time.Since(time.Unix(beginning, 0)), fmt.Sprintf(format, args...))
	}
}

// name is short for an id.
func (w *world) name(id string) string {
	if w.trace == nil {
		return id
	}
	return w.trace.name(id)
}

// start runs a node on what its disk holds.
func (m *member) start() {
	w := m.w
	m.runs++
	m.moved = true
	ctx := context.Background() // a crash is no orderly stop: it is told by the line
	line := &line{w: w, owner: m, store: m.store}
	disk := &power{FS: m.disk}
	held := m.disk
	disk.cut = func() { m.lose(line, held) }
	m.line, m.power, m.node = line, disk, nil
	m.clients, m.leave = context.WithCancel(ctx)
	m.ended, m.err, m.left = false, nil, nil
	o := node.Options{
		DB: line, StatePath: "home", Key: m.key, Keyring: w.pool.federation(w.members), ReassignDelay: reassignDelay,
		FS: disk, Logger: w.trace.logger(m.place), Clock: func() time.Time { return time.Now().Add(w.wrong[m.place]) },
	}
	m.stop.Go(func() {
		n, err := node.Open(ctx, o)
		if err == nil {
			w.mu.Lock()
			if !line.dead {
				m.node = n
			}
			w.mu.Unlock()
			err = n.Run(ctx)
		}
		w.mu.Lock()
		if !line.dead {
			m.ended, m.err = true, err
		}
		w.mu.Unlock()
	})
}

// lose cuts the power: what the disk has synced is left, or all that was written.
func (m *member) lose(line *line, disk *vfs.MemFS) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if line.dead {
		return
	}
	percent := 0
	if m.w.random.IntN(2) == 0 {
		percent = 100
	}
	// Chance inside a clone goes through maps, so it gets all or nothing to decide.
	m.left = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, 1))})
	line.cut()
}

// crash ends a run. Nothing that the node still does has an effect.
func (m *member) crash() {
	m.lose(m.line, m.disk)
	m.buried()
}

// buried takes note that a line was cut.
func (m *member) buried() {
	m.leave()
	m.disk, m.line, m.node = m.left, nil, nil
	m.w.wrong[m.place] = wrong(m.w.random)
	if m.w.random.IntN(100) < m.w.mood.lose {
		m.forget([]string{"chainstate", "journal"}[m.w.random.IntN(2)])
	}
}

// forget takes one of the stores away that a node keeps, for good.
func (m *member) forget(store string) {
	m.w.note("node %d loses its %s", m.place, store)
	must(m.disk.RemoveAll("home/" + store))
	home, err := m.disk.OpenDir("home")
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	must(err)
	must(home.Sync())
	must(home.Close())
}

// run is the schedule. It ends with the first thing that must not be.
func (w *world) run() error {
	defer w.finish()
	w.note("%v", w.plan)
	for _, m := range w.nodes {
		m.start()
	}
	for w.steps = 0; w.steps < w.length && w.failed == nil; w.steps++ {
		w.settle()
		w.act()
	}
	w.settle()
	if w.failed == nil {
		w.recover()
	}
	return w.failed
}

// settle waits until all stand still, and looks at what has become.
func (w *world) settle() {
	synctest.Wait()
	w.mu.Lock()
	posted := w.posted
	w.posted = nil
	w.mu.Unlock()
	for _, p := range posted {
		w.load.ended(w, p)
	}
	for _, m := range w.nodes {
		if m.line == nil {
			continue
		}
		w.mu.Lock()
		cut, ended, err := m.line.dead, m.ended, m.err
		w.mu.Unlock()
		switch {
		case cut:
			w.note("node %d: its power went in the middle of this", m.place)
			m.buried()
		case ended:
			if m.node != nil || !passes(err) {
				w.fail("node %d ended by itself: %v", m.place, err)
			}
			w.note("node %d cannot start: %v", m.place, err)
			m.crash()
		}
	}
	w.facts.look(w)
}

func (w *world) fail(format string, args ...any) {
	if w.failed == nil {
		w.failed = fmt.Errorf(format, args...)
		w.note("WRONG: %v", w.failed)
	}
}

// finish ends all that runs, so that the bubble can end.
func (w *world) finish() {
	for _, m := range w.nodes {
		if m.line != nil {
			m.w.mu.Lock()
			m.line.cut()
			m.w.mu.Unlock()
			m.leave()
		}
	}
	for _, m := range w.nodes {
		m.stop.Wait()
	}
}

// recover lets the faults stop, and waits until all that was accepted is decided.
func (w *world) recover() {
	w.note("the faults stop")
	w.calm = true
	w.mood = calm
	for _, m := range w.nodes {
		if m.line != nil {
			m.power.arm(0)
		}
		if m.gone && m.line != nil {
			m.crash()
		} else if !m.gone && m.line == nil {
			m.start()
		}
	}
	patience := 50 * time.Millisecond
	begun := time.Now()
	for steps := 0; w.failed == nil; steps++ {
		w.settle()
		if steps > mostCalmSteps || time.Since(begun) > mostCalmTime {
			if w.facts.unsettled == "" {
				w.facts.unsettled = "the nodes find no end of what to do"
			}
			w.fail("after %d steps and %v without faults: %s", steps, time.Since(begun), w.facts.unsettled)
			return
		}
		for _, m := range w.nodes {
			if !m.gone && m.line == nil { // its start failed, or a fault was still on its way
				m.start()
			}
		}
		if ready := w.ready(); len(ready) > 0 || w.replicates() {
			patience = 50 * time.Millisecond
			if len(ready) == 0 || w.random.IntN(3) == 0 && w.replicates() {
				w.replicate()
			} else {
				w.release(ready[w.random.IntN(len(ready))])
			}
			continue
		}
		if w.allVote() {
			continue
		}
		if w.facts.settled(w) {
			w.facts.last(w)
			return
		}
		w.advance(patience)
		patience = min(2*patience, 12*time.Second)
	}
}

// allVote has the liars vote on what they did not vote on, but for silent ones.
// It reports whether there was anything.
func (w *world) allVote() (any bool) {
	for _, l := range w.liars {
		for l.vote() {
			any = true
		}
	}
	return any
}

func (w *world) advance(d time.Duration) {
	w.note("%v pass", d)
	time.Sleep(d)
	for _, m := range w.nodes {
		m.moved = true
	}
}

// ready lists the calls that can be answered, in an order that does not depend
// on which was there first.
func (w *world) ready() (list []*call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.pending {
		if c.ready == nil || c.ready() {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, (*call).compare)
	return list
}

// take takes a call off those that wait.
func (w *world) take(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = slices.DeleteFunc(w.pending, func(other *call) bool { return other == c })
}

func (w *world) release(c *call) {
	w.take(c)
	w.note("%v", c)
	c.line.owner.moved = true
	c.do()
	c.done <- nil
}

// rulesOf is what a plan decides by.
func rulesOf(name string) consensus.Rules {
	rules, err := consensus.Lookup(name)
	must(err)
	return rules
}

// ruleName is what the genesis block calls the rules.
func (w *world) ruleName() string {
	if w.rules.Name() == consensus.Default {
		return ""
	}
	return w.rules.Name()
}

// blocksIn lists the ids of blocks in a store.
func blocksIn(s *store) (list []string) {
	for _, id := range s.tables[statedb.Bigchain].ids() {
		if ledger.IsID(id) {
			list = append(list, id)
		}
	}
	return list
}
