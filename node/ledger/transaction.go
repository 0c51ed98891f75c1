package ledger

import (
	"bytes"
	"crypto/sha256"

	"github.com/couchledger/couchledger/canonical"
)

// Version is the transaction model that this package writes. It reads every
// version that begins with "0.".
const Version = "0.10"

// Operation is what a transaction does.
type Operation string

// The operations. Genesis stands only in a ledger's first block.
const (
	Create   Operation = "CREATE"
	Transfer Operation = "TRANSFER"
	Genesis  Operation = "GENESIS"
)

// OutputRef points at an output of an earlier transaction.
type OutputRef struct {
	TxID  string
	Index int
}

// Input spends an output, or stands for the issuer in a CREATE.
type Input struct {
	// OwnersBefore lists base58 keys; nil where the JSON has null.
	OwnersBefore []string
	// Fulfills is nil in a CREATE.
	Fulfills *OutputRef
	// Fulfillment is a cf: URI, or "" where the JSON has the object form, an
	// unsigned template.
	Fulfillment string
}

// Output says who may spend how much.
type Output struct {
	PublicKeys   []string // base58; nil where the JSON has null
	ConditionURI string   // cc: URI
	Amount       Amount
}

// Transaction is a transaction that has the documented shape. It is immutable
// and may be shared between goroutines, but for Compact.
type Transaction struct {
	ID        string
	Operation Operation
	Inputs    []Input
	Outputs   []Output
	// Asset is the id of the CREATE that made the asset: the transaction's
	// own id in a CREATE.
	Asset string

	form
	digest [sha256.Size]byte // of the body
	tree   canonical.Value   // null once compact
}

// Bytes returns the canonical form, id and fulfillments included. It must not
// be changed.
func (t *Transaction) Bytes() []byte { return t.body }

// BytesWith returns the canonical form with further fields that sort between
// asset and id, in order and as canonical JSON: what a document in the database
// has beside the transaction. Each is followed by a comma.
func (t *Transaction) BytesWith(fields []byte) []byte {
	dst := make([]byte, 0, len(t.body)+len(fields))
	dst = append(dst, t.body[:t.form.id.from]...)
	dst = append(dst, fields...)
	return append(dst, t.body[t.form.id.from:]...)
}

// Digest identifies the whole body: two transactions with one id may still
// carry different fulfillments, which the id leaves out.
func (t *Transaction) Digest() [sha256.Size]byte { return t.digest }

// SameBody reports whether t and other are equal to the byte.
func (t *Transaction) SameBody(other *Transaction) bool { return bytes.Equal(t.body, other.body) }

// Compact drops the parsed form that only validation needs, about two thirds
// of the memory a transaction takes; what is asked of it later is parsed
// again. Call it before sharing.
func (t *Transaction) Compact() { t.tree = canonical.Value{} }

// Details returns output i's condition.details.
func (t *Transaction) Details(i int) canonical.Value {
	if t.tree.IsNull() {
		at := t.details[i]
		return parseOwn(t.body[at.from:at.to])
	}
	outputs, _ := t.tree.Get("outputs")
	condition, _ := outputs.At(i).Get("condition")
	details, _ := condition.Get("details")
	return details
}

// Value returns the parsed body, also after Compact.
func (t *Transaction) Value() canonical.Value {
	if t.tree.IsNull() {
		return parseOwn(t.body)
	}
	return t.tree
}

// parseOwn parses what canonical's own printer wrote.
func parseOwn(data []byte) canonical.Value {
	tree, err := canonical.Parse(data)
	if err != nil {
		panic("ledger: canonical JSON does not parse: " + err.Error())
	}
	return tree
}

// ComputeID returns the hash of the canonical transaction without its id and
// with every fulfillment null. A sound transaction has it as its ID.
func (t *Transaction) ComputeID() string { return t.computeID() }

// SigningMessage returns the bytes that input i signs: the transaction with
// only that input, its fulfillment null, and with the id of exactly that
// reduced body. For the only input that is the transaction's own ID, which the
// caller has compared with ComputeID.
func (t *Transaction) SigningMessage(i int) []byte { return t.signingMessage(i, t.ID) }

// Spends lists the outputs that the transaction spends, in input order.
func (t *Transaction) Spends() []OutputRef {
	var refs []OutputRef
	for _, in := range t.Inputs {
		if in.Fulfills != nil {
			refs = append(refs, *in.Fulfills)
		}
	}
	return refs
}
