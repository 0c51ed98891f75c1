package cryptoconditions

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
)

const (
	goodCondition   = "cc:4:20:MTmLrdyfhfxPw3WxnaYaQkPmU1GcEzg9mAj_O_Nuv5w:96"
	goodFulfillment = "cf:4:MTmLrdyfhfxPw3WxnaYaQkPmU1GcEzg9mAj_O_Nuv5waJ_J9gSpMu3q4p4VdDO8BMroPZTaI01B2eWbvR59_yr-WZOjxVDfmrtLGSfiqsYEPdaeTS3KAMZ2Mt_jv8AMH"
)

func TestParseConditionRefuses(t *testing.T) {
	if _, err := ParseCondition(goodCondition); err != nil {
		t.Fatal(err)
	}
	hash := "MTmLrdyfhfxPw3WxnaYaQkPmU1GcEzg9mAj_O_Nuv5w"
	for name, uri := range map[string]string{
		"empty":                      "",
		"another scheme":             "cf" + goodCondition[2:],
		"upper-case scheme":          "CC" + goodCondition[2:],
		"missing length":             "cc:4:20:" + hash,
		"fifth field":                goodCondition + ":1",
		"leading zero in the type":   "cc:04:20:" + hash + ":96",
		"plus before the type":       "cc:+4:20:" + hash + ":96",
		"leading zero in the bits":   "cc:4:020:" + hash + ":96",
		"upper-case bits":            "cc:2:2B:" + hash + ":200",
		"underscore in the bits":     "cc:4:2_0:" + hash + ":96",
		"leading zero in the length": "cc:4:20:" + hash + ":096",
		"plus before the length":     "cc:4:20:" + hash + ":+96",
		"hex length":                 "cc:4:20:" + hash + ":0x60",
		"space":                      goodCondition + " ",
		"padding":                    "cc:4:20:" + hash + "=:96",
		"standard base64":            "cc:4:20:" + strings.Replace(hash, "_", "/", 1) + ":96",
		"trailing bits":              "cc:4:20:" + hash[:42] + "x:96",
		"line break":                 "cc:4:20:" + hash[:20] + "\n" + hash[20:] + ":96",
		"hash of 31 bytes":           "cc:4:20:" + hash[:42] + ":96",
		"hash of 33 bytes":           "cc:4:20:" + hash + "A:96",
		"no hash":                    "cc:0:3::10",
		"unsupported type":           "cc:1:20:" + hash + ":96",
		"type beyond 16 bits":        "cc:10004:20:" + hash + ":96",
		"bits of another type":       "cc:4:3:" + hash + ":96",
		"unsupported bits":           "cc:2:3d:" + hash + ":96",
		"threshold without its bits": "cc:2:20:" + hash + ":200",
		"Ed25519 of another length":  "cc:4:20:" + hash + ":97",
		"length beyond the limit":    "cc:0:3:" + hash + ":65536",
		"huge length":                "cc:0:3:" + hash + ":99999999999999999999",
		"megabytes":                  goodCondition + strings.Repeat("0", 1<<22),
	} {
		if c, err := ParseCondition(uri); len(uri) > 1000 && !strings.Contains(err.Error(), "too long") {
			t.Errorf("%s: was looked at: %v", name, err)
		} else if !errors.Is(err, ErrCondition) {
			t.Errorf("%s: got %+v, %v; want ErrCondition", name, c, err)
		} else if len(err.Error()) > 120 {
			t.Errorf("%s: message of %d bytes", name, len(err.Error()))
		}
	}
}

