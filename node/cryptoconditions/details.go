package cryptoconditions

import (
	"fmt"
	"strconv"

	"github.com/mr-tron/base58"

	"github.com/couchledger/couchledger/canonical"
)

// FromDetails derives the condition from condition.details, its JSON form.
// That is one of
//
//	{"type":"fulfillment","type_id":4,"bitmask":32,"public_key":base58,"signature":null}
//	{"type":"fulfillment","type_id":2,"bitmask":n,"threshold":n,"subfulfillments":[{…,"weight":n},…]}
//	{"type":"fulfillment","type_id":0,"bitmask":3,"preimage":text}
//	{"type":"condition","type_id":n,"bitmask":n,"hash":base58,"max_fulfillment_length":n}
//
// with these fields and no others. A preimage is the text's UTF-8 bytes. A
// bitmask must be the one that the rest gives. FromDetails fails with
// ErrDetails, or with ErrTooComplex beyond a limit or the budget; it looks at
// no more children and no deeper than the limits allow.
func FromDetails(details canonical.Value, budget *Budget) (Condition, error) {
	d := deriver{budget: budget, childrenLeft: MaxChildren}
	return d.condition(details, 0, false)
}

// deriver counts across one condition's details.
type deriver struct {
	budget       *Budget
	childrenLeft int
}

// Fields of each form in code point order. A child has "weight" after them.
var (
	fieldsEd25519   = []string{"bitmask", "public_key", "signature", "type", "type_id"}
	fieldsThreshold = []string{"bitmask", "subfulfillments", "threshold", "type", "type_id"}
	fieldsPreimage  = []string{"bitmask", "preimage", "type", "type_id"}
	fieldsCondition = []string{"bitmask", "hash", "max_fulfillment_length", "type", "type_id"}
)

const fieldWeight = "weight"

// hasFields reports whether v has exactly these fields, and a weight if it is a child.
func hasFields(v canonical.Value, child bool, fields []string) bool {
	n := len(fields)
	if child {
		n++
	}
	if v.Len() != n || child && v.Key(n-1) != fieldWeight {
		return false
	}
	for i, f := range fields {
		if v.Key(i) != f {
			return false
		}
	}
	return true
}

func detailsFault(why string) error { return fmt.Errorf("%w: %s", ErrDetails, why) }

// field returns an object's field, null if it has none.
func field(v canonical.Value, key string) canonical.Value {
	f, _ := v.Get(key)
	return f
}

func textField(v canonical.Value, key string) (string, bool) {
	f := field(v, key)
	return f.Text(), f.Kind() == canonical.String
}

// numberField returns a field that is an integer from 0 to MaxWeight.
func numberField(v canonical.Value, key string) (int, bool) {
	f := field(v, key)
	if f.Kind() != canonical.Int {
		return 0, false
	}
	n, err := strconv.ParseUint(f.Text(), 10, 31) // no sign, so no -0
	return int(n), err == nil
}

// keyField returns a field that is base58 of 32 bytes.
func keyField(v canonical.Value, key string) ([]byte, bool) {
	text, ok := textField(v, key)
	if !ok || len(text) > maxKeyText {
		return nil, false
	}
	raw, err := base58.Decode(text)
	return raw, err == nil && len(raw) == HashSize
}

// maxKeyText is the longest base58 of 32 bytes; decoding takes quadratic time.
const maxKeyText = 44

