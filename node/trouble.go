package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/couchledger/couchledger/disk"
	"github.com/couchledger/couchledger/statedb"
)

const (
	// Times between two attempts at what failed.
	firstRetry = 50 * time.Millisecond
	lastRetry  = 10 * time.Second

	// healthEvery is how often the database is asked whether it is there.
	healthEvery = 2 * time.Second
	// defaultPatience is how long it may take to answer.
	defaultPatience = 10 * time.Second
)

// The tasks whose trouble means that nothing can be posted.
const (
	healthTask = "database"
	writerTask = "backlog writer"
)

// trouble is what the node is retrying just now.
type trouble struct {
	mu    sync.Mutex
	tasks map[string]error
	since time.Time     // when the first of the database's faults began
	full  bool          // it was the disk's
	down  chan struct{} // closed while nothing can be posted
	wake  chan struct{} // closed, and replaced, when the database answers after faults
}

func newTrouble() *trouble {
	return &trouble{tasks: map[string]error{}, down: make(chan struct{}), wake: make(chan struct{})}
}

// answered has all tasks that wait try again at once.
func (t *trouble) answered() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.outage() {
		close(t.wake)
		t.wake = make(chan struct{})
	}
}

// pause waits until it is time to try again; false when ctx ends.
func (t *trouble) pause(ctx context.Context, d time.Duration) bool {
	t.mu.Lock()
	wake := t.wake
	t.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-timer.C:
	}
	return true
}

// isDatabaseFault tells faults of the database, which many tasks meet at once,
// from those of one task.
func isDatabaseFault(err error) bool {
	return errors.Is(err, disk.ErrLacks) || errors.Is(err, statedb.ErrUnavailable) || errors.Is(err, statedb.ErrNoDatabase) || errors.Is(err, statedb.ErrDenied)
}

// outage reports whether a task meets the database's faults just now.
func (t *trouble) outage() bool {
	for _, err := range t.tasks {
		if isDatabaseFault(err) {
			return true
		}
	}
	return false
}

func (t *trouble) isDown() bool { return t.tasks[healthTask] != nil || t.tasks[writerTask] != nil }

// retry does a thing until it succeeds or ctx ends. The first failure and the
// recovery are told in the log once; in between the node counts as degraded.
func (f *follower) retry(ctx context.Context, task string, do func() error) error {
	wait := firstRetry
	for {
		err := do()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.setTrouble(task, err)
		if err == nil || errors.Is(err, statedb.ErrClosed) {
			return err
		}
		if !f.trouble.pause(ctx, wait) {
			return ctx.Err()
		}
		wait = min(2*wait, lastRetry)
	}
}

// remove takes documents away for good, as many at a time as the database takes.
func (f *follower) remove(ctx context.Context, task, table string, ids []string) error {
	for part := range slices.Chunk(ids, f.db.Limits().MaxBatch) {
		if err := f.retry(ctx, task, func() error { return f.db.Remove(ctx, table, part) }); err != nil {
			return err
		}
	}
	return nil
}

// eachPage reads a table page by page, by id.
func (f *follower) eachPage(ctx context.Context, task, table string, visit func([]statedb.Document) error) error {
	for page := (statedb.Range{Limit: f.db.Limits().MaxBatch}); ; {
		var found statedb.Page
		err := f.retry(ctx, task, func() (err error) {
			found, err = f.db.Range(ctx, table, page)
			return err
		})
		if err == nil {
			err = visit(found.Documents)
		}
		if page.Bookmark = found.Bookmark; err != nil || page.Bookmark == "" {
			return err
		}
	}
}

