package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// Limits that nodes vote by. They are constants of the rules, never settings:
// an operator's tighter limits only decide what his own API accepts.
const (
	// MaxTransactionBytes bounds a transaction's canonical form.
	MaxTransactionBytes = 2_000_000
	// MaxDepth bounds how many arrays and objects of a transaction stand
	// inside each other.
	MaxDepth = 64
	// MaxSignedBytes bounds the sum of all inputs' signing messages, which
	// grows with the square of a transaction's size.
	MaxSignedBytes = 32 << 20
)

// maxPostedValues bounds how many JSON values of every kind a posted text is
// made of, since the memory to read it grows with them. It is no rule: what
// other nodes accept stands in blocks, whose size is bounded.
const maxPostedValues = 200_000

// ParseTransaction reads a transaction of any operation and checks its shape.
// JSON that does not parse gives a *canonical.SyntaxError, anything else that
// is wrong a *ValidationError of kind SchemaValidationError. It does not check
// the id or signatures.
func ParseTransaction(data []byte) (*Transaction, error) {
	tree, err := canonical.ParseWithin(data, canonical.Limits{Depth: MaxDepth, Values: maxPostedValues})
	if err != nil {
		return nil, err
	}
	return transactionOf(tree, len(data))
}

// TransactionFromValue is ParseTransaction for JSON that is parsed already,
// with MaxDepth as its limit.
func TransactionFromValue(tree canonical.Value) (*Transaction, error) {
	return transactionOf(tree, typicalBytes)
}

// typicalBytes is what most transactions do not exceed.
const typicalBytes = 1024

// transactionOf reads a transaction whose canonical form has about size bytes.
func transactionOf(tree canonical.Value, size int) (*Transaction, error) {
	t, err := readTransaction(tree, size)
	if err != nil {
		return nil, Invalid(SchemaValidationError, "%v", err)
	}
	return t, nil
}

func readTransaction(tree canonical.Value, size int) (*Transaction, error) {
	t := &Transaction{tree: tree}
	if err := t.read(tree); err != nil {
		return nil, err
	}
	t.form = newForm(tree, size)
	t.digest = sha256.Sum256(t.body)
	if len(t.body) > MaxTransactionBytes {
		return nil, at("", "the transaction has %d bytes, more than %d", len(t.body), MaxTransactionBytes)
	}
	if n := len(t.Inputs); n > 1 && t.signedBytes() > MaxSignedBytes {
		return nil, at("", "%d inputs sign more than %d bytes", n, MaxSignedBytes)
	}
	return t, nil
}

func (t *Transaction) read(tree canonical.Value) error {
	if err := hasFields(tree, "", "asset", "id", "inputs", "metadata", "operation", "outputs", "version"); err != nil {
		return err
	}
	asset, id, inputs, metadata, operation, outputs, version :=
		tree.At(0), tree.At(1), tree.At(2), tree.At(3), tree.At(4), tree.At(5), tree.At(6)

	if t.ID = id.Text(); id.Kind() != canonical.String || !IsID(t.ID) {
		return at("id", "must be 64 lower-case hexadecimal digits")
	}
	if version.Kind() != canonical.String || !strings.HasPrefix(version.Text(), "0.") {
		return at("version", `must be a string that begins with "0."`)
	}
	if t.Operation = Operation(operation.Text()); operation.Kind() != canonical.String ||
		t.Operation != Create && t.Operation != Transfer && t.Operation != Genesis {
		return at("operation", "must be CREATE or TRANSFER")
	}
	if !metadata.IsNull() && (metadata.Kind() != canonical.Object || metadata.Len() == 0) {
		return at("metadata", "must be null or an object that is not empty")
	}
	if err := t.readAsset(asset); err != nil {
		return err
	}
	if err := t.readInputs(inputs); err != nil {
		return err
	}
	return t.readOutputs(outputs)
}

func (t *Transaction) readAsset(asset canonical.Value) error {
	if t.Operation != Transfer {
		if err := hasFields(asset, "asset", "data"); err != nil {
			return err
		}
		if k := asset.At(0).Kind(); k != canonical.Null && k != canonical.Object {
			return at("asset.data", "must be null or an object")
		}
		t.Asset = t.ID
		return nil
	}
	if err := hasFields(asset, "asset", "id"); err != nil {
		return err
	}
	if t.Asset = asset.At(0).Text(); asset.At(0).Kind() != canonical.String || !IsID(t.Asset) {
		return at("asset.id", "must be 64 lower-case hexadecimal digits")
	}
	return nil
}

func (t *Transaction) readInputs(list canonical.Value) error {
	if list.Kind() != canonical.Array || list.Len() == 0 {
		return at("inputs", "must be an array of at least one input")
	}
	if t.Operation != Transfer && list.Len() != 1 {
		return at("inputs", "a %s has exactly one input", t.Operation)
	}
	t.Inputs = make([]Input, list.Len())
	for i := range t.Inputs {
		if err := t.Inputs[i].read(list.At(i), t.Operation == Transfer); err != nil {
			return within(fmt.Sprintf("inputs.%d", i), err)
		}
	}
	return nil
}

