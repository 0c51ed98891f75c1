package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// Reasons of invalid votes, the short words in invalid_reason.
const (
	reasonForeign   = "NODES_PUBKEYS_MISMATCH"
	reasonUnsound   = "UNSOUND_TRANSACTION"
	reasonDuplicate = "DUPLICATE_TRANSACTION"
	reasonUndecided = "UNDECIDED_INPUT"
	reasonPast      = "PAST_FEDERATION"
)

// Bounds on blocks that wait for an input to be decided before they are voted on.
const (
	maxWaitingBlocks = 64
	maxVoteWait      = time.Minute
)

// maxPast is how long after a change of the federation its former members' blocks
// are still voted for: those under way then. Later ones would let who was removed
// go on making blocks by dating them back.
const maxPast = 10 * time.Minute

// voter votes on blocks. But for write it runs in the ledger loop.
type voter struct {
	n       *Node
	waiting map[string]*waitingBlock // off the main line, by block
	// tips finds the end of this node's chain of votes while it is read back
	// after a lost journal: block → timestamp, of votes that no later vote
	// names as the one before.
	tips map[string]int64
	wake chan struct{}

	mu     sync.Mutex
	unsent []*ledger.Vote // in the journal, and not in the database yet
}

// waitingBlock is a block with an input in blocks that are not decided here.
type waitingBlock struct {
	block    *ledger.Block
	on       []string // blocks
	deadline time.Time
}

func newVoter(n *Node) *voter {
	return &voter{n: n, waiting: map[string]*waitingBlock{}, tips: map[string]int64{}, wake: make(chan struct{}, 1)}
}

// restore takes up the votes that a crash may have kept from the database, and
// releases the locks of blocks that were decided just before it.
func (v *voter) restore() (err error) {
	for _, block := range v.n.journal.Held() {
		status, err := v.n.state.BlockStatus(block)
		if err != nil {
			return err
		}
		if status != consensus.Unknown && status != consensus.Undecided {
			if err := v.n.journal.Release(block); err != nil {
				return err
			}
		}
	}
	v.unsent, err = v.n.journal.Unsent()
	v.signal()
	return err
}

func (v *voter) signal() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// saw notes a vote of this node's that the feed brought. One that the journal
// lacks was given before the journal was lost, and binds as well.
func (v *voter) saw(vote *ledger.Vote) error {
	n := v.n
	own, err := n.journal.Vote(vote.BlockID)
	if err != nil {
		return err
	}
	if own != nil {
		if own.Valid != vote.Valid {
			return n.faultOfVotes(faultOwnVote, "the database holds a vote of this node that its journal contradicts; is the key used by another node?", own, vote)
		}
		return nil
	}
	if err := n.journal.Adopt(vote); err != nil || !n.journal.Fresh() || n.isCaughtUp() {
		return err
	}
	// A vote takes its predecessor off the tips, whichever of the two comes
	// first: what is named twice, by itself and as a predecessor, is inside.
	for block, timestamp := range map[string]int64{vote.BlockID: vote.Timestamp, vote.PreviousBlock: -1} {
		if _, there := v.tips[block]; there {
			delete(v.tips, block)
		} else {
			v.tips[block] = timestamp
		}
	}
	return nil
}

// catchUp votes on what was undecided when the node had read both feeds. Until
// then it votes on nothing: it might have voted on it before.
func (v *voter) catchUp(ctx context.Context) error {
	n := v.n
	if n.journal.Fresh() {
		last, at := "", int64(-1)
		for block, timestamp := range v.tips {
			if timestamp > at {
				last, at = block, timestamp
			}
		}
		if last != "" {
			if err := n.journal.SetLastVoted(last); err != nil {
				return err
			}
		}
		if err := n.journal.Restored(); err != nil {
			return err
		}
	}
	v.tips = nil
	return v.takeUp(ctx)
}

// takeUp votes on the undecided blocks of the chainstate that have no vote of
// this node's yet.
func (v *voter) takeUp(ctx context.Context) error {
	n := v.n
	undecided, err := n.state.Undecided()
	if err != nil {
		return err
	}
	// Locks of votes given before a lost journal come first: they bind all
	// that is voted on now.
	blocks := make([]*ledger.Block, 0, len(undecided))
	for _, id := range undecided {
		b, err := n.readBlock(ctx, id)
		if err != nil {
			return err
		}
		if b == nil {
			continue // gone from the database: nobody can vote on it any more
		}
		n.backlog.entered(idsOf(b))
		blocks = append(blocks, b)
		if err := v.lockIfVoted(b); err != nil {
			return err
		}
	}
	for _, b := range blocks {
		epoch, why := n.judge(b, n.soundness(b))
		if err := v.decideVote(b, epoch, why); err != nil {
			return err
		}
	}
	return nil
}