func TestParseConditionBinaryRefuses(t *testing.T) {
	c, err := ParseCondition(goodCondition)
	if err != nil {
		t.Fatal(err)
	}
	good := c.AppendBinary(nil)
	hash := good[5:37]
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	if !bytes.Equal(good, join([]byte{0, 4, 1, 0x20, 32}, hash, []byte{1, 96})) {
		t.Fatalf("got %x", good)
	}
	for name, b := range map[string][]byte{
		"empty":                nil,
		"cut short":            good[:len(good)-1],
		"trailing byte":        append(bytes.Clone(good), 0),
		"bits with a zero":     join([]byte{0, 4, 2, 0, 0x20, 32}, hash, []byte{1, 96}),
		"length with a zero":   join([]byte{0, 4, 1, 0x20, 32}, hash, []byte{2, 0, 96}),
		"empty number":         join([]byte{0, 4, 0, 32}, hash, []byte{1, 96}),
		"long form of a short": join([]byte{0, 4, 1, 0x20, 0x81, 32}, hash, []byte{1, 96}),
		"indefinite length":    join([]byte{0, 4, 1, 0x20, 0x80}, hash, []byte{1, 96}),
		"length of 5 bytes":    join([]byte{0, 4, 1, 0x20, 0x85, 1, 0, 0, 0, 0}, hash, []byte{1, 96}),
		"hash of 31 bytes":     join([]byte{0, 4, 1, 0x20, 31}, hash[1:], []byte{1, 96}),
		"unsupported type":     join([]byte{1, 4, 1, 0x20, 32}, hash, []byte{1, 96}),
		"bits beyond 32":       join([]byte{0, 4, 5, 1, 0, 0, 0, 0x20, 32}, hash, []byte{1, 96}),
	} {
		if c, err := ParseConditionBinary(b); !errors.Is(err, ErrCondition) {
			t.Errorf("%s: got %+v, %v; want ErrCondition", name, c, err)
		}
	}
}

// thresholdURI makes a fulfillment of raw children, in the order given.
func thresholdURI(threshold, count byte, children ...[]byte) string {
	payload := append([]byte{1, threshold, 1, count}, bytes.Join(children, nil)...)
	return "cf:2:" + base64.RawURLEncoding.EncodeToString(payload)
}

