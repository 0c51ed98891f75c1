package node

import (
	"context"
	"errors"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// Kinds of faults: what no honest, sound member writes. Those with a Node are
// signed by it and prove that it lied, or that its key is used twice; the others
// say only that somebody may write to the database.
const (
	faultTwoVerdicts = "two-verdicts"   // a member voted valid and invalid on one block
	faultRivalVotes  = "rival-votes"    // a member voted for a second block that contradicts a valid one
	faultDisputed    = "disputed-block" // such votes made it possible that nodes decided a block differently
	faultOwnVote     = "own-vote"       // the database holds another vote of this node than its journal
	faultStranger    = "stranger-block" // a block by a node that was no member, or for other voters
	faultUnsound     = "unsound-block"  // a member's block with a transaction that no ledger can hold
	faultNoBlock     = "not-a-block"    // a document of bigchain that is no block, or not the one it says
	faultNoVote      = "not-a-vote"     // a document of votes that is no vote, or not signed by its voter
	faultNoEntry     = "not-an-entry"   // a document in conflict with an entry of the backlog that is no entry
	faultStatement   = "statement"      // a word on the federation that nobody may say
)

var faultKinds = []string{
	faultTwoVerdicts, faultRivalVotes, faultDisputed, faultOwnVote, faultStranger, faultUnsound, faultNoBlock, faultNoVote, faultNoEntry, faultStatement,
}

// document names a document in a fault.
func document(table, id string) string { return table + "/" + id }

// fault reports what a stranger or a liar wrote. It is otherwise ignored.
func (f *follower) fault(x journal.Fault, evidence ...[]byte) error {
	for _, e := range evidence {
		x.Evidence = append(x.Evidence, string(e))
	}
	return f.observer.fault(x)
}

// fault counts a fault, and keeps it and tells of it the first time.
func (n *Node) fault(x journal.Fault) error {
	n.metrics.faults.WithLabelValues(x.Kind).Inc()
	if x.Kind == faultDisputed {
		if err := n.takeBackAccusations(x.Block); err != nil {
			return err
		}
	}
	x.Seen = n.clock().Unix()
	fresh, room, err := n.journal.RecordFault(x)
	if err != nil || !fresh {
		return err
	}
	n.log.Error(x.What, "component", "ledger", "fault", x.Kind, "node", x.Node, "block", x.Block, "document", x.Document, "evidence", x.Evidence)
	if room == 0 {
		n.log.Error("so many faults of this kind are kept and told of; more are only counted", "component", "ledger", "fault", x.Kind, "kept", journal.MaxFaults)
	}
	return nil
}

// faultOfVotes reports that two votes of one member contradict each other.
func (f *follower) faultOfVotes(kind, what string, one, other *ledger.Vote) error {
	return f.fault(journal.Fault{
		Kind: kind, Node: one.NodePubkey, Block: other.BlockID, Document: document(statedb.Votes, ledger.VoteID(other.BlockID, other.NodePubkey)), What: what,
	}, one.Bytes(), other.Bytes())
}

// isMember reports whether a key ever was a member's: what strangers sign proves
// nothing, and there are as many of them as somebody likes.
func (f *follower) isMember(key string) bool {
	for _, e := range f.state.Epochs() {
		if e.Has(key) {
			return true
		}
	}
	return false
}

// accuse reports the members that voted for two blocks of which only one can be
// valid, as far as a block or one voter on it shows. voter is "" for every one.
func (f *follower) accuse(block, voter string) error {
	found, err := f.state.Contradictions(block, voter)
	if err != nil {
		return err
	}
	for _, c := range found {
		err := f.faultOfVotes(faultRivalVotes, "a member voted valid on a block, and before on one that is valid and contradicts it", c.First, c.Second)
		if err != nil {
			return err
		}
	}
	return nil
}

// tellDisputed says loudly that nodes may have decided a block differently.
func (f *follower) tellDisputed(d chainstate.Decision) error {
	liars, err := f.state.Liars(d.BlockID)
	if err != nil {
		return err
	}
	x := journal.Fault{
		Kind: faultDisputed, Block: d.BlockID, Document: document(statedb.Bigchain, d.BlockID),
		What: "members voted both ways on a block, so that nodes may have decided it differently: its transactions are not valid by it any more",
	}
	x.Evidence = append(x.Evidence, liars...)
	return f.observer.fault(x)
}

// takeBackAccusations withdraws what members were accused of while a block was
// still valid here: who knew before this node that it is disputed voted for
// another one with good reason.
func (n *Node) takeBackAccusations(block string) error {
	gone, err := n.journal.WithdrawFaults(faultRivalVotes, func(f journal.Fault) bool {
		if len(f.Evidence) == 0 {
			return false
		}
		first, err := ledger.ParseVote([]byte(f.Evidence[0]))
		return err == nil && first.BlockID == block
	})
	for _, f := range gone {
		n.log.Warn("an accusation is taken back: the first of the two blocks is disputed, which the member may have known before", "component", "ledger", "fault", f.Kind, "node", f.Node, "block", f.Block, "disputed", block)
	}
	return err
}

// restored returns an invalid block whole, for it to become disputed; nil when
// the database does not have it, or it could never have been valid.
func (f *follower) restored(ctx context.Context, id string) (*ledger.Block, error) {
	b, err := f.fetchBlock(ctx, id)
	if lost := (*lostBlockError)(nil); errors.As(err, &lost) {
		return nil, nil // which shows elsewhere
	}
	if err != nil {
		return nil, err
	}
	if _, why := f.judge(b, f.soundness(b)); why != nil {
		return nil, nil
	}
	return b, nil
}

// Faults lists the faults that this node met, oldest first.
func (n *Node) Faults(_ context.Context, p Page) ([]journal.Fault, string, error) {
	list, next, err := n.journal.Faults(p.Cursor, p.Limit)
	if err != nil {
		return nil, "", badCursor(err)
	}
	return list, next, nil
}
