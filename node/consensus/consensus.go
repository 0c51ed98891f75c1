// Package consensus holds the rules by which nodes agree: when a transaction
// is valid, and when a block is. It is pure; what it needs to know of the
// ledger it asks of a View.
//
// Rules are chosen by name (setting consensus_plugin). What they decide never
// depends on any other setting, else two nodes would differ.
package consensus

import (
	"fmt"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/node/ledger"
)

// Status is what is known of a transaction's or a block's fate.
type Status uint8

// The statuses. A transaction that is only in invalid blocks is Unknown, one
// that is in disputed ones and in no better is Disputed.
const (
	Unknown Status = iota
	Undecided
	Valid
	Invalid
	// Disputed: members voted both ways on the block, and enough did so that
	// one honest node may have decided it valid and another one invalid.
	Disputed
)

var statusNames = [...]string{"unknown", "undecided", "valid", "invalid", "disputed"}

// String gives the word the API uses.
func (s Status) String() string { return statusNames[s] }

// Output is an output of an earlier transaction, as a View knows it.
type Output struct {
	// Status is that of the transaction with the output: Valid, Undecided,
	// Disputed, or Unknown when there is no such transaction or output.
	Status       Status
	Asset        string
	ConditionURI string
	PublicKeys   []string
	Amount       ledger.Amount
	// SpentBy lists the ids of transactions that spend the output already, as
	// far as the view counts them.
	SpentBy []string
}

// View answers what a ledger holds, as of now.
type View interface {
	Output(ref ledger.OutputRef) (Output, error)
}

// Proof is what CheckTransaction found out about a sound transaction: for
// each input, the condition URI that its fulfillment produces.
type Proof []string

// Rules decide. Implementations are stateless and safe for concurrent use.
type Rules interface {
	// Name is the name the rules are registered under.
	Name() string

	// CheckTransaction checks all that a transaction shows by itself: its id,
	// its conditions and every input's fulfillment. It costs one signature
	// verification for each signature. Errors are *ledger.ValidationError.
	CheckTransaction(t *ledger.Transaction) (Proof, error)

	// CheckSpends checks what a TRANSFER spends against a view. Errors are
	// *ledger.ValidationError, of kind TransactionNotInValidBlock only when
	// an undecided or disputed input is all that stands in the way; others
	// come from the view.
	CheckSpends(t *ledger.Transaction, proof Proof, view View) error

	// Tally counts the verdicts of a block's eligible voters.
	Tally(voters, valid, invalid int) Status
}

var registered []Rules

// Register makes rules available under their name. It is called from init
// functions; a name that is taken is a programming error and panics.
func Register(r Rules) {
	if _, err := Lookup(r.Name()); err == nil {
		panic("consensus: rules registered twice: " + r.Name())
	}
	registered = append(registered, r)
}

// Default is the name of the documents' rules.
const Default = "majority"

// Lookup returns the rules of that name. "" is the default, as is "default",
// which config files of older servers hold.
func Lookup(name string) (Rules, error) {
	if name == "" || name == "default" {
		name = Default
	}
	names := make([]string, len(registered))
	for i, r := range registered {
		if r.Name() == name {
			return r, nil
		}
		names[i] = r.Name()
	}
	slices.Sort(names)
	return nil, fmt.Errorf("no consensus rules are named %.64q; there are: %s", name, strings.Join(names, ", "))
}
