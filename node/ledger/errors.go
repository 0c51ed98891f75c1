package ledger

import (
	"errors"
	"fmt"
)

// Kind names the rule that a transaction breaks. The words are those of the
// 0.10 server's exceptions; drivers look for them in a 400's message.
type Kind string

// The kinds of validation failure.
const (
	SchemaValidationError      Kind = "SchemaValidationError"
	InvalidHash                Kind = "InvalidHash"
	InvalidSignature           Kind = "InvalidSignature"
	DoubleSpend                Kind = "DoubleSpend"
	InputDoesNotExist          Kind = "InputDoesNotExist"
	TransactionNotInValidBlock Kind = "TransactionNotInValidBlock"
	AssetIDMismatch            Kind = "AssetIdMismatch"
	AmountError                Kind = "AmountError"
)

// ValidationError says which rule a transaction breaks and how.
type ValidationError struct {
	Kind   Kind
	Reason string
}

// Error gives the text of the API's 400.
func (e *ValidationError) Error() string {
	return fmt.Sprintf("Invalid transaction (%s): %s", e.Kind, e.Reason)
}

// Invalid makes a ValidationError with a formatted reason.
func Invalid(kind Kind, format string, args ...any) *ValidationError {
	return &ValidationError{Kind: kind, Reason: fmt.Sprintf(format, args...)}
}

// IsKind reports whether err is a ValidationError of that kind.
func IsKind(err error, kind Kind) bool {
	var invalid *ValidationError
	return errors.As(err, &invalid) && invalid.Kind == kind
}

// ErrMalformed is wrapped by errors about blocks and votes that do not have
// the documented shape.
var ErrMalformed = errors.New("malformed")
