package cryptoconditions

import (
	"crypto/ed25519"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mr-tron/base58"
	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
)

// testKey is the i-th of a fixed row of key pairs.
func testKey(i int) (string, ed25519.PrivateKey) {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = byte(i)
	private := ed25519.NewKeyFromSeed(seed)
	return base58.Encode(private.Public().(ed25519.PublicKey)), private
}

func testKeys(n int) map[string]ed25519.PrivateKey {
	keys := map[string]ed25519.PrivateKey{}
	for i := range n {
		public, private := testKey(i)
		keys[public] = private
	}
	return keys
}

const keyCount = 6

func drawWeight(t *rapid.T) int {
	return rapid.OneOf(rapid.IntRange(1, 3), rapid.SampledFrom([]int{127, 128, 255, 256, 70000, MaxWeight})).
		Draw(t, "weight")
}

// drawDetails draws details with at most depth thresholds inside each other.
func drawDetails(t *rapid.T, depth int) canonical.Value {
	kind := rapid.IntRange(0, 9).Draw(t, "kind")
	switch {
	case depth > 0 && kind >= 5:
		children := make([]WeightedDetails, rapid.IntRange(1, 5).Draw(t, "children"))
		sum := 0
		for i := range children {
			children[i] = WeightedDetails{drawWeight(t), drawDetails(t, depth-1)}
			sum += children[i].Weight
		}
		return ThresholdDetails(rapid.IntRange(1, min(sum, MaxWeight)).Draw(t, "threshold"), children...)
	case kind == 0:
		return PreimageDetails(rapid.StringN(0, 300, -1).Draw(t, "preimage"))
	case kind == 1:
		var c Condition
		copy(c.Hash[:], rapid.SliceOfN(rapid.Byte(), HashSize, HashSize).Draw(t, "hash"))
		c.Type = rapid.SampledFrom([]Type{TypePreimage, TypeThreshold, TypeEd25519}).Draw(t, "type")
		switch c.Type {
		case TypePreimage:
			c.Bits, c.MaxLength = bitsPreimage, rapid.IntRange(0, 5000).Draw(t, "length")
		case TypeThreshold:
			c.Bits, c.MaxLength = bitsAll, rapid.IntRange(0, 5000).Draw(t, "length")
		case TypeEd25519:
			c.Bits, c.MaxLength = bitsEd25519, ed25519Length
		}
		return ConditionDetails(c)
	}
	public, _ := testKey(rapid.IntRange(0, keyCount-1).Draw(t, "key"))
	return Ed25519Details(public)
}

func TestConditionsEncodeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		details := drawDetails(t, 3)
		c, err := FromDetails(details, NewBudget())
		if err != nil {
			t.Fatalf("%s: %v", details.Bytes(), err)
		}
		if back, err := ParseCondition(c.URI()); err != nil || back != c {
			t.Fatalf("URI %s: got %+v, %v; want %+v", c.URI(), back, err, c)
		}
		binary := c.AppendBinary(nil)
		if back, err := ParseConditionBinary(binary); err != nil || back != c {
			t.Fatalf("binary %x: got %+v, %v; want %+v", binary, back, err, c)
		}
		if len(binary) != c.binarySize() {
			t.Fatalf("binarySize is %d, want %d", c.binarySize(), len(binary))
		}
		if back, err := FromDetails(ConditionDetails(c), NewBudget()); err != nil || back != c {
			t.Fatalf("bare details: got %+v, %v; want %+v", back, err, c)
		}
	})
}

// met is the plain reading of the rule, for comparison with Valid.
func met(details canonical.Value, keys map[string]ed25519.PrivateKey) bool {
	form, _ := textField(details, "type")
	typ, _ := numberField(details, "type_id")
	switch {
	case form == "condition":
		return false
	case Type(typ) == TypePreimage:
		return true
	case Type(typ) == TypeEd25519:
		return keys[field(details, "public_key").Text()] != nil
	}
	sum := 0
	for _, child := range each(field(details, "subfulfillments")) {
		if met(child, keys) {
			weight, _ := numberField(child, fieldWeight)
			sum += weight
		}
	}
	threshold, _ := numberField(details, "threshold")
	return sum >= threshold
}

func TestFulfillmentsEncodeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		details := drawDetails(t, 3)
		message := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "message")
		keys := map[string]ed25519.PrivateKey{}
		for i := range keyCount {
			if rapid.Bool().Draw(t, "has key") {
				public, private := testKey(i)
				keys[public] = private
			}
		}
		f, err := Sign(details, message, keys)
		if err == ErrNoKey {
			if field(details, "type_id").Text() == "2" && field(details, "type").Text() == "fulfillment" {
				t.Fatal("no fulfillment of a threshold")
			}
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", details.Bytes(), err)
		}
		uri := f.URI()
		back, err := ParseFulfillment(uri)
		if err != nil || back.URI() != uri {
			t.Fatalf("%s: %v", uri, err)
		}
		want, err := FromDetails(details, NewBudget())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []*Fulfillment{f, back} {
			if got, err := f.Condition(); err != nil || got != want {
				t.Fatalf("%s fulfills %+v, %v; want %+v", uri, got, err, want)
			}
			if got, want := f.Valid(message), met(details, keys); got != want {
				t.Fatalf("%s: valid is %v, want %v", uri, got, want)
			}
		}
	})
}

