package verify

import (
	"context"
	"fmt"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// judgeVerdicts asks of votes against blocks that show no fault by themselves
// whether anything else spoke against the block. Nodes see blocks in different
// orders, and lag: whatever one of them may have seen excuses it.
func (v *verifier) judgeVerdicts(ctx context.Context) (err error) {
	w := v.scratch.bulk()
	defer w.end(&err)
	return v.scratch.each(ctx, []byte{againstPrefix}, func(k, value []byte) error {
		block := id(k[1:])
		record, err := v.scratch.get(key(statusPrefix, block[:]))
		if err != nil {
			return err
		}
		d, err := readDecision(record)
		if err != nil {
			return err
		}
		excuses := map[byte]bool{}
		prefix := key(excusePrefix, block[:])
		err = v.scratch.each(ctx, prefix, func(k, _ []byte) error {
			excuses[k[len(prefix)]] = true
			return nil
		})
		if err != nil {
			return err
		}
		f := fields{rest: value}
		for len(f.rest) > 0 && !f.bad {
			voter, reason := f.text(), f.text()
			if excused(reason, excuses, d.spends) {
				continue
			}
			seen := "it says invalid, but nothing is wrong with the block"
			if reason != "" {
				seen = fmt.Sprintf("it says invalid for %q, but that is not so", shorten(reason))
			}
			err := find(w, classTogether, Finding{Table: statedb.Votes, ID: ledger.VoteID(block.String(), voter), Rule: VoteVerdict, Seen: seen})
			if err != nil {
				return err
			}
		}
		return f.err()
	})
}

// excused reports whether a reason may have been true when the vote was given.
// The words are those that nodes write; spends says that the block has a
// TRANSFER, whose inputs may have been undecided.
func excused(reason string, excuses map[byte]bool, spends bool) bool {
	switch reason {
	case "NODES_PUBKEYS_MISMATCH", "UNSOUND_TRANSACTION":
		return false
	case "DUPLICATE_TRANSACTION":
		return excuses[excuseTwice]
	case "UNDECIDED_INPUT", string(ledger.InputDoesNotExist), string(ledger.TransactionNotInValidBlock):
		return spends
	case string(ledger.DoubleSpend):
		return excuses[excuseConflict]
	case string(ledger.InvalidSignature):
		return excuses[excuseCondition]
	case string(ledger.AssetIDMismatch):
		return excuses[excuseAsset]
	case string(ledger.AmountError):
		return excuses[excuseAmount]
	}
	return len(excuses) > 0 // another program's word
}
