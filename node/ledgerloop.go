package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
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
		case e := <-n.events:
			err = n.apply(e)
			if err == nil && e.caughtUp && !n.isCaughtUp() {
				heads[e.table] = true
				if len(heads) == 2 {
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
	if err := n.held.release(n); err != nil {
		return err
	}
	if err := n.voter.catchUp(ctx); err != nil {
		return err
	}
	n.log.Info("caught up with the ledger", "component", "ledger")
	close(n.caughtUp)
	return nil
}

func (n *Node) apply(e event) error {
	switch {
	case e.block != nil:
		return n.applyBlock(e.block, e.unsound)
	case e.vote != nil:
		return n.applyVote(e.vote)
	case e.statement != nil:
		return n.applyStatement(e.statement)
	}
	u := n.state.Begin()
	if err := u.SetToken(e.table, e.token); err != nil {
		u.Discard()
		return err
	}
	return u.Commit()
}

// update runs do in an update and commits it, unless do fails.
func (n *Node) update(do func(u *chainstate.Update) error) error {
	u := n.state.Begin()
	if err := do(u); err != nil {
		u.Discard()
		return err
	}
	return u.Commit()
}

// errForeign is wrapped where a block is not one of the federation's.
var errForeign = errors.New("the block is not the federation's")

// judge tells to which epoch a block belongs, and why it can never be valid.
func (n *Node) judge(b *ledger.Block, unsound error) (epoch chainstate.Epoch, why error) {
	epoch, ok := n.state.EpochAt(b.Timestamp)
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

func (n *Node) applyBlock(b *ledger.Block, unsound error) error {
	epoch, why := n.judge(b, unsound)
	status := consensus.Undecided
	if why != nil {
		status = consensus.Invalid
	}
	var added, decided bool
	var decision chainstate.Decision
	err := n.update(func(u *chainstate.Update) (err error) {
		if added, err = u.AddBlock(b, epoch.Number, status); err != nil || !added {
			return err
		}
		decision, decided, err = n.tally(u, b.ID)
		return err
	})
	if err != nil || !added {
		return err
	}
	if why != nil {
		n.fault("a block can never be valid", b.ID, why)
		n.retract(b)
	} else {
		n.backlog.entered(idsOf(b))
	}
	if decided {
		if err := n.settleAll(decision); err != nil {
			return err
		}
	}
	return n.voter.consider(b, epoch, why)
}

// retract takes up the transactions of a block that is invalid on arrival.
func (n *Node) retract(b *ledger.Block) {
	n.maker.decided(b.ID)
	n.backlog.revive(idsOf(b), n.isLive)
}

// isLive reports whether a transaction is in a valid or undecided block.
func (n *Node) isLive(tx string) bool {
	status, _, err := n.state.TransactionStatus(tx)
	return err == nil && status != consensus.Unknown
}

func (n *Node) applyVote(v *ledger.Vote) error {
	var decided bool
	var decision chainstate.Decision
	err := n.update(func(u *chainstate.Update) error {
		contradicts, err := u.AddVote(v)
		if err != nil {
			return err
		}
		if contradicts {
			n.fault("a node voted twice with different verdicts", ledger.VoteID(v.BlockID, v.NodePubkey), nil)
		}
		decision, decided, err = n.tally(u, v.BlockID)
		return err
	})
	if err != nil {
		return err
	}
	if v.NodePubkey == n.key.Public {
		if err := n.voter.saw(v); err != nil {
			return err
		}
	}
	if decided {
		return n.settleAll(decision)
	}
	return nil
}

// tally decides a block if its votes suffice.
func (n *Node) tally(u *chainstate.Update, blockID string) (chainstate.Decision, bool, error) {
	voters, valid, invalid, open, err := u.Count(blockID)
	if err != nil || !open {
		return chainstate.Decision{}, false, err
	}
	status := n.rules.Tally(voters, valid, invalid)
	if status == consensus.Undecided {
		return chainstate.Decision{}, false, nil
	}
	if status == consensus.Valid {
		if waits, err := n.held.hold(u, blockID); err != nil || waits {
			return chainstate.Decision{}, false, err
		}
	}
	d, err := u.Decide(blockID, status)
	return d, err == nil, err
}

// settleAll is settle for a decision, and for those that it lets follow.
func (n *Node) settleAll(d chainstate.Decision) error {
	for next := []chainstate.Decision{d}; len(next) > 0; next = next[1:] {
		if err := n.settle(next[0]); err != nil {
			return err
		}
		for _, block := range n.held.take(next[0]) {
			d, decided, err := n.tallyAgain(block)
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

func (n *Node) tallyAgain(blockID string) (d chainstate.Decision, decided bool, err error) {
	err = n.update(func(u *chainstate.Update) (err error) {
		d, decided, err = n.tally(u, blockID)
		return err
	})
	return d, decided, err
}

// settle tells everyone concerned about a decision.
func (n *Node) settle(d chainstate.Decision) error {
	if err := n.journal.Release(d.BlockID); err != nil {
		return err
	}
	block := n.maker.decided(d.BlockID)
	ids := make([]string, len(d.Transactions))
	for i, t := range d.Transactions {
		ids[i] = t.TxID
	}
	if d.Status == consensus.Valid {
		n.metrics.valid.Add(float64(len(ids)))
		n.backlog.decided(ids)
		n.effects.enqueue(d, block)
		events := make([]Event, len(d.Transactions))
		for i, t := range d.Transactions {
			events[i] = Event{TxID: t.TxID, AssetID: t.Asset, BlockID: d.BlockID}
			n.waiters.settle(t.TxID, nil)
		}
		n.hub.publish(events)
	} else {
		n.log.Warn("a block was voted invalid", "component", "ledger", "block", d.BlockID)
		n.backlog.revive(ids, n.isLive)
	}
	return n.voter.reconsider()
}
