package ledger_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

// set returns v with the value at a dotted path replaced. A nil value removes it.
func set(v canonical.Value, path string, value *canonical.Value) canonical.Value {
	key, rest, deeper := strings.Cut(path, ".")
	if i, err := strconv.Atoi(key); err == nil && v.Kind() == canonical.Array {
		list := items(v)
		if deeper {
			list[i] = set(list[i], rest, value)
		} else {
			list[i] = *value
		}
		return canonical.ArrayOf(list...)
	}
	switch inner, _ := v.Get(key); {
	case deeper:
		return v.With(key, set(inner, rest, value))
	case value == nil:
		return v.Without(key)
	}
	return v.With(key, *value)
}

// maxMessage bounds what a client is told, whatever it sent.
const maxMessage = 1000

func wantSchemaFault(t *testing.T, tx canonical.Value, want string) {
	t.Helper()
	_, err := ledger.ParseTransaction(tx.Bytes())
	if !ledger.IsKind(err, ledger.SchemaValidationError) {
		t.Errorf("got %v, want a SchemaValidationError with %q", err, want)
		return
	}
	if text := err.Error(); !strings.HasPrefix(text, "Invalid transaction (SchemaValidationError): "+want) || len(text) > maxMessage {
		t.Errorf("got %.200q (%d bytes), want it to begin with %q", text, len(text), want)
	}
}

// create and transfer are sound transactions, as JSON, to be spoilt.
func createAndTransfer(tb testing.TB) (create, transfer canonical.Value) {
	owner := newKey(1)
	return newCreate(tb, owner, 3, 4).Value(), newManyInputs(tb, owner, 2).Value()
}

// schemaFields says, for every field of the schema, its path and what it may be.
var schemaFields = []struct {
	path string
	may  []canonical.Kind
}{
	{"asset", []canonical.Kind{canonical.Object}},
	{"id", []canonical.Kind{canonical.String}},
	{"inputs", []canonical.Kind{canonical.Array}},
	{"inputs.0", []canonical.Kind{canonical.Object}},
	{"inputs.0.fulfillment", []canonical.Kind{canonical.String, canonical.Object}},
	{"inputs.0.fulfills", []canonical.Kind{canonical.Object}},
	{"inputs.0.fulfills.output", []canonical.Kind{canonical.Int}},
	{"inputs.0.fulfills.txid", []canonical.Kind{canonical.String}},
	{"inputs.0.owners_before", []canonical.Kind{canonical.Array, canonical.Null}},
	{"inputs.0.owners_before.0", []canonical.Kind{canonical.String}},
	{"metadata", []canonical.Kind{canonical.Object, canonical.Null}},
	{"operation", []canonical.Kind{canonical.String}},
	{"outputs", []canonical.Kind{canonical.Array}},
	{"outputs.0", []canonical.Kind{canonical.Object}},
	{"outputs.0.amount", []canonical.Kind{canonical.Int}},
	{"outputs.0.condition", []canonical.Kind{canonical.Object}},
	{"outputs.0.condition.details", []canonical.Kind{canonical.Object}},
	{"outputs.0.condition.uri", []canonical.Kind{canonical.String}},
	{"outputs.0.public_keys", []canonical.Kind{canonical.Array, canonical.Null}},
	{"outputs.0.public_keys.0", []canonical.Kind{canonical.String}},
	{"version", []canonical.Kind{canonical.String}},
}

func TestSchemaTypes(t *testing.T) {
	_, transfer := createAndTransfer(t)
	samples := []canonical.Value{
		{}, canonical.BoolOf(true), canonical.IntOf(7), canonical.FloatOf(1), canonical.StringOf("x"),
		canonical.ArrayOf(canonical.IntOf(1)), object(member("x", canonical.Value{})),
	}
	for _, f := range schemaFields {
		for _, sample := range samples {
			t.Run(f.path+" is "+sample.Kind().String(), func(t *testing.T) {
				allowed := false
				for _, kind := range f.may {
					allowed = allowed || kind == sample.Kind()
				}
				if !allowed {
					wantSchemaFault(t, set(transfer, f.path, &sample), f.path+": ")
				}
			})
		}
	}
	for _, sample := range samples {
		if sample.Kind() != canonical.Object {
			wantSchemaFault(t, sample, "must be an object, not "+sample.Kind().String())
		}
	}
}

