package verify

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// genesisID is the id of the document that claims the first block.
const genesisID = "genesis"

// isHistory tells the documents of the bigchain table that are no blocks.
func isHistory(id string) bool {
	return id == genesisID || strings.HasPrefix(id, ledger.StatementPrefix)
}

// checkBlock checks a document of the bigchain table by itself. It reports
// whether it is a block, whose facts are in b then, and how many transactions
// it has.
func (v *verifier) checkBlock(d statedb.Document, b *pebble.Batch) (sound bool, transactions int, err error) {
	wrong := func(rule Rule, seen string) error {
		return find(b, classDocument, Finding{Table: statedb.Bigchain, ID: d.ID, Rule: rule, Seen: seen})
	}
	if !ledger.IsID(d.ID) {
		return false, 0, wrong(Foreign, "its id is neither a block's nor that of a claim or statement")
	}
	block, err := ledger.ParseBlock(d.Body)
	if err != nil {
		return false, 0, wrong(BlockShape, err.Error())
	}
	if block.ID != d.ID {
		return false, len(block.Transactions), wrong(BlockID, "it holds block "+shorten(block.ID))
	}
	if err := block.Verify(); err != nil {
		rule := BlockHash
		if errors.Is(err, ledger.ErrSignature) {
			rule = BlockSignature
		}
		return false, len(block.Transactions), wrong(rule, err.Error())
	}
	return true, len(block.Transactions), v.recordBlock(block, b)
}

// shorten keeps what a document claims to be from filling a report.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// recordBlock checks what a sound block's transactions show by themselves and
// writes down its facts.
func (v *verifier) recordBlock(block *ledger.Block, b *pebble.Batch) error {
	at := toID(block.ID)
	facts := blockFacts{
		lap: v.lap, timestamp: block.Timestamp, maker: block.NodePubkey, voters: block.Voters, genesis: block.IsGenesis(),
	}
	ids := make(map[string]bool, len(block.Transactions))
	for _, t := range block.Transactions {
		fail := func(rule Rule, seen string) {
			facts.faults = append(facts.faults, fault{rule: rule, tx: t.ID, seen: seen})
		}
		if ids[t.ID] {
			fail(TransactionTwice, "it is in the block more than once")
		}
		ids[t.ID] = true
		facts.spends = facts.spends || t.Operation == ledger.Transfer
		if t.Operation == ledger.Genesis {
			if err := b.Set(key(genesisPrefix, at[:]), nil, nil); err != nil {
				return err
			}
			if !facts.genesis {
				fail(BlockGenesis, "it is a GENESIS among other transactions")
			}
		}
		proof, err := v.rules.CheckTransaction(t)
		var invalid *ledger.ValidationError
		switch {
		case errors.As(err, &invalid):
			rule, ok := ruleOf[invalid.Kind]
			if !ok { // of other rules than the documents'
				rule = BlockShape
			}
			fail(rule, invalid.Reason)
		case err != nil:
			return err
		}
		tx, digest := toID(t.ID), t.Digest()
		if err := b.Set(key(holdPrefix, tx[:], at[:]), digest[:], nil); err != nil {
			return err
		}
		if invalid == nil {
			if err := recordTransaction(t, tx, at, proof, b); err != nil {
				return err
			}
		}
	}
	return b.Set(key(blockPrefix, at[:]), facts.append(nil), nil)
}

// ruleOf names the rules that transactions break by themselves.
var ruleOf = map[ledger.Kind]Rule{
	ledger.InvalidHash:           TransactionHash,
	ledger.SchemaValidationError: Condition,
	ledger.InvalidSignature:      Fulfillment,
	ledger.DoubleSpend:           InputTwice,
}

// recordTransaction writes down the outputs of a sound transaction, and what
// it spends.
func recordTransaction(t *ledger.Transaction, tx, block id, proof []string, b *pebble.Batch) error {
	asset := toID(t.Asset)
	var room [512]byte
	for i, o := range t.Outputs {
		facts := outputFacts{asset: asset, owners: hashOwners(o.PublicKeys), uri: o.ConditionURI, amount: o.Amount}
		if err := b.Set(outputKey(outputPrefix, tx, i), facts.append(room[:0]), nil); err != nil {
			return err
		}
	}
	if t.Operation != ledger.Transfer {
		return nil
	}
	amounts := make([]ledger.Amount, len(t.Outputs))
	for i, o := range t.Outputs {
		amounts[i] = o.Amount
	}
	paid := ledger.SumAmounts(amounts)
	for i, in := range t.Inputs {
		facts := spendFacts{
			asset: asset, owners: hashOwners(in.OwnersBefore), uri: proof[i], input: i, inputs: len(t.Inputs), paid: paid,
		}
		k := append(append(outputKey(spendPrefix, toID(in.Fulfills.TxID), in.Fulfills.Index), tx[:]...), block[:]...)
		if err := b.Set(k, facts.append(room[:0]), nil); err != nil {
			return err
		}
	}
	return nil
}
