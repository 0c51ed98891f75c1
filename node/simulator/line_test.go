package simulator

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// line is one run's connection of a node to its database. Every call waits at
// the scheduler, which alone touches stores.
type line struct {
	w     *world
	owner *member
	store *store
	dead  bool // guarded by w.mu: the node crashed
}

// call is a call that waits.
type call struct {
	line        *line
	kind, table string
	ids         []string
	from        uintptr // where in the node, to tell the same questions of two tasks apart
	arrival     int
	ready       func() bool // nil: always
	do          func()
	part        func() // of a write: does some of it
	done        chan error
}

// direct marks the questions of the simulator itself, which do not wait.
type direct struct{}

func (l *line) call(ctx context.Context, c *call) error {
	if ctx.Value(direct{}) != nil {
		c.do()
		return nil
	}
	c.line, c.done = l, make(chan error, 1)
	var callers [6]uintptr
	for _, at := range callers[:runtime.Callers(3, callers[:])] {
		c.from = c.from*31 + at
	}
	l.w.mu.Lock()
	if l.dead {
		l.w.mu.Unlock()
		return statedb.ErrClosed
	}
	l.w.arrivals++
	c.arrival = l.w.arrivals
	l.w.pending = append(l.w.pending, c)
	l.w.mu.Unlock()
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		l.w.mu.Lock()
		defer l.w.mu.Unlock()
		l.w.pending = slices.DeleteFunc(l.w.pending, func(other *call) bool { return other == c })
		return ctx.Err()
	}
}

// cut ends a line: what waits fails, and nothing gets through any more. It is
// called with w.mu held.
func (l *line) cut() {
	l.dead = true
	l.w.pending = slices.DeleteFunc(l.w.pending, func(c *call) bool {
		if c.line != l {
			return false
		}
		c.done <- statedb.ErrClosed
		return true
	})
}

// compare orders calls by what they are, and only the same ones by arrival.
func (c *call) compare(other *call) int {
	return cmp.Or(
		cmp.Compare(c.line.owner.place, other.line.owner.place),
		strings.Compare(c.kind, other.kind),
		strings.Compare(c.table, other.table),
		slices.Compare(c.ids, other.ids),
		cmp.Compare(c.from, other.from),
		cmp.Compare(c.arrival, other.arrival),
	)
}

func (c *call) String() string {
	names := make([]string, len(c.ids))
	for i, id := range c.ids {
		names[i] = c.line.w.name(id)
	}
	return fmt.Sprintf("node %d: %s %s %s", c.line.owner.place, c.kind, c.table, strings.Join(names, " "))
}

func (l *line) Create(context.Context) (bool, error) { return false, nil }
func (l *line) Drop(context.Context) error           { panic("a node does not drop its database") }
func (l *line) Health(context.Context) error         { return l.alive() }
func (l *line) Close() error                         { return nil }
func (l *line) Check(canonical.Value) error          { return nil }

// HasPeers tells of what is no secret, so it does not wait.
func (l *line) HasPeers(context.Context) (bool, error) { return len(l.w.links) > 0, l.alive() }

func (l *line) TendPeers(ctx context.Context) (bool, error) { return l.HasPeers(ctx) }

func (l *line) Limits() statedb.Limits {
	return statedb.Limits{MaxDocumentBytes: 8_000_000, MaxBatch: 100, Writers: 1}
}

func (l *line) alive() error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.dead {
		return statedb.ErrClosed
	}
	return nil
}

func (l *line) DeployIndexes(context.Context, string, []statedb.Index, func([]statedb.IndexState)) error {
	return l.alive()
}

func (l *line) Indexes(context.Context, string) ([]statedb.IndexState, error) { return nil, nil }

func (l *line) Write(ctx context.Context, name string, writes []statedb.Write) (results []statedb.Result, err error) {
	ids := make([]string, len(writes))
	for i, w := range writes {
		ids[i] = w.ID
	}
	t := l.store.tables[name]
	apply := func(count int) {
		results = make([]statedb.Result, 0, len(writes))
		for _, w := range writes[:count] {
			results = append(results, t.write(w))
		}
	}
	err = l.call(ctx, &call{
		kind: "write", table: name, ids: ids, do: func() { apply(len(writes)) },
		part: func() { apply(1 + l.w.random.IntN(len(writes))) },
	})
	return results, err
}

