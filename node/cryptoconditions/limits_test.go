package cryptoconditions

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
)

// nested returns details of depth thresholds inside each other.
func nested(depth int) canonical.Value {
	public, _ := testKey(0)
	details := Ed25519Details(public)
	for range depth {
		details = ThresholdDetails(1, WeightedDetails{1, details})
	}
	return details
}

// flat returns a threshold over n children that are alike.
func flat(threshold, n int) canonical.Value {
	public, _ := testKey(0)
	owner := WeightedDetails{1, Ed25519Details(public)}
	one := ThresholdDetails(threshold, owner)
	list := slices.Repeat([]canonical.Value{field(one, "subfulfillments").At(0)}, n)
	return one.With("subfulfillments", canonical.ArrayOf(list...))
}

// Nodes vote by these numbers: a change of one is a change of the rule.
func TestLimitsAreTheRule(t *testing.T) {
	got := [...]int{MaxDepth, MaxChildren, MaxWeight, MaxFulfillmentLength, MaxPayload, MaxSteps}
	if want := [...]int{8, 1000, 2147483647, 65535, 131072, 262144}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	// So is what a step is. Of weights 1, 2, 4 and 8, for 8 every remaining
	// threshold stays open to the end; for 12 those above 8 close before the last.
	for threshold, want := range map[int64]int{8: 1 + 2 + 4 + 8, 12: 1 + 2 + 4 + 4, 15: 1 + 1 + 1 + 1} {
		budget := NewBudget()
		_, err := FromDetails(hostile(4).With("threshold", canonical.IntOf(threshold)), budget)
		if got := MaxSteps - budget.steps; err != nil || got != want {
			t.Errorf("threshold %d: %d steps, %v; want %d", threshold, got, err, want)
		}
	}
}

func TestDetailsLimits(t *testing.T) {
	million := flat(1, 1_000_000)
	half := WeightedDetails{1, flat(1, MaxChildren/2-1)}
	more := WeightedDetails{1, flat(1, MaxChildren/2)}
	long := PreimageDetails(strings.Repeat("x", MaxFulfillmentLength))
	for _, c := range []struct {
		name    string
		details canonical.Value
		want    error
	}{
		{"deepest", nested(MaxDepth), nil},
		{"one deeper", nested(MaxDepth + 1), ErrTooComplex},
		{"100,000 deep", nested(100_000), ErrTooComplex},
		{"most children", flat(1, MaxChildren), nil},
		{"one child more", flat(1, MaxChildren+1), ErrTooComplex},
		{"a million children", million, ErrTooComplex},
		{"most children in two levels", ThresholdDetails(1, half, half), nil},
		{"one child more in two levels", ThresholdDetails(1, half, more), ErrTooComplex},
		{"600 of 600", flat(600, 600), nil},
		{"max length beyond the limit", flat(700, 700), ErrTooComplex},
		{"longest preimage", long, nil},
		{"longer preimage", PreimageDetails(strings.Repeat("x", MaxFulfillmentLength+1)), ErrTooComplex},
		{"longest preimage in a threshold", ThresholdDetails(1, WeightedDetails{1, long}), ErrTooComplex},
	} {
		start := time.Now()
		_, err := FromDetails(c.details, NewBudget())
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("%s: took %v", c.name, took)
		}
	}
	var err error
	if n := testing.AllocsPerRun(1, func() { _, err = FromDetails(million, NewBudget()) }); n > 10 {
		t.Errorf("a million children: %v allocations before %v", n, err)
	}
}

