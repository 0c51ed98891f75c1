package mango

import (
	"cmp"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// Ranks of types in CouchDB's order: null, false, true, numbers, strings,
// arrays, objects. They are the first byte of an encoded key, so none is 0,
// which ends strings, arrays and objects.
const (
	rankNull byte = iota + 1
	rankFalse
	rankTrue
	rankNumber
	rankString
	rankArray
	rankObject
)

func rank(v canonical.Value) byte {
	switch v.Kind() {
	case canonical.Bool:
		if v.Bool() {
			return rankTrue
		}
		return rankFalse
	case canonical.Int, canonical.Float:
		return rankNumber
	case canonical.String:
		return rankString
	case canonical.Array:
		return rankArray
	case canonical.Object:
		return rankObject
	default:
		return rankNull
	}
}

// Compare orders two JSON values as CouchDB collates them, with two
// differences: strings compare by their bytes, and the members of objects in
// the order of their keys. Numbers compare by their exact values.
func Compare(a, b canonical.Value) int {
	ra, rb := rank(a), rank(b)
	if ra != rb {
		return cmp.Compare(ra, rb)
	}
	switch ra {
	case rankNumber:
		return numberOf(a).compare(numberOf(b))
	case rankString:
		return strings.Compare(a.Text(), b.Text())
	case rankArray:
		for i := range min(a.Len(), b.Len()) {
			if c := Compare(a.At(i), b.At(i)); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.Len(), b.Len())
	case rankObject:
		for i := range min(a.Len(), b.Len()) {
			if c := strings.Compare(a.Key(i), b.Key(i)); c != 0 {
				return c
			}
			if c := Compare(a.At(i), b.At(i)); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.Len(), b.Len())
	}
	return 0
}

// AppendKey appends an encoding of v whose byte order is the order of Compare:
// equal values have equal encodings, and none is a prefix of another's, so
// that encodings can follow each other in one key.
//
//	null, false, true  the rank
//	number             the rank; 0, 1 or 2 for the sign; the exponent, biased, in
//	                   4 bytes; two digits a byte, plus 1; 0. Of a negative
//	                   number all that follows the sign is inverted.
//	string             the rank; the bytes, with 0 as 1 1 and 1 as 1 2; 0
//	array              the rank; the elements; 0
//	object             the rank; each key as a string and its value; 0
func AppendKey(dst []byte, v canonical.Value) []byte {
	r := rank(v)
	switch r {
	case rankNumber:
		return appendNumber(append(dst, r), numberOf(v))
	case rankString:
		return AppendStringKey(dst, v.Text())
	case rankArray:
		dst = append(dst, r)
		for i := range v.Len() {
			dst = AppendKey(dst, v.At(i))
		}
		return append(dst, 0)
	case rankObject:
		dst = append(dst, r)
		for i := range v.Len() {
			dst = AppendStringKey(dst, v.Key(i))
			dst = AppendKey(dst, v.At(i))
		}
		return append(dst, 0)
	}
	return append(dst, r)
}

// AppendStringKey is AppendKey for a string.
func AppendStringKey[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, rankString)
	for i := range len(s) {
		switch c := s[i]; c {
		case 0, 1:
			dst = append(dst, 1, c+1)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, 0)
}

// exponentBias makes every exponent positive; numbers have fewer digits than
// that by far, since documents are smaller.
const exponentBias = 1 << 31

func appendNumber(dst []byte, n number) []byte {
	dst = append(dst, byte(n.sign+1))
	if n.sign == 0 {
		return dst
	}
	start := len(dst)
	e := uint32(n.exponent + exponentBias)
	dst = append(dst, byte(e>>24), byte(e>>16), byte(e>>8), byte(e))
	for i := 0; i < len(n.digits); i += 2 {
		pair := (n.digits[i] - '0') * 10
		if i+1 < len(n.digits) {
			pair += n.digits[i+1] - '0'
		}
		dst = append(dst, pair+1)
	}
	dst = append(dst, 0)
	if n.sign < 0 {
		for i := start; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
	}
	return dst
}

// SkipKey returns what follows the first encoded value in key, and false when
// key does not begin with one.
func SkipKey(key []byte) ([]byte, bool) {
	if len(key) == 0 {
		return nil, false
	}
	r, key := key[0], key[1:]
	switch r {
	case rankNull, rankFalse, rankTrue:
		return key, true
	case rankNumber:
		return skipNumber(key)
	case rankString:
		return skipTo(key, 0)
	case rankArray, rankObject:
		for len(key) > 0 && key[0] != 0 {
			rest, ok := SkipKey(key)
			if !ok {
				return nil, false
			}
			key = rest
		}
		return skipTo(key, 0)
	}
	return nil, false
}

func skipNumber(key []byte) ([]byte, bool) {
	if len(key) == 0 {
		return nil, false
	}
	sign, key := key[0], key[1:]
	switch {
	case sign == 1:
		return key, true
	case len(key) < 4:
		return nil, false
	case sign == 0:
		return skipTo(key[4:], 0xFF)
	case sign == 2:
		return skipTo(key[4:], 0)
	}
	return nil, false
}

func skipTo(key []byte, end byte) ([]byte, bool) {
	for i, c := range key {
		if c == end {
			return key[i+1:], true
		}
	}
	return nil, false
}
