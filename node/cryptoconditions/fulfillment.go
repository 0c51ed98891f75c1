package cryptoconditions

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fulfillment proves that a condition is met. It is immutable.
type Fulfillment struct {
	typ       Type
	key       []byte // ED25519
	signature []byte // ED25519
	preimage  []byte // PREIMAGE
	threshold int    // THRESHOLD
	children  []Child
}

// Child is one member of a threshold: a fulfillment, or where that is nil the
// condition of one that is not fulfilled.
type Child struct {
	Weight      int
	Fulfillment *Fulfillment
	Condition   Condition
}

// NewPreimage makes the fulfillment that reveals preimage.
func NewPreimage(preimage []byte) *Fulfillment {
	return &Fulfillment{typ: TypePreimage, preimage: slices.Clone(preimage)}
}

// NewEd25519 makes a fulfillment of a public key and a signature, which may be
// wrong. Like crypto/ed25519 it panics when they are not 32 and 64 bytes long.
func NewEd25519(public ed25519.PublicKey, signature []byte) *Fulfillment {
	if len(public) != ed25519.PublicKeySize || len(signature) != ed25519.SignatureSize {
		panic("cryptoconditions: bad length of a public key or signature")
	}
	return &Fulfillment{typ: TypeEd25519, key: slices.Clone(public), signature: slices.Clone(signature)}
}

// NewThreshold makes a threshold over children in any order. It fails with
// ErrFulfillment when the threshold or a weight is out of range and with
// ErrTooComplex beyond MaxDepth or MaxChildren.
func NewThreshold(threshold int, children ...Child) (*Fulfillment, error) {
	f := &Fulfillment{typ: TypeThreshold, threshold: threshold, children: slices.Clone(children)}
	if depth, count := f.shape(); depth > MaxDepth || count > MaxChildren {
		return nil, ErrTooComplex
	}
	var sum uint64
	for _, c := range children {
		if c.Weight < 1 || c.Weight > MaxWeight {
			return nil, fmt.Errorf("%w: weight out of range", ErrFulfillment)
		}
		sum += uint64(c.Weight)
	}
	if why := thresholdFault(uint64(max(threshold, 0)), sum); why != "" {
		return nil, fmt.Errorf("%w: %s", ErrFulfillment, why)
	}
	return f, nil
}

// shape returns how many thresholds stand inside each other and how many
// children they have together.
func (f *Fulfillment) shape() (depth, count int) {
	if f.typ != TypeThreshold {
		return 0, 0
	}
	for _, c := range f.children {
		count++
		if c.Fulfillment != nil {
			d, n := c.Fulfillment.shape()
			depth, count = max(depth, d), count+n
		}
	}
	return depth + 1, count
}

// ParseFulfillment reads a fulfillment's URI, cf:<type hex>:<payload base64>.
// It fails with ErrFulfillment unless URI gives the same text again, and with
// ErrTooComplex beyond MaxDepth, MaxChildren or MaxPayload. The signatures in
// it are not verified: see Valid.
func ParseFulfillment(uri string) (*Fulfillment, error) {
	rest, prefixed := strings.CutPrefix(uri, "cf:")
	if !prefixed || len(rest) < 2 || rest[1] != ':' {
		return nil, fmt.Errorf("%w: not of the form cf:type:payload", ErrFulfillment)
	}
	typ, text := Type(rest[0]-'0'), rest[2:] // every supported type is one digit
	if base64Strict.DecodedLen(len(text)) > MaxPayload {
		return nil, fmt.Errorf("%w: payload too long", ErrTooComplex)
	}
	payload, decoded := decodeBase64(make([]byte, 0, base64Strict.DecodedLen(len(text))), text)
	if !decoded {
		return nil, fmt.Errorf("%w: payload is not canonical base64", ErrFulfillment)
	}
	p := parser{childrenLeft: MaxChildren}
	return p.payload(typ, payload, 0)
}

// parser counts across a whole fulfillment.
type parser struct{ childrenLeft int }

// payload reads the payload of a fulfillment inside depth thresholds. The
// result shares the memory of data.
func (p *parser) payload(typ Type, data []byte, depth int) (*Fulfillment, error) {
	switch typ {
	case TypePreimage:
		if len(data) > MaxFulfillmentLength {
			return nil, fmt.Errorf("%w: preimage too long", ErrTooComplex)
		}
		return &Fulfillment{typ: typ, preimage: data}, nil
	case TypeEd25519:
		if len(data) != ed25519Length {
			return nil, fmt.Errorf("%w: not a key and a signature", ErrFulfillment)
		}
		return &Fulfillment{typ: typ, key: data[:32:32], signature: data[32:]}, nil
	case TypeThreshold:
		return p.thresholdPayload(data, depth+1)
	}
	return nil, fmt.Errorf("%w: unsupported type", ErrFulfillment)
}

var errThreshold = fmt.Errorf("%w: malformed threshold", ErrFulfillment)

