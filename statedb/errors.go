package statedb

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrConflict: the document is not at the revision given, or exists
	// although none was given.
	ErrConflict = errors.New("statedb: conflict")
	// ErrTooLarge: the document, or all of a batch, is larger than the database
	// takes.
	ErrTooLarge = errors.New("statedb: document too large")
	// ErrNoDatabase: the database, or one of its tables, does not exist.
	ErrNoDatabase = errors.New("statedb: no such database")
	// ErrUnavailable: the database does not answer, or not now.
	ErrUnavailable = errors.New("statedb: database unavailable")
	// ErrNoIndex: no index gives the order a query sorts by, or the index it
	// names cannot serve it.
	ErrNoIndex = errors.New("statedb: no usable index")
	// ErrScan: no index serves the query, and it may not read the whole table.
	ErrScan = errors.New("statedb: the query would read the whole table")
	// ErrBuilding: the index that the query needs is being built. It is an
	// ErrUnavailable too.
	ErrBuilding = fmt.Errorf("%w: the index is being built", ErrUnavailable)
	// ErrDenied: the database does not let this user in, or not do this. The
	// text says which right is missing.
	ErrDenied = errors.New("statedb: access denied")
	// ErrBadQuery: the selector, sort, fields or limit is malformed.
	ErrBadQuery = errors.New("statedb: bad query")
	// ErrBadBookmark: the bookmark is malformed or belongs to another query.
	ErrBadBookmark = errors.New("statedb: bad bookmark")
	// ErrBadToken: the changes token is malformed, or belongs to another table
	// or to a database that was dropped since.
	ErrBadToken = errors.New("statedb: bad changes token")
	// ErrBadDocument: an id or a body that no database takes: see CheckID and
	// the shape of Write.Body.
	ErrBadDocument = errors.New("statedb: bad document")
	// ErrLocked: another process has the database's folder open.
	ErrLocked = errors.New("statedb: in use by another process")
	// ErrClosed: the database or the feed was closed.
	ErrClosed = errors.New("statedb: closed")
)

// UnsupportedError names a part of a document that a database cannot hold
// exactly.
type UnsupportedError struct {
	Path   string // such as asset.data.serial
	Reason string
}

func (e *UnsupportedError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Reason) }