func (l *line) Remove(ctx context.Context, name string, ids []string) error {
	t := l.store.tables[name]
	remove := func(ids []string) {
		for _, id := range ids {
			t.remove(id)
		}
	}
	return l.call(ctx, &call{
		kind: "remove", table: name, ids: ids, do: func() { remove(ids) },
		part: func() { remove(ids[:l.w.random.IntN(len(ids)+1)]) },
	})
}

func (l *line) Get(ctx context.Context, name string, ids []string) (documents []statedb.Document, err error) {
	t := l.store.tables[name]
	err = l.call(ctx, &call{kind: "get", table: name, ids: ids, do: func() {
		for _, id := range ids {
			documents = append(documents, t.get(id))
		}
	}})
	return documents, err
}

// ReadRevisions reads one at a time.
func (l *line) ReadRevisions(ctx context.Context, name, id string, revs []string) (read []statedb.Revision, err error) {
	t := l.store.tables[name]
	err = l.call(ctx, &call{kind: "get", table: name, ids: []string{id}, do: func() {
		read = append(read, t.revision(id, revs[0]))
	}})
	return read, err
}

func (l *line) Range(context.Context, string, statedb.Range) (statedb.Page, error) {
	panic("a node does not read ranges by itself")
}

func (l *line) Find(context.Context, string, statedb.Query) (statedb.Page, error) {
	panic("nobody queries")
}

func (l *line) Explain(context.Context, string, statedb.Query) (statedb.Plan, error) {
	panic("nobody queries")
}

// feed gives changes in any order. Its token stands behind those before which
// none is missing, so what was given out of order comes again after a resume.
type feed struct {
	line  *line
	name  string
	table *table
	low   int          // all up to here were given
	given map[int]bool // beyond it
	told  bool         // that it had caught up
	// ready is asked for at every step, so what it found is kept.
	asked, waiting int
}

func (l *line) Changes(ctx context.Context, name, since string) (statedb.Feed, error) {
	f := &feed{line: l, name: name, table: l.store.tables[name], given: map[int]bool{}}
	if since != "" {
		var err error
		if f.low, err = strconv.Atoi(since); err != nil {
			return nil, statedb.ErrBadToken
		}
	}
	if err := l.call(ctx, &call{kind: "open", table: name, ids: []string{since}, do: func() {}}); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *feed) Close() error { return nil }

// waits lists what was not given.
func (f *feed) waits() []int {
	return slices.DeleteFunc(f.table.waiting(f.low), func(s int) bool { return f.given[s] })
}

func (f *feed) Next(ctx context.Context) (batch statedb.Batch, err error) {
	err = f.line.call(ctx, &call{
		kind: "next", table: f.name,
		ready: func() bool { return !f.told || f.look() },
		do:    func() { batch = f.some() },
	})
	return batch, err
}

func (f *feed) look() bool {
	if f.asked != f.table.version {
		f.asked, f.waiting = f.table.version, len(f.waits())
	}
	return f.waiting > 0
}

// some gives some of what waits: mostly the first few, at times any.
func (f *feed) some() (batch statedb.Batch) {
	w, waits := f.line.w, f.waits()
	if len(waits) > 0 {
		if w.random.IntN(100) < w.mood.reorder {
			w.random.Shuffle(len(waits), func(i, k int) { waits[i], waits[k] = waits[k], waits[i] })
		}
		count := 1 + w.random.IntN(len(waits))
		batch.CaughtUp = count == len(waits)
		for _, s := range waits[:count] {
			batch.Changes = append(batch.Changes, f.table.change(s))
			f.given[s] = true
		}
	} else {
		batch.CaughtUp = true
	}
	f.told = f.told || batch.CaughtUp
	missing := f.waits()
	f.asked, f.waiting = f.table.version, len(missing)
	to := len(f.table.log)
	if len(missing) > 0 {
		to = missing[0] - 1
	}
	for ; f.low < to; f.low++ {
		delete(f.given, f.low+1)
	}
	batch.Token = strconv.Itoa(f.low)
	return batch
}
