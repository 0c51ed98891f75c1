package cryptoconditions

import (
	"crypto/ed25519"
	"crypto/sha3"
	"encoding/hex"
	"os"
	"testing"

	"github.com/mr-tron/base58"

	"github.com/couchledger/couchledger/canonical"
)

func readJSON(tb testing.TB, path string) canonical.Value {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	v, err := canonical.Parse(data)
	if err != nil {
		tb.Fatalf("%s: %v", path, err)
	}
	return v
}

// at follows keys into v and fails when one is missing.
func at(tb testing.TB, v canonical.Value, keys ...string) canonical.Value {
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

func each(v canonical.Value) func(func(int, canonical.Value) bool) {
	return func(yield func(int, canonical.Value) bool) {
		for i := range v.Len() {
			if !yield(i, v.At(i)) {
				return
			}
		}
	}
}

type vector struct {
	name        string
	valid       bool
	transaction canonical.Value
	spent       canonical.Value
}

func vectors(tb testing.TB) []vector {
	var list []vector
	for _, v := range each(at(tb, readJSON(tb, "../../testdata/vectors/transactions.json"), "transactions")) {
		list = append(list, vector{at(tb, v, "name").Text(), at(tb, v, "valid").Bool(),
			at(tb, v, "transaction"), at(tb, v, "spent")})
	}
	var earlier canonical.Value // the documents print one asset's history, in order
	for _, tx := range each(at(tb, readJSON(tb, "../../testdata/vectors/documents.json"), "transactions")) {
		list = append(list, vector{"documents: " + at(tb, tx, "id").Text(), true, tx, earlier})
		earlier = at(tb, tx, "outputs")
	}
	return list
}

func hash(b []byte) string {
	sum := sha3.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// signedBytes is what input i of tx signs.
func signedBytes(tb testing.TB, tx canonical.Value, i int) []byte {
	input := at(tb, tx, "inputs").At(i).With("fulfillment", canonical.Value{})
	body := tx.Without("id").With("inputs", canonical.ArrayOf(input))
	return body.With("id", canonical.StringOf(hash(body.Bytes()))).Bytes()
}

// bodyID is the hash of tx without id and fulfillments.
func bodyID(tb testing.TB, tx canonical.Value) string {
	var inputs []canonical.Value
	for _, in := range each(at(tb, tx, "inputs")) {
		inputs = append(inputs, in.With("fulfillment", canonical.Value{}))
	}
	return hash(tx.Without("id").With("inputs", canonical.ArrayOf(inputs...)).Bytes())
}

func TestVectorOutputs(t *testing.T) {
	maxLengths := map[int]bool{}
	for _, v := range vectors(t) {
		for _, list := range []canonical.Value{at(t, v.transaction, "outputs"), v.spent} {
			for i, out := range each(list) {
				uri := at(t, out, "condition", "uri").Text()
				c, err := FromDetails(at(t, out, "condition", "details"), NewBudget())
				if err != nil || c.URI() != uri || !c.HasURI(uri) {
					t.Errorf("%s: output %d: got %s, %v; want %s", v.name, i, c.URI(), err, uri)
				}
				parsed, err := ParseCondition(uri)
				if err != nil || parsed != c {
					t.Errorf("%s: ParseCondition(%s) = %+v, %v; want %+v", v.name, uri, parsed, err, c)
				}
				if c.HasURI(uri + "0") {
					t.Errorf("%s: HasURI takes another URI", v.name)
				}
				maxLengths[c.MaxLength] = true
			}
		}
	}
	for _, n := range []int{96, 206, 246, 306, 359} {
		if !maxLengths[n] {
			t.Errorf("no vector of max length %d was seen", n)
		}
	}
}

func TestVectorFulfillments(t *testing.T) {
	list := vectors(t)
	if len(list) != 26+3 {
		t.Fatalf("got %d vectors, want 29", len(list))
	}
	for _, v := range list {
		holds := bodyID(t, v.transaction) == at(t, v.transaction, "id").Text()
		for i, in := range each(at(t, v.transaction, "inputs")) {
			uri := at(t, in, "fulfillment").Text()
			f, err := ParseFulfillment(uri)
			if err != nil {
				t.Errorf("%s: input %d: %v", v.name, i, err)
				continue
			}
			if f.URI() != uri {
				t.Errorf("%s: input %d: encodes to %s, want %s", v.name, i, f.URI(), uri)
			}
			holds = holds && f.Valid(signedBytes(t, v.transaction, i))
			if !at(t, in, "fulfills").IsNull() {
				c, err := f.Condition()
				holds = holds && err == nil && c.HasURI(at(t, v.spent.At(i), "condition", "uri").Text())
			}
		}
		if holds != v.valid {
			t.Errorf("%s: got %v, want %v", v.name, holds, v.valid)
		}
	}
}

// The conditions of the package that 0.10.0 itself used: nested thresholds
// with all kinds of weights, preimages and bare conditions.
func TestReferenceConditions(t *testing.T) {
	list := at(t, readJSON(t, "testdata/conditions.json"), "conditions")
	if list.Len() == 0 {
		t.Fatal("no conditions")
	}
	for i, v := range each(list) {
		c, err := FromDetails(at(t, v, "details"), NewBudget())
		if want := at(t, v, "uri").Text(); err != nil || c.URI() != want {
			t.Errorf("condition %d: got %s, %v; want %s", i, c.URI(), err, want)
		}
	}
}

// Signing the vectors' bodies anew with the vectors' keys gives the same
// fulfillments: Ed25519 is deterministic.
func TestSignVectors(t *testing.T) {
	file := readJSON(t, "../../testdata/vectors/transactions.json")
	keys := map[string]ed25519.PrivateKey{}
	for _, k := range each(at(t, file, "keys")) {
		seed, err := base58.Decode(at(t, k, "private").Text())
		if err != nil {
			t.Fatal(err)
		}
		keys[at(t, k, "public").Text()] = ed25519.NewKeyFromSeed(seed)
	}
	compared := 0
	for _, v := range vectors(t) {
		if !v.valid {
			continue
		}
		for i := range v.spent.Len() {
			owners := at(t, at(t, v.transaction, "inputs").At(i), "owners_before")
			condition := at(t, v.spent.At(i), "condition")
			if keys[owners.At(0).Text()] == nil {
				continue // the documents' keys are not known
			}
			message := signedBytes(t, v.transaction, i)
			f, err := Sign(at(t, condition, "details"), message, keys)
			if err != nil || !f.Valid(message) {
				t.Errorf("%s: Sign: %v, %v", v.name, f, err)
				continue
			}
			if c, err := f.Condition(); err != nil || !c.HasURI(at(t, condition, "uri").Text()) {
				t.Errorf("%s: Sign fulfills %s, %v", v.name, c.URI(), err)
			}
			if at(t, condition, "details", "type_id").Text() == "4" {
				if want := at(t, at(t, v.transaction, "inputs").At(i), "fulfillment").Text(); f.URI() != want {
					t.Errorf("%s: Sign gives %s, want %s", v.name, f.URI(), want)
				}
				compared++
			}
		}
	}
	if compared == 0 {
		t.Error("no signature was compared")
	}
}
