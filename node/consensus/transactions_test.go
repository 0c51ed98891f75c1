package consensus_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/cryptoconditions"
	"github.com/couchledger/couchledger/node/ledger"
)

// kinds are those that the vectors' faults have.
var kinds = map[string]ledger.Kind{
	"asset changed after signing":                     ledger.InvalidHash,
	"signed by someone who does not own the output":   ledger.InvalidSignature,
	"two inputs, one output, second signature broken": ledger.InvalidSignature,
	"another transaction's fulfillment":               ledger.InvalidSignature,
	"last bytes of the signature changed":             ledger.InvalidSignature,
}

func TestVectors(t *testing.T) {
	list := get(t, vectors(t, "transactions.json"), "transactions")
	if list.Len() != 26 {
		t.Fatalf("%d vectors, want 26", list.Len())
	}
	for i := range list.Len() {
		v := list.At(i)
		name := get(t, v, "name").Text()
		t.Run(name, func(t *testing.T) {
			tx, err := ledger.ParseTransaction(get(t, v, "transaction").Bytes())
			if err != nil {
				t.Fatal(err)
			}
			view := outputs{}
			for k, spent := range tx.Spends() {
				o := get(t, v, "spent").At(k)
				keys := []string{}
				for n := range get(t, o, "public_keys").Len() {
					keys = append(keys, get(t, o, "public_keys").At(n).Text())
				}
				view[spent] = consensus.Output{
					Status: consensus.Valid, Asset: tx.Asset, ConditionURI: get(t, o, "condition", "uri").Text(),
					PublicKeys: keys, Amount: ledger.Amount(get(t, o, "amount").Text()),
				}
			}
			kind := kinds[name]
			if kind == "" && !get(t, v, "valid").Bool() {
				kind = ledger.InvalidSignature
			}
			wantKind(t, verdict(rules(t), tx, view), kind)
			tx.Compact()
			wantKind(t, verdict(rules(t), tx, view), kind)
		})
	}
}

func TestDocuments(t *testing.T) {
	list := get(t, vectors(t, "documents.json"), "transactions")
	var before []*ledger.Transaction
	for i := range list.Len() {
		tx, err := ledger.ParseTransaction(list.At(i).Bytes())
		if err != nil {
			t.Fatal(err)
		}
		wantKind(t, verdict(rules(t), tx, viewOf(before...)), "")
		before = append(before, tx)
	}
}

