package ledger

import (
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

// ParseTransaction reads a transaction of any operation and checks its shape.
// JSON that does not parse gives a *canonical.SyntaxError, anything else that
// is wrong a *ValidationError of kind SchemaValidationError. It does not check
// the id or signatures.
func ParseTransaction(data []byte) (*Transaction, error) {
	tree, err := canonical.ParseDepth(data, MaxDepth)
	if err != nil {
		return nil, err
	}
	return TransactionFromValue(tree)
}

// TransactionFromValue is ParseTransaction for JSON that is parsed already.
func TransactionFromValue(tree canonical.Value) (*Transaction, error) {
	t := &Transaction{tree: tree}
	if err := t.read(tree); err != nil {
		return nil, Invalid(SchemaValidationError, "%v", err)
	}
	t.body = tree.Append(make([]byte, 0, 1024))
	if len(t.body) > MaxTransactionBytes {
		return nil, Invalid(SchemaValidationError, "the transaction has %d bytes, more than %d", len(t.body), MaxTransactionBytes)
	}
	if n := len(t.Inputs); n > 1 && n*(len(t.body)-inputBytes(tree)) > MaxSignedBytes {
		return nil, Invalid(SchemaValidationError, "%d inputs sign more than %d bytes", n, MaxSignedBytes)
	}
	return t, nil
}

func inputBytes(tree canonical.Value) int {
	inputs, _ := tree.Get("inputs")
	return len(inputs.Bytes())
}

func (t *Transaction) read(tree canonical.Value) error {
	f, err := fields(tree, "", "asset", "id", "inputs", "metadata", "operation", "outputs", "version")
	if err != nil {
		return err
	}
	asset, id, inputs, metadata, operation, outputs, version := f[0], f[1], f[2], f[3], f[4], f[5], f[6]

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
		f, err := fields(asset, "asset", "data")
		if err != nil {
			return err
		}
		if k := f[0].Kind(); k != canonical.Null && k != canonical.Object {
			return at("asset.data", "must be null or an object")
		}
		t.Asset = t.ID
		return nil
	}
	f, err := fields(asset, "asset", "id")
	if err != nil {
		return err
	}
	if t.Asset = f[0].Text(); f[0].Kind() != canonical.String || !IsID(t.Asset) {
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

func (in *Input) read(v canonical.Value, spends bool) error {
	f, err := fields(v, "", "fulfillment", "fulfills", "owners_before")
	if err != nil {
		return err
	}
	switch in.Fulfillment = f[0].Text(); {
	case f[0].Kind() == canonical.Object: // an unsigned template
	case f[0].Kind() != canonical.String || !strings.HasPrefix(in.Fulfillment, "cf:"):
		return at("fulfillment", "must be a cf: URI")
	}
	if in.OwnersBefore, err = publicKeys(f[2]); err != nil {
		return within("owners_before", err)
	}
	if !spends {
		if !f[1].IsNull() {
			return at("fulfills", "must be null in a CREATE")
		}
		return nil
	}
	link, err := fields(f[1], "fulfills", "output", "txid")
	if err != nil {
		return err
	}
	index, ok := link[0].Int64()
	if !ok || index < 0 || index > maxOutputIndex {
		return at("fulfills.output", "must be an integer from 0")
	}
	if link[1].Kind() != canonical.String || !IsID(link[1].Text()) {
		return at("fulfills.txid", "must be 64 lower-case hexadecimal digits")
	}
	in.Fulfills = &OutputRef{TxID: link[1].Text(), Index: int(index)}
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

func (o *Output) read(v canonical.Value) error {
	f, err := fields(v, "", "amount", "condition", "public_keys")
	if err != nil {
		return err
	}
	amount := f[0].Text()
	if f[0].Kind() != canonical.Int || amount[0] == '-' || amount == "0" {
		return at("amount", "must be an integer of at least 1")
	}
	if len(amount) > MaxAmountDigits {
		return at("amount", "has %d digits, more than %d", len(amount), MaxAmountDigits)
	}
	o.Amount = Amount(amount)
	if o.PublicKeys, err = publicKeys(f[2]); err != nil {
		return within("public_keys", err)
	}
	c, err := fields(f[1], "condition", "details", "uri")
	if err != nil {
		return err
	}
	if c[0].Kind() != canonical.Object {
		return at("condition.details", "must be an object")
	}
	if c[1].Kind() != canonical.String || !strings.HasPrefix(c[1].Text(), "cc:") {
		return at("condition.uri", "must be a cc: URI")
	}
	o.ConditionURI = c[1].Text()
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

// fields returns the values of exactly the keys named, which are sorted. A
// key that is missing, or one too many, is an error that names it.
func fields(v canonical.Value, path string, keys ...string) ([]canonical.Value, error) {
	if v.Kind() != canonical.Object {
		return nil, at(path, "must be an object, not %s", v.Kind())
	}
	list := make([]canonical.Value, len(keys))
	for i, key := range keys {
		value, ok := v.Get(key)
		if !ok {
			return nil, at(path, "%q is missing", key)
		}
		list[i] = value
	}
	if v.Len() == len(keys) {
		return list, nil
	}
	for i := range v.Len() {
		if !slices.Contains(keys, v.Key(i)) {
			return nil, at(path, "unknown field %.60q", v.Key(i))
		}
	}
	return nil, at(path, "unknown field")
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
