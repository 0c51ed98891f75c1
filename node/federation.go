package node

import (
	"context"
	"slices"

	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// applyStatement records a member's word on the federation's next epoch, and
// begins the epoch when as many of the present members agree as must vote for a
// block to be valid.
func (f *follower) applyStatement(st *ledger.Statement) error {
	current := f.federation()
	if st.Number != current.Number+1 || st.Previous != current.Hash || st.From < current.From || !current.Has(st.NodePubkey) {
		if st.Number > current.Number {
			return f.fault(journal.Fault{
				Kind: faultStatement, Node: st.NodePubkey, Document: document(statedb.Bigchain, st.DocumentID()), What: "a statement about the federation does not follow from its history",
			}, st.Bytes())
		}
		return nil
	}
	return f.update(func(u *chainstate.Update) error {
		all, err := u.AddStatement(st)
		if err != nil {
			return err
		}
		agree := 0
		for _, other := range all {
			if other.Hash() == st.Hash() {
				agree++
			}
		}
		if f.rules.Tally(len(current.Members), agree, 0) != consensus.Valid {
			return nil
		}
		f.log.Info("the federation changes", "component", "federation", "members", st.Members, "from", st.From)
		return u.AddEpoch(chainstate.Epoch{Number: st.Number, From: st.From, Members: st.Members, Hash: st.Hash()})
	})
}

// federation returns the latest epoch.
func (f *follower) federation() chainstate.Epoch {
	epochs := f.state.Epochs()
	return epochs[len(epochs)-1]
}

// tendFederation states what this node's operator has configured, where that
// differs from the federation's recorded history.
func (n *Node) tendFederation(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.caughtUp:
	}
	current := n.federation()
	if slices.Equal(current.Members, n.members) {
		return nil
	}
	log := n.log.With("component", "federation", "recorded", current.Members, "configured", n.members)
	if !current.Has(n.key.Public) {
		log.Warn("this node is not a member of the federation yet: it reads along until enough of the members have its key in their keyrings")
		return nil
	}
	stated, err := n.state.Statements(current.Number + 1)
	if err != nil || stated[n.key.Public] != nil {
		return err
	}
	st := ledger.NewStatement(n.key, current.Number+1, max(n.clock().Unix(), current.From, n.maker.lastTimestamp()+1), n.members, current.Hash)
	for _, member := range current.Members { // in order, so that all join the same statement
		if other := stated[member]; other != nil && slices.Equal(other.Members, n.members) {
			st = ledger.NewStatement(n.key, other.Number, other.From, other.Members, other.Previous)
			break
		}
	}
	log.Info("the keyring differs from the recorded federation; stating the change")
	return n.retry(ctx, "federation", func() error {
		return ensureDocument(ctx, n.db, statedb.Bigchain, st.DocumentID(), st.Bytes())
	})
}
