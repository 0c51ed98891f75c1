package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/cryptoconditions"
)

// Payment is an output to be made: an amount for the holders of some keys.
type Payment struct {
	Owners []string // base58; all of them must sign to spend it
	Amount int64
	// Details, when not null, is the condition to use instead of the owners'.
	Details canonical.Value
}

// Source is an output to be spent.
type Source struct {
	Ref          OutputRef
	OwnersBefore []string        // the output's public_keys
	Details      canonical.Value // the output's condition.details
}

// PayTo makes a Payment of an amount to one owner.
func PayTo(owner string, amount int64) Payment {
	return Payment{Owners: []string{owner}, Amount: amount}
}

// SourceOf describes output i of t for spending.
func SourceOf(t *Transaction, i int) Source {
	return Source{
		Ref:          OutputRef{TxID: t.ID, Index: i},
		OwnersBefore: t.Outputs[i].PublicKeys, Details: t.Details(i),
	}
}

// NewCreate makes and signs a CREATE by the issuers given. data and metadata
// are null or objects; metadata must not be empty.
func NewCreate(issuers []KeyPair, data, metadata canonical.Value, payments ...Payment) (*Transaction, error) {
	return newCreate(Create, issuers, data, metadata, payments)
}

// NewGenesis makes and signs the transaction of a ledger's first block. It has
// a random part, so that no two ledgers begin alike. rules names those by which
// the ledger's blocks are decided, "" the documents'.
func NewGenesis(node KeyPair, rules string) (*Transaction, error) {
	metadata := []canonical.Member{
		{Key: "ledger", Value: canonical.StringOf(rand.Text())},
		{Key: "message", Value: canonical.StringOf("Hello World from the BigchainDB")},
	}
	if rules != "" {
		metadata = append(metadata, canonical.Member{Key: rulesField, Value: canonical.StringOf(rules)})
	}
	return newCreate(Genesis, []KeyPair{node}, canonical.Value{}, canonical.ObjectOf(metadata...), []Payment{PayTo(node.Public, 1)})
}

func newCreate(operation Operation, issuers []KeyPair, data, metadata canonical.Value, payments []Payment) (*Transaction, error) {
	owners := make([]string, len(issuers))
	for i, k := range issuers {
		owners[i] = k.Public
	}
	issuer := Source{OwnersBefore: owners, Details: detailsOf(owners)}
	asset := canonical.ObjectOf(canonical.Member{Key: "data", Value: data})
	return build(operation, asset, metadata, []Source{issuer}, payments, issuers)
}

// NewTransfer makes and signs a TRANSFER of outputs of one asset.
func NewTransfer(asset string, sources []Source, metadata canonical.Value, payments []Payment, signers ...KeyPair) (*Transaction, error) {
	id := canonical.ObjectOf(canonical.Member{Key: "id", Value: canonical.StringOf(asset)})
	return build(Transfer, id, metadata, sources, payments, signers)
}

func build(operation Operation, asset, metadata canonical.Value, sources []Source, payments []Payment, signers []KeyPair) (*Transaction, error) {
	outputs := make([]canonical.Value, len(payments))
	for i, p := range payments {
		output, err := p.value()
		if err != nil {
			return nil, fmt.Errorf("output %d: %w", i, err)
		}
		outputs[i] = output
	}
	inputs := make([]canonical.Value, len(sources))
	for i, s := range sources {
		inputs[i] = s.value(operation == Transfer)
	}
	tree := canonical.ObjectOf(
		canonical.Member{Key: "asset", Value: asset},
		canonical.Member{Key: "id", Value: canonical.Value{}},
		canonical.Member{Key: "inputs", Value: canonical.ArrayOf(inputs...)},
		canonical.Member{Key: "metadata", Value: metadata},
		canonical.Member{Key: "operation", Value: canonical.StringOf(string(operation))},
		canonical.Member{Key: "outputs", Value: canonical.ArrayOf(outputs...)},
		canonical.Member{Key: "version", Value: canonical.StringOf(Version)},
	)
	secrets := make(map[string]ed25519.PrivateKey, len(signers))
	for _, k := range signers {
		secrets[k.Public] = k.Secret()
	}
	unsigned := newForm(tree, typicalBytes)
	id := unsigned.computeID()
	for i, s := range sources {
		f, err := cryptoconditions.Sign(s.Details, unsigned.signingMessage(i, id), secrets)
		if err != nil {
			return nil, fmt.Errorf("input %d: %w", i, err)
		}
		inputs[i] = inputs[i].With("fulfillment", canonical.StringOf(f.URI()))
	}
	return TransactionFromValue(tree.With("id", canonical.StringOf(id)).With("inputs", canonical.ArrayOf(inputs...)))
}

func (p Payment) value() (canonical.Value, error) {
	details := p.Details
	if details.IsNull() {
		if len(p.Owners) == 0 {
			return details, errors.New("no owners")
		}
		details = detailsOf(p.Owners)
	}
	condition, err := cryptoconditions.FromDetails(details, cryptoconditions.NewBudget())
	if err != nil {
		return details, err
	}
	return canonical.ObjectOf(
		canonical.Member{Key: "amount", Value: canonical.IntOf(p.Amount)},
		canonical.Member{Key: "condition", Value: canonical.ObjectOf(
			canonical.Member{Key: "details", Value: details},
			canonical.Member{Key: "uri", Value: canonical.StringOf(condition.URI())},
		)},
		canonical.Member{Key: "public_keys", Value: canonical.StringsOf(p.Owners)},
	), nil
}

func (s Source) value(spends bool) canonical.Value {
	var fulfills canonical.Value
	if spends {
		fulfills = canonical.ObjectOf(
			canonical.Member{Key: "output", Value: canonical.IntOf(int64(s.Ref.Index))},
			canonical.Member{Key: "txid", Value: canonical.StringOf(s.Ref.TxID)},
		)
	}
	return canonical.ObjectOf(
		canonical.Member{Key: "fulfillment", Value: canonical.Value{}},
		canonical.Member{Key: "fulfills", Value: fulfills},
		canonical.Member{Key: "owners_before", Value: canonical.StringsOf(s.OwnersBefore)},
	)
}

// detailsOf is the condition that all owners meet together.
func detailsOf(owners []string) canonical.Value {
	if len(owners) == 1 {
		return cryptoconditions.Ed25519Details(owners[0])
	}
	children := make([]cryptoconditions.WeightedDetails, len(owners))
	for i, owner := range owners {
		children[i] = cryptoconditions.WeightedDetails{Weight: 1, Details: cryptoconditions.Ed25519Details(owner)}
	}
	return cryptoconditions.ThresholdDetails(len(owners), children...)
}
