package ledger_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/mr-tron/base58"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

// newKey makes the same key pair for the same number.
func newKey(n byte) ledger.KeyPair {
	k, err := ledger.KeyPairFromPrivate(base58.Encode(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		panic(err)
	}
	return k
}

func object(members ...canonical.Member) canonical.Value { return canonical.ObjectOf(members...) }

func member(key string, value canonical.Value) canonical.Member {
	return canonical.Member{Key: key, Value: value}
}

// newCreate makes a CREATE with one output for each amount, all the issuer's.
func newCreate(tb testing.TB, issuer ledger.KeyPair, amounts ...int64) *ledger.Transaction {
	tb.Helper()
	payments := make([]ledger.Payment, len(amounts))
	for i, amount := range amounts {
		payments[i] = ledger.PayTo(issuer.Public, amount)
	}
	data := object(member("msg", canonical.StringOf("Hello BigchainDB!")))
	metadata := object(member("sequence", canonical.IntOf(0)))
	t, err := ledger.NewCreate([]ledger.KeyPair{issuer}, data, metadata, payments...)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// newManyInputs makes a TRANSFER that merges n outputs of one CREATE.
func newManyInputs(tb testing.TB, owner ledger.KeyPair, n int) *ledger.Transaction {
	tb.Helper()
	amounts := make([]int64, n)
	for i := range amounts {
		amounts[i] = int64(i + 1)
	}
	create := newCreate(tb, owner, amounts...)
	sources := make([]ledger.Source, n)
	for i := range sources {
		sources[i] = ledger.SourceOf(create, i)
	}
	payments := []ledger.Payment{ledger.PayTo(owner.Public, int64(n*(n+1)/2))}
	t, err := ledger.NewTransfer(create.ID, sources, canonical.Value{}, payments, owner)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func parse(tb testing.TB, text string) canonical.Value {
	tb.Helper()
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return v
}

// vectorFile reads one of the files of testdata/vectors.
func vectorFile(tb testing.TB, name string) canonical.Value {
	tb.Helper()
	data, err := os.ReadFile("../../testdata/vectors/" + name)
	if err != nil {
		tb.Fatal(err)
	}
	return parse(tb, string(data))
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

// items lists an array's elements.
func items(v canonical.Value) []canonical.Value {
	list := make([]canonical.Value, v.Len())
	for i := range list {
		list[i] = v.At(i)
	}
	return list
}