func TestCheckTransaction(t *testing.T) {
	owner, other := newKey(1), newKey(2)
	create := newCreate(t, owner, ledger.PayTo(owner.Public, 3), ledger.PayTo(owner.Public, 4))
	merge := transfer(t, create, owner, []ledger.Payment{ledger.PayTo(other.Public, 7)})
	set := func(key string, value canonical.Value) func(canonical.Value) canonical.Value {
		return func(v canonical.Value) canonical.Value { return v.With(key, value) }
	}
	item := func(list string, i int, field string, value canonical.Value) func(canonical.Value) canonical.Value {
		return func(v canonical.Value) canonical.Value { return withItem(v, list, i, field, value) }
	}
	details := func(v canonical.Value) canonical.Value {
		condition, _ := create.Value().Get("outputs")
		inner, _ := condition.At(1).Get("condition")
		return inner.With("details", v)
	}
	uri := func(s string) canonical.Value {
		condition, _ := create.Value().Get("outputs")
		inner, _ := condition.At(1).Get("condition")
		return inner.With("uri", canonical.StringOf(s))
	}
	preimage, err := cryptoconditions.ParseFulfillment("cf:0:")
	if err != nil {
		t.Fatal(err)
	}
	spent := get(t, merge.Value(), "inputs").At(0)
	tests := []struct {
		name    string
		tx      *ledger.Transaction
		kind    ledger.Kind
		message string
	}{
		{"create", create, "", ""},
		{"transfer", merge, "", ""},
		{"id of another", reread(t, create, false, set("id", canonical.StringOf(merge.ID))), ledger.InvalidHash, create.ID},
		{"metadata changed", reread(t, create, false, set("metadata", canonical.ObjectOf(canonical.Member{Key: "a"}))), ledger.InvalidHash, "hash"},
		{"metadata changed, id made to fit", reread(t, create, true, set("metadata", canonical.ObjectOf(canonical.Member{Key: "a"}))),
			ledger.InvalidSignature, "input 0: the fulfillment does not hold"},
		{"details of another key", reread(t, create, true, item("outputs", 1, "condition", details(cryptoconditions.Ed25519Details(other.Public)))),
			ledger.SchemaValidationError, "outputs.1.condition.uri is not what its details make"},
		{"details of no condition", reread(t, create, true, item("outputs", 1, "condition", details(canonical.ObjectOf()))),
			ledger.SchemaValidationError, "outputs.1.condition.details: "},
		{"uri of another", reread(t, create, true, item("outputs", 1, "condition", uri("cc:4:20:x:96"))),
			ledger.SchemaValidationError, "outputs.1.condition.uri is not what its details make"},
		{"unsigned template", reread(t, merge, false, item("inputs", 1, "fulfillment", canonical.ObjectOf())),
			ledger.InvalidSignature, "input 1 is not signed"},
		{"no fulfillment at all", reread(t, merge, false, item("inputs", 1, "fulfillment", canonical.StringOf("cf:"))),
			ledger.InvalidSignature, "input 1: "},
		{"unknown type", reread(t, merge, false, item("inputs", 1, "fulfillment", canonical.StringOf("cf:5:AAAA"))),
			ledger.InvalidSignature, "input 1: "},
		{"output spent twice", reread(t, merge, true, set("inputs", canonical.ArrayOf(spent, spent))),
			ledger.DoubleSpend, "input 1 spends the same output as an input before it"},
		// It holds for whatever it is asked; only CheckSpends sees the other condition.
		{"fulfillment of some other type", reread(t, merge, false, item("inputs", 1, "fulfillment", canonical.StringOf(preimage.URI()))), "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			proof, err := rules(t).CheckTransaction(test.tx)
			wantKind(t, err, test.kind)
			if err != nil && !strings.Contains(err.Error(), test.message) {
				t.Errorf("got %q, want it to say %q", err, test.message)
			}
			if err == nil && len(proof) != len(test.tx.Inputs) {
				t.Errorf("proof of %d inputs, want %d", len(proof), len(test.tx.Inputs))
			}
			if err == nil && test.tx.Operation == ledger.Transfer {
				wantKind(t, rules(t).CheckSpends(test.tx, proof, viewOf(create)),
					map[bool]ledger.Kind{true: ledger.InvalidSignature}[strings.Contains(test.name, "other type")])
			}
		})
	}
}

// TestEveryInputIsChecked: the signature of each of many inputs matters, also
// of those beyond the number of outputs (slip 1).
func TestEveryInputIsChecked(t *testing.T) {
	const inputs = 12
	owner := newKey(1)
	payments := make([]ledger.Payment, inputs)
	for i := range payments {
		payments[i] = ledger.PayTo(owner.Public, 1)
	}
	create := newCreate(t, owner, payments...)
	merge := transfer(t, create, owner, []ledger.Payment{ledger.PayTo(owner.Public, inputs)})
	wantKind(t, verdict(rules(t), merge, viewOf(create)), "")
	for i := range inputs {
		neighbour := canonical.StringOf(merge.Inputs[(i+1)%inputs].Fulfillment)
		broken := reread(t, merge, false, func(v canonical.Value) canonical.Value {
			return withItem(v, "inputs", i, "fulfillment", neighbour)
		})
		err := verdict(rules(t), broken, viewOf(create))
		wantKind(t, err, ledger.InvalidSignature)
		if want := fmt.Sprintf("input %d: ", i); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %s", err, want)
		}
	}
}

