// Package statedb is the contract between the node and its document database.
//
// It has CouchDB's semantics, in the small: JSON documents under a string id
// with a revision, written in batches with an outcome for each, read by id, by
// id range and by Mango selector, and followed through a changes feed. Every
// adapter passes the same suite, package statedbtest. Strings sort as each
// database sorts them: embedded and RethinkDB by bytes, CouchDB by ICU.
package statedb

import (
	"context"
	"slices"

	"github.com/couchledger/couchledger/canonical"
)

// The tables of a ledger. A table is a database of its own in CouchDB
// (<name>_backlog, …), a collection in MongoDB, a table in RethinkDB.
const (
	Backlog      = "backlog"      // transactions that wait for a decision
	Bigchain     = "bigchain"     // blocks, and the federation's history
	Votes        = "votes"        // votes on blocks
	Transactions = "transactions" // derived: transactions of valid blocks, for queries
)

// Tables lists every table in the order they are created.
var Tables = []string{Backlog, Bigchain, Votes, Transactions}

// Document is a document as it was read.
type Document struct {
	ID   string
	Rev  string // opaque; "" where Get found no document
	Body []byte // a JSON object without _id and _rev, numbers as they were written
	// Others are the revisions that stand beside this one in conflict: what
	// replication brought from somebody who wrote to the same id. Get gives
	// them, in no order; only CouchDB can have any. Revisions reads them all.
	Others []Revision
}

// Revision is one of several contents of a document.
type Revision struct {
	Rev  string
	Body []byte // nil in a Document where Get left it out, as others were large
}

// Write is one document to create, update or delete.
type Write struct {
	ID     string
	Rev    string // the revision to replace; "" creates, and conflicts with any document there
	Body   []byte // a JSON object without _id and _rev; ignored when Delete is set
	Delete bool
}

// Result is the outcome of one Write: the new revision, or an error that wraps
// ErrConflict, ErrTooLarge or ErrBadDocument.
type Result struct {
	Rev string
	Err error
}

// DB is one ledger's database. All methods may be called from many goroutines.
// A method returns an error that wraps ErrUnavailable when trying again later
// may help, and ErrNoDatabase when the database is not there.
type DB interface {
	// Create makes the database and its tables where they are missing, and
	// reports whether it made the database.
	Create(ctx context.Context) (created bool, err error)

	// Drop deletes the database with all its tables. ErrNoDatabase if there is none.
	Drop(ctx context.Context) error

	// Health returns nil when the database answers and all tables are there.
	Health(ctx context.Context) error

	// DeployIndexes makes the table's indexes be these. A definition that
	// changed under its name is built anew, one that is not listed is left.
	// It returns when they can be used. Meanwhile progress, unless nil, is
	// told now and then which indexes are being built.
	DeployIndexes(ctx context.Context, table string, indexes []Index, progress func([]IndexState)) error

	// Indexes lists the table's indexes by name, those that others made too.
	Indexes(ctx context.Context, table string) ([]IndexState, error)

	// Write applies all writes in one round trip and returns an outcome for
	// each, in order; writes of one id take effect one after the other. They
	// are durable when it returns, and so is what a conflict was with. A
	// deletion needs the revision of a document that is there, and leaves a
	// row in the feed; the id may be created again. An error means that the
	// outcome of all of them is unknown: some may have been applied.
	Write(ctx context.Context, table string, writes []Write) ([]Result, error)

	// Remove takes documents away for good, whatever their revision, without
	// leaving a trace that grows; ids that are not there are fine. The feed
	// may or may not carry a row for them, and an id may be created again.
	Remove(ctx context.Context, table string, ids []string) error

	// Get reads documents by id in one round trip. The answer has one element
	// for each id, in order, with an empty Rev where there is none. It may end
	// early, at least one being there, where the documents are large: whoever
	// can write to a table must not fill the memory of who reads it. Each asks
	// for the rest.
	Get(ctx context.Context, table string, ids []string) ([]Document, error)

	// Range reads documents by id, in the database's order of strings. A page
	// may have fewer rows than asked for where they are large.
	Range(ctx context.Context, table string, r Range) (Page, error)

	// Find reads the documents that match a Mango selector. A document that is
	// there throughout, under the same index key, is on exactly one page,
	// whatever else comes and goes between them. The last page may be empty, and any
	// may have fewer documents than asked for where they are large.
	// ErrNoIndex when none serves the sort or the one named does not fit,
	// ErrScan when it would read the whole table and must not, ErrBuilding
	// when the index it needs is not ready.
	Find(ctx context.Context, table string, q Query) (Page, error)

	// Explain tells how Find would go about it.
	Explain(ctx context.Context, table string, q Query) (Plan, error)

	// Changes opens the table's feed after the token since, "" being the
	// start. Each document is there once, at its latest change. A feed is at
	// least once: after a resume, rows may come again, none is missing. A
	// token of another table or of a dropped database is ErrBadToken.
	Changes(ctx context.Context, table string, since string) (Feed, error)

	// Limits tells what the database can hold.
	Limits() Limits

	// Check reports what in a document the database cannot hold exactly, as
	// an *UnsupportedError that names the path.
	Check(document canonical.Value) error

	// Close releases the connection. Open feeds end with ErrClosed.
	Close() error
}

