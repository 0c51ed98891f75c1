package differential

import (
	"fmt"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// field is one field of the documents: where it is, how its values are drawn,
// and in how many documents of a hundred it is.
type field struct {
	path  string   // dotted, as a selector has it
	keys  []string // of the path, where they are not its parts as written
	share int
	kind  kind
	draw  func(r source, k kind) canonical.Value
}

func fixed(texts ...string) func(source, kind) canonical.Value {
	from := valuesOf(texts...)
	return func(r source, _ kind) canonical.Value { return pick(r, from) }
}

func anything(r source, k kind) canonical.Value { return k.any(r, 2) }

func texts(r source, k kind) canonical.Value { return pick(r, k.strings) }

func tags(r source, k kind) canonical.Value {
	var items []canonical.Value
	for range r.IntN(4) {
		items = append(items, pick(r, k.strings))
	}
	return canonical.ArrayOf(items...)
}

// outputs are arrays of objects, as in a transaction, with some that are not.
func outputs(r source, k kind) canonical.Value {
	var items []canonical.Value
	for range r.IntN(3) {
		if r.chance(8) {
			items = append(items, k.any(r, 1))
			continue
		}
		output := object("amount", pick(r, fewNumbers))
		if r.chance(90) {
			output = output.With("public_keys", tags(r, k))
		}
		if r.chance(30) {
			output = output.With("condition", object("details", k.any(r, 1)))
		}
		items = append(items, output)
	}
	return canonical.ArrayOf(items...)
}

func inputs(r source, k kind) canonical.Value {
	input := object("owners_before", tags(r, k)).With("fulfills", canonical.Value{})
	if r.chance(50) {
		input = input.With("fulfills", object("output_index", pick(r, fewNumbers)).With("transaction_id", pick(r, k.strings)))
	}
	return canonical.ArrayOf(input)
}

// fields are those of a transaction and of what users put into one.
var fields = []field{
	{path: "operation", share: 100, kind: wild, draw: fixed(`"CREATE"`, `"CREATE"`, `"TRANSFER"`, `"GENESIS"`)},
	{path: "version", share: 90, kind: plain, draw: fixed(`"0.9"`, `"1.0"`)},
	{path: "block_id", share: 60, kind: plain, draw: texts},
	{path: "asset.id", share: 60, kind: plain, draw: texts},
	{path: "inputs", share: 80, kind: plain, draw: inputs},
	{path: "outputs", share: 85, kind: plain, draw: outputs},
	{path: "n", share: 70, kind: plain, draw: func(r source, _ kind) canonical.Value { return pick(r, numbers) }},
	{path: "m", share: 70, kind: plain, draw: func(r source, _ kind) canonical.Value { return pick(r, fewNumbers) }},
	{path: "v", share: 85, kind: plain, draw: anything},
	{path: "w", share: 85, kind: wild, draw: anything},
	{path: "s", share: 70, kind: plain, draw: texts},
	{path: "t", share: 70, kind: wild, draw: texts},
	{path: "tags", share: 70, kind: plain, draw: tags},
	{path: "metadata", share: 70, kind: wild, draw: anything},
	{path: "asset.data", share: 70, kind: plain, draw: func(r source, k kind) canonical.Value {
		if r.chance(70) {
			return k.object(r, 2)
		}
		return k.any(r, 1)
	}},
	{path: "o", share: 75, kind: wild, draw: func(r source, k kind) canonical.Value { return k.object(r, 1) }},
	{path: `dot\.ted`, keys: []string{"dot.ted"}, share: 40, kind: plain, draw: anything},
	{path: "flag", share: 50, kind: plain, draw: fixed(`true`, `false`, `null`)},
	{path: "list", share: 70, kind: plain, draw: func(r source, k kind) canonical.Value { return k.array(r, 1) }},
}

// below are paths into the fields, which lead to something in some documents.
var below = []struct {
	path string
	kind kind
}{
	{"asset.data.a", plain}, {"asset.data.level", plain}, {"asset.data.name", plain}, {"asset.data.b.c", plain},
	{"v.a", plain}, {"v.0", plain}, {"v.1", plain}, {"v.0.a", plain}, {"v.a.b", plain}, {"v.01", plain}, {"v.+1", plain}, {"v.-0", plain},
	{"w.a", wild}, {`w.a\.b`, wild}, {"w.0", wild}, {"w.über", wild}, {`o.\$ne`, wild}, {`o.\A`, wild}, {"o.A", wild}, {"o.0", wild}, {"o.a b", wild},
	{"tags.0", plain}, {"tags.1", plain}, {"list.0", plain}, {"list.-1", plain}, {"list.9999999999", plain},
	{"outputs.0.amount", plain}, {"outputs.1.amount", plain}, {"outputs.0.public_keys.0", plain}, {"outputs.0.public_keys", plain},
	{"inputs.0.fulfills", plain}, {"inputs.0.fulfills.output_index", plain}, {"inputs.0.owners_before", plain},
	{"s.a", plain}, {"n.0", plain}, {"missing", plain}, {"missing.a", plain}, {"asset", plain},
}

// documents draws n bodies. Their ids come from id.
func documents(seed uint64, n int) []canonical.Value {
	r := newSource(seed, 1)
	var all []canonical.Value
	for range n {
		document := canonical.ObjectOf()
		for _, f := range fields {
			if r.chance(f.share) {
				document = put(document, f.steps(), f.draw(r, f.kind))
			}
		}
		all = append(all, document)
	}
	return all
}

func (f field) steps() []string {
	if f.keys != nil {
		return f.keys
	}
	return strings.Split(f.path, ".")
}

func id(i int) string { return fmt.Sprintf("%c%04d", 'a'+i%5, i) }

func put(document canonical.Value, keys []string, v canonical.Value) canonical.Value {
	if len(keys) > 1 {
		inner, ok := document.Get(keys[0])
		if !ok {
			inner = canonical.ObjectOf()
		}
		v = put(inner, keys[1:], v)
	}
	return document.With(keys[0], v)
}
