package verify

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// spender is a transaction in a block that spends an output.
type spender struct {
	tx, block id
	decision
	spendFacts
}

// What may speak against a block that members voted against.
const (
	excuseTwice     = 'd' // a transaction is in another block, too
	excuseConflict  = 'c' // an output is spent by another transaction, too
	excuseInput     = 'u' // an input is missing, or of no valid block
	excuseCondition = 'k'
	excuseAsset     = 's'
	excuseAmount    = 'm'
)

// rivals are all that spend one output.
type rivals struct {
	// judged are in valid blocks, or in such that members voted against.
	judged []spender
	// two different transactions among all, and two among the valid ones;
	// strangers can make any number.
	any, valid []spender
}

func (r *rivals) add(s spender) {
	other := func(list []spender) []spender {
		if len(list) == 0 || len(list) == 1 && list[0].tx != s.tx {
			return append(list, s)
		}
		return list
	}
	r.any = other(r.any)
	if s.now == consensus.Valid {
		r.valid = other(r.valid)
	}
	if s.now == consensus.Valid || s.against {
		r.judged = append(r.judged, s)
	}
}

// spend judges one input by the output that it spends; output is nil when there
// is none.
func (j *join) spend(h held, index uint32, output *outputFacts, s spender) error {
	// What is missing is held against blocks that the first reading found
	// valid, everything else against all valid ones.
	fault := func(judged bool, rule Rule, excuse byte, format string, args ...any) error {
		if s.against {
			if err := j.excuse(s.block, excuse); err != nil {
				return err
			}
		}
		if !judged {
			return nil
		}
		return j.find(statedb.Bigchain, s.block.String(), rule, s.tx.String(), "input %d: %s", s.input, fmt.Sprintf(format, args...))
	}
	early, now := s.first == consensus.Valid, s.now == consensus.Valid
	switch {
	case h.blocks == 0:
		return fault(early, InputMissing, excuseInput, "there is no transaction %s", h.tx)
	case output == nil:
		return fault(early, InputMissing, excuseInput, "there is no output %d of transaction %s", index, h.tx)
	case len(h.valid) == 0:
		if err := fault(early, InputNotValid, excuseInput, "transaction %s is in no valid block", h.tx); err != nil {
			return err
		}
	case len(h.valid) == 1 && h.valid[0].block == s.block:
		if err := fault(now, InputSameBlock, excuseInput, "transaction %s is in the same block", h.tx); err != nil {
			return err
		}
	case now:
		if err := j.order(h, s); err != nil {
			return err
		}
	}
	if s.uri != output.uri {
		err := fault(now, InputCondition, excuseCondition, "the fulfillment is of %s; the condition of output %d of %s is %s",
			shorten(s.uri), index, h.tx, shorten(output.uri))
		if err != nil {
			return err
		}
	}
	if s.owners != output.owners {
		err := fault(now, InputOwners, excuseCondition, "owners_before are not the public_keys of output %d of %s", index, h.tx)
		if err != nil {
			return err
		}
	}
	if s.asset != output.asset {
		err := fault(now, InputAsset, excuseAsset, "asset.id is %s; output %d of %s is of asset %s", s.asset, index, h.tx, output.asset)
		if err != nil {
			return err
		}
	}
	if s.inputs > 1 {
		facts := amountFacts{inputs: s.inputs, held: output.amount, paid: s.paid, judged: now}
		k := binary.BigEndian.AppendUint32(key(amountPrefix, s.tx[:], s.block[:]), uint32(s.input))
		return j.out.Set(k, facts.append(nil), nil)
	}
	if output.amount != s.paid {
		return fault(now, Amounts, excuseAmount, "the inputs hold %s, the outputs %s", output.amount, s.paid)
	}
	return nil
}

// order looks for members that voted for the spending block before they voted
// on the block whose outputs it spends.
func (j *join) order(h held, s spender) error {
	source := h.valid[0]
	for _, vote := range s.votes {
		for _, earlier := range source.votes {
			if vote.voter != earlier.voter || !vote.rank.before(earlier.rank) {
				continue
			}
			voter := j.v.names[vote.voter]
			err := j.find(statedb.Votes, ledger.VoteID(s.block.String(), voter), VoteOrder, "",
				"its place in the node's chain is %d; that of the vote on block %s, of which the block spends, is %d",
				vote.rank.place, source.block, earlier.rank.place)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// rival looks for other transactions that spend the same output.
func (j *join) rival(h held, index uint32, s spender, all rivals) error {
	for _, other := range all.valid {
		if s.now != consensus.Valid || other.tx == s.tx {
			continue
		}
		err := j.find(statedb.Bigchain, s.block.String(), DoubleSpend, s.tx.String(),
			"input %d: output %d of %s is also spent by %s in block %s", s.input, index, h.tx, other.tx, other.block)
		if err != nil {
			return err
		}
		break // one of them tells enough
	}
	if s.against && len(all.any) > 1 {
		return j.excuse(s.block, excuseConflict)
	}
	return nil
}

// addAmounts compares the sums of transactions with several inputs.
func (v *verifier) addAmounts(ctx context.Context) (err error) {
	w := v.scratch.bulk()
	defer w.end(&err)
	var tx, block id
	var held []ledger.Amount
	return v.scratch.each(ctx, []byte{amountPrefix}, func(k, value []byte) error {
		facts, err := readAmount(value)
		if err != nil {
			return err
		}
		if tx != id(k[1:]) || block != id(k[1+idSize:]) {
			tx, block, held = id(k[1:]), id(k[1+idSize:]), held[:0]
		}
		if held = append(held, facts.held); len(held) < facts.inputs {
			return nil // or some have no output, which is reported
		}
		sum := ledger.SumAmounts(held)
		if sum == facts.paid {
			return nil
		}
		if facts.judged {
			err = find(w, classTogether, Finding{Table: statedb.Bigchain, ID: block.String(), Rule: Amounts, Transaction: tx.String(),
				Seen: fmt.Sprintf("the inputs hold %s, the outputs %s", sum, facts.paid)})
		}
		if err == nil {
			err = w.Set(key(excusePrefix, block[:], []byte{excuseAmount}), nil, nil)
		}
		return err
	})
}
