package ledger_test

import (
	"fmt"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

// shapes are the transactions that the benchmarks measure.
func shapes(tb testing.TB) map[string]*ledger.Transaction {
	return map[string]*ledger.Transaction{
		"one input":  newCreate(tb, newKey(1), 1),
		"ten inputs": newManyInputs(tb, newKey(1), 10),
	}
}

func BenchmarkParseTransaction(b *testing.B) {
	for name, t := range shapes(b) {
		data := t.Bytes()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := ledger.ParseTransaction(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkComputeID(b *testing.B) {
	for name, t := range shapes(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t.ComputeID()
			}
		})
	}
}

func BenchmarkSigningMessage(b *testing.B) {
	for name, t := range shapes(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t.SigningMessage(0)
			}
		})
	}
}

// BenchmarkDetailsCompact measures what validation asks of a transaction that
// is kept in its compact form.
func BenchmarkDetailsCompact(b *testing.B) {
	t := newCreate(b, newKey(1), 1, 1, 1, 1)
	t.Compact()
	b.ReportAllocs()
	for b.Loop() {
		for i := range t.Outputs {
			t.Details(i)
		}
	}
}

func thousand(tb testing.TB) []*ledger.Transaction {
	owner := newKey(1)
	list := make([]*ledger.Transaction, ledger.MaxBlockTransactions)
	for i := range list {
		data := canonical.ObjectOf(canonical.Member{Key: "serial", Value: canonical.StringOf(fmt.Sprintf("%0100d", i))})
		t, err := ledger.NewCreate([]ledger.KeyPair{owner}, data, canonical.Value{}, ledger.PayTo(owner.Public, 1))
		if err != nil {
			tb.Fatal(err)
		}
		list[i] = t
	}
	return list
}

func BenchmarkParseBlock(b *testing.B) {
	data := ledger.NewBlock(newKey(2), 1, []string{newKey(2).Public}, thousand(b)).Bytes()
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := ledger.ParseBlock(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewBlock(b *testing.B) {
	list, maker := thousand(b), newKey(2)
	b.ReportAllocs()
	for b.Loop() {
		ledger.NewBlock(maker, 1, []string{maker.Public}, list)
	}
}
