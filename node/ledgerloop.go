package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// runLedger is the ledger loop. It alone changes what the node knows of the
// ledger: it takes events one after another, records blocks and votes, decides
// blocks by the rules, and has the voter consider each new block.
func (n *Node) runLedger(ctx context.Context) error {
	heads := map[string]bool{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			err = n.voter.expire()
		case pause := <-n.pauses:
			err = pause(ctx)
		case e := <-n.events:
			err = n.apply(ctx, e)
			if err == nil && !n.isCaughtUp() {
				n.noteRead(e)
				if heads[e.table] = heads[e.table] || e.caughtUp; heads[statedb.Bigchain] && heads[statedb.Votes] {
					err = n.arrive(ctx)
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

// arrive is called once, when both feeds have been read to their heads.
func (n *Node) arrive(ctx context.Context) error {
	if err := n.held.release(n.follower); err != nil {
		return err
	}
	if err := n.voter.catchUp(ctx); err != nil {
		return err
	}
	n.log.Info("caught up with the ledger", "component", "ledger")
	close(n.caughtUp)
	return nil
}

func (f *follower) apply(ctx context.Context, e event) error {
	switch {
	case e.block != nil:
		return f.applyBlock(ctx, e.block, e.unsound)
	case e.vote != nil:
		return f.applyVote(ctx, e.vote)
	case e.statement != nil:
		return f.applyStatement(e.statement)
	}
	u := f.state.Begin()
	if err := u.SetToken(e.table, e.token); err != nil {
		u.Discard()
		return err
	}
	return u.Commit()
}

// update runs do in an update and commits it, unless do fails.
func (f *follower) update(do func(u *chainstate.Update) error) error {
	u := f.state.Begin()
	if err := do(u); err != nil {
		u.Discard()
		return err
	}
	return u.Commit()
}

// errForeign is wrapped where a block is not one of the federation's.
var errForeign = errors.New("the block is not the federation's")

// judge tells to which epoch a block belongs, and why it can never be valid.
func (f *follower) judge(b *ledger.Block, unsound error) (epoch chainstate.Epoch, why error) {
	epoch, ok := f.state.EpochAt(b.Timestamp)
	voters := slices.Sorted(slices.Values(b.Voters))
	switch {
	case !ok:
		return epoch, fmt.Errorf("%w: its timestamp %d is before the genesis block's", errForeign, b.Timestamp)
	case !epoch.Has(b.NodePubkey):
		return epoch, fmt.Errorf("%w: its maker %s was no member", errForeign, b.NodePubkey)
	case !slices.Equal(voters, epoch.Members):
		return epoch, fmt.Errorf("%w: its voters are not the members when it was made", errForeign)
	}
	return epoch, unsound
}

func (f *follower) applyBlock(ctx context.Context, b *ledger.Block, unsound error) error {
	epoch, why := f.judge(b, unsound)
	status := consensus.Undecided
	if why != nil {
		status = consensus.Invalid
	}
	var added, decided bool
	var decision chainstate.Decision
	err := f.update(func(u *chainstate.Update) (err error) {
		if added, err = u.AddBlock(b, epoch.Number, status); err != nil || !added {
			return err
		}
		decision, decided, err = f.tally(u, b.ID)
		return err
	})
	if err != nil || !added {
		return err
	}
	if why != nil {
		if err := f.faultOfBlock(b, why); err != nil {
			return err
		}
	}
	if err := f.accuse(b.ID, ""); err != nil {
		return err
	}
	f.observer.added(b, why)
	if decided {
		if err := f.settleAll(decision); err != nil {
			return err
		}
	}
	return f.observer.consider(b, epoch, why)
}

func (f *follower) faultOfBlock(b *ledger.Block, why error) error {
	kind, what := faultUnsound, "a block can never be valid: "
	if errors.Is(why, errForeign) {
		kind, what = faultStranger, ""
	}
	return f.fault(journal.Fault{
		Kind: kind, Node: b.NodePubkey, Block: b.ID, Document: document(statedb.Bigchain, b.ID), What: what + why.Error(),
	}, b.Bytes())
}

// added takes up the transactions of a block that is invalid on arrival.
func (n *Node) added(b *ledger.Block, why error) {
	if why == nil {
		n.backlog.entered(idsOf(b))
		return
	}
	n.maker.decided(b.ID)
	n.backlog.revive(idsOf(b), b.ID, n.isLive, nil)
}

// turns says whose turn it is after a block came to nothing, where every node
// reckons for itself who is to put a transaction into a block: several may have
// done so at once, and would do so again. In a shared database its entry says it: nil.
func (n *Node) turns() func(block string) string {
	if !n.replicated.Load() {
		return nil
	}
	members := n.federation().Members
	return func(block string) string { return ranking(members, block)[0] }
}

// isLive reports whether a transaction is in a valid or undecided block.
func (n *Node) isLive(tx string) bool {
	status, _, err := n.state.TransactionStatus(tx)
	return err == nil && (status == consensus.Valid || status == consensus.Undecided)
}

func (f *follower) applyVote(ctx context.Context, v *ledger.Vote) error {
	var decided bool
	var decision chainstate.Decision
	var contradicted *ledger.Vote
	err := f.update(func(u *chainstate.Update) (err error) {
		if contradicted, err = u.AddVote(v); err != nil {
			return err
		}
		decision, decided, err = f.tally(u, v.BlockID)
		return err
	})
	if err != nil {
		return err
	}
	if contradicted != nil && f.isMember(v.NodePubkey) {
		err := f.faultOfVotes(faultTwoVerdicts, "a member voted valid and invalid on one block", contradicted, v)
		if err != nil {
			return err
		}
		f.observer.contradicted(contradicted, v)
	}
	if !decided && f.state.HasLiars() {
		if decision, decided, err = f.disputeInvalid(ctx, v.BlockID); err != nil {
			return err
		}
	}
	if err := f.accuse(v.BlockID, v.NodePubkey); err != nil {
		return err
	}
	if err := f.observer.voted(v); err != nil {
		return err
	}
	if decided {
		return f.settleAll(decision)
	}
	return nil
}

// tally decides a block if its votes suffice, and makes a valid one disputed if
// they say so.
func (f *follower) tally(u *chainstate.Update, blockID string) (chainstate.Decision, bool, error) {
	votes, now, open, err := u.Count(blockID)
	if err != nil || !open {
		return chainstate.Decision{}, false, err
	}
	status := consensus.Decide(f.rules, votes)
	switch {
	case status == consensus.Undecided || status == now || now == consensus.Invalid:
		return chainstate.Decision{}, false, nil
	case now != consensus.Undecided && status != consensus.Disputed:
		return chainstate.Decision{}, false, nil
	case status == consensus.Valid:
		if waits, err := f.held.hold(u, blockID); err != nil || waits {
			return chainstate.Decision{}, false, err
		}
	}
	d, err := u.Decide(blockID, status)
	return d, err == nil, err
}

// disputeInvalid makes an invalid block disputed if its votes say so. Its
// transactions are needed for that, which the chainstate has forgotten.
func (f *follower) disputeInvalid(ctx context.Context, blockID string) (d chainstate.Decision, decided bool, err error) {
	disputed := func(u *chainstate.Update) (bool, error) {
		votes, now, open, err := u.Count(blockID)
		return open && now == consensus.Invalid && consensus.Decide(f.rules, votes) == consensus.Disputed, err
	}
	var needed bool
	err = f.update(func(u *chainstate.Update) (err error) { needed, err = disputed(u); return err })
	if err != nil || !needed {
		return d, false, err
	}
	block, err := f.restored(ctx, blockID)
	if err != nil || block == nil {
		return d, false, err
	}
	err = f.update(func(u *chainstate.Update) error {
		if err := u.Restore(block); err != nil {
			return err
		}
		d, err = u.Decide(blockID, consensus.Disputed)
		return err
	})
	return d, err == nil, err
}

// settleAll tells of a decision, and for those that it lets follow.
func (f *follower) settleAll(d chainstate.Decision) error {
	for next := []chainstate.Decision{d}; len(next) > 0; next = next[1:] {
		if next[0].Status == consensus.Disputed {
			if err := f.tellDisputed(next[0]); err != nil {
				return err
			}
		} else if err := f.accuse(next[0].BlockID, ""); err != nil {
			return err
		}
		if err := f.observer.decided(next[0]); err != nil {
			return err
		}
		for _, block := range f.held.take(next[0]) {
			d, decided, err := f.tallyAgain(block)
			if err != nil {
				return err
			}
			if decided {
				next = append(next, d)
			}
		}
	}
	return nil
}

func (f *follower) tallyAgain(blockID string) (d chainstate.Decision, decided bool, err error) {
	err = f.update(func(u *chainstate.Update) (err error) {
		d, decided, err = f.tally(u, blockID)
		return err
	})
	return d, decided, err
}

func (n *Node) own(id string) *ledger.Block { return n.maker.own(id) }

// damagedVote has this node's vote sent again where a stranger wrote over it.
func (n *Node) damagedVote(id string) {
	if block, key, _ := strings.Cut(id, ":"); key == n.key.Public {
		n.voter.resend(block)
	}
}

func (n *Node) consider(b *ledger.Block, epoch chainstate.Epoch, why error) error {
	return n.voter.consider(b, epoch, why)
}

func (n *Node) voted(v *ledger.Vote) error {
	if v.NodePubkey != n.key.Public {
		return nil
	}
	return n.voter.saw(v)
}

func (n *Node) contradicted(one, other *ledger.Vote) { n.effects.prove(one, other) }

// decided tells everyone concerned about a decision.
func (n *Node) decided(d chainstate.Decision) error {
	if err := n.journal.Release(d.BlockID); err != nil {
		return err
	}
	block := n.maker.decided(d.BlockID)
	if block != nil {
		n.maker.ended(d.Status == consensus.Valid)
	}
	ids := make([]string, len(d.Transactions))
	for i, t := range d.Transactions {
		ids[i] = t.TxID
	}
	switch d.Status {
	case consensus.Valid:
		n.metrics.valid.Add(float64(len(ids)))
		n.backlog.decided(ids)
		n.effects.enqueue(d, block)
		events := make([]Event, len(d.Transactions))
		for i, t := range d.Transactions {
			events[i] = Event{TxID: t.TxID, AssetID: t.Asset, BlockID: d.BlockID}
			n.waiters.settle(t.TxID, nil)
		}
		n.hub.publish(events)
	case consensus.Disputed:
		n.backlog.revive(ids, d.BlockID, n.isLive, n.turns())
		n.effects.enqueue(d, nil)
	default:
		n.log.Warn("a block was voted invalid", "component", "ledger", "block", d.BlockID)
		n.backlog.revive(ids, d.BlockID, n.isLive, n.turns())
	}
	return n.voter.reconsider()
}
