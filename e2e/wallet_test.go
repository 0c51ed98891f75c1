package e2e

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

var none canonical.Value // JSON's null

// serial makes every CREATE of this process another one.
var serial atomic.Int64

func serialData() canonical.Value {
	return canonical.ObjectOf(canonical.Member{Key: "serial", Value: canonical.IntOf(serial.Add(1))})
}

// create makes a CREATE whose outputs of these amounts go to its issuer.
func create(t testing.TB, owner ledger.KeyPair, amounts ...int64) *ledger.Transaction {
	t.Helper()
	if len(amounts) == 0 {
		amounts = []int64{1}
	}
	payments := make([]ledger.Payment, len(amounts))
	for i, amount := range amounts {
		payments[i] = ledger.PayTo(owner.Public, amount)
	}
	tx, err := ledger.NewCreate([]ledger.KeyPair{owner}, serialData(), none, payments...)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// coin is an output that somebody may spend.
type coin struct {
	tx    *ledger.Transaction
	index int
}

func (c coin) amount() int64 {
	n, err := strconv.ParseInt(string(c.tx.Outputs[c.index].Amount), 10, 64)
	if err != nil {
		panic(err) // the tests make no amounts that large
	}
	return n
}

func coinsOf(tx *ledger.Transaction) []coin {
	coins := make([]coin, len(tx.Outputs))
	for i := range coins {
		coins[i] = coin{tx, i}
	}
	return coins
}

// spend makes a TRANSFER of coins of one asset to somebody, in one output or,
// with split, in two where that is possible.
func spend(owner ledger.KeyPair, to string, split bool, coins ...coin) (*ledger.Transaction, error) {
	sources := make([]ledger.Source, len(coins))
	total := int64(0)
	for i, c := range coins {
		sources[i] = ledger.SourceOf(c.tx, c.index)
		total += c.amount()
	}
	payments := []ledger.Payment{ledger.PayTo(to, total)}
	if split && total > 1 {
		payments = []ledger.Payment{ledger.PayTo(to, total/2), ledger.PayTo(to, total-total/2)}
	}
	metadata := canonical.ObjectOf(canonical.Member{Key: "n", Value: canonical.IntOf(serial.Add(1))})
	return ledger.NewTransfer(coins[0].tx.Asset, sources, metadata, payments, owner)
}

func mustSpend(t testing.TB, owner ledger.KeyPair, to string, coins ...coin) *ledger.Transaction {
	t.Helper()
	tx, err := spend(owner, to, false, coins...)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func parse(t testing.TB, text []byte) *ledger.Transaction {
	t.Helper()
	tx, err := ledger.ParseTransaction(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return tx
}

// rehash gives a transaction's tree the id that its body has.
func rehash(tree canonical.Value) canonical.Value {
	inputs, _ := tree.Get("inputs")
	list := make([]canonical.Value, inputs.Len())
	for i := range list {
		list[i] = inputs.At(i).With("fulfillment", none)
	}
	unsigned := tree.Without("id").With("inputs", canonical.ArrayOf(list...))
	return tree.With("id", canonical.StringOf(ledger.Hash(unsigned.Bytes())))
}

// at replaces the value at a path of keys and indexes.
func at(tree canonical.Value, value canonical.Value, path ...any) canonical.Value {
	if len(path) == 0 {
		return value
	}
	switch step := path[0].(type) {
	case string:
		inner, _ := tree.Get(step)
		return tree.With(step, at(inner, value, path[1:]...))
	case int:
		items := make([]canonical.Value, tree.Len())
		for i := range items {
			items[i] = tree.At(i)
		}
		items[step] = at(items[step], value, path[1:]...)
		return canonical.ArrayOf(items...)
	}
	panic(fmt.Sprintf("path %v", path))
}
