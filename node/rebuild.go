package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// Reindexed tells what a rebuild did.
type Reindexed struct {
	Blocks       int `json:"blocks"`       // that were followed
	Transactions int `json:"transactions"` // in them
	// Documents of the table for queries: as they should be, replaced, added,
	// taken out, and not to be judged as their block is gone.
	Right   int `json:"right"`
	Mended  int `json:"mended"`
	Written int `json:"written"`
	Removed int `json:"removed"`
	Unknown int `json:"unknown"`
	// Rows of the database's indexes, where this program keeps them.
	RowsAdded   int `json:"rows_added"`
	RowsRemoved int `json:"rows_removed"`
	// Pause is how long a running node decided nothing while it changed over.
	Pause time.Duration `json:"pause"`
	Took  time.Duration `json:"took"`
}

// ReindexProgress tells how far a rebuild is.
type ReindexProgress struct {
	Step  int    `json:"step"` // from 1 on
	Steps int    `json:"steps"`
	Name  string `json:"name"`
	Done  int    `json:"done"`
	Total int    `json:"total"` // 0 where it is not known
	Unit  string `json:"unit"`  // what is counted
}

// The steps of a rebuild.
const (
	stepFollow = 1 + iota
	stepDerived
	stepSurplus
	stepIndexes
)

// rebuild derives a chainstate in a folder of its own, and compares what else
// is derived with it. Nothing of it is in use meanwhile.
type rebuild struct {
	*follower
	name    string // of the folder
	indexes map[string][]statedb.Index
	tell    func(ReindexProgress)
	report  Reindexed
	began   time.Time
	// leave says of a decision that somebody else carries out what follows.
	leave func(d chainstate.Decision) bool
}

// newRebuild begins an empty chainstate in the place that does not count.
func newRebuild(c chainFolders, f *follower, indexes map[string][]statedb.Index, tell func(ReindexProgress)) (*rebuild, error) {
	r := &rebuild{
		follower: f, indexes: indexes, tell: tell, began: time.Now(),
		leave: func(chainstate.Decision) bool { return false },
	}
	f.observer = &followed{report: &r.report}
	var err error
	if r.name, err = c.spare(); err != nil {
		return nil, err
	}
	if f.state, err = chainstate.Open(c.in(r.name), c.fs); err != nil {
		return nil, err
	}
	if err := f.adoptGenesis(); err != nil {
		return nil, errors.Join(err, f.state.Close())
	}
	return r, nil
}

// followed counts what a rebuild follows.
type followed struct {
	nobody
	report *Reindexed
}

func (c *followed) added(b *ledger.Block, _ error) {
	c.report.Blocks++
	c.report.Transactions += len(b.Transactions)
}

func (r *rebuild) progress(step int, name string, done, total int, unit string) {
	r.tell(ReindexProgress{Step: step, Steps: stepIndexes, Name: name, Done: done, Total: total, Unit: unit})
}

// follow derives the chainstate. total is about how many blocks there are, 0
// where nobody knows.
func (r *rebuild) follow(ctx context.Context, total int) error {
	return r.toHeads(ctx, func() {
		if total == 0 {
			r.progress(stepFollow, "following blocks and votes", r.report.Transactions, 0, "transactions")
			return
		}
		r.progress(stepFollow, "following blocks and votes", min(r.report.Blocks, total), total, "blocks")
	})
}

// run derives all.
func (r *rebuild) run(ctx context.Context, total int) error {
	if err := r.follow(ctx, total); err != nil {
		return err
	}
	if err := r.mendDerived(ctx); err != nil {
		return err
	}
	if err := r.removeSurplus(ctx); err != nil {
		return err
	}
	return r.mendIndexes(ctx)
}

