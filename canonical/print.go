package canonical

import (
	"math"
	"strconv"
)

// Bytes returns v in canonical form.
func (v Value) Bytes() []byte { return v.Append(nil) }

// MarshalJSON gives the canonical form, so that a Value can stand inside
// structures printed with encoding/json. That package escapes <, >, & and
// U+2028 in it again unless its encoder is told not to: what is hashed or
// signed comes from Bytes or Append.
func (v Value) MarshalJSON() ([]byte, error) { return v.Bytes(), nil }

// UnmarshalJSON reads any JSON value as Parse does.
func (v *Value) UnmarshalJSON(data []byte) error {
	parsed, err := Parse(data)
	if err == nil {
		*v = parsed
	}
	return err
}

// Append appends the canonical form of v to dst.
func (v Value) Append(dst []byte) []byte {
	switch v.kind {
	case Bool:
		return strconv.AppendBool(dst, v.flag)
	case Int, Float:
		return append(dst, v.text...)
	case String:
		return AppendString(dst, v.text)
	case Array:
		dst = append(dst, '[')
		for i, item := range v.items() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = item.Append(dst)
		}
		return append(dst, ']')
	case Object:
		dst = append(dst, '{')
		for i, key := range v.keys() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = AppendString(dst, key)
			dst = append(dst, ':')
			dst = v.parts.items[i].Append(dst)
		}
		return append(dst, '}')
	default:
		return append(dst, "null"...)
	}
}

const hexDigits = "0123456789ABCDEF"

// AppendString appends s as a canonical JSON string. Only the quotation mark,
// the backslash and U+0000–U+001F are escaped; encoding/json escapes more.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// Floats with a decimal exponent inside these bounds print as plain decimals.
const (
	minPlainExponent = -6
	maxPlainExponent = 20
)

// formatFloat gives the shortest digits that round-trip in RapidJSON's
// notation: plain with a digit after the point, or d.ddde<exponent>. It
// reports false for NaN and infinities.
func formatFloat(f float64) (string, bool) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return "", false
	}
	if f == 0 {
		if math.Signbit(f) {
			return "-0.0", true
		}
		return "0.0", true
	}
	var scratch [32]byte
	shortest := strconv.AppendFloat(scratch[:0], f, 'e', -1, 64) // d.ddde±xx
	out := make([]byte, 0, 32)
	if shortest[0] == '-' {
		out = append(out, '-')
		shortest = shortest[1:]
	}
	mark := len(shortest) - 1
	for shortest[mark] != 'e' {
		mark--
	}
	exponent, _ := strconv.Atoi(string(shortest[mark+1:])) // AppendFloat wrote it
	digits := append([]byte{shortest[0]}, shortest[min(2, mark):mark]...)

	switch {
	case exponent < minPlainExponent || exponent > maxPlainExponent:
		out = append(out, digits[0])
		if len(digits) > 1 {
			out = append(append(out, '.'), digits[1:]...)
		}
		out = append(out, 'e')
		return string(strconv.AppendInt(out, int64(exponent), 10)), true
	case exponent < 0:
		out = append(out, "0."...)
		for range -exponent - 1 {
			out = append(out, '0')
		}
		return string(append(out, digits...)), true
	}
	whole := exponent + 1
	for len(digits) < whole+1 {
		digits = append(digits, '0')
	}
	out = append(out, digits[:whole]...)
	out = append(out, '.')
	return string(append(out, digits[whole:]...)), true
}
