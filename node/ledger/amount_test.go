package ledger_test

import (
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/node/ledger"
)

func bigSum(amounts []ledger.Amount) string {
	sum := new(big.Int)
	for _, a := range amounts {
		n, _ := new(big.Int).SetString(string(a), 10)
		sum.Add(sum, n)
	}
	return sum.String()
}

func TestSumAmounts(t *testing.T) {
	nines := func(n int) ledger.Amount { return ledger.Amount(strings.Repeat("9", n)) }
	repeat := func(n int, a ledger.Amount) []ledger.Amount {
		list := make([]ledger.Amount, n)
		for i := range list {
			list[i] = a
		}
		return list
	}
	tests := map[string][]ledger.Amount{
		"none":                      nil,
		"one":                       {"7"},
		"ten of the largest small":  repeat(10, nines(17)),
		"eleven of them":            repeat(11, nines(17)),
		"a thousand of them":        repeat(1000, nines(17)),
		"the smallest large":        {"1" + ledger.Amount(strings.Repeat("0", 17)), "1"},
		"19 digits beyond an int64": repeat(2, nines(19)),
		"small after large":         {nines(100), "1", "2"},
		"large after small":         {"1", "2", nines(100), "3"},
		"the largest":               repeat(20, nines(ledger.MaxAmountDigits)),
	}
	for name, amounts := range tests {
		if got, want := string(ledger.SumAmounts(amounts)), bigSum(amounts); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestSumAmountsProperty(t *testing.T) {
	amount := rapid.Custom(func(t *rapid.T) ledger.Amount {
		return ledger.Amount(rapid.OneOf(
			rapid.StringMatching(`[1-9][0-9]{0,3}`),
			rapid.StringMatching(`[1-9][0-9]{14,20}`),
			rapid.StringMatching(`9{17}`),
			rapid.StringMatching(`[1-9][0-9]{30,99}`),
		).Draw(t, "amount"))
	})
	rapid.Check(t, func(t *rapid.T) {
		amounts := rapid.SliceOfN(amount, 0, 30).Draw(t, "amounts")
		if got, want := string(ledger.SumAmounts(amounts)), bigSum(amounts); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}
