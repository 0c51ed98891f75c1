package ledger

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/couchledger/couchledger/canonical"
)

// Limits on blocks, constants of the rules.
const (
	// MaxBlockTransactions bounds how many transactions stand in one block.
	MaxBlockTransactions = 1000
	// MaxBlockBytes bounds a block's canonical form. CouchDB takes documents
	// of 8,000,000 bytes, to which it adds _id and _rev.
	MaxBlockBytes = 7_500_000
	// BlockOverhead is more than a block takes beside its transactions and
	// voters, in bytes.
	BlockOverhead = 1000
)

// Block is a signed list of transactions. It is immutable.
type Block struct {
	ID           string // hash of the inner block
	Timestamp    int64  // Unix seconds, by its maker's clock
	NodePubkey   string // its maker, base58
	Voters       []string
	Transactions []*Transaction
	Signature    string // base58, by the maker over the inner block

	inner []byte
}

// NewBlock makes and signs a block.
func NewBlock(maker KeyPair, timestamp int64, voters []string, transactions []*Transaction) *Block {
	b := &Block{Timestamp: timestamp, NodePubkey: maker.Public, Voters: voters, Transactions: transactions}
	b.inner = b.appendInner(nil)
	b.ID = Hash(b.inner)
	b.Signature = sign(maker, b.inner)
	return b
}

// appendInner appends what is hashed and signed. Keys stand in code point order.
func (b *Block) appendInner(dst []byte) []byte {
	size := BlockOverhead + len(b.Voters)*(maxKeyLength+3)
	for _, t := range b.Transactions {
		size += len(t.body) + 1
	}
	dst = append(make([]byte, 0, len(dst)+size), dst...)
	dst = append(dst, `{"node_pubkey":`...)
	dst = canonical.AppendString(dst, b.NodePubkey)
	dst = append(dst, `,"timestamp":"`...)
	dst = strconv.AppendInt(dst, b.Timestamp, 10)
	dst = append(dst, `","transactions":[`...)
	for i, t := range b.Transactions {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, t.body...)
	}
	dst = append(dst, `],"voters":[`...)
	for i, voter := range b.Voters {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = canonical.AppendString(dst, voter)
	}
	return append(dst, `]}`...)
}

// Size is about the length of Bytes, without making them.
func (b *Block) Size() int { return len(b.inner) + BlockOverhead }

// Bytes returns the canonical form of the block as the API shows it.
func (b *Block) Bytes() []byte {
	dst := make([]byte, 0, len(b.inner)+BlockOverhead)
	dst = append(dst, `{"block":`...)
	dst = append(dst, b.inner...)
	dst = append(dst, `,"id":`...)
	dst = canonical.AppendString(dst, b.ID)
	dst = append(dst, `,"signature":`...)
	dst = canonical.AppendString(dst, b.Signature)
	return append(dst, '}')
}

// ParseBlock reads a block and checks its shape, also that of every
// transaction in it. Errors wrap ErrMalformed. It checks no hash and no
// signature: see Verify.
func ParseBlock(data []byte) (*Block, error) {
	tree, err := canonical.ParseWithin(data, canonical.Limits{Depth: MaxDepth + blockDepth})
	if err != nil {
		return nil, fmt.Errorf("block: %w: %w", ErrMalformed, err)
	}
	b := &Block{}
	if err := b.read(tree); err != nil {
		return nil, fmt.Errorf("block: %w: %w", ErrMalformed, err)
	}
	b.inner = b.appendInner(nil)
	if len(b.inner) > MaxBlockBytes {
		return nil, fmt.Errorf("block: %w: it has %d bytes, more than %d", ErrMalformed, len(b.inner), MaxBlockBytes)
	}
	return b, nil
}

// blockDepth is how deep a transaction stands inside a block.
const blockDepth = 3

func (b *Block) read(tree canonical.Value) error {
	if err := hasFields(tree, "", "block", "id", "signature"); err != nil {
		return err
	}
	inner, id, signature := tree.At(0), tree.At(1), tree.At(2)
	if err := hasFields(inner, "block", "node_pubkey", "timestamp", "transactions", "voters"); err != nil {
		return err
	}
	maker, timestamp, list, voters := inner.At(0), inner.At(1), inner.At(2), inner.At(3)
	for _, v := range []canonical.Value{id, signature, maker} {
		if v.Kind() != canonical.String {
			return at("", "id, signature and block.node_pubkey must be strings")
		}
	}
	b.ID, b.Signature, b.NodePubkey = id.Text(), signature.Text(), maker.Text()
	var err error
	if b.Timestamp, err = readTimestamp(timestamp); err != nil {
		return within("block.timestamp", err)
	}
	if b.Voters, err = publicKeys(voters); err != nil {
		return within("block.voters", err)
	}
	if len(b.Voters) == 0 {
		return at("block.voters", "must be a list of at least one key")
	}
	if list.Kind() != canonical.Array || list.Len() == 0 || list.Len() > MaxBlockTransactions {
		return at("block.transactions", "must be an array of 1 to %d transactions", MaxBlockTransactions)
	}
	b.Transactions = make([]*Transaction, list.Len())
	for i := range b.Transactions {
		if b.Transactions[i], err = readTransaction(list.At(i), typicalBytes); err != nil {
			return within(fmt.Sprintf("block.transactions.%d", i), err)
		}
	}
	return nil
}

// maxTimestampDigits keeps Unix seconds in an int64.
const maxTimestampDigits = 18

func readTimestamp(v canonical.Value) (int64, error) {
	text := v.Text()
	n, err := strconv.ParseInt(text, 10, 64)
	if v.Kind() != canonical.String || err != nil || len(text) > maxTimestampDigits ||
		strconv.FormatInt(n, 10) != text || n < 0 {
		return 0, at("", "must be Unix seconds as a string")
	}
	return n, nil
}

// ErrSignature is wrapped by what Verify finds wrong with a block's signature.
var ErrSignature = errors.New("the signature is not its maker's")

// Verify checks the block's id and its maker's signature.
func (b *Block) Verify() error {
	if Hash(b.inner) != b.ID {
		return fmt.Errorf("block %.64s: its id is not the hash of its body", b.ID)
	}
	if !verify(b.NodePubkey, b.inner, b.Signature) {
		return fmt.Errorf("block %s: %w", b.ID, ErrSignature)
	}
	return nil
}

// IsGenesis reports whether b is a first block: one GENESIS transaction and
// nothing else.
func (b *Block) IsGenesis() bool {
	return len(b.Transactions) == 1 && b.Transactions[0].Operation == Genesis
}

// rulesField is where the metadata of a GENESIS names the rules by which the
// ledger's blocks are decided.
const rulesField = "rules"

// Rules returns the name of the rules by which a ledger decides, of its genesis
// block: "" where it names none, as those of 0.10 do.
func (b *Block) Rules() string {
	if !b.IsGenesis() {
		return ""
	}
	metadata, _ := b.Transactions[0].Value().Get("metadata")
	name, _ := metadata.Get(rulesField)
	return name.Text()
}
