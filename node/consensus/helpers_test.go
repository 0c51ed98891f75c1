package consensus_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/mr-tron/base58"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

func newKey(n byte) ledger.KeyPair {
	k, err := ledger.KeyPairFromPrivate(base58.Encode(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		panic(err)
	}
	return k
}

func rules(tb testing.TB) consensus.Rules {
	tb.Helper()
	r, err := consensus.Lookup("")
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// outputs is a View of what stands in it.
type outputs map[ledger.OutputRef]consensus.Output

func (o outputs) Output(ref ledger.OutputRef) (consensus.Output, error) { return o[ref], nil }

// viewOf shows a transaction's outputs as valid and unspent.
func viewOf(list ...*ledger.Transaction) outputs {
	view := outputs{}
	for _, t := range list {
		for i, o := range t.Outputs {
			view[ledger.OutputRef{TxID: t.ID, Index: i}] = consensus.Output{
				Status: consensus.Valid, Asset: t.Asset, ConditionURI: o.ConditionURI,
				PublicKeys: o.PublicKeys, Amount: o.Amount,
			}
		}
	}
	return view
}

// change changes what the view says of one output.
func (o outputs) change(t *ledger.Transaction, i int, how func(*consensus.Output)) outputs {
	ref := ledger.OutputRef{TxID: t.ID, Index: i}
	output := o[ref]
	how(&output)
	o[ref] = output
	return o
}

// errView is what a broken View answers.
var errView = errors.New("the view is broken")

type brokenView struct{}

func (brokenView) Output(ledger.OutputRef) (consensus.Output, error) {
	return consensus.Output{}, errView
}

// verdict checks a transaction as a node does.
func verdict(r consensus.Rules, t *ledger.Transaction, view consensus.View) error {
	proof, err := r.CheckTransaction(t)
	if err != nil {
		return err
	}
	return r.CheckSpends(t, proof, view)
}

func wantKind(t *testing.T, err error, kind ledger.Kind) {
	t.Helper()
	switch {
	case kind == "" && err != nil:
		t.Errorf("got %v, want valid", err)
	case kind != "" && !ledger.IsKind(err, kind):
		t.Errorf("got %v, want %s", err, kind)
	}
}

func newCreate(tb testing.TB, issuer ledger.KeyPair, payments ...ledger.Payment) *ledger.Transaction {
	tb.Helper()
	t, err := ledger.NewCreate([]ledger.KeyPair{issuer}, canonical.Value{}, canonical.Value{}, payments...)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// transfer spends outputs, which are all of from if none are named.
func transfer(tb testing.TB, from *ledger.Transaction, signer ledger.KeyPair, payments []ledger.Payment, spent ...int) *ledger.Transaction {
	tb.Helper()
	if spent == nil {
		for i := range from.Outputs {
			spent = append(spent, i)
		}
	}
	var sources []ledger.Source
	for _, i := range spent {
		sources = append(sources, ledger.SourceOf(from, i))
	}
	t, err := ledger.NewTransfer(from.Asset, sources, canonical.Value{}, payments, signer)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func vectors(tb testing.TB, name string) canonical.Value {
	tb.Helper()
	data, err := os.ReadFile("../../testdata/vectors/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	v, err := canonical.Parse(data)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// get follows keys into v and fails when one is missing.
func get(tb testing.TB, v canonical.Value, keys ...string) canonical.Value {
	tb.Helper()
	for _, k := range keys {
		next, ok := v.Get(k)
		if !ok {
			tb.Fatalf("no %q in %s", k, v.Bytes())
		}
		v = next
	}
	return v
}

// reread changes a transaction's JSON and reads it again. With a fresh id, the
// id is made to fit the changed body.
func reread(tb testing.TB, t *ledger.Transaction, freshID bool, how func(canonical.Value) canonical.Value) *ledger.Transaction {
	tb.Helper()
	changed, err := ledger.TransactionFromValue(how(t.Value()))
	if err == nil && freshID {
		changed, err = ledger.TransactionFromValue(changed.Value().With("id", canonical.StringOf(changed.ComputeID())))
	}
	if err != nil {
		tb.Fatal(err)
	}
	return changed
}

// withItem replaces a field of element i of one of a transaction's lists.
func withItem(tx canonical.Value, list string, i int, field string, value canonical.Value) canonical.Value {
	old, _ := tx.Get(list)
	items := make([]canonical.Value, old.Len())
	for k := range items {
		if items[k] = old.At(k); k == i {
			items[k] = items[k].With(field, value)
		}
	}
	return tx.With(list, canonical.ArrayOf(items...))
}