func TestFulfillmentLimits(t *testing.T) {
	// deep wraps the preimage "a" into thresholds as long as the payload may be.
	deep := func(levels int) string {
		payload := []byte{'a'}
		for level := range levels {
			typ := TypeThreshold
			if level == 0 {
				typ = TypePreimage
			}
			child := appendVarBytes([]byte{0, byte(typ)}, payload)
			payload = append(appendVarBytes([]byte{1, 1, 1, 1, 1, 1}, child), 0)
		}
		return "cf:2:" + base64.RawURLEncoding.EncodeToString(payload)
	}
	wide := func(n int) string {
		payload := appendVarUint([]byte{1, 1}, uint64(n))
		for range n {
			payload = append(payload, 1, 1, 3, 0, 0, 0, 0)
		}
		return "cf:2:" + base64.RawURLEncoding.EncodeToString(payload)
	}
	for _, c := range []struct {
		name string
		uri  string
		want error
	}{
		{"deepest", deep(MaxDepth), nil},
		{"one deeper", deep(MaxDepth + 1), ErrTooComplex},
		{"2,000 deep", deep(2000), ErrTooComplex},
		{"most children", wide(MaxChildren), nil},
		{"one child more", wide(MaxChildren + 1), ErrTooComplex},
		{"18,000 children", wide(18_000), ErrTooComplex},
		{"a million children", wide(1_000_000), ErrTooComplex},
		{"four thousand million children, not there", "cf:2:AQEE_____w", ErrTooComplex},
		{"longest preimage", "cf:0:" + strings.Repeat("A", 87380), nil},
		{"longer preimage", "cf:0:" + strings.Repeat("A", 87384), ErrTooComplex},
		{"megabytes", "cf:4:" + strings.Repeat("A", 1<<23), ErrTooComplex},
	} {
		start := time.Now()
		f, err := ParseFulfillment(c.uri)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if err == nil && f.URI() != c.uri {
			t.Errorf("%s: encodes differently", c.name)
		}
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("%s: took %v", c.name, took)
		}
	}
}

func TestNewThresholdLimits(t *testing.T) {
	leaf := Child{Weight: 1, Fulfillment: NewPreimage(nil)}
	f := leaf.Fulfillment
	var err error
	for depth := 1; depth <= MaxDepth; depth++ {
		if f, err = NewThreshold(1, Child{Weight: 1, Fulfillment: f}); err != nil {
			t.Fatalf("depth %d: %v", depth, err)
		}
	}
	if _, err = NewThreshold(1, Child{Weight: 1, Fulfillment: f}); !errors.Is(err, ErrTooComplex) {
		t.Errorf("too deep: %v", err)
	}
	if _, err = NewThreshold(1, make([]Child, MaxChildren+1)...); !errors.Is(err, ErrTooComplex) {
		t.Errorf("too many: %v", err)
	}
	for name, try := range map[string]func() (*Fulfillment, error){
		"no children":        func() (*Fulfillment, error) { return NewThreshold(1) },
		"threshold 0":        func() (*Fulfillment, error) { return NewThreshold(0, leaf) },
		"negative threshold": func() (*Fulfillment, error) { return NewThreshold(-1, leaf) },
		"above the weights":  func() (*Fulfillment, error) { return NewThreshold(2, leaf) },
		"weight 0":           func() (*Fulfillment, error) { return NewThreshold(1, leaf, Child{Fulfillment: leaf.Fulfillment}) },
		"negative weight":    func() (*Fulfillment, error) { return NewThreshold(1, leaf, Child{Weight: -1}) },
		"threshold too large": func() (*Fulfillment, error) {
			half := Child{Weight: MaxWeight}
			return NewThreshold(MaxWeight+1, half, half)
		},
		"weight too large": func() (*Fulfillment, error) { return NewThreshold(1, Child{Weight: MaxWeight + 1}) },
	} {
		if _, err := try(); !errors.Is(err, ErrFulfillment) {
			t.Errorf("%s: got %v, want ErrFulfillment", name, err)
		}
	}
}

// hostile returns a threshold whose recursion has no two paths alike: the
// weights are powers of two and the gains differ.
func hostile(n int) canonical.Value {
	public, _ := testKey(0)
	children := make([]WeightedDetails, n)
	for i := range children {
		children[i] = WeightedDetails{1 << i, Ed25519Details(public)}
	}
	children[0].Details = PreimageDetails("")
	return ThresholdDetails(1<<(n-1), children...)
}

func TestBudgetIsShared(t *testing.T) {
	if _, err := FromDetails(hostile(12), NewBudget()); err != nil {
		t.Fatalf("12 children: %v", err)
	}
	if _, err := FromDetails(hostile(30), NewBudget()); !errors.Is(err, ErrTooComplex) {
		t.Fatalf("30 children: got %v, want ErrTooComplex", err)
	}
	budget, small := NewBudget(), hostile(12)
	derived := 0
	for ; derived < 10_000; derived++ {
		if _, err := FromDetails(small, budget); err != nil {
			break
		}
	}
	if derived < 20 || derived == 10_000 {
		t.Errorf("one budget was enough for %d thresholds", derived)
	}
	if _, err := FromDetails(nested(1), budget); err != nil {
		t.Errorf("a plain threshold after that: %v", err)
	}
	if _, err := FromDetails(small, budget); !errors.Is(err, ErrTooComplex) {
		t.Errorf("a hostile one after that: %v", err)
	}
}