func (p *parser) thresholdPayload(data []byte, depth int) (*Fulfillment, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("%w: nested too deep", ErrTooComplex)
	}
	r := reader{rest: data}
	threshold, count := r.varUint(), r.varUint()
	if r.bad {
		return nil, errThreshold
	}
	if count > uint64(p.childrenLeft) {
		return nil, fmt.Errorf("%w: too many children", ErrTooComplex)
	}
	p.childrenLeft -= int(count)
	f := &Fulfillment{typ: TypeThreshold, children: make([]Child, count)}
	var sum uint64
	var previous []byte
	for i := range f.children {
		before := r.rest
		weight, fulfillment, condition := r.varUint(), r.varBytes(), r.varBytes()
		if r.bad || weight < 1 || weight > MaxWeight || (len(fulfillment) == 0) == (len(condition) == 0) {
			return nil, errThreshold
		}
		entry := before[:len(before)-len(r.rest)]
		if byLength(previous, entry) > 0 {
			return nil, fmt.Errorf("%w: children out of order", ErrFulfillment)
		}
		previous = entry
		sum += weight

		child := &f.children[i]
		child.Weight = int(weight)
		var err error
		if len(condition) > 0 {
			if child.Condition, err = ParseConditionBinary(condition); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrFulfillment, err)
			}
			continue
		}
		inner := reader{rest: fulfillment}
		typ, payload := Type(inner.uint16()), inner.varBytes()
		if !inner.ok() {
			return nil, errThreshold
		}
		if child.Fulfillment, err = p.payload(typ, payload, depth); err != nil {
			return nil, err
		}
	}
	if !r.ok() {
		return nil, errThreshold
	}
	if why := thresholdFault(threshold, sum); why != "" {
		return nil, fmt.Errorf("%w: %s", ErrFulfillment, why)
	}
	f.threshold = int(threshold)
	return f, nil
}

// Type returns the fulfillment's type.
func (f *Fulfillment) Type() Type { return f.typ }

// URI returns the fulfillment's text form.
func (f *Fulfillment) URI() string {
	uri := strconv.AppendUint([]byte("cf:"), uint64(f.typ), 16)
	return string(base64Strict.AppendEncode(append(uri, ':'), f.appendPayload(nil)))
}

func (f *Fulfillment) appendPayload(dst []byte) []byte {
	switch f.typ {
	case TypePreimage:
		return append(dst, f.preimage...)
	case TypeEd25519:
		return append(append(dst, f.key...), f.signature...)
	}
	entries := make([][]byte, len(f.children))
	for i, c := range f.children {
		entry := appendVarUint(nil, uint64(c.Weight))
		if c.Fulfillment != nil {
			entry = appendVarBytes(entry, c.Fulfillment.appendBinary(nil))
			entry = appendVarBytes(entry, nil)
		} else {
			entry = appendVarBytes(entry, nil)
			entry = appendVarBytes(entry, c.Condition.AppendBinary(nil))
		}
		entries[i] = entry
	}
	slices.SortFunc(entries, byLength)
	dst = appendVarUint(dst, uint64(f.threshold))
	dst = appendVarUint(dst, uint64(len(entries)))
	for _, e := range entries {
		dst = append(dst, e...)
	}
	return dst
}

func (f *Fulfillment) appendBinary(dst []byte) []byte {
	dst = append(dst, byte(f.typ>>8), byte(f.typ))
	return appendVarBytes(dst, f.appendPayload(nil))
}

// Condition derives the condition that f fulfills if it is valid, with a
// Budget of its own. It fails with ErrTooComplex beyond that budget or
// MaxFulfillmentLength.
func (f *Fulfillment) Condition() (Condition, error) { return f.ConditionWithin(NewBudget()) }

// ConditionWithin is Condition with a Budget shared with other conditions.
func (f *Fulfillment) ConditionWithin(budget *Budget) (Condition, error) {
	switch f.typ {
	case TypePreimage:
		return preimageCondition(f.preimage), nil
	case TypeEd25519:
		return ed25519Condition(f.key), nil
	}
	children := make([]weighted, len(f.children))
	for i, c := range f.children {
		children[i] = weighted{weight: c.Weight, condition: c.Condition}
		if c.Fulfillment == nil {
			continue
		}
		var err error
		if children[i].condition, err = c.Fulfillment.ConditionWithin(budget); err != nil {
			return Condition{}, err
		}
	}
	return thresholdCondition(f.threshold, children, budget)
}

// Valid reports whether f holds for message: a preimage always, a signature if
// it verifies, a threshold if the weights of its valid children reach it. Each
// signature is verified at most once, and none once the outcome is certain.
func (f *Fulfillment) Valid(message []byte) bool {
	switch f.typ {
	case TypePreimage:
		return true
	case TypeEd25519:
		return ed25519.Verify(f.key, message, f.signature)
	}
	missing, possible := int64(f.threshold), int64(0)
	for i := range f.children {
		if c := &f.children[i]; c.Fulfillment != nil {
			possible += int64(c.Weight)
		}
	}
	for i := range f.children {
		if missing <= 0 || missing > possible {
			break
		}
		c := &f.children[i]
		if c.Fulfillment == nil {
			continue
		}
		possible -= int64(c.Weight)
		if c.Fulfillment.Valid(message) {
			missing -= int64(c.Weight)
		}
	}
	return missing <= 0
}