// setTrouble records that a task fails, or with nil that it works again. When
// the database is away all tasks fail; that is told once.
func (f *follower) setTrouble(task string, err error) {
	t := f.trouble
	t.mu.Lock()
	defer t.mu.Unlock()
	before, failing := t.tasks[task]
	if err == nil && !failing {
		return
	}
	wasOut, wasDown := t.outage(), t.isDown()
	if err != nil {
		t.tasks[task] = err
	} else {
		delete(t.tasks, task)
	}
	switch out := t.outage(); {
	case out && !wasOut:
		t.since, t.full = time.Now(), errors.Is(err, disk.ErrLacks)
		told := "the database fails; trying again until it works"
		if t.full {
			told = "the disk is full; trying again until it has room"
		}
		f.log.Warn(told, "component", task, "error", err)
	case wasOut && !out:
		told := "the database works again"
		if t.full {
			told = "the disk has room again"
		}
		f.log.Info(told, "component", task, "after", time.Since(t.since).Round(time.Millisecond))
	case err != nil && !failing && !isDatabaseFault(err):
		f.log.Warn("a task fails; trying again until it works", "component", task, "error", err)
	case err == nil && !isDatabaseFault(before):
		f.log.Info("the task works again", "component", task, "was", before)
	}
	switch down := t.isDown(); {
	case down && !wasDown:
		close(t.down)
	case wasDown && !down:
		t.down = make(chan struct{})
	}
}

// down is closed while nothing can be posted.
func (n *Node) down() <-chan struct{} {
	n.trouble.mu.Lock()
	defer n.trouble.mu.Unlock()
	return n.trouble.down
}

// watchDatabase asks the database now and then whether it is there: a server
// that hangs would otherwise hold every request as long as one may take. It
// looks at the room on the node's own disk, too, without which nothing can be
// voted on.
func (n *Node) watchDatabase(ctx context.Context) error {
	for sleep(ctx, healthEvery) {
		err := n.space()
		if err == nil {
			err = n.askDatabase(ctx)
		}
		if ctx.Err() != nil || errors.Is(err, statedb.ErrClosed) {
			return nil
		}
		n.setTrouble(healthTask, err)
		if err == nil {
			n.trouble.answered()
		}
	}
	return nil
}

func (n *Node) askDatabase(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, n.patience)
	defer cancel()
	err := n.db.Health(limited)
	if limited.Err() != nil {
		return fmt.Errorf("%w: no answer for %v", statedb.ErrUnavailable, n.patience)
	}
	return err
}

// Ready returns nil when the database is reached and the node has caught up
// with it, else what is missing.
func (n *Node) Ready() error {
	if n.stopping.Load() {
		return fmt.Errorf("%w: it is stopping", ErrNotReady)
	}
	n.trouble.mu.Lock()
	for task, err := range n.trouble.tasks {
		n.trouble.mu.Unlock()
		// Its own words are in the log: they would tell clients addresses.
		if isDatabaseFault(err) {
			return errDown
		}
		return fmt.Errorf("%w: its %s tries again what failed", ErrNotReady, task)
	}
	n.trouble.mu.Unlock()
	if up, behind := n.CatchingUp(); behind {
		return fmt.Errorf("%w: it is catching up with the ledger: %v", ErrNotReady, up)
	}
	return nil
}

// canPost returns nil when a transaction can be accepted, else ErrNotReady.
func (n *Node) canPost() error {
	if n.stopping.Load() || !n.isCaughtUp() {
		if err := n.Ready(); err != nil {
			return err
		}
	}
	select {
	case <-n.down():
		return n.whyDown()
	default:
		return nil
	}
}

// The answers to posts while nothing can be accepted. The faults' own words
// would tell clients addresses and paths.
var (
	errDown = fmt.Errorf("%w: its database does not answer", ErrNotReady)
	errFull = fmt.Errorf("%w: its disk is full", ErrNotReady)
)

// whyDown is the answer to posts while nothing can be accepted.
func (n *Node) whyDown() error {
	n.trouble.mu.Lock()
	defer n.trouble.mu.Unlock()
	for _, err := range n.trouble.tasks {
		if errors.Is(err, disk.ErrLacks) {
			return errFull
		}
	}
	return errDown
}

// space returns nil when the node's own disk has room, else what is lacking.
func (n *Node) space() error {
	if err := n.journal.Space(); err != nil {
		return err
	}
	return n.state.Space()
}

// RetryAfter is how long a client should wait before it posts again.
func (n *Node) RetryAfter() time.Duration { return n.backlog.retryAfter() }

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
