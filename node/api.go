package node

import (
	"context"
	"errors"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// Errors that callers of a Node tell apart with errors.Is. Transactions that
// break a rule give a *ledger.ValidationError or *canonical.SyntaxError.
var (
	// ErrNotFound: no such transaction or block here.
	ErrNotFound = errors.New("not found")
	// ErrBusy: the backlog is full; try again after a moment.
	ErrBusy = errors.New("the node has as many transactions waiting as it takes")
	// ErrNotReady: the node cannot take transactions now; the text says why.
	ErrNotReady = errors.New("the node is not ready")
	// ErrBadCursor: a cursor that no earlier page of this list gave.
	ErrBadCursor = errors.New("malformed bookmark")
)

// RefusedError says that a transaction, accepted earlier, was refused for good.
type RefusedError struct {
	Reason string
}

func (e *RefusedError) Error() string { return e.Reason }

// Page asks for a part of a list. Cursor is "" for the start, or the Next of
// the page before. Limit is at least 1.
type Page struct {
	Cursor string
	Limit  int
}

// QueryRequest asks for documents of a table, by Mango selector or, when Range
// is set, by their ids.
type QueryRequest struct {
	Table    string          // one of statedb.Tables
	Selector canonical.Value // an object
	Sort     []statedb.SortField
	// UseIndex names the index to use, "" for any. DesignDoc is the design
	// document that has it; when only UseIndex is set that may be a design
	// document's name too.
	UseIndex, DesignDoc string

	Range      bool
	Start, End string // ids, Start <= id < End; "" is open

	Fields   []string // dotted paths to keep; empty keeps all
	Limit    int      // rows of the page, at least 1
	Bookmark string   // of the page before, "" for the first
}

// QueryPage is one page of what a query finds. It may be shorter than the
// limit, even empty, though others follow.
type QueryPage struct {
	// Documents are JSON objects in canonical form with their _id, or only the
	// fields asked for.
	Documents [][]byte
	Bookmark  string // of the next page; "" when this was the last
	Warning   string // that every document of the table was read, or ""
	Stats     statedb.Stats
}

// QueryPlan tells how a query is answered.
type QueryPlan struct {
	statedb.Plan
	// Advice names the fields, in order, of an index that would spare a scan;
	// nil where there is no scan, or no index would help.
	Advice []string
}

// Event is one transaction that became valid.
type Event struct {
	TxID    string
	AssetID string
	BlockID string
}

// Subscription is a stream of events in the order of decisions.
type Subscription interface {
	// Events is closed when the subscription ends: when Close was called, the
	// node stops, or the reader fell so far behind that it was dropped.
	Events() <-chan []Event
	Close()
}

// API is what a node offers to its HTTP server. Lists come in a stable order;
// next is "" on the last page. All ids are lower case.
type API interface {
	// PublicKey is the node's own key, Keyring those of the other members.
	PublicKey() string
	Keyring() []string
	// Rules is the name of the rules in force.
	Rules() string

	// Submit validates a transaction and puts it into the backlog. It returns
	// when that is durable. A transaction that the ledger holds, or that
	// waits already, is returned as success and changes nothing. The answer
	// is the transaction as it was accepted, in canonical form.
	Submit(ctx context.Context, body []byte) (*ledger.Transaction, error)
	// Await returns when the transaction is in a valid block, with a
	// *RefusedError when it was refused, or with the context's error.
	Await(ctx context.Context, txID string) error

	// Transaction returns the canonical body of a transaction in a valid block.
	Transaction(ctx context.Context, txID string) ([]byte, error)
	// TransactionStatus gives a transaction's status: "valid", "undecided",
	// "disputed" or "backlog". Otherwise ErrNotFound, or a *RefusedError when
	// the node remembers why it refused the transaction after accepting it.
	TransactionStatus(ctx context.Context, txID string) (string, error)
	// BlockStatus gives a block's status: "valid", "undecided", "invalid" or
	// "disputed".
	BlockStatus(ctx context.Context, blockID string) (string, error)
	// Block returns a block's canonical form, whatever its status.
	Block(ctx context.Context, blockID string) ([]byte, error)

	// AssetTransactions lists the bodies of an asset's valid transactions in
	// the order they became valid. operation is "" for all.
	AssetTransactions(ctx context.Context, assetID string, operation ledger.Operation, p Page) (bodies [][]byte, next string, err error)
	// Outputs lists the outputs that name a public key, in the order their
	// transactions reached a block; only those no live transaction spends
	// when unspent is set.
	Outputs(ctx context.Context, publicKey string, unspent bool, p Page) (refs []ledger.OutputRef, next string, err error)
	// BlocksWith lists the ids of blocks that hold a transaction. status is
	// "" for all.
	BlocksWith(ctx context.Context, txID string, status string, p Page) (blockIDs []string, next string, err error)
	// Votes lists the canonical forms of all votes on a block, sound or not.
	Votes(ctx context.Context, blockID string, p Page) (votes [][]byte, next string, err error)

	// Query reads one page of the documents that a query asks for. What this
	// node does not know to be sound is left out, nothing is served altered.
	// Errors wrap statedb.ErrBadQuery, ErrNoIndex, ErrScan or ErrBuilding, as
	// statedb.DB's Find has them; ErrBadCursor, when the bookmark is of another
	// query, where Fields make no difference; or ErrNotReady.
	Query(ctx context.Context, q QueryRequest) (QueryPage, error)
	// Explain tells how Query would go about it, also where it would refuse a
	// scan.
	Explain(ctx context.Context, q QueryRequest) (QueryPlan, error)

	// Faults lists what strangers, liars and broken nodes wrote, as far as this
	// node met it, oldest first; see journal.Fault.
	Faults(ctx context.Context, p Page) (faults []journal.Fault, next string, err error)

	// Subscribe opens a stream of valid transactions from now on.
	Subscribe() Subscription

	// Ready returns nil when the database is reached and the node has caught
	// up with it, else what is missing.
	Ready() error
	// CatchingUp tells how far the node is while it reads what the ledger held
	// before the node started. What it answers is of then, as far as that; behind
	// is false once it has read all.
	CatchingUp() (up CatchUp, behind bool)
	// RetryAfter is how long a client should wait after ErrBusy or ErrNotReady.
	RetryAfter() time.Duration
}