func TestCheckSpends(t *testing.T) {
	owner, other := newKey(1), newKey(2)
	create := newCreate(t, owner, ledger.PayTo(owner.Public, 3), ledger.PayTo(owner.Public, 4), ledger.PayTo(other.Public, 5))
	both := []int{0, 1}
	tx := transfer(t, create, owner, []ledger.Payment{ledger.PayTo(other.Public, 7)}, both...)
	huge := ledger.Amount(strings.Repeat("9", ledger.MaxAmountDigits))
	undecided := func(o *consensus.Output) { o.Status = consensus.Undecided }
	gone := func(o *consensus.Output) { *o = consensus.Output{} }
	spentBy := func(ids ...string) func(*consensus.Output) {
		return func(o *consensus.Output) { o.SpentBy = ids }
	}
	stranger := strings.Repeat("a", 64)
	tests := []struct {
		name string
		view consensus.View
		kind ledger.Kind
		says string
	}{
		{"all is well", viewOf(create), "", ""},
		{"no such transaction", outputs{}, ledger.InputDoesNotExist, "input 0: there is no output 0 of transaction " + create.ID},
		{"no such output", viewOf(create).change(create, 1, gone), ledger.InputDoesNotExist, "input 1: "},
		{"spent", viewOf(create).change(create, 1, spentBy(stranger)), ledger.DoubleSpend, "input 1: output 1 of transaction " + create.ID + " is spent by " + stranger},
		{"spent by itself", viewOf(create).change(create, 1, spentBy(tx.ID, tx.ID)), "", ""},
		{"spent by itself and another", viewOf(create).change(create, 0, spentBy(tx.ID, stranger)), ledger.DoubleSpend, stranger},
		{"another condition", viewOf(create).change(create, 1, func(o *consensus.Output) { o.ConditionURI = create.Outputs[2].ConditionURI }),
			ledger.InvalidSignature, "input 1: the fulfillment is not one of the spent output's condition"},
		{"other owners", viewOf(create).change(create, 0, func(o *consensus.Output) { o.PublicKeys = []string{other.Public} }),
			ledger.InvalidSignature, "input 0: owners_before are not"},
		{"more owners", viewOf(create).change(create, 0, func(o *consensus.Output) { o.PublicKeys = append(o.PublicKeys[:1:1], other.Public) }),
			ledger.InvalidSignature, "input 0: owners_before are not"},
		{"owners null", viewOf(create).change(create, 0, func(o *consensus.Output) { o.PublicKeys = nil }),
			ledger.InvalidSignature, "input 0: owners_before are not"},
		{"another asset", viewOf(create).change(create, 1, func(o *consensus.Output) { o.Asset = stranger }),
			ledger.AssetIDMismatch, "input 1 is of asset " + stranger},
		{"both of another asset", viewOf(create).change(create, 0, func(o *consensus.Output) { o.Asset = stranger }).
			change(create, 1, func(o *consensus.Output) { o.Asset = stranger }), ledger.AssetIDMismatch, "input 0 is of asset"},
		{"more than is paid", viewOf(create).change(create, 0, func(o *consensus.Output) { o.Amount = "4" }),
			ledger.AmountError, "the inputs hold 8, the outputs 7"},
		{"less than is paid", viewOf(create).change(create, 0, func(o *consensus.Output) { o.Amount = "2" }),
			ledger.AmountError, "the inputs hold 6, the outputs 7"},
		{"huge", viewOf(create).change(create, 0, func(o *consensus.Output) { o.Amount = huge }), ledger.AmountError, "the outputs 7"},
		{"undecided", viewOf(create).change(create, 1, undecided), ledger.TransactionNotInValidBlock, "input 1: transaction " + create.ID + " is not in a valid block yet"},

		// A fault for good wins over one that may pass, wherever it stands.
		{"undecided, then no such output", viewOf(create).change(create, 0, undecided).change(create, 1, gone), ledger.InputDoesNotExist, "input 1"},
		{"undecided, then spent", viewOf(create).change(create, 0, undecided).change(create, 1, spentBy(stranger)), ledger.DoubleSpend, "input 1"},
		{"undecided and spent", viewOf(create).change(create, 0, func(o *consensus.Output) { undecided(o); spentBy(stranger)(o) }), ledger.DoubleSpend, "input 0"},
		{"undecided, then other owners", viewOf(create).change(create, 0, undecided).
			change(create, 1, func(o *consensus.Output) { o.PublicKeys = nil }), ledger.InvalidSignature, "input 1"},
		{"undecided, then another condition", viewOf(create).change(create, 0, undecided).
			change(create, 1, func(o *consensus.Output) { o.ConditionURI = "" }), ledger.InvalidSignature, "input 1"},
		{"undecided, of another asset", viewOf(create).change(create, 0, func(o *consensus.Output) { undecided(o); o.Asset = stranger }),
			ledger.AssetIDMismatch, "input 0"},
		{"undecided, wrong sum", viewOf(create).change(create, 0, func(o *consensus.Output) { undecided(o); o.Amount = "1" }),
			ledger.AmountError, "the inputs hold 5"},
		{"both undecided", viewOf(create).change(create, 0, undecided).change(create, 1, undecided), ledger.TransactionNotInValidBlock, "input 0"},
	}
	proof, err := rules(t).CheckTransaction(tx)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := rules(t).CheckSpends(tx, proof, test.view)
			wantKind(t, err, test.kind)
			if err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %q, want it to say %q", err, test.says)
			}
		})
	}
	if err := rules(t).CheckSpends(tx, proof, brokenView{}); !errors.Is(err, errView) {
		t.Errorf("broken view: got %v, want its error", err)
	}
	if err := rules(t).CheckSpends(create, nil, brokenView{}); err != nil {
		t.Errorf("a CREATE spends nothing: got %v", err)
	}
}

