package cryptoconditions

import "errors"

// Limits. They are constants of the rule, not settings: nodes vote by them, so
// every node must draw the line at the same place. The draft itself has only
// MaxFulfillmentLength; the others keep the work that a stranger's condition
// can cause small and bounded. Whatever FromDetails accepts as an output can
// also be spent: the limits on fulfillments are never the tighter ones.
const (
	// MaxDepth is how many thresholds may stand inside each other.
	MaxDepth = 8
	// MaxChildren is how many children all thresholds of one condition or one
	// fulfillment may have together.
	MaxChildren = 1000
	// MaxWeight bounds a child's weight and a threshold.
	MaxWeight = 1<<31 - 1
	// MaxFulfillmentLength bounds, in bytes, the max length that a condition
	// states, and a preimage.
	MaxFulfillmentLength = 65535
	// MaxPayload bounds, in bytes, the payload of a fulfillment. It is above
	// MaxFulfillmentLength since the draft's max length leaves out length
	// prefixes and weights of 1, up to 6 bytes per child, and counts the least
	// children that suffice, while all may have signed.
	MaxPayload = 128 << 10
	// MaxSteps is what a Budget holds.
	MaxSteps = 1 << 18
)

// The errors of this package wrap one of these. Their messages are short and
// never repeat what was read.
var (
	// ErrCondition: not a condition, or not in its one canonical form.
	ErrCondition = errors.New("invalid condition")
	// ErrDetails: not the JSON of a condition's details.
	ErrDetails = errors.New("invalid condition details")
	// ErrFulfillment: not a fulfillment, or not in its one canonical form.
	ErrFulfillment = errors.New("invalid fulfillment")
	// ErrTooComplex: well formed as far as it was read, but beyond a limit.
	ErrTooComplex = errors.New("condition too complex")
	// ErrNoKey: Sign has none of the keys that the details ask for.
	ErrNoKey = errors.New("no key to sign with")
)

// Budget bounds the work that goes into the max lengths of thresholds. One
// Budget is shared by all inputs and outputs of a transaction, so that many
// hostile conditions cost no more than one. It is not safe for concurrent use.
//
// What counts is part of the rule: see maxGain.
type Budget struct{ steps int }

// NewBudget returns a Budget of MaxSteps.
func NewBudget() *Budget { return &Budget{steps: MaxSteps} }

// spend takes n steps, or all that is left and fails.
func (b *Budget) spend(n int) error {
	if n > b.steps {
		b.steps = 0
		return ErrTooComplex
	}
	b.steps -= n
	return nil
}
