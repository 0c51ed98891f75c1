package cryptoconditions

import (
	"errors"
	"testing"
)

func TestHotPathAllocations(t *testing.T) {
	details := vectors(t)[0].transaction
	out := at(t, details, "outputs").At(0)
	d, uri := at(t, out, "condition", "details"), at(t, out, "condition", "uri").Text()
	budget := NewBudget()
	if n := testing.AllocsPerRun(100, func() {
		if c, err := FromDetails(d, budget); err != nil || !c.HasURI(uri) {
			t.Fatal(c, err)
		}
	}); n > 2 { // both in base58
		t.Errorf("a condition from details: %v allocations", n)
	}
	message := []byte("message")
	if n := testing.AllocsPerRun(100, func() {
		f, err := ParseFulfillment(goodFulfillment)
		if err != nil || f.Valid(message) {
			t.Fatal(f, err)
		}
		if c, err := f.Condition(); err != nil || !c.HasURI(goodCondition) {
			t.Fatal(c, err)
		}
	}); n > 4 {
		t.Errorf("an Ed25519 fulfillment: %v allocations", n)
	}
}

func BenchmarkFromDetailsEd25519(b *testing.B) {
	out := at(b, vectors(b)[0].transaction, "outputs").At(0)
	d, uri := at(b, out, "condition", "details"), at(b, out, "condition", "uri").Text()
	b.ReportAllocs()
	for b.Loop() {
		if c, err := FromDetails(d, NewBudget()); err != nil || !c.HasURI(uri) {
			b.Fatal(c, err)
		}
	}
}

func BenchmarkFromDetails2of3(b *testing.B) {
	d := flat(2, 3)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := FromDetails(d, NewBudget()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFromDetails300of1000(b *testing.B) {
	d := flat(300, MaxChildren)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := FromDetails(d, NewBudget()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFromDetailsHostile uses a whole budget up.
func BenchmarkFromDetailsHostile(b *testing.B) {
	d := hostile(31)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := FromDetails(d, NewBudget()); !errors.Is(err, ErrTooComplex) {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseEd25519(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		f, err := ParseFulfillment(goodFulfillment)
		if err != nil {
			b.Fatal(err)
		}
		if c, err := f.Condition(); err != nil || !c.HasURI(goodCondition) {
			b.Fatal(c, err)
		}
	}
}

func BenchmarkParseAndValidateEd25519(b *testing.B) {
	message := make([]byte, 700)
	b.ReportAllocs()
	for b.Loop() {
		f, err := ParseFulfillment(goodFulfillment)
		if err != nil || f.Valid(message) {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseAndValidate2of2(b *testing.B) {
	message := make([]byte, 700)
	f, err := Sign(flat(2, 2), message, testKeys(1))
	if err != nil {
		b.Fatal(err)
	}
	uri := f.URI()
	b.ReportAllocs()
	for b.Loop() {
		f, err := ParseFulfillment(uri)
		if err != nil || !f.Valid(message) {
			b.Fatal(err)
		}
	}
}
