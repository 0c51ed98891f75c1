package consensus

import (
	"slices"

	"github.com/couchledger/couchledger/node/cryptoconditions"
	"github.com/couchledger/couchledger/node/ledger"
)

// documents checks transactions by the documents' rules, which all rules for
// blocks share.
type documents struct{}

func (documents) CheckTransaction(t *ledger.Transaction) (Proof, error) {
	if id := t.ComputeID(); id != t.ID {
		return nil, ledger.Invalid(ledger.InvalidHash, "the id is not the hash of the transaction, %s", id)
	}
	budget := cryptoconditions.NewBudget()
	for i := range t.Outputs {
		o := &t.Outputs[i]
		condition, err := cryptoconditions.FromDetails(t.Details(i), budget)
		if err != nil {
			return nil, ledger.Invalid(ledger.SchemaValidationError, "outputs.%d.condition.details: %v", i, err)
		}
		if !condition.HasURI(o.ConditionURI) {
			return nil, ledger.Invalid(ledger.SchemaValidationError, "outputs.%d.condition.uri is not what its details make", i)
		}
	}
	proof := make(Proof, len(t.Inputs))
	spent := make(map[ledger.OutputRef]bool, len(t.Inputs))
	for i, in := range t.Inputs {
		if in.Fulfills != nil {
			if spent[*in.Fulfills] {
				return nil, ledger.Invalid(ledger.DoubleSpend, "input %d spends the same output as an input before it", i)
			}
			spent[*in.Fulfills] = true
		}
		if in.Fulfillment == "" {
			return nil, ledger.Invalid(ledger.InvalidSignature, "input %d is not signed: its fulfillment is an unsigned template", i)
		}
		fulfillment, err := cryptoconditions.ParseFulfillment(in.Fulfillment)
		if err != nil {
			return nil, ledger.Invalid(ledger.InvalidSignature, "input %d: %v", i, err)
		}
		condition, err := fulfillment.ConditionWithin(budget)
		if err != nil {
			return nil, ledger.Invalid(ledger.InvalidSignature, "input %d: %v", i, err)
		}
		if !fulfillment.Valid(t.SigningMessage(i)) {
			return nil, ledger.Invalid(ledger.InvalidSignature, "input %d: the fulfillment does not hold for this transaction", i)
		}
		proof[i] = condition.URI()
	}
	return proof, nil
}

func (documents) CheckSpends(t *ledger.Transaction, proof Proof, view View) error {
	if t.Operation != ledger.Transfer {
		return nil
	}
	amounts := make([]ledger.Amount, 0, len(t.Inputs))
	var waiting *ledger.ValidationError
	for i, in := range t.Inputs {
		ref := *in.Fulfills
		output, err := view.Output(ref)
		if err != nil {
			return err
		}
		switch {
		case output.Status == Unknown:
			return ledger.Invalid(ledger.InputDoesNotExist, "input %d: there is no output %d of transaction %s", i, ref.Index, ref.TxID)
		case otherThan(t.ID, output.SpentBy) != "":
			return ledger.Invalid(ledger.DoubleSpend, "input %d: output %d of transaction %s is spent by %s",
				i, ref.Index, ref.TxID, otherThan(t.ID, output.SpentBy))
		case proof[i] != output.ConditionURI:
			return ledger.Invalid(ledger.InvalidSignature, "input %d: the fulfillment is not one of the spent output's condition", i)
		case !sameKeys(in.OwnersBefore, output.PublicKeys):
			return ledger.Invalid(ledger.InvalidSignature, "input %d: owners_before are not the spent output's public_keys", i)
		case output.Asset != t.Asset:
			return ledger.Invalid(ledger.AssetIDMismatch, "input %d is of asset %s, asset.id says %s", i, output.Asset, t.Asset)
		case output.Status != Valid && waiting == nil:
			waiting = ledger.Invalid(ledger.TransactionNotInValidBlock, "input %d: transaction %s is not in a valid block yet", i, ref.TxID)
		}
		amounts = append(amounts, output.Amount)
	}
	paid := make([]ledger.Amount, len(t.Outputs))
	for i, o := range t.Outputs {
		paid[i] = o.Amount
	}
	if in, out := ledger.SumAmounts(amounts), ledger.SumAmounts(paid); in != out {
		return ledger.Invalid(ledger.AmountError, "the inputs hold %s, the outputs %s", in, out)
	}
	if waiting != nil {
		return waiting
	}
	return nil
}

// otherThan returns the first of ids that is not id, or "".
func otherThan(id string, ids []string) string {
	for _, other := range ids {
		if other != id {
			return other
		}
	}
	return ""
}

// sameKeys compares two lists of which nil stands for null.
func sameKeys(a, b []string) bool {
	return (a == nil) == (b == nil) && slices.Equal(a, b)
}
