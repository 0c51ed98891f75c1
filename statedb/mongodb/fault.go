package mongodb

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/couchledger/couchledger/statedb"
)

// Codes of MongoDB's errors that mean something to the contract.
const (
	codeBadValue          = 2
	codeNoPlan            = 291
	codeUnauthorized      = 13
	codeLoginFailed       = 18
	codeNoNamespace       = 26
	codeNoIndex           = 27
	codeNamespaceExists   = 48
	codeAlreadyInitiated  = 23
	codeStreamFatal       = 280
	codeStreamHistoryLost = 286
	codeBadResumeToken    = 260
	codeDuplicateKey      = 11000
	codeDocumentTooLarge  = 10334
	codeAtlas             = 8000
)

// passing are codes of errors that trying again later may help: the server is
// going down or is no primary any more, an election is under way, a cursor was
// lost, time was up.
var passing = []int32{
	6, 7, 24, 43, 50, 64, 89, 91, 100, 112, 133, 134, 175, 189, 202, 237, 246, 262, 317, 358, 384, 9001, 10058, 10107, 11600, 11602, 13435, 13436,
}

// tooLarge are codes of a document, or of a command, that is too large.
var tooLarge = []int{codeDocumentTooLarge, 17280, 17419, 17420}

// bound gives a context that ends when the database is closed, too, and after
// the time that one command may take.
func (db *DB) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, db.opts.RequestTimeout)
	stop := context.AfterFunc(db.closed, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// fault gives an error the meaning that the contract has for it. ctx is the
// caller's, without a time limit of ours.
func (db *DB) fault(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case db.closed.Err() != nil:
		return statedb.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case isMeant(err):
		return err
	}
	code := codeOf(err)
	switch {
	case code == codeUnauthorized || code == codeLoginFailed || code == codeAtlas:
		return db.denied(err)
	case code == codeNoNamespace:
		return fmt.Errorf("%w: %w", statedb.ErrNoDatabase, err)
	case slices.Contains(tooLarge, int(code)):
		return fmt.Errorf("%w: %w", statedb.ErrTooLarge, err)
	case code == 0, slices.Contains(passing, code):
		// Without a code there was no answer: no connection, no server that
		// could be chosen, a timeout of ours.
		return fmt.Errorf("%w: %w", statedb.ErrUnavailable, err)
	}
	return fmt.Errorf("mongodb: %w", err)
}

// refusal is an error that says all there is to say and does not pass.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

func refuse(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// isMeant reports whether an error has its meaning already.
func isMeant(err error) bool {
	var final *refusal
	if errors.As(err, &final) {
		return true
	}
	for _, known := range []error{
		statedb.ErrUnavailable, statedb.ErrNoDatabase, statedb.ErrBadToken, statedb.ErrDenied, statedb.ErrClosed, statedb.ErrTooLarge,
		statedb.ErrBadQuery, statedb.ErrNoIndex, statedb.ErrScan, statedb.ErrBadBookmark,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// codeOf is the code of the server's error, 0 where it gave none.
func codeOf(err error) int32 {
	var answer mongo.CommandError
	if errors.As(err, &answer) {
		return answer.Code
	}
	var several mongo.ServerError
	if errors.As(err, &several) {
		if codes := several.ErrorCodes(); len(codes) > 0 {
			return int32(codes[0])
		}
	}
	return 0
}

// denied tells what the user lacks.
func (db *DB) denied(err error) error {
	switch {
	case db.opts.Login == "":
		return fmt.Errorf("%w: MongoDB at %s wants a user: set database.login, and database.password in BIGCHAINDB_DATABASE_PASSWORD (%w)", statedb.ErrDenied, db.address, err)
	case codeOf(err) == codeUnauthorized:
		return fmt.Errorf("%w: the MongoDB user %q may not do this at %s: the user of database.login needs the role readWrite on the database %s, and clusterManager on admin to change a replica set (%w)", statedb.ErrDenied, db.opts.Login, db.address, db.opts.Name, err)
	}
	return fmt.Errorf("%w: MongoDB at %s does not let the user %q in: check database.login and database.password, and that the user is one of the database %s or of admin (%w)", statedb.ErrDenied, db.address, db.opts.Login, db.opts.Name, err)
}
