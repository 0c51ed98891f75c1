package ledger_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

// padded is a CREATE of exactly size bytes.
func padded(tb testing.TB, size int) []byte {
	create, _ := createAndTransfer(tb)
	data := object(member("pad", canonical.StringOf("")))
	bare := set(create, "asset.data", &data)
	pad := canonical.StringOf(strings.Repeat("x", size-len(bare.Bytes())))
	return set(bare, "asset.data.pad", &pad).Bytes()
}

func TestMaxTransactionBytes(t *testing.T) {
	if _, err := ledger.ParseTransaction(padded(t, ledger.MaxTransactionBytes)); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	_, err := ledger.ParseTransaction(padded(t, ledger.MaxTransactionBytes+1))
	const want = "Invalid transaction (SchemaValidationError): the transaction has 2000001 bytes, more than 2000000"
	if err == nil || err.Error() != want {
		t.Errorf("beyond it: got %v, want %s", err, want)
	}
	// White space does not count.
	spaced := append([]byte(strings.Repeat(" ", 1000)), padded(t, ledger.MaxTransactionBytes)...)
	if _, err := ledger.ParseTransaction(spaced); err != nil {
		t.Errorf("at the limit, with spaces: %v", err)
	}
}

// nested is data that makes a transaction's depth what is asked.
func nested(depth int) canonical.Value {
	v := canonical.IntOf(1)
	for range depth - 3 { // the transaction, its asset and its data stand around it
		v = canonical.ArrayOf(v)
	}
	return object(member("deep", v))
}

func TestMaxDepth(t *testing.T) {
	create, _ := createAndTransfer(t)
	atLimit, beyond := nested(ledger.MaxDepth), nested(ledger.MaxDepth+1)
	tx, err := ledger.ParseTransaction(set(create, "asset.data", &atLimit).Bytes())
	if err != nil {
		t.Fatalf("at the limit: %v", err)
	}
	var syntax *canonical.SyntaxError
	if _, err := ledger.ParseTransaction(set(create, "asset.data", &beyond).Bytes()); !errors.As(err, &syntax) {
		t.Errorf("beyond it: got %v, want a SyntaxError", err)
	}
	// What a client may post must fit into a block.
	block := ledger.NewBlock(newKey(2), 1, []string{newKey(2).Public}, []*ledger.Transaction{tx})
	if _, err := ledger.ParseBlock(block.Bytes()); err != nil {
		t.Errorf("a block with a transaction at the limit: %v", err)
	}
}

func TestMaxSignedBytes(t *testing.T) {
	_, transfer := createAndTransfer(t)
	input := get(t, transfer, "inputs").At(0)
	withInputs := func(n, metadata int) canonical.Value {
		list := make([]canonical.Value, n)
		for i := range list {
			index := canonical.IntOf(int64(i))
			list[i] = set(input, "fulfills.output", &index)
		}
		inputs, pad := canonical.ArrayOf(list...), object(member("pad", canonical.StringOf(strings.Repeat("x", metadata))))
		return set(set(transfer, "inputs", &inputs), "metadata", &pad)
	}
	const inputs = 1000
	most := ledger.MaxSignedBytes/inputs - 2000
	if _, err := ledger.ParseTransaction(withInputs(inputs, most).Bytes()); err != nil {
		t.Errorf("below the limit: %v", err)
	}
	wantSchemaFault(t, withInputs(inputs, most+4000), "1000 inputs sign more than 33554432 bytes")
	// What one input signs is bounded by the transaction's size alone.
	if _, err := ledger.ParseTransaction(withInputs(1, 1_900_000).Bytes()); err != nil {
		t.Errorf("one input: %v", err)
	}
}

func TestNotJSON(t *testing.T) {
	tests := map[string]string{
		"empty":         ``,
		"truncated":     `{"id":`,
		"duplicate key": `{"id":"a","id":"b"}`,
		"invalid UTF-8": "{\"id\":\"\xff\"}",
		"NaN":           `{"id":NaN}`,
		"deep":          strings.Repeat("[", 100_000),
		"two values":    `{} {}`,
	}
	for name, text := range tests {
		var syntax *canonical.SyntaxError
		if _, err := ledger.ParseTransaction([]byte(text)); !errors.As(err, &syntax) || len(err.Error()) > maxMessage {
			t.Errorf("%s: got %.200v, want a SyntaxError", name, err)
		}
	}
}

// TestCompact: a compact transaction answers as before, to many readers at once.
func TestCompact(t *testing.T) {
	tx := newManyInputs(t, newKey(1), 3)
	compact := newManyInputs(t, newKey(1), 3)
	compact.Compact()
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			if got, want := compact.Value(), tx.Value(); !canonical.Equal(got, want) {
				t.Errorf("Value: got %s, want %s", got.Bytes(), want.Bytes())
			}
			for i := range tx.Outputs {
				if got, want := compact.Details(i), tx.Details(i); !canonical.Equal(got, want) || got.IsNull() {
					t.Errorf("Details(%d): got %s, want %s", i, got.Bytes(), want.Bytes())
				}
			}
			for i := range tx.Inputs {
				if got, want := compact.SigningMessage(i), tx.SigningMessage(i); string(got) != string(want) {
					t.Errorf("SigningMessage(%d): got %s, want %s", i, got, want)
				}
			}
			if got, want := compact.ComputeID(), tx.ID; got != want {
				t.Errorf("ComputeID: got %s, want %s", got, want)
			}
			if !compact.SameBody(tx) || compact.Digest() != tx.Digest() {
				t.Error("the body changed")
			}
		})
	}
	readers.Wait()
}
