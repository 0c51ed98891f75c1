package chainstate

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// View reads the chainstate as of one moment. It belongs to one goroutine and
// must be closed. Statuses of blocks alone are always the latest.
//
// It seeks with an iterator rather than calling Pebble's Get, which does not
// ask the filters of the lowest level: most of what validation looks for is
// not there, and without the filters costs a block of the disk each time.
type View struct {
	s   *State
	g   *generation
	it  *pebble.Iterator
	err error // of making the iterator
}

// View opens a view of what is committed now.
func (s *State) View() *View {
	g := s.use()
	it, err := g.NewIter(&pebble.IterOptions{UseL6Filters: true})
	return &View{s: s, g: g, it: it, err: err}
}

// Close ends the view.
func (v *View) Close() {
	if v.it != nil {
		v.it.Close()
	}
	v.g.users.Done()
}

func (v *View) get(k []byte) ([]byte, error) {
	if v.err != nil {
		return nil, fmt.Errorf("chainstate: %w", v.err)
	}
	if !v.it.SeekPrefixGE(k) || !bytes.Equal(v.it.Key(), k) {
		if err := v.it.Error(); err != nil {
			return nil, fmt.Errorf("chainstate: %w", err)
		}
		return nil, nil
	}
	value, err := v.it.ValueAndErr()
	if err != nil {
		return nil, fmt.Errorf("chainstate: %w", err)
	}
	return append(make([]byte, 0, len(value)), value...), nil
}

func (v *View) blockStatus(block id) (consensus.Status, error) { return v.s.blockStatus(block) }

// get reads one record as of now.
func (s *State) get(k []byte) ([]byte, error) {
	v := s.View()
	defer v.Close()
	return v.get(k)
}

// TransactionStatus is View.TransactionStatus as of now.
func (s *State) TransactionStatus(txID string) (consensus.Status, string, error) {
	v := s.View()
	defer v.Close()
	return v.TransactionStatus(txID)
}

// BlocksWith is View.BlocksWith as of now.
func (s *State) BlocksWith(txID string) ([]BlockRef, error) {
	v := s.View()
	defer v.Close()
	return v.BlocksWith(txID)
}

// Output is View.Output as of now.
func (s *State) Output(ref ledger.OutputRef) (consensus.Output, []Spend, error) {
	v := s.View()
	defer v.Close()
	return v.Output(ref)
}

// TransactionStatus returns a transaction's status, and the id of the block
// that gives it unless it is Unknown.
func (v *View) TransactionStatus(txID string) (consensus.Status, string, error) {
	tx, ok := toID(txID)
	if !ok {
		return consensus.Unknown, "", nil
	}
	status, block, err := txStatus(v, tx)
	if err != nil || status == consensus.Unknown {
		return consensus.Unknown, "", err
	}
	return status, block.String(), nil
}

// BlocksWith lists every block that holds a transaction, in order of arrival.
func (v *View) BlocksWith(txID string) ([]BlockRef, error) {
	tx, ok := toID(txID)
	if !ok {
		return nil, nil
	}
	held, err := v.get(idKey(blocksOfPrefix, tx))
	if err != nil {
		return nil, err
	}
	list := make([]BlockRef, 0, len(held)/idSize)
	for ; len(held) >= idSize; held = held[idSize:] {
		block := id(held[:idSize])
		status, err := v.blockStatus(block)
		if err != nil {
			return nil, err
		}
		list = append(list, BlockRef{ID: block.String(), Status: status})
	}
	return list, nil
}

// Output returns an output of a transaction in a live block, and every live
// spend of it. Status is Unknown when there is none; SpentBy is left empty.
func (v *View) Output(ref ledger.OutputRef) (consensus.Output, []Spend, error) {
	tx, ok := toID(ref.TxID)
	if !ok {
		return consensus.Output{}, nil, nil
	}
	o, ok, err := output(v, tx, ref.Index)
	if err != nil || !ok {
		return consensus.Output{}, nil, err
	}
	status, _, err := txStatus(v, tx)
	if err != nil {
		return consensus.Output{}, nil, err
	}
	if status == consensus.Disputed {
		if lost, err := overtaken(v, tx); err != nil || lost {
			return consensus.Output{}, nil, err
		}
	}
	by, err := spenders(v, ref)
	if err != nil {
		return consensus.Output{}, nil, err
	}
	var spends []Spend
	for _, spend := range by {
		spends = append(spends, Spend{BlockID: spend.block.String(), TxID: spend.tx.String()})
	}
	return consensus.Output{
		Status: status, Asset: o.asset.String(), ConditionURI: o.conditionURI,
		PublicKeys: o.publicKeys, Amount: o.amount,
	}, spends, nil
}