// mendIndexes deploys the indexes that are missing or differ, and has those
// mended that the adapter keeps itself.
func (r *rebuild) mendIndexes(ctx context.Context) error {
	r.progress(stepIndexes, "deploying indexes", 0, 0, "documents")
	err := DeployIndexes(ctx, r.db, r.indexes, func(table string, building []statedb.IndexState) {
		_, pending, total := statedb.Building(building)
		r.progress(stepIndexes, "building indexes of "+table, total-pending, total, "documents")
	})
	mender, ok := r.db.(statedb.IndexMender)
	if err != nil || !ok {
		return err
	}
	for _, table := range statedb.Tables {
		added, removed, err := mender.MendIndexes(ctx, table, func(done int) {
			r.progress(stepIndexes, "comparing indexes of "+table, done, 0, "rows")
		})
		r.report.RowsAdded += added
		r.report.RowsRemoved += removed
		if err != nil {
			return err
		}
	}
	return nil
}

// stopped is what an operator does who reindexes a ledger whose node is
// stopped: it holds the state's lock, and the folders are settled.
type stopped struct {
	o       Options
	journal *journal.Journal
	folders chainFolders
	genesis *ledger.Block
}

// openStopped takes the lock of a stopped node's state. kv.ErrLocked where a
// node runs.
func openStopped(ctx context.Context, o Options) (*stopped, error) {
	genesis, err := o.setLedger(ctx)
	if err != nil {
		return nil, err
	}
	s := &stopped{o: o, genesis: genesis, folders: foldersIn(o.StatePath, o.FS)}
	if s.journal, err = journal.Open(filepath.Join(o.StatePath, journalFolder), o.Key.Public, o.FS); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, errors.Join(err, s.journal.Close())
	}
	return s, nil
}

// check settles the folders. A chainstate of another ledger is not thrown
// away: the state path is the wrong one then. One that cannot be opened is what
// is to be mended.
func (s *stopped) check() error {
	if err := s.folders.settle(); err != nil {
		return err
	}
	state, err := s.folders.open()
	if err != nil {
		s.o.Logger.Warn("the chainstate cannot be opened; it is made anew", "error", err)
		return nil
	}
	defer state.Close()
	return otherLedger(state.Genesis(), s.genesis.ID)
}

// rebuild begins one.
func (s *stopped) rebuild(tell func(ReindexProgress)) (*rebuild, error) {
	f := newFollower(s.o.DB, s.o.Rules, s.o.Logger)
	f.genesis = s.genesis
	return newRebuild(s.folders, f, s.o.Indexes, tell)
}

// adopt makes the rebuilt chainstate the one that counts.
func (s *stopped) adopt(r *rebuild) error {
	if err := r.state.Close(); err != nil {
		return err
	}
	return errors.Join(s.folders.use(r.name), s.folders.settle())
}

// Reindex makes all anew that is derived of a ledger whose node is stopped: the
// chainstate, the documents for queries, the indexes. The chainstate that was
// there counts until the new one is whole; interrupted, it changed nothing but
// documents that were wrong. kv.ErrLocked where a node runs on the state,
// ErrNotInitialized where the database holds no ledger.
func Reindex(ctx context.Context, o Options, tell func(ReindexProgress)) (*Reindexed, error) {
	if err := errUnfinished(o.StatePath); err != nil {
		return nil, err
	}
	s, err := openStopped(ctx, o)
	if err != nil {
		return nil, err
	}
	report, err := s.reindex(ctx, tell)
	return report, errors.Join(err, s.journal.Close())
}

func (s *stopped) reindex(ctx context.Context, tell func(ReindexProgress)) (*Reindexed, error) {
	r, err := s.rebuild(tell)
	if err != nil {
		return nil, err
	}
	if err := r.run(ctx, 0); err != nil {
		return nil, errors.Join(err, r.state.Close())
	}
	if err := s.adopt(r); err != nil {
		return nil, err
	}
	r.report.Took = time.Since(r.began)
	return &r.report, nil
}

// otherLedger says what to do where a state is of another ledger than the
// database; known is "" where it is of none yet.
func otherLedger(known, genesis string) error {
	if known == "" || known == genesis {
		return nil
	}
	return fmt.Errorf("the local state belongs to another ledger: its genesis block is %s, the database's is %s; "+
		"set state.path to an empty folder, or connect to the right database", known, genesis)
}