func TestParseFulfillmentRefuses(t *testing.T) {
	// Two children that fulfill with the preimages "a" and "b", and one that does not.
	a := []byte{1, 1, 4, 0, 0, 1, 'a', 0}
	b := []byte{1, 1, 4, 0, 0, 1, 'b', 0}
	c, err := ParseCondition(goodCondition)
	if err != nil {
		t.Fatal(err)
	}
	open := appendVarBytes([]byte{1, 1, 0}, c.AppendBinary(nil))
	for name, uri := range map[string]string{
		"Ed25519":    goodFulfillment,
		"preimage":   "cf:0:YQ",
		"empty":      "cf:0:",
		"both":       thresholdURI(2, 2, a, b),
		"twice one":  thresholdURI(2, 2, a, a),
		"one unmet":  thresholdURI(1, 2, a, open),
		"all unmet":  thresholdURI(1, 1, open),
		"one of one": thresholdURI(1, 1, a),
	} {
		f, err := ParseFulfillment(uri)
		if err != nil || f.URI() != uri {
			t.Errorf("%s: %s was refused or changed: %v", name, uri, err)
		}
	}
	payload := goodFulfillment[5:]
	for name, uri := range map[string]string{
		"empty":                   "",
		"scheme only":             "cf:",
		"no payload":              "cf:4",
		"a condition":             goodCondition,
		"leading zero in type":    "cf:04:" + payload,
		"unsupported type":        "cf:1:" + payload,
		"type f":                  "cf:f:" + payload,
		"type below 0":            "cf:/:" + payload,
		"95 bytes":                "cf:4:" + payload[:127],
		"99 bytes":                goodFulfillment + "AAAA",
		"padding":                 goodFulfillment + "=",
		"colon":                   goodFulfillment + ":",
		"standard base64":         strings.Replace(goodFulfillment, "_", "/", 1),
		"line break":              goodFulfillment + "\n",
		"trailing bits":           "cf:0:YR",
		"children out of order":   thresholdURI(2, 2, b, a),
		"longer child first":      thresholdURI(1, 2, open, a),
		"threshold 0":             thresholdURI(0, 1, a),
		"threshold above weights": thresholdURI(2, 1, a),
		"no children":             thresholdURI(1, 0),
		"fewer than counted":      thresholdURI(1, 2, a),
		"more than counted":       thresholdURI(1, 1, a, b),
		"weight 0":                thresholdURI(1, 2, []byte{1, 0, 4, 0, 0, 1, 'a', 0}, b),
		"weight with a zero":      thresholdURI(1, 1, []byte{2, 0, 1, 4, 0, 0, 1, 'a', 0}),
		"weight beyond the limit": thresholdURI(1, 1, []byte{4, 0x80, 0, 0, 0, 4, 0, 0, 1, 'a', 0}),
		"weight of 8 bytes":       thresholdURI(1, 1, []byte{8, 1, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 1, 'a', 0}),
		"neither of the two":      thresholdURI(1, 1, []byte{1, 1, 0, 0, 0, 0, 0}),
		"both of the two":         thresholdURI(1, 1, append([]byte{1, 1, 4, 0, 0, 1, 'a'}, open[3:]...)),
		"long form of a length":   thresholdURI(1, 1, []byte{1, 1, 0x81, 4, 0, 0, 1, 'a', 0}),
		"byte after a child":      thresholdURI(1, 1, []byte{1, 1, 5, 0, 0, 1, 'a', 0, 0}),
		"child of unknown type":   thresholdURI(1, 1, []byte{1, 1, 4, 0, 1, 1, 'a', 0}),
		"child cut short":         thresholdURI(1, 1, a[:7]),
		"condition cut short":     thresholdURI(1, 1, append([]byte{1, 1, 0, 10}, make([]byte, 10)...)),
	} {
		if f, err := ParseFulfillment(uri); !errors.Is(err, ErrFulfillment) {
			t.Errorf("%s: got %+v, %v; want ErrFulfillment", name, f, err)
		} else if len(err.Error()) > 120 {
			t.Errorf("%s: message of %d bytes", name, len(err.Error()))
		}
	}
}

