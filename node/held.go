package node

import (
	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
)

// heldBlocks are blocks that the votes have made valid while the node catches
// up, and that spend what is not valid yet as far as this node knows: feeds
// need not come in the order in which things were written. A database that
// begins its feed with a scan gives blocks in the order of their ids. Held
// back until what they spend is valid, transactions are listed in an order in
// which each comes after those it spends.
//
// Once the node has caught up nothing is held: the votes alone decide.
type heldBlocks struct {
	over bool
	on   map[string][]string // by the transaction they wait for
}

// hold reports whether a block is to wait, and keeps it then.
func (h *heldBlocks) hold(u *chainstate.Update, block string) (bool, error) {
	if h.over {
		return false, nil
	}
	tx, err := u.WaitsFor(block)
	if err != nil || tx == "" {
		return false, err
	}
	h.on[tx] = append(h.on[tx], block)
	return true, nil
}

// take gives the blocks that waited for what became valid.
func (h *heldBlocks) take(d chainstate.Decision) (blocks []string) {
	if d.Status != consensus.Valid || len(h.on) == 0 {
		return nil
	}
	for _, t := range d.Transactions {
		blocks = append(blocks, h.on[t.TxID]...)
		delete(h.on, t.TxID)
	}
	return blocks
}

// release ends the holding. All undecided blocks are counted again, and not
// only those held: the node may have been stopped since they were. First those
// that can follow one another in order, then those that spend what is nowhere.
func (h *heldBlocks) release(f *follower) error {
	h.on = map[string][]string{}
	for _, last := range []bool{false, true} {
		h.over = last
		open, err := f.state.Undecided()
		if err != nil {
			return err
		}
		for _, block := range open {
			d, decided, err := f.tallyAgain(block)
			if err == nil && decided {
				err = f.settleAll(d)
			}
			if err != nil {
				return err
			}
		}
	}
	h.on = nil
	return nil
}
