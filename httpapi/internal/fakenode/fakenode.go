// Package fakenode is a ledger of one node in memory, for tests of what
// stands on node.API: the server, the client and the load tool. It keeps real
// transactions, blocks and votes, but checks only shape, ids and spending, no
// signatures.
package fakenode

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
)

// Node implements node.API.
type Node struct {
	// Hook runs before every call with the method's name and its first
	// argument (a list's with its cursor). An error that it returns is the
	// call's. Set it before use.
	Hook func(method, arg string) error
	// Manual keeps what is posted in the backlog until Decide.
	Manual bool
	// Met is what Faults lists.
	Met []journal.Fault
	// Behind is what CatchingUp returns, unless nil.
	Behind *node.CatchUp
	// Retry is what RetryAfter returns.
	Retry time.Duration

	keys ledger.KeyPair

	mu      sync.Mutex
	clock   int64
	backlog []*ledger.Transaction
	waiting map[string]chan struct{} // closed with the verdict
	refused map[string]string
	txs     map[string]*ledger.Transaction // valid
	blocks  map[string]*ledger.Block
	status  map[string]string // of blocks
	byTx    map[string][]string
	byAsset map[string][]*ledger.Transaction
	byKey   map[string][]ledger.OutputRef
	spent   map[ledger.OutputRef]bool
	votes   map[string][][]byte
	last    string // the block voted on last
	subs    map[*subscription]struct{}
}

var _ node.API = (*Node)(nil)

// New makes an empty ledger.
func New() *Node {
	return &Node{
		keys: ledger.GenerateKeyPair(), Retry: time.Second,
		waiting: map[string]chan struct{}{}, refused: map[string]string{},
		txs: map[string]*ledger.Transaction{}, blocks: map[string]*ledger.Block{}, status: map[string]string{},
		byTx: map[string][]string{}, byAsset: map[string][]*ledger.Transaction{}, byKey: map[string][]ledger.OutputRef{},
		spent: map[ledger.OutputRef]bool{}, votes: map[string][][]byte{}, subs: map[*subscription]struct{}{},
		last: strings.Repeat("0", 64),
	}
}

func (n *Node) hook(method, arg string) error {
	if n.Hook == nil {
		return nil
	}
	return n.Hook(method, arg)
}

// PublicKey implements node.API.
func (n *Node) PublicKey() string { return n.keys.Public }

// Keyring implements node.API.
func (n *Node) Keyring() []string { return []string{"6qHyZew94NMmUTYyHnkZsB8cxJYuRNEiEpXHe1ih9QX3"} }

// Rules implements node.API.
func (n *Node) Rules() string { return "fake" }

// Submit implements node.API.
func (n *Node) Submit(_ context.Context, body []byte) (*ledger.Transaction, error) {
	if err := n.hook("Submit", string(body)); err != nil {
		return nil, err
	}
	t, err := ledger.ParseTransaction(body)
	if err != nil {
		return nil, err
	}
	if t.Operation == ledger.Genesis {
		return nil, ledger.Invalid(ledger.SchemaValidationError, "operation: must be CREATE or TRANSFER")
	}
	if t.ComputeID() != t.ID {
		return nil, ledger.Invalid(ledger.InvalidHash, "the id is not the hash of the body")
	}
	t.Compact()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.txs[t.ID] != nil || n.waiting[t.ID] != nil {
		return t, nil
	}
	for _, ref := range t.Spends() {
		if n.txs[ref.TxID] == nil {
			return nil, ledger.Invalid(ledger.InputDoesNotExist, "%s is unknown", ref.TxID)
		}
		if n.spent[ref] {
			return nil, ledger.Invalid(ledger.DoubleSpend, "output %d of %s is spent", ref.Index, ref.TxID)
		}
	}
	n.backlog = append(n.backlog, t)
	n.waiting[t.ID] = make(chan struct{})
	if !n.Manual {
		n.decide("valid")
	}
	return t, nil
}

// Decide puts the backlog into one block of the status given, "valid",
// "undecided" or "invalid", and returns its id.
func (n *Node) Decide(status string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.decide(status)
}

func (n *Node) decide(status string) string {
	list := n.backlog
	n.backlog = nil
	n.clock++ // blocks of the same transactions have different ids
	b := ledger.NewBlock(n.keys, n.clock, []string{n.keys.Public}, list)
	n.blocks[b.ID], n.status[b.ID] = b, status
	if status != "undecided" {
		vote := ledger.NewVote(n.keys, b.ID, n.last, status == "valid", "", n.clock)
		n.votes[b.ID], n.last = [][]byte{vote.Bytes()}, b.ID
	}
	var events []node.Event
	for _, t := range list {
		n.byTx[t.ID] = append(n.byTx[t.ID], b.ID)
		if status == "invalid" {
			n.backlog = append(n.backlog, t)
			continue
		}
		for _, ref := range t.Spends() {
			n.spent[ref] = true
		}
		for i, o := range t.Outputs {
			for _, key := range o.PublicKeys {
				n.byKey[key] = append(n.byKey[key], ledger.OutputRef{TxID: t.ID, Index: i})
			}
		}
		if status == "undecided" {
			continue
		}
		n.txs[t.ID] = t
		n.byAsset[t.Asset] = append(n.byAsset[t.Asset], t)
		events = append(events, node.Event{TxID: t.ID, AssetID: t.Asset, BlockID: b.ID})
		close(n.waiting[t.ID])
		delete(n.waiting, t.ID)
	}
	n.publish(events)
	return b.ID
}