// readBlock returns a block of the chainstate from the database, nil when the
// database does not have it any more.
func (n *Node) readBlock(ctx context.Context, id string) (*ledger.Block, error) {
	if b := n.maker.own(id); b != nil {
		return b, nil
	}
	documents, err := n.fetch(ctx, statedb.Bigchain, []string{id})
	if err != nil || documents[0].Rev == "" {
		return nil, err
	}
	b, err := n.soundBlock(ctx, documents[0])
	if lost := (*lostBlockError)(nil); errors.As(err, &lost) {
		return nil, n.settleRevisions(ctx, statedb.Bigchain, documents[0], isBlock(id))
	}
	return b, err
}

// lockIfVoted renews the locks of a valid vote on an undecided block. One whose
// votes were there before it is decided as it arrives, and nobody would release
// its locks any more.
func (v *voter) lockIfVoted(b *ledger.Block) error {
	own, err := v.n.journal.Vote(b.ID)
	if err != nil || own == nil || !own.Valid {
		return err
	}
	if status, err := v.n.state.BlockStatus(b.ID); err != nil || status != consensus.Undecided {
		return err
	}
	return v.n.journal.Lock(b.ID, journal.LocksOf(b))
}

// consider votes on a block that has just arrived, if it is this node's to
// vote on and the node has caught up. why says that it can never be valid.
func (v *voter) consider(b *ledger.Block, epoch chainstate.Epoch, why error) error {
	if err := v.lockIfVoted(b); err != nil || !v.n.isCaughtUp() {
		return err
	}
	return v.decideVote(b, epoch, why)
}

func (v *voter) decideVote(b *ledger.Block, epoch chainstate.Epoch, why error) error {
	n := v.n
	if !epoch.Has(n.key.Public) || b.ID == n.genesis.ID {
		return nil
	}
	if own, err := n.journal.Vote(b.ID); err != nil || own != nil {
		if err == nil {
			v.resend(b.ID) // a block that a database set back had lost, and with it the vote
		}
		return err
	}
	switch {
	case errors.Is(why, errForeign):
		return v.vote(b, false, reasonForeign)
	case why != nil:
		return v.vote(b, false, reasonUnsound)
	}
	if status, err := n.state.BlockStatus(b.ID); err != nil || status != consensus.Undecided {
		return err
	}
	if v.isPast(epoch) {
		return v.vote(b, false, reasonPast)
	}
	reason, on, err := v.evaluate(b)
	switch {
	case err != nil:
		return err
	case reason != "":
		return v.vote(b, false, reason)
	case len(on) == 0:
		return v.vote(b, true, "")
	}
	w := v.waiting[b.ID]
	if v.circular(b.ID, on) || w == nil && len(v.waiting) >= maxWaitingBlocks {
		return v.vote(b, false, reasonUndecided)
	}
	if w == nil {
		w = &waitingBlock{block: b, deadline: time.Now().Add(maxVoteWait)}
		v.waiting[b.ID] = w
	}
	w.on = on
	return nil
}

// isPast reports whether an epoch ended too long ago for its blocks to be honest.
func (v *voter) isPast(epoch chainstate.Epoch) bool {
	epochs := v.n.state.Epochs()
	next := slices.IndexFunc(epochs, func(e chainstate.Epoch) bool { return e.Number == epoch.Number+1 })
	return next >= 0 && v.n.clock().Unix() > epochs[next].From+int64(maxPast/time.Second)
}

// circular reports whether blocks wait, one for another, for the block id.
func (v *voter) circular(id string, on []string) bool {
	seen := map[string]bool{}
	for len(on) > 0 {
		next := on[0]
		on = on[1:]
		if next == id {
			return true
		}
		if w := v.waiting[next]; w != nil && !seen[next] {
			seen[next] = true
			on = append(slices.Clone(on), w.on...)
		}
	}
	return false
}