// naiveGain is the recursion as the draft has it.
func naiveGain(threshold int, parts []part) int {
	if threshold <= 0 {
		return 0
	}
	if len(parts) == 0 {
		return minInt
	}
	p := parts[0]
	return max(p.gain+naiveGain(threshold-p.weight, parts[1:]), naiveGain(threshold, parts[1:]))
}

func TestMaxGainIsTheRecursion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.SampledFrom([]int{1, 2, 5, 1000, MaxWeight}).Draw(t, "most")
		gains := rapid.SampledFrom([][2]int{{60, 60}, {-9, -9}, {0, 0}, {-40, 60}, {0, 60000}}).Draw(t, "gains")
		parts := make([]part, rapid.IntRange(1, 11).Draw(t, "parts"))
		sum := 0
		for i := range parts {
			parts[i] = part{rapid.IntRange(1, most).Draw(t, "weight"), rapid.IntRange(gains[0], gains[1]).Draw(t, "gain")}
			sum += parts[i].weight
		}
		threshold := rapid.IntRange(1, sum).Draw(t, "threshold")
		budget, shuffledBudget := NewBudget(), NewBudget()
		shuffled := make([]part, len(parts))
		for i, j := range rand.Perm(len(parts)) {
			shuffled[i] = parts[j]
		}

		got, err := maxGain(threshold, parts, budget) // sorts parts by weight, as the recursion wants them
		if last := parts[len(parts)-1]; parts[0].weight > last.weight {
			slices.Reverse(parts)
		}
		if want := naiveGain(threshold, parts); err != nil || got != want {
			t.Fatalf("maxGain(%d, %v) = %d, %v; want %d", threshold, parts, got, err, want)
		}
		if again, err := maxGain(threshold, shuffled, shuffledBudget); err != nil || again != got {
			t.Fatalf("in another order: %d, %v; want %d", again, err, got)
		}
		if *budget != *shuffledBudget {
			t.Fatalf("the order changes the cost: %d and %d steps left", budget.steps, shuffledBudget.steps)
		}
	})
}

// A verdict does not depend on the order in which children are looked at.
func TestValidIsFreeOfOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		message := []byte("message")
		children := make([]Child, rapid.IntRange(1, 8).Draw(t, "children"))
		sum, good := 0, 0
		for i := range children {
			weight := rapid.IntRange(1, 5).Draw(t, "weight")
			_, private := testKey(i)
			signature := ed25519.Sign(private, message)
			isGood := rapid.Bool().Draw(t, "good")
			if !isGood {
				signature[3] ^= 1
			} else {
				good += weight
			}
			children[i] = Child{Weight: weight, Fulfillment: NewEd25519(private.Public().(ed25519.PublicKey), signature)}
			sum += weight
		}
		threshold := rapid.IntRange(1, sum).Draw(t, "threshold")
		for range 3 {
			f, err := NewThreshold(threshold, rapid.Permutation(children).Draw(t, "order")...)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := f.Valid(message), good >= threshold; got != want {
				t.Fatalf("valid is %v with weight %d of %d", got, good, threshold)
			}
		}
	})
}

func TestSizesMatchEncodings(t *testing.T) {
	for _, v := range []uint64{0, 1, 127, 128, 255, 256, 65535, 65536, math.MaxInt32, math.MaxUint32} {
		b := appendVarUint(nil, v)
		r := reader{rest: b}
		if got := r.varUint(); got != v || !r.ok() || len(b) != varUintSize(v) {
			t.Errorf("varuint %d: %x reads as %d", v, b, got)
		}
	}
	for _, n := range []int{0, 1, 127, 128, 255, 256, 65535, 65536} {
		b := appendVarBytes(nil, make([]byte, n))
		r := reader{rest: b}
		if got := r.varBytes(); len(got) != n || !r.ok() || len(b) != varBytesSize(n) {
			t.Errorf("varbytes of %d bytes: read %d", n, len(got))
		}
	}
}

func TestReaderTakesTheShortestFormOnly(t *testing.T) {
	body := make([]byte, 300)
	for name, b := range map[string][]byte{
		"number of no bytes":         {0},
		"number with a zero":         {2, 0, 1},
		"two zeros":                  {2, 0, 0},
		"number of five bytes":       {5, 1, 0, 0, 0, 0},
		"number that is not there":   {1},
		"nothing":                    {},
		"number that overflows":      {9, 1, 0, 0, 0, 0, 0, 0, 0, 7},
		"number of 127 missing ones": {127},
	} {
		r := reader{rest: b}
		if v := r.varUint(); r.ok() {
			t.Errorf("%s reads as %d", name, v)
		}
	}
	for name, b := range map[string][]byte{
		"127 bytes in the long form":   append([]byte{0x81, 127}, body[:127]...),
		"200 bytes with a zero":        append([]byte{0x82, 0, 200}, body[:200]...),
		"length that overflows":        append([]byte{0x89, 1, 0, 0, 0, 0, 0, 0, 0, 200}, body[:200]...),
		"length of no bytes":           {0x80},
		"length of 127 bytes":          append([]byte{0xff}, body...),
		"more than there is":           append([]byte{0x81, 201}, body[:200]...),
		"more than there is, in short": {2, 0},
		"nothing":                      {},
	} {
		r := reader{rest: b}
		if v := r.varBytes(); r.ok() {
			t.Errorf("%s reads as %d bytes", name, len(v))
		}
	}
}