func TestSchemaMissingAndExtra(t *testing.T) {
	create, transfer := createAndTransfer(t)
	one := canonical.IntOf(1)
	for _, f := range schemaFields {
		parent, key := "", f.path
		if i := strings.LastIndexByte(f.path, '.'); i >= 0 {
			parent, key = f.path[:i], f.path[i+1:]
		}
		if _, err := strconv.Atoi(key); err == nil {
			continue // an element, not a field
		}
		prefix := ""
		if parent != "" {
			prefix = parent + ": "
		}
		t.Run(f.path+" missing", func(t *testing.T) {
			wantSchemaFault(t, set(transfer, f.path, nil), prefix+`"`+key+`" is missing`)
		})
		for _, extra := range []string{"", "zz", key + "x", strings.Repeat("é", 100_000)} {
			path := extra
			if parent != "" {
				path = parent + "." + extra
			}
			t.Run(parent+" has another", func(t *testing.T) {
				wantSchemaFault(t, set(transfer, path, &one), prefix+"unknown field ")
			})
		}
	}
	wantSchemaFault(t, set(create, "asset.data", nil), `asset: "data" is missing`)
	wantSchemaFault(t, set(create, "asset.id", &one), `asset: unknown field "id"`)
	wantSchemaFault(t, set(transfer, "asset.data", &one), `asset: unknown field "data"`)
	wantSchemaFault(t, set(transfer, "asset.id", nil), `asset: "id" is missing`)
}

func TestSchemaFaults(t *testing.T) {
	create, transfer := createAndTransfer(t)
	key, id := newKey(1).Public, strings.Repeat("a", 64)
	digits := func(n int) string { return strings.Repeat("9", n) }
	tests := []struct {
		tx                canonical.Value
		path, value, want string
	}{
		{create, "outputs.0.amount", `0`, "outputs.0.amount: must be an integer of at least 1"},
		{create, "outputs.0.amount", `-0`, "outputs.0.amount: must be an integer of at least 1"},
		{create, "outputs.1.amount", `-1`, "outputs.1.amount: must be an integer of at least 1"},
		{create, "outputs.0.amount", `1.0`, "outputs.0.amount: must be an integer of at least 1"},
		{create, "outputs.0.amount", `1e3`, "outputs.0.amount: must be an integer of at least 1"},
		{create, "outputs.0.amount", `"1"`, "outputs.0.amount: must be an integer of at least 1"},
		{create, "outputs.0.amount", digits(101), "outputs.0.amount: has 101 digits, more than 100"},
		{create, "outputs.0.amount", digits(400), "outputs.0.amount: has 400 digits, more than 100"},
		{create, "outputs", `[]`, "outputs: must be an array of at least one output"},

		{create, "metadata", `{}`, "metadata: must be null or an object that is not empty"},
		{create, "metadata", `[]`, "metadata: must be null or an object that is not empty"},
		{create, "version", `"1.0"`, `version: must be a string that begins with "0."`},
		{create, "version", `"0"`, `version: must be a string that begins with "0."`},
		{create, "version", `""`, `version: must be a string that begins with "0."`},
		{create, "operation", `"create"`, "operation: must be CREATE or TRANSFER"},
		{create, "operation", `""`, "operation: must be CREATE or TRANSFER"},

		{create, "id", `"` + strings.Repeat("A", 64) + `"`, "id: must be 64 lower-case hexadecimal digits"},
		{create, "id", `"` + id[1:] + `"`, "id: must be 64 lower-case hexadecimal digits"},
		{create, "id", `"` + id + `a"`, "id: must be 64 lower-case hexadecimal digits"},
		{create, "id", `"` + id[1:] + `g"`, "id: must be 64 lower-case hexadecimal digits"},
		{transfer, "asset.id", `"` + strings.Repeat("A", 64) + `"`, "asset.id: must be 64 lower-case hexadecimal digits"},
		{transfer, "asset.id", `"` + strings.Repeat("9", 2_000_000) + `"`, "asset.id: must be 64 lower-case hexadecimal digits"},
		{transfer, "inputs.1.fulfills.txid", `"` + strings.ToUpper(id) + `"`, "inputs.1.fulfills.txid: must be 64"},

		{create, "asset", `{"data":[]}`, "asset.data: must be null or an object"},
		{create, "asset", `{"data":"x"}`, "asset.data: must be null or an object"},
		{create, "asset", `{"id":"` + id + `"}`, `asset: "data" is missing`},
		{create, "asset", `null`, "asset: must be an object, not null"},
		{transfer, "asset", `{"data":null}`, `asset: "id" is missing`},

		{create, "inputs", `[]`, "inputs: must be an array of at least one input"},
		{transfer, "inputs", `[]`, "inputs: must be an array of at least one input"},
		{create, "inputs.0.fulfills", `{"output":0,"txid":"` + id + `"}`, "inputs.0.fulfills: must be null in a CREATE"},
		{transfer, "inputs.1.fulfills", `null`, "inputs.1.fulfills: must be an object, not null"},
		{transfer, "inputs.0.fulfills.output", `-1`, "inputs.0.fulfills.output: must be an integer from 0"},
		{transfer, "inputs.0.fulfills.output", `-0`, "inputs.0.fulfills.output: must be an integer from 0"},
		{transfer, "inputs.0.fulfills.output", `0.0`, "inputs.0.fulfills.output: must be an integer from 0"},
		{transfer, "inputs.0.fulfills.output", `2147483648`, "inputs.0.fulfills.output: must be an integer from 0"},
		{transfer, "inputs.0.fulfills.output", digits(400), "inputs.0.fulfills.output: must be an integer from 0"},
		{create, "inputs.0.fulfillment", `"cc:4:20:x:96"`, "inputs.0.fulfillment: must be a cf: URI"},
		{create, "inputs.0.fulfillment", `null`, "inputs.0.fulfillment: must be a cf: URI"},
		{create, "outputs.0.condition.uri", `"cf:4:x"`, "outputs.0.condition.uri: must be a cc: URI"},

		{create, "outputs.0.public_keys.0", `"` + key + `1"`, "outputs.0.public_keys.0: must be a base58 key of 43 or 44 characters"},
		{create, "outputs.0.public_keys.0", `"` + key[:42] + `"`, "outputs.0.public_keys.0: must be a base58 key of 43 or 44 characters"},
		{create, "outputs.0.public_keys.0", `"0` + key[1:] + `"`, "outputs.0.public_keys.0: must be a base58 key of 43 or 44 characters"},
		{create, "outputs.0.public_keys.0", `"I` + key[1:] + `"`, "outputs.0.public_keys.0: must be a base58 key of 43 or 44 characters"},
		{create, "outputs.0.public_keys.0", `"O` + key[1:] + `"`, "outputs.0.public_keys.0: must be a base58 key of 43 or 44 characters"},
		{create, "outputs.0.public_keys.0", `"l` + key[1:] + `"`, "outputs.0.public_keys.0: must be a base58 key of 43 or 44 characters"},
		{create, "outputs.0.public_keys", `"` + key + `"`, "outputs.0.public_keys: must be null or a list of base58 keys"},
		{create, "outputs.1.public_keys", `["` + key + `",1]`, "outputs.1.public_keys.1: must be a base58 key"},
		{create, "inputs.0.owners_before", `["` + key + `",""]`, "inputs.0.owners_before.1: must be a base58 key"},
	}
	for _, test := range tests {
		t.Run(test.path+" "+test.value[:min(len(test.value), 20)], func(t *testing.T) {
			value := parse(t, test.value)
			wantSchemaFault(t, set(test.tx, test.path, &value), test.want)
		})
	}
	second := get(t, create, "inputs").At(0)
	two := canonical.ArrayOf(second, second)
	wantSchemaFault(t, set(create, "inputs", &two), "inputs: a CREATE has exactly one input")
	genesis := canonical.StringOf("GENESIS")
	wantSchemaFault(t, set(set(create, "inputs", &two), "operation", &genesis), "inputs: a GENESIS has exactly one input")
}

