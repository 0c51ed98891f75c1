// Package cryptoconditions says who may spend an output and whether he did.
//
// A condition is the short public statement, "whoever holds this key" or "two
// of these three"; a fulfillment is the proof that meets it. This is the draft
// of 2016 that the 0.10 protocol uses, with its three types PREIMAGE-SHA-256,
// THRESHOLD-SHA-256 and ED25519, and not the later ASN.1 one.
//
// Everything is read strictly: of the many ways to write a condition or
// fulfillment only the one that this package writes is accepted. A fulfillment
// is not part of its transaction's id, so whoever passes it on could otherwise
// change its bytes.
//
// Rules: the section "Crypto-conditions" of the 0.10 wire facts.
package cryptoconditions

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
)

// Type is a condition's type id.
type Type uint16

// The supported types.
const (
	TypePreimage  Type = 0
	TypeThreshold Type = 2
	TypeEd25519   Type = 4
)

// Feature bits of each type, and all bits there are.
const (
	bitsPreimage  = 0x03
	bitsThreshold = 0x09
	bitsEd25519   = 0x20
	bitsAll       = bitsPreimage | bitsThreshold | bitsEd25519
)

// HashSize is the length of a condition's hash in bytes, for every type.
const HashSize = 32

// ed25519Length is the payload of an ED25519 fulfillment: key and signature.
const ed25519Length = 32 + 64

// Condition is a condition's short form. Two are the same condition exactly
// when they are equal by ==.
type Condition struct {
	Type      Type
	Bits      uint32         // features that a verifier needs, OR-ed over all children
	Hash      [HashSize]byte // by type: of the preimage, of the children; the public key itself
	MaxLength int            // bytes that a fulfillment's payload takes at most, as the draft reckons it
}

func preimageCondition(preimage []byte) Condition {
	return Condition{Type: TypePreimage, Bits: bitsPreimage, Hash: sha256.Sum256(preimage), MaxLength: len(preimage)}
}

func ed25519Condition(public []byte) Condition {
	return Condition{Type: TypeEd25519, Bits: bitsEd25519, Hash: [HashSize]byte(public), MaxLength: ed25519Length}
}

// fault says why no fulfillment could ever produce c, "" if one might.
func (c *Condition) fault() string {
	fits := false
	switch c.Type {
	case TypePreimage:
		fits = c.Bits == bitsPreimage
	case TypeThreshold:
		fits = c.Bits&bitsThreshold == bitsThreshold && c.Bits&^bitsAll == 0
	case TypeEd25519:
		fits = c.Bits == bitsEd25519
		if c.MaxLength != ed25519Length {
			return "max length"
		}
	default:
		return "unsupported type"
	}
	switch {
	case !fits:
		return "feature bits"
	case c.MaxLength < 0 || c.MaxLength > MaxFulfillmentLength:
		return "max length"
	}
	return ""
}

// maxConditionURI is above the longest URI of a supported condition.
const maxConditionURI = 80

// ParseCondition reads a condition's URI,
// cc:<type hex>:<bits hex>:<hash base64>:<max length decimal>. It fails with
// ErrCondition unless URI gives the same text again.
func ParseCondition(uri string) (Condition, error) {
	if len(uri) > maxConditionURI {
		return Condition{}, fmt.Errorf("%w: too long", ErrCondition)
	}
	rest, prefixed := strings.CutPrefix(uri, "cc:")
	typ, rest, _ := strings.Cut(rest, ":")
	features, rest, _ := strings.Cut(rest, ":")
	hash, length, _ := strings.Cut(rest, ":")
	t, err1 := strconv.ParseUint(typ, 16, 16)
	b, err2 := strconv.ParseUint(features, 16, 32)
	n, err3 := strconv.ParseUint(length, 10, 31)
	raw, decoded := decodeBase64(make([]byte, 0, HashSize+1), hash)
	if !prefixed || err1 != nil || err2 != nil || err3 != nil || !decoded || len(raw) != HashSize {
		return Condition{}, fmt.Errorf("%w: not of the form cc:type:features:hash:length", ErrCondition)
	}
	c := Condition{Type: Type(t), Bits: uint32(b), Hash: [HashSize]byte(raw), MaxLength: int(n)}
	if why := c.fault(); why != "" {
		return Condition{}, fmt.Errorf("%w: %s", ErrCondition, why)
	}
	if !c.HasURI(uri) {
		return Condition{}, fmt.Errorf("%w: not in canonical form", ErrCondition)
	}
	return c, nil
}

// URI returns the condition's text form.
func (c Condition) URI() string { return string(c.AppendURI(make([]byte, 0, maxConditionURI))) }

// HasURI reports whether uri is the condition's text form, without building a string.
func (c Condition) HasURI(uri string) bool {
	var scratch [maxConditionURI]byte
	return string(c.AppendURI(scratch[:0])) == uri
}

// AppendURI appends the condition's text form to dst.
func (c Condition) AppendURI(dst []byte) []byte {
	dst = append(dst, "cc:"...)
	dst = strconv.AppendUint(dst, uint64(c.Type), 16)
	dst = append(dst, ':')
	dst = strconv.AppendUint(dst, uint64(c.Bits), 16)
	dst = append(dst, ':')
	dst = base64Strict.AppendEncode(dst, c.Hash[:])
	dst = append(dst, ':')
	return strconv.AppendInt(dst, int64(c.MaxLength), 10)
}

// ParseConditionBinary reads a condition's binary form. It fails with
// ErrCondition unless AppendBinary gives the same bytes again.
func ParseConditionBinary(data []byte) (Condition, error) {
	r := reader{rest: data}
	c := Condition{Type: Type(r.uint16()), Bits: uint32(r.varUint())}
	hash := r.varBytes()
	length := r.varUint()
	if !r.ok() || len(hash) != HashSize || length > MaxFulfillmentLength {
		return Condition{}, fmt.Errorf("%w: malformed binary form", ErrCondition)
	}
	c.Hash, c.MaxLength = [HashSize]byte(hash), int(length)
	if why := c.fault(); why != "" {
		return Condition{}, fmt.Errorf("%w: %s", ErrCondition, why)
	}
	return c, nil
}

// AppendBinary appends the condition's binary form to dst:
// uint16 type | varuint bits | varbytes hash | varuint max length.
func (c Condition) AppendBinary(dst []byte) []byte {
	dst = append(dst, byte(c.Type>>8), byte(c.Type))
	dst = appendVarUint(dst, uint64(c.Bits))
	dst = appendVarBytes(dst, c.Hash[:])
	return appendVarUint(dst, uint64(c.MaxLength))
}

func (c *Condition) binarySize() int {
	return 2 + varUintSize(uint64(c.Bits)) + varBytesSize(HashSize) + varUintSize(uint64(c.MaxLength))
}
