package ledger_test

import (
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/cryptoconditions"
	"github.com/couchledger/couchledger/node/ledger"
)

type outputs map[ledger.OutputRef]consensus.Output

func (o outputs) Output(ref ledger.OutputRef) (consensus.Output, error) { return o[ref], nil }

func (o outputs) add(t *ledger.Transaction) {
	for i, out := range t.Outputs {
		o[ledger.OutputRef{TxID: t.ID, Index: i}] = consensus.Output{
			Status: consensus.Valid, Asset: t.Asset, ConditionURI: out.ConditionURI,
			PublicKeys: out.PublicKeys, Amount: out.Amount,
		}
	}
}

// TestBuild: what the builders make holds under the default rules, and reads
// back as the same.
func TestBuild(t *testing.T) {
	rules, err := consensus.Lookup("")
	if err != nil {
		t.Fatal(err)
	}
	view := outputs{}
	sound := func(tx *ledger.Transaction, err error) *ledger.Transaction {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		proof, err := rules.CheckTransaction(tx)
		if err != nil {
			t.Fatalf("CheckTransaction of %s: %v", tx.Bytes(), err)
		}
		if err := rules.CheckSpends(tx, proof, view); err != nil {
			t.Fatalf("CheckSpends of %s: %v", tx.Bytes(), err)
		}
		again, err := ledger.ParseTransaction(tx.Bytes())
		if err != nil || !again.SameBody(tx) {
			t.Fatalf("reads back as %v, %v; want %s", again, err, tx.Bytes())
		}
		view.add(tx)
		return tx
	}
	a, b, c := newKey(1), newKey(2), newKey(3)
	two := []string{a.Public, b.Public}
	weighted := cryptoconditions.ThresholdDetails(3,
		cryptoconditions.WeightedDetails{Weight: 2, Details: cryptoconditions.Ed25519Details(a.Public)},
		cryptoconditions.WeightedDetails{Weight: 1, Details: cryptoconditions.Ed25519Details(b.Public)},
		cryptoconditions.WeightedDetails{Weight: 1, Details: cryptoconditions.Ed25519Details(c.Public)},
	)
	null := canonical.Value{}
	sound(ledger.NewGenesis(a, ""))
	sound(ledger.NewCreate([]ledger.KeyPair{a}, null, null, ledger.PayTo(b.Public, 1)))
	create := sound(ledger.NewCreate([]ledger.KeyPair{a, b}, object(member("n", canonical.FloatOf(1.5))), object(member("é", null)),
		ledger.PayTo(a.Public, 5), ledger.Payment{Owners: two, Amount: 7},
		ledger.Payment{Owners: []string{a.Public, b.Public, c.Public}, Amount: 9, Details: weighted}))
	if create.Asset != create.ID {
		t.Errorf("asset of a CREATE: got %s, want its id %s", create.Asset, create.ID)
	}

	sources := []ledger.Source{ledger.SourceOf(create, 0), ledger.SourceOf(create, 1), ledger.SourceOf(create, 2)}
	moved := sound(ledger.NewTransfer(create.Asset, sources, null,
		[]ledger.Payment{ledger.PayTo(c.Public, 20), ledger.PayTo(a.Public, 1)}, a, b))
	sound(ledger.NewTransfer(create.Asset, []ledger.Source{ledger.SourceOf(moved, 0)}, null, []ledger.Payment{ledger.PayTo(a.Public, 20)}, c))

	partly, err := ledger.NewTransfer(create.Asset, sources, null, []ledger.Payment{ledger.PayTo(c.Public, 21)}, a)
	if err == nil {
		_, err = rules.CheckTransaction(partly)
	}
	if !ledger.IsKind(err, ledger.InvalidSignature) {
		t.Errorf("without b's key: got %v, want InvalidSignature", err)
	}
	faulty := map[string]func() (*ledger.Transaction, error){
		"no sources": func() (*ledger.Transaction, error) {
			return ledger.NewTransfer(create.Asset, nil, null, []ledger.Payment{ledger.PayTo(c.Public, 1)}, a)
		},
		"no payments": func() (*ledger.Transaction, error) {
			return ledger.NewCreate([]ledger.KeyPair{a}, null, null)
		},
		"no owners": func() (*ledger.Transaction, error) {
			return ledger.NewCreate([]ledger.KeyPair{a}, null, null, ledger.Payment{Amount: 1})
		},
		"no issuers": func() (*ledger.Transaction, error) {
			return ledger.NewCreate(nil, null, null, ledger.PayTo(a.Public, 1))
		},
		"amount 0": func() (*ledger.Transaction, error) {
			return ledger.NewCreate([]ledger.KeyPair{a}, null, null, ledger.PayTo(a.Public, 0))
		},
		"owner is no key": func() (*ledger.Transaction, error) {
			return ledger.NewCreate([]ledger.KeyPair{a}, null, null, ledger.PayTo("me", 1))
		},
		"data is no object": func() (*ledger.Transaction, error) {
			return ledger.NewCreate([]ledger.KeyPair{a}, canonical.IntOf(1), null, ledger.PayTo(a.Public, 1))
		},
		"asset is no id": func() (*ledger.Transaction, error) {
			return ledger.NewTransfer("x", sources[:1], null, []ledger.Payment{ledger.PayTo(c.Public, 5)}, a)
		},
	}
	for name, build := range faulty {
		if tx, err := build(); err == nil {
			t.Errorf("%s: got %s, want an error", name, tx.Bytes())
		}
	}
}