// evaluate checks a block's transactions against the ledger as this node knows
// it. reason is why the block is invalid, "" when it is not; on lists the
// undecided blocks that must be decided before it can be told.
func (v *voter) evaluate(b *ledger.Block) (reason string, on []string, err error) {
	n := v.n
	state := n.state.View()
	defer state.Close()
	view := v.viewFor(state, b.ID)
	for _, t := range b.Transactions {
		held, err := state.BlocksWith(t.ID)
		if err != nil {
			return "", nil, err
		}
		for _, other := range held {
			if other.ID != b.ID && other.Status == consensus.Valid {
				return reasonDuplicate, nil, nil
			}
		}
		if lock := n.journal.LockedTransaction(t.ID); lock != "" && lock != b.ID {
			return reasonDuplicate, nil, nil
		}
		proof, err := n.check(t)
		if err != nil {
			return reasonUnsound, nil, nil
		}
		err = n.rules.CheckSpends(t, proof, view)
		if err == nil {
			continue
		}
		invalid, ok := asInvalid(err)
		if !ok {
			return "", nil, err
		}
		if invalid.Kind != ledger.TransactionNotInValidBlock {
			return string(invalid.Kind), nil, nil
		}
		waits, err := v.undecidedInputs(b.ID, t)
		if err != nil {
			return "", nil, err
		}
		if len(waits) == 0 { // the input is in this very block
			return string(invalid.Kind), nil, nil
		}
		on = append(on, waits...)
	}
	return "", on, nil
}

// undecidedInputs lists the blocks, other than the one given, that a
// transaction's undecided inputs are in.
func (v *voter) undecidedInputs(block string, t *ledger.Transaction) ([]string, error) {
	var on []string
	for _, ref := range t.Spends() {
		held, err := v.n.state.BlocksWith(ref.TxID)
		if err != nil {
			return nil, err
		}
		decided, others := false, []string(nil)
		for _, h := range held {
			switch {
			case h.Status == consensus.Valid:
				decided = true
			case h.Status == consensus.Undecided && h.ID != block:
				others = append(others, h.ID)
			}
		}
		if decided {
			continue
		}
		if len(others) == 0 {
			return nil, nil
		}
		on = append(on, others...)
	}
	return on, nil
}

// viewFor is the ledger as a vote on a block sees it. What valid and disputed
// blocks and the block itself spend counts, and what this node is bound to by its votes on
// other undecided blocks. Undecided blocks that it did not vote valid do not:
// else a liar's block could hold up an honest one.
func (v *voter) viewFor(state *chainstate.View, block string) consensus.View {
	n := v.n
	return viewFunc(func(ref ledger.OutputRef) (consensus.Output, error) {
		output, spends, err := state.Output(ref)
		if err != nil {
			return output, err
		}
		lock := n.journal.LockedOutput(ref)
		for _, s := range spends {
			if s.BlockID != block && s.BlockID != lock {
				status, err := n.state.BlockStatus(s.BlockID)
				if err != nil {
					return output, err
				}
				if status != consensus.Valid && status != consensus.Disputed {
					continue
				}
			}
			output.SpentBy = append(output.SpentBy, s.TxID)
		}
		if lock != "" && lock != block && len(output.SpentBy) == 0 {
			output.SpentBy = append(output.SpentBy, "a transaction of block "+lock)
		}
		return output, nil
	})
}

// vote signs a verdict, makes it durable and hands it to the vote writer.
func (v *voter) vote(b *ledger.Block, valid bool, reason string) error {
	n := v.n
	delete(v.waiting, b.ID)
	previous := n.journal.LastVoted()
	if previous == "" {
		previous = n.genesis.ID
	}
	vote := ledger.NewVote(n.key, b.ID, previous, valid, reason, n.clock().Unix())
	if err := n.journal.Record(vote, journal.LocksOf(b)); err != nil {
		return err
	}
	if !valid {
		n.log.Warn("voted a block invalid", "component", "vote", "block", b.ID, "maker", b.NodePubkey, "reason", reason)
	}
	n.metrics.votes.Inc()
	v.mu.Lock()
	v.unsent = append(v.unsent, vote)
	v.mu.Unlock()
	v.signal()
	return nil
}

// reconsider looks at the waiting blocks again after a decision.
func (v *voter) reconsider() error {
	for _, id := range slices.Sorted(maps.Keys(v.waiting)) {
		w, changed := v.waiting[id], false
		for _, block := range w.on {
			status, err := v.n.state.BlockStatus(block)
			if err != nil {
				return err
			}
			changed = changed || status != consensus.Undecided
		}
		if !changed {
			continue
		}
		epoch, why := v.n.judge(w.block, nil)
		if err := v.decideVote(w.block, epoch, why); err != nil {
			return err
		}
		if status, err := v.n.state.BlockStatus(id); err != nil || status != consensus.Undecided {
			delete(v.waiting, id)
		}
	}
	return nil
}

// expire votes against blocks that have waited too long for an input.
func (v *voter) expire() error {
	for _, id := range slices.Sorted(maps.Keys(v.waiting)) {
		if w := v.waiting[id]; time.Now().After(w.deadline) {
			if err := v.vote(w.block, false, reasonUndecided); err != nil {
				return err
			}
		}
	}
	return nil
}