// Range asks for documents with Start <= id < End; empty bounds are open.
type Range struct {
	Start, End string
	Limit      int    // rows of one page, at least 1
	Bookmark   string // from the page before; "" for the first
}

// Query asks for documents by Mango selector.
type Query struct {
	Selector canonical.Value // an object
	Sort     []SortField     // needs an index that gives this order: ErrNoIndex
	Fields   []string        // dotted paths to keep; empty keeps all
	Limit    int             // rows of one page, at least 1
	Bookmark string          // from the page before; "" for the first
	UseIndex string          // an index by name; "" lets the database choose
	NoScan   bool            // ErrScan rather than reading every document of the table
}

// SortField is one field of a sort order, by dotted path.
type SortField struct {
	Field      string
	Descending bool
}

// Page is a part of a result.
type Page struct {
	Documents []Document
	Bookmark  string // where the next page begins; "" when this was the last
	Warning   string // that every document of the table was read, or ""
	Stats     Stats
}

// Stats tells what a page cost; -1 where the database does not tell.
type Stats struct {
	Keys      int // index rows read
	Documents int // documents read
}

// Plan tells how a query is answered.
type Plan struct {
	Index    string   // the index's name; "" for a scan of the whole table
	Fields   []string // the index's fields
	Covering string   // one sentence: which part of the selector the index serves
	Scan     bool     // every document of the table is read
}

// Index is a packaged index: what one file under indexes/ holds, in the JSON
// that CouchDB's POST /{db}/_index takes.
type Index struct {
	Name   string
	DDoc   string
	Fields []SortField
	// PartialFilter keeps documents that do not match out of the index; null
	// when every document that has all the fields is in it.
	PartialFilter canonical.Value
}

// Equal reports whether both are the same definition.
func (ix Index) Equal(other Index) bool {
	return ix.Name == other.Name && ix.DDoc == other.DDoc && slices.Equal(ix.Fields, other.Fields) &&
		canonical.Equal(ix.PartialFilter, other.PartialFilter)
}

// IndexState is an index as it is in the database.
type IndexState struct {
	Index
	Pending int // documents still to be indexed; 0 when it can be used
	Total   int // documents in the table while it is being built, else 0
}

// Building sums up the indexes that are being built: their names, and of the one
// that is furthest behind the documents still to be indexed and all of them.
func Building(states []IndexState) (names []string, pending, total int) {
	for _, state := range states {
		if state.Pending > 0 {
			names = append(names, state.Name)
			pending, total = max(pending, state.Pending), max(total, state.Total)
		}
	}
	return names, pending, total
}

// Feed is an open changes feed. It is used by one goroutine.
type Feed interface {
	// Next waits for changes and returns at least one, or an empty batch that
	// says CaughtUp the first time the feed has nothing more to tell. After
	// an error the feed is closed; open another from the last token.
	Next(ctx context.Context) (Batch, error)
	Close() error
}

// Batch is a run of changes.
type Batch struct {
	Changes  []Change
	Token    string // resume after these changes
	CaughtUp bool   // nothing more was waiting when this batch was read
}

// Change says that a document is there, or no longer, at a revision.
type Change struct {
	ID      string
	Rev     string
	Deleted bool
}

// Limits of a database.
type Limits struct {
	MaxDocumentBytes int // of one document as JSON
	MaxBatch         int // documents of one Write
	Writers          int // Writes to a table at a time that serve many small writers best
}