// TestSchemaTakes is what looks odd and is allowed.
func TestSchemaTakes(t *testing.T) {
	create, transfer := createAndTransfer(t)
	tests := []struct {
		tx          canonical.Value
		path, value string
	}{
		{create, "outputs.0.amount", strings.Repeat("9", ledger.MaxAmountDigits)},
		{create, "metadata", `null`},
		{create, "metadata", `{"":null}`},
		{create, "version", `"0.9-dev"`},
		{create, "operation", `"GENESIS"`},
		{create, "asset", `{"data":null}`},
		{create, "asset", `{"data":{}}`},
		{create, "inputs.0.owners_before", `null`},
		{create, "inputs.0.owners_before", `[]`},
		{create, "outputs.0.public_keys", `null`},
		{create, "outputs.0.public_keys", `[]`},
		{create, "inputs.0.fulfillment", `{}`},
		{create, "inputs.0.fulfillment", `{"type":"fulfillment"}`},
		{create, "outputs.0.condition.details", `{}`},
		{transfer, "inputs.0.fulfills.output", `2147483647`},
	}
	for _, test := range tests {
		value := parse(t, test.value)
		tx, err := ledger.ParseTransaction(set(test.tx, test.path, &value).Bytes())
		if err != nil {
			t.Errorf("%s %s: got %v, want it accepted", test.path, test.value, err)
			continue
		}
		if got := set(tx.Value(), test.path, &value); !canonical.Equal(got, tx.Value()) {
			t.Errorf("%s %s: got %s", test.path, test.value, tx.Bytes())
		}
	}
}

// TestNullAndEmptyOwners: the two lists differ, in bytes and in the parsed form.
func TestNullAndEmptyOwners(t *testing.T) {
	create, _ := createAndTransfer(t)
	for text, isNil := range map[string]bool{"null": true, "[]": false} {
		value := parse(t, text)
		tx, err := ledger.ParseTransaction(set(set(create, "outputs.0.public_keys", &value), "inputs.0.owners_before", &value).Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if got := tx.Outputs[0].PublicKeys == nil; got != isNil {
			t.Errorf("public_keys %s: nil is %v, want %v", text, got, isNil)
		}
		if got := tx.Inputs[0].OwnersBefore == nil; got != isNil {
			t.Errorf("owners_before %s: nil is %v, want %v", text, got, isNil)
		}
	}
	template := parse(t, `{"type":"fulfillment"}`)
	tx, err := ledger.ParseTransaction(set(create, "inputs.0.fulfillment", &template).Bytes())
	if err != nil || tx.Inputs[0].Fulfillment != "" {
		t.Errorf("template: got fulfillment %q, %v; want none", tx.Inputs[0].Fulfillment, err)
	}
}
