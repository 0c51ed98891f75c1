package couchdb

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"math/big"
	"strconv"

	"github.com/couchledger/couchledger/canonical"
)

// Tags of Erlang's external term format.
const (
	termVersion     = 131
	termNewFloat    = 70
	termInteger     = 98
	termAtom        = 100
	termSmallTuple  = 104
	termNil         = 106
	termList        = 108
	termBinary      = 109
	termSmallBig    = 110
	maxTermInteger  = math.MaxInt32
	minTermInteger  = math.MinInt32
	bookmarkDocID   = "startkey_docid"
	bookmarkViewKey = "startkey"
)

// nativeBookmark makes the bookmark that CouchDB gives for a page whose last
// row has this key and id. It is needed where a row was found by other means
// than _find.
func nativeBookmark(key canonical.Value, id string) string {
	b := []byte{termVersion}
	b = appendList(b, 2)
	b = append(b, termSmallTuple, 2)
	b = appendAtom(b, bookmarkDocID)
	b = appendBinary(b, id)
	b = append(b, termSmallTuple, 2)
	b = appendAtom(b, bookmarkViewKey)
	b = appendTerm(b, key)
	b = append(b, termNil)
	return base64.RawURLEncoding.EncodeToString(b)
}

func appendList(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(append(b, termList), uint32(n))
}

func appendAtom(b []byte, name string) []byte {
	return append(binary.BigEndian.AppendUint16(append(b, termAtom), uint16(len(name))), name...)
}

func appendBinary(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(append(b, termBinary), uint32(len(s))), s...)
}

// appendTerm appends a JSON value as CouchDB holds it: objects are lists of
// pairs in a tuple of one.
func appendTerm(b []byte, v canonical.Value) []byte {
	switch v.Kind() {
	case canonical.Null:
		return appendAtom(b, "null")
	case canonical.Bool:
		return appendAtom(b, strconv.FormatBool(v.Bool()))
	case canonical.String:
		return appendBinary(b, v.Text())
	case canonical.Int:
		return appendInteger(b, v.Text())
	case canonical.Float:
		f, _ := strconv.ParseFloat(v.Text(), 64)
		return binary.BigEndian.AppendUint64(append(b, termNewFloat), math.Float64bits(f))
	case canonical.Array:
		if v.Len() == 0 {
			return append(b, termNil)
		}
		b = appendList(b, v.Len())
		for i := range v.Len() {
			b = appendTerm(b, v.At(i))
		}
		return append(b, termNil)
	}
	b = append(b, termSmallTuple, 1)
	if v.Len() == 0 {
		return append(b, termNil)
	}
	b = appendList(b, v.Len())
	for i := range v.Len() {
		b = append(b, termSmallTuple, 2)
		b = appendBinary(b, v.Key(i))
		b = appendTerm(b, v.At(i))
	}
	return append(b, termNil)
}

func appendInteger(b []byte, digits string) []byte {
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil && n >= minTermInteger && n <= maxTermInteger {
		return binary.BigEndian.AppendUint32(append(b, termInteger), uint32(int32(n)))
	}
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		return append(b, termNil) // no canonical integer; cannot be
	}
	sign := byte(0)
	if n.Sign() < 0 {
		sign = 1
	}
	bytes := n.Bytes() // 128 at most: see maxDigits
	b = append(b, termSmallBig, byte(len(bytes)), sign)
	for i := len(bytes) - 1; i >= 0; i-- {
		b = append(b, bytes[i])
	}
	return b
}