func (in *Input) read(v canonical.Value, spends bool) (err error) {
	if err = hasFields(v, "", "fulfillment", "fulfills", "owners_before"); err != nil {
		return err
	}
	fulfillment, fulfills, owners := v.At(0), v.At(1), v.At(2)
	switch in.Fulfillment = fulfillment.Text(); {
	case fulfillment.Kind() == canonical.Object: // an unsigned template
	case fulfillment.Kind() != canonical.String || !strings.HasPrefix(in.Fulfillment, "cf:"):
		return at("fulfillment", "must be a cf: URI")
	}
	if in.OwnersBefore, err = publicKeys(owners); err != nil {
		return within("owners_before", err)
	}
	if !spends {
		if !fulfills.IsNull() {
			return at("fulfills", "must be null in a CREATE")
		}
		return nil
	}
	if err = hasFields(fulfills, "fulfills", "output", "txid"); err != nil {
		return err
	}
	output, txid := fulfills.At(0), fulfills.At(1)
	index, ok := output.Int64()
	if !ok || output.Text()[0] == '-' || index > maxOutputIndex { // -0 prints unlike 0
		return at("fulfills.output", "must be an integer from 0")
	}
	if txid.Kind() != canonical.String || !IsID(txid.Text()) {
		return at("fulfills.txid", "must be 64 lower-case hexadecimal digits")
	}
	in.Fulfills = &OutputRef{TxID: txid.Text(), Index: int(index)}
	return nil
}

// maxOutputIndex is beyond any output that fits MaxTransactionBytes.
const maxOutputIndex = 1<<31 - 1

func (t *Transaction) readOutputs(list canonical.Value) error {
	if list.Kind() != canonical.Array || list.Len() == 0 {
		return at("outputs", "must be an array of at least one output")
	}
	t.Outputs = make([]Output, list.Len())
	for i := range t.Outputs {
		if err := t.Outputs[i].read(list.At(i)); err != nil {
			return within(fmt.Sprintf("outputs.%d", i), err)
		}
	}
	return nil
}

func (o *Output) read(v canonical.Value) (err error) {
	if err = hasFields(v, "", "amount", "condition", "public_keys"); err != nil {
		return err
	}
	amount, condition, keys := v.At(0), v.At(1), v.At(2)
	o.Amount = Amount(amount.Text())
	if amount.Kind() != canonical.Int || o.Amount[0] == '-' || o.Amount == "0" {
		return at("amount", "must be an integer of at least 1")
	}
	if len(o.Amount) > MaxAmountDigits {
		return at("amount", "has %d digits, more than %d", len(o.Amount), MaxAmountDigits)
	}
	if o.PublicKeys, err = publicKeys(keys); err != nil {
		return within("public_keys", err)
	}
	if err = hasFields(condition, "condition", "details", "uri"); err != nil {
		return err
	}
	details, uri := condition.At(0), condition.At(1)
	if details.Kind() != canonical.Object {
		return at("condition.details", "must be an object")
	}
	if o.ConditionURI = uri.Text(); uri.Kind() != canonical.String || !strings.HasPrefix(o.ConditionURI, "cc:") {
		return at("condition.uri", "must be a cc: URI")
	}
	return nil
}

// publicKeys reads a list of base58 keys of 43 or 44 characters, or null.
func publicKeys(v canonical.Value) ([]string, error) {
	if v.IsNull() {
		return nil, nil
	}
	if v.Kind() != canonical.Array {
		return nil, errors.New("must be null or a list of base58 keys")
	}
	keys := make([]string, v.Len())
	for i := range keys {
		if keys[i] = v.At(i).Text(); v.At(i).Kind() != canonical.String || !isKeyText(keys[i]) {
			return nil, at(fmt.Sprint(i), "must be a base58 key of 43 or 44 characters")
		}
	}
	return keys, nil
}

func isKeyText(s string) bool {
	if len(s) != 43 && len(s) != maxKeyLength {
		return false
	}
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' && c != 'l' || c >= 'A' && c <= 'Z' && c != 'O' && c != 'I'
		if !letter && (c < '1' || c > '9') {
			return false
		}
	}
	return true
}

// IsID reports whether s has the form of a transaction's or block's id: 64
// lower-case hexadecimal digits.
func IsID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// hasFields checks that v is an object of exactly the keys named, which are
// sorted, so that key i is v.At(i). A key that is missing, or one too many, is
// an error that names it.
func hasFields(v canonical.Value, path string, keys ...string) error {
	exact := v.Kind() == canonical.Object && v.Len() == len(keys)
	for i := 0; exact && i < len(keys); i++ {
		exact = v.Key(i) == keys[i]
	}
	if exact {
		return nil
	}
	if v.Kind() != canonical.Object {
		return at(path, "must be an object, not %s", v.Kind())
	}
	for _, key := range keys {
		if _, ok := v.Get(key); !ok {
			return at(path, "%q is missing", key)
		}
	}
	for i := range v.Len() {
		if !slices.Contains(keys, v.Key(i)) {
			return at(path, "unknown field %.60q", v.Key(i))
		}
	}
	return at(path, "unknown field")
}

// pathError is a fault at a dotted path into a document.
type pathError struct {
	path   string
	reason string
}

func (e *pathError) Error() string {
	if e.path == "" {
		return e.reason
	}
	return e.path + ": " + e.reason
}

func at(path, format string, args ...any) error {
	return &pathError{path: path, reason: fmt.Sprintf(format, args...)}
}

func within(path string, err error) error {
	var inner *pathError
	if !errors.As(err, &inner) {
		return &pathError{path: path, reason: err.Error()}
	}
	if inner.path != "" {
		path += "." + inner.path
	}
	return &pathError{path: path, reason: inner.reason}
}