// Refuse drops the backlog for a reason.
func (n *Node) Refuse(reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.backlog {
		n.refused[t.ID] = reason
		close(n.waiting[t.ID])
		delete(n.waiting, t.ID)
	}
	n.backlog = nil
}

// Await implements node.API.
func (n *Node) Await(ctx context.Context, id string) error {
	if err := n.hook("Await", id); err != nil {
		return err
	}
	n.mu.Lock()
	wait := n.waiting[id]
	n.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if reason, ok := n.refused[id]; ok {
		return &node.RefusedError{Reason: reason}
	}
	return nil
}

// Transaction implements node.API.
func (n *Node) Transaction(_ context.Context, id string) ([]byte, error) {
	if err := n.hook("Transaction", id); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if t := n.txs[id]; t != nil {
		return t.Bytes(), nil
	}
	return nil, node.ErrNotFound
}

// TransactionStatus implements node.API.
func (n *Node) TransactionStatus(_ context.Context, id string) (string, error) {
	if err := n.hook("TransactionStatus", id); err != nil {
		return "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.txs[id] != nil {
		return "valid", nil
	}
	if reason, ok := n.refused[id]; ok {
		return "", &node.RefusedError{Reason: reason}
	}
	for _, block := range n.byTx[id] {
		if n.status[block] == "undecided" {
			return "undecided", nil
		}
	}
	if n.waiting[id] != nil {
		return "backlog", nil
	}
	return "", fmt.Errorf("transaction %s: %w", id, node.ErrNotFound)
}

// BlockStatus implements node.API.
func (n *Node) BlockStatus(_ context.Context, id string) (string, error) {
	if err := n.hook("BlockStatus", id); err != nil {
		return "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if status, ok := n.status[id]; ok {
		return status, nil
	}
	return "", node.ErrNotFound
}

// Block implements node.API.
func (n *Node) Block(_ context.Context, id string) ([]byte, error) {
	if err := n.hook("Block", id); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if b := n.blocks[id]; b != nil {
		return b.Bytes(), nil
	}
	return nil, node.ErrNotFound
}

// AssetTransactions implements node.API.
func (n *Node) AssetTransactions(_ context.Context, id string, operation ledger.Operation, p node.Page) ([][]byte, string, error) {
	if err := n.hook("AssetTransactions", p.Cursor); err != nil {
		return nil, "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var bodies [][]byte
	for _, t := range n.byAsset[id] {
		if operation == "" || t.Operation == operation {
			bodies = append(bodies, t.Bytes())
		}
	}
	return page(bodies, p)
}

// Outputs implements node.API.
func (n *Node) Outputs(_ context.Context, key string, unspent bool, p node.Page) ([]ledger.OutputRef, string, error) {
	if err := n.hook("Outputs", p.Cursor); err != nil {
		return nil, "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	refs := slices.Clone(n.byKey[key])
	if unspent {
		refs = slices.DeleteFunc(refs, func(r ledger.OutputRef) bool { return n.spent[r] })
	}
	return page(refs, p)
}

// BlocksWith implements node.API.
func (n *Node) BlocksWith(_ context.Context, id, status string, p node.Page) ([]string, string, error) {
	if err := n.hook("BlocksWith", p.Cursor); err != nil {
		return nil, "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	ids := slices.Clone(n.byTx[id])
	if status != "" {
		ids = slices.DeleteFunc(ids, func(b string) bool { return n.status[b] != status })
	}
	return page(ids, p)
}

// Votes implements node.API.
func (n *Node) Votes(_ context.Context, id string, p node.Page) ([][]byte, string, error) {
	if err := n.hook("Votes", p.Cursor); err != nil {
		return nil, "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return page(n.votes[id], p)
}

// page cuts a list; its cursors are indexes.
func page[T any](list []T, p node.Page) ([]T, string, error) {
	from := 0
	if p.Cursor != "" {
		n, err := strconv.Atoi(p.Cursor)
		if err != nil || n < 0 || n > len(list) {
			return nil, "", node.ErrBadCursor
		}
		from = n
	}
	to := min(from+p.Limit, len(list))
	if to == len(list) {
		return slices.Clone(list[from:to]), "", nil
	}
	return slices.Clone(list[from:to]), strconv.Itoa(to), nil
}

// Ready implements node.API.
func (n *Node) Ready() error { return n.hook("Ready", "") }

// Faults implements node.API.
func (n *Node) Faults(_ context.Context, p node.Page) ([]journal.Fault, string, error) {
	return page(n.Met, p)
}

// CatchingUp implements node.API.
func (n *Node) CatchingUp() (node.CatchUp, bool) {
	if n.Behind == nil {
		return node.CatchUp{}, false
	}
	return *n.Behind, true
}

// RetryAfter implements node.API.
func (n *Node) RetryAfter() time.Duration { return n.Retry }
