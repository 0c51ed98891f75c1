package ledger

import (
	"crypto/sha3"
	"encoding/hex"

	"github.com/couchledger/couchledger/canonical"
)

// form is a transaction's canonical body and the places in it that ids and
// signatures leave out. Keys stand in code point order, so every body reads
//
//	{"asset":…,"id":"…","inputs":[…],"metadata":…,"operation":…,"outputs":[…],"version":…}
//
// and what is hashed or signed is cut out of it, not printed again.
type form struct {
	body    []byte
	id      span // "id":"…", with the comma
	inputs  []inputSpan
	details []span // of each output's condition.details
}

// span is a part of a body, in bytes.
type span struct{ from, to int32 }

type inputSpan struct {
	span
	fulfillment span
}

// newForm prints a transaction that has the documented fields at every level,
// where the id may be missing its value. size is about how long it becomes.
func newForm(tree canonical.Value, size int) form {
	asset, id, inputs, metadata, operation, outputs, version :=
		tree.At(0), tree.At(1), tree.At(2), tree.At(3), tree.At(4), tree.At(5), tree.At(6)
	p := printer{dst: make([]byte, 0, size)}
	f := form{inputs: make([]inputSpan, inputs.Len()), details: make([]span, outputs.Len())}
	p.value(`{"asset":`, asset)
	p.text(`,`)
	f.id.from = p.here()
	p.value(`"id":`, id)
	p.text(`,`)
	f.id.to = p.here()
	p.text(`"inputs":[`)
	for i := range f.inputs {
		if i > 0 {
			p.text(`,`)
		}
		at, input := &f.inputs[i], inputs.At(i)
		at.from = p.here()
		at.fulfillment = p.value(`{"fulfillment":`, input.At(0))
		p.value(`,"fulfills":`, input.At(1))
		p.value(`,"owners_before":`, input.At(2))
		p.text(`}`)
		at.to = p.here()
	}
	p.value(`],"metadata":`, metadata)
	p.value(`,"operation":`, operation)
	p.text(`,"outputs":[`)
	for i := range f.details {
		if i > 0 {
			p.text(`,`)
		}
		output := outputs.At(i)
		condition := output.At(1)
		p.value(`{"amount":`, output.At(0))
		f.details[i] = p.value(`,"condition":{"details":`, condition.At(0))
		p.value(`,"uri":`, condition.At(1))
		p.value(`},"public_keys":`, output.At(2))
		p.text(`}`)
	}
	p.value(`],"version":`, version)
	p.text(`}`)
	f.body = p.dst
	return f
}

type printer struct{ dst []byte }

func (p *printer) here() int32   { return int32(len(p.dst)) }
func (p *printer) text(s string) { p.dst = append(p.dst, s...) }

// value prints v after a text and tells where v stands.
func (p *printer) value(before string, v canonical.Value) span {
	p.text(before)
	from := p.here()
	p.dst = v.Append(p.dst)
	return span{from, p.here()}
}

const null = "null"

// signedBytes is the size of all signing messages together, about.
func (f *form) signedBytes() int {
	n := len(f.inputs)
	inputs := int(f.inputs[n-1].to - f.inputs[0].from)
	return n*(len(f.body)-inputs) + inputs
}

// computeID hashes the body without its id and with every fulfillment null.
func (f *form) computeID() string {
	h := sha3.New256()
	h.Write(f.body[:f.id.from])
	rest := f.id.to
	for _, in := range f.inputs {
		h.Write(f.body[rest:in.fulfillment.from])
		h.Write([]byte(null))
		rest = in.fulfillment.to
	}
	h.Write(f.body[rest:])
	return hexSum(h)
}

func hexSum(h *sha3.SHA3) string {
	var sum [32]byte
	return hex.EncodeToString(h.Sum(sum[:0]))
}

// signingMessage is the body with input i alone, its fulfillment null, and
// with the id of that. For the only input that is the whole transaction's id,
// which the caller gives.
func (f *form) signingMessage(i int, id string) []byte {
	in, first, last := f.inputs[i], f.inputs[0], f.inputs[len(f.inputs)-1]
	before := f.body[:f.id.from]
	after := [...][]byte{
		f.body[f.id.to:first.from],
		f.body[in.from:in.fulfillment.from], []byte(null), f.body[in.fulfillment.to:in.to],
		f.body[last.to:],
	}
	if len(f.inputs) > 1 {
		h := sha3.New256()
		h.Write(before)
		for _, part := range after {
			h.Write(part)
		}
		id = hexSum(h)
	}
	message := make([]byte, 0, len(f.body)-int(last.to-first.from)+int(in.to-in.from)+len(null)+len(id))
	message = append(message, before...)
	message = append(message, `"id":"`...)
	message = append(message, id...)
	message = append(message, `",`...)
	for _, part := range after {
		message = append(message, part...)
	}
	return message
}