func TestFromDetailsRefuses(t *testing.T) {
	const (
		key   = `"4K9sWUMFwTgaDGPfdynrbxWqWS6sWmKbZoTjxLtVUibD"`
		ed    = `{"bitmask":32,"public_key":` + key + `,"signature":null,"type":"fulfillment","type_id":4}`
		child = `{"bitmask":32,"public_key":` + key + `,"signature":null,"type":"fulfillment","type_id":4,"weight":1}`
		pre   = `{"bitmask":3,"preimage":"a","type":"fulfillment","type_id":0}`
		bare  = `{"bitmask":32,"hash":` + key + `,"max_fulfillment_length":96,"type":"condition","type_id":4}`
		two   = `{"bitmask":41,"subfulfillments":[` + child + `,` + child + `],"threshold":2,"type":"fulfillment","type_id":2}`
	)
	for _, text := range []string{ed, pre, bare, two} {
		if _, err := FromDetails(parse(t, text), NewBudget()); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	edit := strings.NewReplacer
	start := time.Now()
	for name, text := range map[string]string{
		"null":                          `null`,
		"a string":                      `"` + goodCondition + `"`,
		"a list":                        `[` + ed + `]`,
		"no fields":                     `{}`,
		"a weight outside a threshold":  child,
		"unknown field":                 edit(`{"bit`, `{"a":1,"bit`).Replace(ed),
		"missing signature":             edit(`"signature":null,`, ``).Replace(ed),
		"a signature":                   edit(`"signature":null`, `"signature":""`).Replace(ed),
		"renamed field":                 edit(`signature`, `Signature`).Replace(ed),
		"bitmask of another type":       edit(`32`, `3`).Replace(ed),
		"bitmask as a float":            edit(`32`, `32.0`).Replace(ed),
		"bitmask as a string":           edit(`32`, `"32"`).Replace(ed),
		"type_id as a float":            edit(`:4`, `:4.0`).Replace(ed),
		"huge type_id":                  edit(`"type_id":4`, `"type_id":4294967300`).Replace(ed),
		"negative zero":                 edit(`"type_id":0`, `"type_id":-0`).Replace(pre),
		"unsupported type_id":           edit(`"type_id":4`, `"type_id":3`).Replace(ed),
		"unknown type":                  edit(`fulfillment`, `Fulfillment`).Replace(ed),
		"key is null":                   edit(key, `null`).Replace(ed),
		"key is not base58":             edit(`4K9s`, `0K9s`).Replace(ed),
		"key of 31 bytes":               edit(`UibD"`, `U"`).Replace(ed),
		"key of a megabyte":             edit(`4K9s`, strings.Repeat("4", 1<<20)).Replace(ed),
		"preimage is null":              edit(`"a"`, `null`).Replace(pre),
		"bare type beyond 16 bits":      edit(`"type_id":4`, `"type_id":65540`).Replace(bare),
		"bare condition of RSA":         edit(`"type_id":4`, `"type_id":3`).Replace(bare),
		"bare bits of another type":     edit(`32`, `41`).Replace(bare),
		"bare length of another type":   edit(`96`, `97`).Replace(bare),
		"bare hash of 31 bytes":         edit(`UibD"`, `U"`).Replace(bare),
		"bare condition with signature": edit(`"type"`, `"signature":null,"type"`).Replace(bare),
		"threshold 0":                   edit(`"threshold":2`, `"threshold":0`).Replace(two),
		"threshold -1":                  edit(`"threshold":2`, `"threshold":-1`).Replace(two),
		"threshold above the weights":   edit(`"threshold":2`, `"threshold":3`).Replace(two),
		"threshold beyond the limit":    edit(`"threshold":2`, `"threshold":2147483648`, `"weight":1`, `"weight":2147483647`).Replace(two),
		"threshold of 40 digits":        edit(`"threshold":2`, `"threshold":1`+strings.Repeat("0", 39)).Replace(two),
		"threshold is a bool":           edit(`"threshold":2`, `"threshold":true`).Replace(two),
		"no children":                   edit(child, ``, `,`+child, ``).Replace(edit(child+`,`+child, ``).Replace(two)),
		"children are an object":        edit(`[`, `{"a":`, `},{`, `},"b":{`, `]`, `}`).Replace(two),
		"child without weight":          edit(child, ed).Replace(two),
		"child with weight 0":           edit(`"weight":1`, `"weight":0`).Replace(two),
		"another child with weight 0":   edit(`[`, `[`+edit(`"weight":1`, `"weight":0`).Replace(child)+`,`).Replace(two),
		"child with a float weight":     edit(`"weight":1`, `"weight":1.0`).Replace(two),
		"child with weight 2^31":        edit(`"weight":1`, `"weight":2147483648`).Replace(two),
		"child with another field":      edit(`"weight":1`, `"weight":1,"x":1`).Replace(two),
		"child is null":                 edit(child, `null`).Replace(two),
		"bitmask without the children":  edit(`41`, `9`).Replace(two),
		"bitmask with more":             edit(`41`, `43`).Replace(two),
	} {
		if c, err := FromDetails(parse(t, text), NewBudget()); !errors.Is(err, ErrDetails) {
			t.Errorf("%s: got %+v, %v; want ErrDetails", name, c, err)
		} else if len(err.Error()) > 120 {
			t.Errorf("%s: message of %d bytes", name, len(err.Error()))
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("refusing took %v", took) // base58 of a megabyte would
	}
}

func parse(tb testing.TB, text string) canonical.Value {
	tb.Helper()
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		tb.Fatalf("%.200s: %v", text, err)
	}
	return v
}
