package ledger

import "math/big"

// Amount is a whole number of shares of an asset, at least 1, as decimal
// digits without sign or leading zero. Amounts have no upper bound but
// MaxAmountDigits, so they are never held in a machine word.
type Amount string

// MaxAmountDigits bounds one amount. It is a constant of the rules: nodes
// vote by it.
const MaxAmountDigits = 100

// maxSmallDigits is the longest decimal that always fits an int64, with room
// for the sums of this package.
const maxSmallDigits = 17

// SumAmounts adds amounts exactly.
func SumAmounts(amounts []Amount) Amount {
	var small int64
	var large *big.Int
	for i, a := range amounts {
		if large == nil && len(a) <= maxSmallDigits && i < 10 {
			small += smallAmount(a)
			continue
		}
		if large == nil {
			large = big.NewInt(small)
		}
		if n, ok := new(big.Int).SetString(string(a), 10); ok {
			large.Add(large, n)
		}
	}
	if large == nil {
		large = big.NewInt(small)
	}
	return Amount(large.String())
}

func smallAmount(a Amount) int64 {
	var n int64
	for _, c := range []byte(a) {
		n = n*10 + int64(c-'0')
	}
	return n
}