// condition derives the condition of v, which stands inside depth thresholds,
// as a child of one or not.
func (d *deriver) condition(v canonical.Value, depth int, child bool) (Condition, error) {
	if v.Kind() != canonical.Object {
		return Condition{}, detailsFault("not an object")
	}
	form, _ := textField(v, "type")
	typ, ok := numberField(v, "type_id")
	bits, bitsOK := numberField(v, "bitmask")
	if !ok || !bitsOK {
		return Condition{}, detailsFault("type_id or bitmask is not a number")
	}
	var c Condition
	var err error
	switch {
	case form == "condition":
		return bareCondition(v, typ, bits, child)
	case form != "fulfillment":
		return Condition{}, detailsFault("type is neither fulfillment nor condition")
	case typ == int(TypeEd25519):
		c, err = ed25519Details(v, child)
	case typ == int(TypeThreshold):
		c, err = d.thresholdDetails(v, depth+1, child)
	case typ == int(TypePreimage):
		c, err = preimageDetails(v, child)
	default:
		return Condition{}, detailsFault("unsupported type_id")
	}
	if err != nil {
		return Condition{}, err
	}
	if c.Bits != uint32(bits) {
		return Condition{}, detailsFault("bitmask does not fit")
	}
	return c, nil
}

func ed25519Details(v canonical.Value, child bool) (Condition, error) {
	if !hasFields(v, child, fieldsEd25519) {
		return Condition{}, detailsFault("fields of an Ed25519 condition")
	}
	key, ok := keyField(v, "public_key")
	if !ok {
		return Condition{}, detailsFault("public_key is not base58 of 32 bytes")
	}
	if !field(v, "signature").IsNull() {
		return Condition{}, detailsFault("signature is not null")
	}
	return ed25519Condition(key), nil
}

func preimageDetails(v canonical.Value, child bool) (Condition, error) {
	if !hasFields(v, child, fieldsPreimage) {
		return Condition{}, detailsFault("fields of a preimage condition")
	}
	text, ok := textField(v, "preimage")
	if !ok {
		return Condition{}, detailsFault("preimage is not a string")
	}
	if len(text) > MaxFulfillmentLength {
		return Condition{}, fmt.Errorf("%w: preimage too long", ErrTooComplex)
	}
	return preimageCondition([]byte(text)), nil
}

func bareCondition(v canonical.Value, typ, bits int, child bool) (Condition, error) {
	if !hasFields(v, child, fieldsCondition) {
		return Condition{}, detailsFault("fields of a condition")
	}
	hash, ok := keyField(v, "hash")
	length, lengthOK := numberField(v, "max_fulfillment_length")
	if !ok || !lengthOK || typ > int(TypeEd25519) {
		return Condition{}, detailsFault("hash, length or type of a condition")
	}
	c := Condition{Type: Type(typ), Bits: uint32(bits), Hash: [HashSize]byte(hash), MaxLength: length}
	if why := c.fault(); why != "" {
		return Condition{}, detailsFault(why)
	}
	return c, nil
}

func (d *deriver) thresholdDetails(v canonical.Value, depth int, child bool) (Condition, error) {
	if depth > MaxDepth {
		return Condition{}, fmt.Errorf("%w: nested too deep", ErrTooComplex)
	}
	if !hasFields(v, child, fieldsThreshold) {
		return Condition{}, detailsFault("fields of a threshold condition")
	}
	threshold, ok := numberField(v, "threshold")
	list := field(v, "subfulfillments")
	if !ok || list.Kind() != canonical.Array {
		return Condition{}, detailsFault("threshold is not a number or subfulfillments not a list")
	}
	if list.Len() > d.childrenLeft {
		return Condition{}, fmt.Errorf("%w: too many children", ErrTooComplex)
	}
	d.childrenLeft -= list.Len()
	children := make([]weighted, list.Len())
	var sum uint64
	for i := range children {
		item := list.At(i)
		weight, ok := numberField(item, fieldWeight)
		if !ok || weight < 1 {
			return Condition{}, detailsFault("weight is not a number from 1")
		}
		sum += uint64(weight)
		c, err := d.condition(item, depth, true)
		if err != nil {
			return Condition{}, err
		}
		children[i] = weighted{weight: weight, condition: c}
	}
	if why := thresholdFault(uint64(threshold), sum); why != "" {
		return Condition{}, detailsFault(why)
	}
	return thresholdCondition(threshold, children, d.budget)
}