// TestNullOwners: null and the empty list are two things, and each equals itself.
func TestNullOwners(t *testing.T) {
	owner := newKey(1)
	for _, owners := range []string{"null", "[]"} {
		for _, spent := range []string{"null", "[]"} {
			created := reread(t, newCreate(t, owner, ledger.PayTo(owner.Public, 1)), true, func(v canonical.Value) canonical.Value {
				return withItem(v, "outputs", 0, "public_keys", mustParse(t, spent))
			})
			source := ledger.SourceOf(created, 0)
			if source.OwnersBefore = nil; owners == "[]" {
				source.OwnersBefore = []string{}
			}
			tx := transferFrom(t, created.ID, source, owner, owners)
			kind := ledger.InvalidSignature
			if owners == spent {
				kind = ""
			}
			t.Run(owners+" spends "+spent, func(t *testing.T) { wantKind(t, verdict(rules(t), tx, viewOf(created)), kind) })
		}
	}
}

// transferFrom signs a TRANSFER whose owners_before is the JSON given.
func transferFrom(t *testing.T, asset string, source ledger.Source, signer ledger.KeyPair, owners string) *ledger.Transaction {
	t.Helper()
	tx, err := ledger.NewTransfer(asset, []ledger.Source{source}, canonical.Value{}, []ledger.Payment{ledger.PayTo(signer.Public, 1)}, signer)
	if err != nil {
		t.Fatal(err)
	}
	tx = reread(t, tx, true, func(v canonical.Value) canonical.Value {
		return withItem(v, "inputs", 0, "owners_before", mustParse(t, owners))
	})
	f, err := cryptoconditions.Sign(source.Details, tx.SigningMessage(0), secretsOf(signer))
	if err != nil {
		t.Fatal(err)
	}
	return reread(t, tx, false, func(v canonical.Value) canonical.Value {
		return withItem(v, "inputs", 0, "fulfillment", canonical.StringOf(f.URI()))
	})
}

// TestHugeAmounts: sums beyond any machine word are exact.
func TestHugeAmounts(t *testing.T) {
	owner := newKey(1)
	create := newCreate(t, owner, ledger.PayTo(owner.Public, 1), ledger.PayTo(owner.Public, 1))
	nines := strings.Repeat("9", ledger.MaxAmountDigits)
	tests := []struct {
		in, out []string
		kind    ledger.Kind
	}{
		{[]string{nines, nines}, []string{nines, nines}, ""},
		{[]string{nines, "1"}, []string{"1", nines}, ""},
		{[]string{nines, "2"}, []string{nines, "1"}, ledger.AmountError},
		{[]string{"9223372036854775807", "1"}, []string{"9223372036854775808"}, ""},
		{[]string{"18446744073709551615", "2"}, []string{"1"}, ledger.AmountError}, // 2^64 + 1
		{[]string{"9007199254740993", "1"}, []string{"9007199254740994"}, ""},
		{[]string{"9007199254740993", "1"}, []string{"9007199254740993"}, ledger.AmountError},
	}
	for _, test := range tests {
		payments := make([]ledger.Payment, len(test.out))
		for i := range payments {
			payments[i] = ledger.PayTo(owner.Public, 1)
		}
		tx := transfer(t, create, owner, payments)
		proof, err := rules(t).CheckTransaction(tx)
		if err != nil {
			t.Fatal(err)
		}
		view := viewOf(create)
		for i, amount := range test.in {
			view.change(create, i, func(o *consensus.Output) { o.Amount = ledger.Amount(amount) })
		}
		for i, amount := range test.out {
			tx.Outputs[i].Amount = ledger.Amount(amount)
		}
		t.Run(fmt.Sprintf("%s for %s", test.in, test.out), func(t *testing.T) {
			wantKind(t, rules(t).CheckSpends(tx, proof, view), test.kind)
		})
	}
}
