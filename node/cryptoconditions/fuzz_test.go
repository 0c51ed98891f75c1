package cryptoconditions

import (
	"errors"
	"testing"

	"github.com/couchledger/couchledger/canonical"
)

func seedURIs(f *testing.F) {
	for _, s := range []string{"", "cf:0:", "cf:0:YQ", "cf:2:AQEBAQEBBAAAAWEA", "cc:2:2b:", goodCondition, goodFulfillment} {
		f.Add(s)
	}
	for _, v := range vectors(f) {
		for _, in := range each(at(f, v.transaction, "inputs")) {
			f.Add(at(f, in, "fulfillment").Text())
		}
		for _, out := range each(at(f, v.transaction, "outputs")) {
			f.Add(at(f, out, "condition", "uri").Text())
		}
	}
}

// Whatever is accepted encodes back to the same text, and its condition can be
// derived within the limits or is refused as too complex.
func FuzzParseFulfillment(f *testing.F) {
	seedURIs(f)
	f.Fuzz(func(t *testing.T, uri string) {
		parsed, err := ParseFulfillment(uri)
		if err != nil {
			if !errors.Is(err, ErrFulfillment) && !errors.Is(err, ErrTooComplex) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		if parsed.URI() != uri {
			t.Fatalf("%q encodes as %q", uri, parsed.URI())
		}
		parsed.Valid([]byte("message"))
		c, err := parsed.Condition()
		if err != nil {
			if !errors.Is(err, ErrTooComplex) {
				t.Fatalf("%q: %v", uri, err)
			}
			return
		}
		if back, err := ParseCondition(c.URI()); err != nil || back != c {
			t.Fatalf("%q: its condition %s reads as %+v, %v", uri, c.URI(), back, err)
		}
	})
}

func FuzzParseCondition(f *testing.F) {
	seedURIs(f)
	f.Fuzz(func(t *testing.T, uri string) {
		if c, err := ParseCondition(uri); err == nil {
			if c.URI() != uri {
				t.Fatalf("%q encodes as %q", uri, c.URI())
			}
			if back, err := ParseConditionBinary(c.AppendBinary(nil)); err != nil || back != c {
				t.Fatalf("%q: binary form reads as %+v, %v", uri, back, err)
			}
		} else if !errors.Is(err, ErrCondition) {
			t.Fatalf("error of no class: %v", err)
		}
		if c, err := ParseConditionBinary([]byte(uri)); err == nil && string(c.AppendBinary(nil)) != uri {
			t.Fatalf("%x encodes as %x", uri, c.AppendBinary(nil))
		}
	})
}

// Details are refused with one of two classes, or give a condition that can be
// written and that their own fulfillment meets.
func FuzzFromDetails(f *testing.F) {
	for _, v := range vectors(f) {
		for _, out := range each(at(f, v.transaction, "outputs")) {
			f.Add(at(f, out, "condition", "details").Bytes())
		}
	}
	for _, v := range each(at(f, readJSON(f, "testdata/conditions.json"), "conditions")) {
		f.Add(at(f, v, "details").Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		details, err := canonical.Parse(data)
		if err != nil {
			return
		}
		c, err := FromDetails(details, NewBudget())
		if err != nil {
			if !errors.Is(err, ErrDetails) && !errors.Is(err, ErrTooComplex) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		if back, err := ParseCondition(c.URI()); err != nil || back != c {
			t.Fatalf("%s reads as %+v, %v", c.URI(), back, err)
		}
		signed, err := Sign(details, []byte("message"), testKeys(keyCount))
		if err != nil {
			if !errors.Is(err, ErrNoKey) {
				t.Fatal(err)
			}
			return
		}
		if met, err := signed.Condition(); err != nil || met != c {
			t.Fatalf("the fulfillment meets %+v, %v; want %+v", met, err, c)
		}
		if _, err := ParseFulfillment(signed.URI()); err != nil {
			t.Fatal(err)
		}
	})
}
