package ledger_test

import (
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
)

func FuzzParseTransaction(f *testing.F) {
	for _, file := range []string{"documents.json", "transactions.json"} {
		for _, v := range items(get(f, vectorFile(f, file), "transactions")) {
			if inner, ok := v.Get("transaction"); ok {
				v = inner
			}
			f.Add(v.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tx, err := ledger.ParseTransaction(data)
		if err != nil {
			if len(err.Error()) > maxMessage {
				t.Fatalf("the message has %d bytes: %.200s", len(err.Error()), err)
			}
			return
		}
		again, err := ledger.ParseTransaction(tx.Bytes())
		if err != nil || !again.SameBody(tx) {
			t.Fatalf("%s reads back as %v, %v", tx.Bytes(), again, err)
		}
		if got, want := tx.ComputeID(), printedID(tx.Value()); got != want {
			t.Fatalf("ComputeID of %s: got %s, want %s", tx.Bytes(), got, want)
		}
		tx.ID = tx.ComputeID() // SigningMessage relies on it
		for i := range tx.Inputs {
			if got, want := tx.SigningMessage(i), printedMessage(tx.Value(), i); string(got) != string(want) {
				t.Fatalf("SigningMessage(%d): got %s, want %s", i, got, want)
			}
		}
		tx.Compact()
		for i := range tx.Outputs {
			if got, want := tx.Details(i).Bytes(), again.Details(i).Bytes(); string(got) != string(want) {
				t.Fatalf("Details(%d) once compact: got %s, want %s", i, got, want)
			}
		}
	})
}

// fuzzSigned: what is accepted reads back as the same bytes.
func fuzzSigned(f *testing.F, parse func([]byte) ([]byte, bool, error)) {
	for _, s := range signedObjects(f) {
		f.Add(s.bytes)
	}
	for _, list := range []string{"blocks", "votes"} {
		for _, v := range items(get(f, vectorFile(f, "documents.json"), list)) {
			f.Add(v.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		once, _, err := parse(data)
		if err != nil {
			return
		}
		if twice, _, err := parse(once); err != nil || string(twice) != string(once) {
			t.Fatalf("%s reads back as %s, %v", once, twice, err)
		}
		if tree := mustParse(t, data); string(tree) != string(once) {
			t.Fatalf("%s became %s", tree, once)
		}
	})
}

func mustParse(t *testing.T, data []byte) []byte { return parse(t, string(data)).Bytes() }

func FuzzParseBlock(f *testing.F)     { fuzzSigned(f, parseBlock) }
func FuzzParseVote(f *testing.F)      { fuzzSigned(f, parseVote) }
func FuzzParseStatement(f *testing.F) { fuzzSigned(f, parseStatement) }