// Owners with plain keys never cost budget, whatever their weights.
func TestPlainOwnersCostNothing(t *testing.T) {
	public, _ := testKey(0)
	children := make([]WeightedDetails, 500)
	for i := range children {
		children[i] = WeightedDetails{MaxWeight - i*i, Ed25519Details(public)}
	}
	budget := &Budget{}
	if _, err := FromDetails(ThresholdDetails(MaxWeight, children...), budget); err != nil {
		t.Errorf("500 weighted owners: %v", err)
	}
	if _, err := FromDetails(flat(300, 1000), budget); err != nil {
		t.Errorf("300 of 1000 owners: %v", err)
	}
}

// What FromDetails accepts can be spent, also when everybody signs.
func TestWidestConditionCanBeSpent(t *testing.T) {
	message := []byte("message")
	details := flat(300, MaxChildren)
	f, err := Sign(details, message, testKeys(1))
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseFulfillment(f.URI())
	if err != nil {
		t.Fatal(err)
	}
	want, err := FromDetails(details, NewBudget())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := back.Condition(); err != nil || got != want {
		t.Errorf("fulfills %+v, %v; want %+v", got, err, want)
	}
}

// Verification stops once the outcome is certain: the children that need not
// be looked at have keys on which crypto/ed25519 panics.
func TestValidStopsEarly(t *testing.T) {
	message := []byte("message")
	_, private := testKey(0)
	good := NewEd25519(private.Public().(ed25519.PublicKey), ed25519.Sign(private, message))
	bad := NewEd25519(private.Public().(ed25519.PublicKey), make([]byte, ed25519.SignatureSize))
	poison := &Fulfillment{typ: TypeEd25519}
	unmet := Child{Weight: 5}
	for _, c := range []struct {
		name      string
		threshold int
		children  []Child
		want      bool
	}{
		{"reached", 1, []Child{{1, good, Condition{}}, {1, poison, Condition{}}}, true},
		{"reached by the heavier", 3, []Child{{3, good, Condition{}}, {1, poison, Condition{}}}, true},
		{"out of reach", 2, []Child{{1, bad, Condition{}}, {1, poison, Condition{}}}, false},
		{"out of reach from the start", 4, []Child{{3, poison, Condition{}}, unmet}, false},
		{"conditions do not count", 2, []Child{{1, good, Condition{}}, unmet}, false},
	} {
		f, err := NewThreshold(c.threshold, c.children...)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Valid(message); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// A nested threshold that the keys do not suffice for stands as a condition.
func TestSignLeavesOutWhatIsShort(t *testing.T) {
	a, privateA := testKey(0)
	b, _ := testKey(1)
	pair := ThresholdDetails(2, WeightedDetails{1, Ed25519Details(a)}, WeightedDetails{1, Ed25519Details(b)})
	either := ThresholdDetails(1, WeightedDetails{1, pair}, WeightedDetails{1, Ed25519Details(a)})
	f, err := Sign(either, []byte("message"), map[string]ed25519.PrivateKey{a: privateA})
	if err != nil || !f.Valid([]byte("message")) {
		t.Fatal(f, err)
	}
	want, err := FromDetails(pair, NewBudget())
	if err != nil || f.children[0].Fulfillment != nil || f.children[0].Condition != want {
		t.Errorf("got %+v, %v; want the condition %+v", f.children[0], err, want)
	}
}

func TestSignNeedsAKey(t *testing.T) {
	public, _ := testKey(0)
	c, err := FromDetails(Ed25519Details(public), NewBudget())
	if err != nil {
		t.Fatal(err)
	}
	for name, details := range map[string]canonical.Value{
		"no key": Ed25519Details(public), "bare condition": ConditionDetails(c),
	} {
		if f, err := Sign(details, nil, nil); err != ErrNoKey || f != nil {
			t.Errorf("%s: got %v, %v; want ErrNoKey", name, f, err)
		}
	}
	if _, err := Sign(canonical.Value{}, nil, nil); !errors.Is(err, ErrDetails) {
		t.Errorf("null details: %v", err)
	}
}
