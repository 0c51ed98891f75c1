package node

import (
	"context"
	"log/slog"
	"sync"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// follower derives a chainstate from blocks and votes. A node is one that does
// something about what it learns; a rebuild is one that only derives.
type follower struct {
	db      statedb.DB
	rules   consensus.Rules
	log     *slog.Logger
	state   *chainstate.State
	genesis *ledger.Block
	// allVotes has the votes read from their feed's start, though the chainstate
	// has counted some.
	allVotes bool
	observer observer
	task     string // before the names of tasks, to tell several followers apart

	proofs  proofCache
	events  chan event // from the feeds to the ledger loop
	held    heldBlocks // of the ledger loop alone
	trouble *trouble
}

// newFollower makes a follower that nobody observes. It needs a genesis block
// and a chainstate that has adopted it.
func newFollower(db statedb.DB, rules consensus.Rules, log *slog.Logger) *follower {
	return &follower{
		db: db, rules: rules, log: log, observer: nobody{}, events: make(chan event, eventQueue), trouble: newTrouble(),
		held: heldBlocks{on: map[string][]string{}},
	}
}

// observer learns what a follower does. own, damagedVote and garbage are called by
// the feeds, all others by the ledger loop.
type observer interface {
	// own returns a block that need not be read, nil for any other.
	own(id string) *ledger.Block
	// damagedVote tells that no vote stands at an id where one should.
	damagedVote(id string)
	// garbage tells of revisions that are to be deleted, as a sound one stands
	// beside them.
	garbage(table string, gone []statedb.Write)
	// added tells of a new block, consider when it is counted; why says that it
	// can never be valid.
	added(b *ledger.Block, why error)
	consider(b *ledger.Block, epoch chainstate.Epoch, why error) error
	voted(v *ledger.Vote) error
	decided(d chainstate.Decision) error
	// contradicted tells of two votes of a member on one block.
	contradicted(one, other *ledger.Vote)
	// fault tells of what a stranger or a liar wrote; the feeds call it too.
	fault(x journal.Fault) error
}

// nobody is the observer of a rebuild.
type nobody struct{}

func (nobody) own(string) *ledger.Block                              { return nil }
func (nobody) damagedVote(string)                                    {}
func (nobody) garbage(string, []statedb.Write)                       {}
func (nobody) added(*ledger.Block, error)                            {}
func (nobody) consider(*ledger.Block, chainstate.Epoch, error) error { return nil }
func (nobody) voted(*ledger.Vote) error                              { return nil }
func (nobody) decided(chainstate.Decision) error                     { return nil }
func (nobody) contradicted(_, _ *ledger.Vote)                        {}
func (nobody) fault(journal.Fault) error                             { return nil }

// toHeads follows both feeds, opened anew, from the checkpoints to their heads:
// all that was in the database before the call is in the chainstate then, in an
// order in which each transaction comes after those it spends. tell is called
// after every event.
func (f *follower) toHeads(ctx context.Context, tell func()) error {
	f.held = heldBlocks{on: map[string][]string{}}
	work, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	failed := make(chan error, 2)
	for _, feed := range []func(context.Context) error{f.followBlocks, f.followVotes} {
		group.Go(func() {
			if err := feed(work); err != nil {
				failed <- err
			}
		})
	}
	defer func() {
		cancel()
		group.Wait()
		for len(f.events) > 0 { // behind the heads; the next call reads them again
			<-f.events
		}
	}()
	for heads := map[string]bool{}; len(heads) < 2; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case e := <-f.events:
			if err := f.apply(ctx, e); err != nil {
				return err
			}
			if e.caughtUp {
				heads[e.table] = true
			}
			tell()
		}
	}
	return f.held.release(f)
}
