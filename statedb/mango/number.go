package mango

import (
	"cmp"
	"math/big"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// number is an exact number in the form ±0.d1d2d3… × 10^exponent, where d1 is
// not 0 and no zero stands at the end. Equal numbers have equal forms, so that
// 1, 1.0 and 10e-1 are one number and 2^53 and 2^53+1 are two. Zero, and minus
// zero with it, has sign 0 and no digits.
type number struct {
	sign     int
	exponent int
	digits   string
}

// exactFrom is the decimal exponent from which a double's shortest digits may
// differ from its value: below, a whole double prints exactly and any other
// keeps its place between the whole numbers.
const exactFrom = 16

// numberOf takes an Int or a Float apart. A Float stands for the double that
// it names, as in CouchDB: 1e23 equals 99999999999999991611392. The cost is
// linear in the length of the digits, doubles have at most 309 of them.
func numberOf(v canonical.Value) number {
	text := v.Text()
	n := number{sign: 1}
	if strings.HasPrefix(text, "-") {
		n.sign, text = -1, text[1:]
	}
	if v.Kind() == canonical.Float {
		mantissa, exponent := text, 0
		if e := strings.IndexByte(text, 'e'); e >= 0 {
			mantissa = text[:e]
			exponent, _ = strconv.Atoi(text[e+1:]) // canonical floats have a valid one
		}
		whole, fraction, _ := strings.Cut(mantissa, ".")
		n.exponent = exponent + len(whole)
		if n.exponent > exactFrom {
			f, _ := strconv.ParseFloat(text, 64)
			exact, _ := new(big.Float).SetFloat64(f).Int(nil)
			text = exact.String()
			n.exponent = len(text)
		} else {
			text = whole + fraction
		}
	} else {
		n.exponent = len(text)
	}
	trimmed := strings.TrimLeft(text, "0")
	n.exponent -= len(text) - len(trimmed)
	n.digits = strings.TrimRight(trimmed, "0")
	if n.digits == "" {
		return number{}
	}
	return n
}

func (n number) compare(m number) int {
	if n.sign != m.sign {
		return cmp.Compare(n.sign, m.sign)
	}
	c := cmp.Compare(n.exponent, m.exponent)
	if c == 0 {
		c = strings.Compare(n.digits, m.digits)
	}
	return c * n.sign
}
