package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
)

// A running node builds the new chainstate beside the one in use, by following
// the feeds a second time, and serves and takes transactions meanwhile. To
// change over, the ledger loop pauses while the rebuild reads the feeds, opened
// anew, to their heads: then it knows all that the node knows. What it knows
// besides, the node learns as if the feeds had just brought it. So nothing that
// became valid is missing from the streams, and nothing is told twice.

const (
	// reindexTold is how often those who wait are told how far it is.
	reindexTold = 200 * time.Millisecond
	// firstPause bounds the first attempt to change over; each further one may
	// take twice as long. Reads go on, decisions wait.
	firstPause = 10 * time.Second
)

// errPauseTooLong: the feeds' heads were not reached in time.
var errPauseTooLong = errors.New("the feeds' heads were not reached in time")

// reindexing is the rebuild of a running node: one at a time.
type reindexing struct {
	mu   sync.Mutex
	run  *reindexRun // under way, nil for none
	wake chan *reindexRun
}

// reindexRun is one rebuild. report and err are read once done is closed.
type reindexRun struct {
	mu       sync.Mutex
	progress ReindexProgress
	done     chan struct{}
	report   *Reindexed
	err      error
}

func (run *reindexRun) tell(p ReindexProgress) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.progress = p
}

func (run *reindexRun) told() ReindexProgress {
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.progress
}

// Reindex makes all anew that the running node derives: the chainstate, the
// documents for queries, the indexes. If that is under way already it waits for
// the same. tell is told now and then how far it is. When ctx ends first the
// rebuild goes on. ErrNotReady when the node stops before it is done.
func (n *Node) Reindex(ctx context.Context, tell func(ReindexProgress)) (*Reindexed, error) {
	n.reindexing.mu.Lock()
	run := n.reindexing.run
	if run == nil {
		run = &reindexRun{done: make(chan struct{})}
		select {
		case n.reindexing.wake <- run:
			n.reindexing.run = run
		default:
			run = nil
		}
	}
	n.reindexing.mu.Unlock()
	if run == nil || n.stopping.Load() {
		return nil, errReindexStopped
	}
	tick := time.NewTicker(reindexTold)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-run.done:
			return run.report, run.err
		case <-tick.C:
			tell(run.told())
		}
	}
}

var errReindexStopped = fmt.Errorf("%w: it is stopping; what is derived is as it was", ErrNotReady)

// runReindexing carries out the rebuilds that are asked for. One that fails
// changes nothing and is told to those who wait.
func (n *Node) runReindexing(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			n.endReindexing(nil, errReindexStopped)
			return nil
		case run := <-n.reindexing.wake:
			report, err := n.reindex(ctx, run.tell)
			if err != nil && ctx.Err() != nil {
				err = errReindexStopped
			}
			log := n.log.With("component", "reindex")
			if err != nil {
				log.Error("the rebuild failed; what is derived is as it was", "error", err)
			} else {
				log.Info("all that is derived is made anew", "blocks", report.Blocks, "documents_right", report.Right, "mended", report.Mended,
					"written", report.Written, "removed", report.Removed, "pause", report.Pause.Round(time.Millisecond), "took", report.Took.Round(time.Millisecond))
			}
			n.endReindexing(report, err)
		}
	}
}

func (n *Node) endReindexing(report *Reindexed, err error) {
	n.reindexing.mu.Lock()
	defer n.reindexing.mu.Unlock()
	if run := n.reindexing.run; run != nil {
		run.report, run.err = report, err
		close(run.done)
		n.reindexing.run = nil
	}
}

func (n *Node) reindex(ctx context.Context, tell func(ReindexProgress)) (*Reindexed, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.caughtUp:
	}
	n.log.Info("making all anew that is derived", "component", "reindex")
	f := newFollower(n.db, n.rules, n.log)
	f.genesis, f.trouble, f.task = n.genesis, n.trouble, "reindex: "
	r, err := newRebuild(n.folders, f, n.indexes, tell)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, r.state.GiveUp)() // a full disk does not keep the node from stopping
	retire, err := n.rebuild(ctx, r)
	if retire == nil {
		return nil, errors.Join(err, r.state.Close())
	}
	if err := errors.Join(err, retire()); err != nil {
		return nil, err
	}
	if _, err := n.folders.spare(); err != nil { // the former chainstate goes
		return nil, err
	}
	r.report.Took = time.Since(r.began)
	return &r.report, nil
}

// rebuild derives all and changes over. retire is nil when it did not.
func (n *Node) rebuild(ctx context.Context, r *rebuild) (retire func() error, err error) {
	if r.leave, err = n.unsettled(); err != nil {
		return nil, err
	}
	if err := r.run(ctx, n.state.Arrivals()); err != nil {
		return nil, err
	}
	for limit := firstPause; ; limit *= 2 {
		if err := r.toHeads(ctx, func() {}); err != nil {
			return nil, err
		}
		changed := make(chan error, 1)
		pause := func(ctx context.Context) (fatal error) {
			retire, fatal, err = n.changeOver(ctx, r, limit)
			changed <- err
			return fatal
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case n.pauses <- pause:
		}
		if err := <-changed; !errors.Is(err, errPauseTooLong) {
			return retire, err
		}
		n.log.Warn("the changeover took too long and is tried again", "component", "reindex", "limit", limit)
	}
}

// unsettled tells of decisions whose consequences the node itself has still to
// carry out, or that it does not know.
func (n *Node) unsettled() (func(chainstate.Decision) bool, error) {
	pending := map[string]bool{}
	for last := uint64(0); ; {
		d, ok, err := n.state.Pending(last)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		last = d.Number
		pending[d.BlockID] = true
	}
	return func(d chainstate.Decision) bool {
		status, err := n.state.BlockStatus(d.BlockID)
		return err != nil || status != consensus.Valid || pending[d.BlockID]
	}, nil
}

// changeOver runs in the ledger loop. It puts the rebuilt chainstate in the
// place of the one in use. A fatal error ends the node; any other leaves it as
// it was, and retire is nil.
func (n *Node) changeOver(ctx context.Context, r *rebuild, limit time.Duration) (retire func() error, fatal, err error) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := r.toHeads(limited, func() {}); err != nil {
		if ctx.Err() == nil && limited.Err() != nil {
			err = errPauseTooLong
		}
		return nil, nil, err
	}
	news, err := n.news(r.state)
	if err != nil {
		return nil, nil, err
	}
	if err := n.folders.use(r.name); err != nil {
		return nil, nil, err
	}
	retire = n.state.Replace(r.state)
	for _, d := range news {
		if err := n.settleAll(d); err != nil {
			return retire, err, err
		}
	}
	if err := n.voter.takeUp(ctx); err != nil {
		return retire, err, err
	}
	n.effects.signal()
	r.report.Pause = time.Since(began)
	return retire, nil, nil
}

// news lists the decisions in another chainstate that this node has not made
// yet, in order.
func (n *Node) news(next *chainstate.State) ([]chainstate.Decision, error) {
	var news []chainstate.Decision
	for last := uint64(0); ; {
		d, ok, err := next.Pending(last)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		last = d.Number
		if status, err := n.state.BlockStatus(d.BlockID); err != nil {
			return nil, err
		} else if status != consensus.Valid {
			news = append(news, d)
		}
	}
	err := next.Blocks(func(block string, status consensus.Status) error {
		if status != consensus.Invalid {
			return nil
		}
		known, err := n.state.BlockStatus(block)
		if err != nil || known == consensus.Invalid {
			return err
		}
		d, err := next.Decision(block)
		news = append(news, d)
		return err
	})
	return news, err
}
