package ledger_test

import (
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/cryptoconditions"
	"github.com/couchledger/couchledger/node/ledger"
)

// wantSigned checks every input's fulfillment against its signing message.
func wantSigned(t *testing.T, tx *ledger.Transaction, want bool) {
	t.Helper()
	for i, in := range tx.Inputs {
		f, err := cryptoconditions.ParseFulfillment(in.Fulfillment)
		if err != nil {
			t.Fatalf("input %d: %v", i, err)
		}
		message := tx.SigningMessage(i)
		if got := f.Valid(message); got != want {
			t.Errorf("input %d: the fulfillment holds for %s: got %v, want %v", i, message, got, want)
		}
	}
}

func TestDocumentTransactions(t *testing.T) {
	for _, v := range items(get(t, vectorFile(t, "documents.json"), "transactions")) {
		tx, err := ledger.ParseTransaction(v.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if want := get(t, v, "id").Text(); tx.ID != want || tx.ComputeID() != want {
			t.Errorf("ID %s, ComputeID %s, want %s", tx.ID, tx.ComputeID(), want)
		}
		if string(tx.Bytes()) != string(v.Bytes()) {
			t.Errorf("Bytes: got %s, want %s", tx.Bytes(), v.Bytes())
		}
		wantSigned(t, tx, true)
	}
}

func TestDocumentBlock(t *testing.T) {
	v := get(t, vectorFile(t, "documents.json"), "blocks").At(0)
	b, err := ledger.ParseBlock(v.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := ledger.Hash(get(t, v, "block").Bytes()), b.ID; got != want {
		t.Errorf("hash of the inner block: got %s, want %s", got, want)
	}
	err = b.Verify()
	if want := "block " + b.ID + ": the signature is not its maker's"; err == nil || err.Error() != want {
		t.Errorf("Verify: got %v, want %s", err, want)
	}
}

func TestDocumentVote(t *testing.T) {
	v, err := ledger.ParseVote(get(t, vectorFile(t, "documents.json"), "votes").At(0).Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !v.Verify() {
		t.Error("the printed vote's signature does not verify")
	}
}

// broken names the vectors whose faults this package can see.
var broken = map[string]struct{ id, signatures bool }{
	"asset changed after signing":                     {id: true, signatures: true},
	"last bytes of the signature changed":             {signatures: true},
	"another transaction's fulfillment":               {signatures: true},
	"two inputs, one output, second signature broken": {},
}

func TestVectorTransactions(t *testing.T) {
	list := items(get(t, vectorFile(t, "transactions.json"), "transactions"))
	if len(list) != 26 {
		t.Fatalf("%d vectors, want 26", len(list))
	}
	for _, v := range list {
		name := get(t, v, "name").Text()
		t.Run(name, func(t *testing.T) {
			tx, err := ledger.ParseTransaction(get(t, v, "transaction").Bytes())
			if err != nil {
				t.Fatal(err)
			}
			fault := broken[name]
			if got, want := tx.ComputeID() == tx.ID, !fault.id; got != want {
				t.Errorf("ComputeID is the id: got %v, want %v", got, want)
			}
			if get(t, v, "valid").Bool() {
				wantSigned(t, tx, true)
			} else if fault.signatures && !fault.id {
				wantSigned(t, tx, false)
			}
			tx.Compact()
			if got, want := tx.ComputeID() == tx.ID, !fault.id; got != want {
				t.Errorf("ComputeID is the id after Compact: got %v, want %v", got, want)
			}
		})
	}
}

func TestVectorBlocksAndVotes(t *testing.T) {
	file := vectorFile(t, "transactions.json")
	for i, v := range items(get(t, file, "blocks")) {
		want := get(t, v, "valid").Bool()
		b, err := ledger.ParseBlock(get(t, v, "block").Bytes())
		if err == nil {
			err = b.Verify()
		}
		if (err == nil) != want {
			t.Errorf("block %d: got %v, want valid %v", i, err, want)
		}
	}
	for i, v := range items(get(t, file, "votes")) {
		want := get(t, v, "valid").Bool()
		vote, err := ledger.ParseVote(get(t, v, "vote").Bytes())
		if err != nil || vote.Verify() != want {
			t.Errorf("vote %d: got %v, %v; want valid %v", i, vote, err, want)
		}
	}
}

// printedMessage makes what input i signs the long way, out of the tree.
func printedMessage(tx canonical.Value, i int) []byte {
	inputs, _ := tx.Get("inputs")
	input := inputs.At(i).With("fulfillment", canonical.Value{})
	body := tx.Without("id").With("inputs", canonical.ArrayOf(input))
	return body.With("id", canonical.StringOf(ledger.Hash(body.Bytes()))).Bytes()
}

// printedID makes the id the long way.
func printedID(tx canonical.Value) string {
	var unsigned []canonical.Value
	inputs, _ := tx.Get("inputs")
	for _, in := range items(inputs) {
		unsigned = append(unsigned, in.With("fulfillment", canonical.Value{}))
	}
	return ledger.Hash(tx.Without("id").With("inputs", canonical.ArrayOf(unsigned...)).Bytes())
}

// TestCutFromBody: what is cut out of the printed body is what printing the
// reduced body anew gives.
func TestCutFromBody(t *testing.T) {
	template := parse(t, `{"type":"fulfillment","n":[{"a":"]},"}]}`)
	for _, n := range []int{1, 2, 3, 11} {
		tx := newManyInputs(t, newKey(1), n)
		inputs := get(t, tx.Value(), "inputs")
		odd := inputs.At(0).With("fulfillment", template)
		list := append([]canonical.Value{odd}, items(inputs)[1:]...)
		mixed, err := ledger.TransactionFromValue(tx.Value().With("inputs", canonical.ArrayOf(list...)))
		if err != nil {
			t.Fatal(err)
		}
		for _, tx := range []*ledger.Transaction{tx, mixed} {
			if got, want := tx.ComputeID(), printedID(tx.Value()); got != want {
				t.Errorf("%d inputs: ComputeID: got %s, want %s", n, got, want)
			}
			for i := range tx.Inputs {
				if got, want := tx.SigningMessage(i), printedMessage(tx.Value(), i); string(got) != string(want) {
					t.Errorf("%d inputs: SigningMessage(%d): got\n%s, want\n%s", n, i, got, want)
				}
			}
		}
	}
}
