package cryptoconditions

import (
	"crypto/ed25519"

	"github.com/mr-tron/base58"

	"github.com/couchledger/couchledger/canonical"
)

// Ed25519Details makes the details of the condition that the holder of a
// base58 public key meets with a signature.
func Ed25519Details(publicKey string) canonical.Value {
	return fulfillmentDetails(TypeEd25519, bitsEd25519,
		canonical.Member{Key: "public_key", Value: canonical.StringOf(publicKey)},
		canonical.Member{Key: "signature"})
}

// PreimageDetails makes the details of the condition that is met by revealing
// preimage. They hold it in the open, so whoever sees them can; ConditionDetails
// of the same condition keep it secret.
func PreimageDetails(preimage string) canonical.Value {
	return fulfillmentDetails(TypePreimage, bitsPreimage,
		canonical.Member{Key: "preimage", Value: canonical.StringOf(preimage)})
}

// ConditionDetails makes the details that state c and nothing of what is behind it.
func ConditionDetails(c Condition) canonical.Value {
	return canonical.ObjectOf(
		canonical.Member{Key: "type", Value: canonical.StringOf("condition")},
		canonical.Member{Key: "type_id", Value: canonical.IntOf(int64(c.Type))},
		canonical.Member{Key: "bitmask", Value: canonical.IntOf(int64(c.Bits))},
		canonical.Member{Key: "hash", Value: canonical.StringOf(base58.Encode(c.Hash[:]))},
		canonical.Member{Key: "max_fulfillment_length", Value: canonical.IntOf(int64(c.MaxLength))})
}

// WeightedDetails is a threshold's child: details and what they count.
type WeightedDetails struct {
	Weight  int
	Details canonical.Value
}

// ThresholdDetails makes the details of the condition that is met when the
// weights of the children met reach threshold. Limits are not checked here but
// by FromDetails.
func ThresholdDetails(threshold int, children ...WeightedDetails) canonical.Value {
	bits := uint32(bitsThreshold)
	list := make([]canonical.Value, len(children))
	for i, c := range children {
		b, _ := numberField(c.Details, "bitmask")
		bits |= uint32(b)
		list[i] = c.Details.With(fieldWeight, canonical.IntOf(int64(c.Weight)))
	}
	return fulfillmentDetails(TypeThreshold, bits,
		canonical.Member{Key: "subfulfillments", Value: canonical.ArrayOf(list...)},
		canonical.Member{Key: "threshold", Value: canonical.IntOf(int64(threshold))})
}

// fulfillmentDetails takes the members between bitmask and type, in order.
func fulfillmentDetails(typ Type, bits uint32, more ...canonical.Member) canonical.Value {
	members := make([]canonical.Member, 0, len(more)+3)
	members = append(members, canonical.Member{Key: "bitmask", Value: canonical.IntOf(int64(bits))})
	members = append(members, more...)
	return canonical.ObjectOf(append(members,
		canonical.Member{Key: "type", Value: canonical.StringOf("fulfillment")},
		canonical.Member{Key: "type_id", Value: canonical.IntOf(int64(typ))})...)
}

// Sign makes a fulfillment of details for message with the private keys given,
// by base58 public key. In a threshold every child that the keys suffice for
// is fulfilled and the others stand as conditions, so a result for the
// outermost threshold may still fall short of it: see Valid. Sign fails like
// FromDetails, and with ErrNoKey when the details as a whole are one key that
// is not there, or a bare condition.
func Sign(details canonical.Value, message []byte, keys map[string]ed25519.PrivateKey) (*Fulfillment, error) {
	if _, err := FromDetails(details, NewBudget()); err != nil {
		return nil, err
	}
	s := signer{message: message, keys: keys}
	f, _, err := s.sign(details)
	if err == nil && f == nil {
		err = ErrNoKey
	}
	return f, err
}

type signer struct {
	message []byte
	keys    map[string]ed25519.PrivateKey
}

// sign returns the fulfillment of details that FromDetails accepts, nil if
// there is none, and whether the keys suffice for it.
func (s *signer) sign(details canonical.Value) (*Fulfillment, bool, error) {
	if form, _ := textField(details, "type"); form == "condition" {
		return nil, false, nil
	}
	switch typ, _ := numberField(details, "type_id"); Type(typ) {
	case TypePreimage:
		text, _ := textField(details, "preimage")
		return NewPreimage([]byte(text)), true, nil
	case TypeEd25519:
		public, _ := keyField(details, "public_key")
		private, found := s.keys[field(details, "public_key").Text()]
		if !found {
			return nil, false, nil
		}
		return NewEd25519(public, ed25519.Sign(private, s.message)), true, nil
	}
	threshold, _ := numberField(details, "threshold")
	list := field(details, "subfulfillments")
	children := make([]Child, list.Len())
	reached := 0
	for i := range children {
		item := list.At(i)
		weight, _ := numberField(item, fieldWeight)
		children[i].Weight = weight
		f, enough, err := s.sign(item)
		if err != nil {
			return nil, false, err
		}
		if enough {
			children[i].Fulfillment = f
			reached += weight
			continue
		}
		if children[i].Condition, err = FromDetails(item.Without(fieldWeight), NewBudget()); err != nil {
			return nil, false, err
		}
	}
	f, err := NewThreshold(threshold, children...)
	return f, reached >= threshold, err
}
