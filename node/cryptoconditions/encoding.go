package cryptoconditions

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math/bits"
)

// base64Strict refuses bits beyond the last byte. It skips line breaks, which
// decodeBase64 finds by the length.
var base64Strict = base64.RawURLEncoding.Strict()

// decodeBase64 appends the decoded text to dst.
func decodeBase64(dst []byte, text string) ([]byte, bool) {
	before := len(dst)
	dst, err := base64Strict.AppendDecode(dst, []byte(text))
	return dst, err == nil && base64Strict.EncodedLen(len(dst)-before) == len(text)
}

// uintSize returns the bytes of v without leading zeros, at least one.
func uintSize(v uint64) int { return max(1, (bits.Len64(v)+7)/8) }

func appendUint(dst []byte, v uint64, size int) []byte {
	for shift := 8 * (size - 1); shift >= 0; shift -= 8 {
		dst = append(dst, byte(v>>shift))
	}
	return dst
}

// appendLength appends the length that stands before n varbytes.
func appendLength(dst []byte, n int) []byte {
	if n <= 127 {
		return append(dst, byte(n))
	}
	size := uintSize(uint64(n))
	return appendUint(append(dst, 0x80|byte(size)), uint64(n), size)
}

func appendVarBytes(dst, b []byte) []byte { return append(appendLength(dst, len(b)), b...) }

func appendVarUint(dst []byte, v uint64) []byte {
	size := uintSize(v)
	return appendUint(append(dst, byte(size)), v, size)
}

func varBytesSize(n int) int {
	if n <= 127 {
		return 1 + n
	}
	return 1 + uintSize(uint64(n)) + n
}

func varUintSize(v uint64) int { return 1 + uintSize(v) }

// byLength is the order of a threshold's children: the shorter first, then by bytes.
func byLength(a, b []byte) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}

// reader takes binary forms apart. It takes only the shortest form of each
// length and number, so what it accepts encodes back to the same bytes. The
// first fault sticks: from then on it returns zeros, and ok is false.
type reader struct {
	rest []byte
	bad  bool
}

// ok reports whether everything was well formed and nothing is left.
func (r *reader) ok() bool { return !r.bad && len(r.rest) == 0 }

func (r *reader) bytes(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// uint reads size bytes that do not start with a zero, at most four. A single
// zero byte is a number only where zero says so.
func (r *reader) uint(size int, zero bool) uint64 {
	if size > 4 {
		r.bad = true
	}
	var v uint64
	for i, c := range r.bytes(size) {
		if i == 0 && c == 0 && !(zero && size == 1) {
			r.bad = true
		}
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *reader) varBytes() []byte {
	first := r.bytes(1)
	if first == nil {
		return nil
	}
	n := int(first[0])
	if n > 127 {
		size := n & 127
		v := r.uint(size, false)
		if v <= 127 || v > uint64(len(r.rest)) {
			r.bad = true
			return nil
		}
		n = int(v)
	}
	return r.bytes(n)
}

func (r *reader) varUint() uint64 {
	size := r.bytes(1)
	if size == nil || size[0] == 0 || size[0] > 4 {
		r.bad = true
		return 0
	}
	return r.uint(int(size[0]), true)
}
