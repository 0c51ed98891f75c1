package rethinkdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// options of a query, such as array_limit.
type options map[string]any

// arrayLimit lifts RethinkDB's limit of 100,000 elements in an array to more
// than a document of maxDocument can have.
const arrayLimit = maxDocument

// encodeQuery makes the text that starts a query.
func encodeQuery(term r.Term, opts options) ([]byte, error) {
	built, err := term.Build()
	if err != nil {
		return nil, fmt.Errorf("rethinkdb: a query that cannot be built: %w", err)
	}
	if opts == nil {
		opts = options{}
	}
	if _, ok := opts["array_limit"]; !ok {
		opts["array_limit"] = arrayLimit
	}
	// Escaping < and > would make six bytes of one.
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode([]any{queryStart, built, opts}); err != nil {
		return nil, fmt.Errorf("rethinkdb: a query that cannot be encoded: %w", err)
	}
	return text.Bytes(), nil
}

// simpleQuery is the text of a query without a term.
func simpleQuery(kind int) []byte { return fmt.Appendf(nil, "[%d]", kind) }

// run asks for all rows of a query; of one that gives a single value, for that.
// what is for the metrics.
func (db *DB) run(ctx context.Context, what string, term r.Term, opts options) ([][]byte, error) {
	c, err := db.open(ctx, what, term, opts)
	if err != nil {
		return nil, err
	}
	defer c.close()
	for !c.done {
		if err := c.more(); err != nil {
			return nil, err
		}
	}
	return c.rows, nil
}

// one is run for queries that give one value.
func (db *DB) one(ctx context.Context, what string, term r.Term, opts options) (canonical.Value, error) {
	rows, err := db.run(ctx, what, term, opts)
	if err != nil {
		return canonical.Value{}, err
	}
	if len(rows) != 1 {
		return canonical.Value{}, malformed(fmt.Sprintf("%s gave %d values", what, len(rows)))
	}
	return parseRow(rows[0], what)
}

// parseRow reads a row that this package itself asked for in a form that
// nobody else's data can spoil.
func parseRow(row []byte, what string) (canonical.Value, error) {
	v, err := canonical.Parse(row)
	if err != nil {
		return v, malformed(what)
	}
	return v, nil
}

// cursor is a query whose rows come in batches.
type cursor struct {
	db    *DB
	ctx   context.Context
	conn  *conn
	token uint64
	rows  [][]byte // that were read: JSON texts
	done  bool     // there are no more
}

// open starts a query. Its time is bounded for each batch.
func (db *DB) open(ctx context.Context, what string, term r.Term, opts options) (*cursor, error) {
	text, err := encodeQuery(term, opts)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	c, err := db.start(ctx, text)
	db.metrics.count(what, start, err)
	return c, err
}

func (db *DB) start(ctx context.Context, text []byte) (*cursor, error) {
	connection, err := db.acquire(ctx)
	if err != nil {
		return nil, err
	}
	c := &cursor{db: db, ctx: ctx, conn: connection, token: connection.newToken()}
	if err := c.ask(text); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// more reads the next batch.
func (c *cursor) more() error { return c.ask(simpleQuery(queryContinue)) }

func (c *cursor) ask(text []byte) error {
	ctx, cancel := c.db.bound(c.ctx)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, c.db.opts.RequestTimeout)
	defer cancelTimeout()
	a, err := c.conn.ask(ctx, c.token, text)
	if err != nil {
		c.done = true
		return c.db.unreachable(c.ctx, err)
	}
	c.done = a.kind != answerPartial
	if a.kind >= firstError {
		return c.db.refused(a)
	}
	c.rows = append(c.rows, a.rows...)
	return nil
}

// close gives the connection back. A query that has more rows is stopped.
func (c *cursor) close() {
	if !c.done {
		_ = c.ask(simpleQuery(queryStop)) // one that fails breaks the connection
	}
	c.conn.forget(c.token)
	c.db.release(c.conn)
}

// Classes of errors, as ql2.proto numbers them.
const (
	faultFailed  = 4100000
	faultUnknown = 4200000 // it may have been done or not
	faultDenied  = 6000000
)

// serverError is an error that the server answered with.
type serverError struct {
	class int64
	text  string
}

func (e *serverError) Error() string { return e.text }

// refused gives an error of the server the meaning that the contract has for
// it.
func (db *DB) refused(a answer) error {
	e := &serverError{class: a.fault}
	for _, row := range a.rows {
		if text, err := canonical.Parse(row); err == nil {
			e.text += text.Text()
		}
	}
	switch {
	case e.class == faultDenied:
		return fmt.Errorf("%w: RethinkDB at %s does not let the user %q do this: give it the rights read, write and config on the database %s (%w)",
			statedb.ErrDenied, db.address, db.opts.Login, db.opts.Name, e)
	case e.isMissing("Database"), e.isMissing("Table"):
		return fmt.Errorf("%w: %w", statedb.ErrNoDatabase, e)
	case strings.Contains(e.text, "is ambiguous"):
		return fmt.Errorf("%w: it was made twice at the same time; delete one of the two from the table db_config or table_config of the database %s (%w)",
			errAmbiguous, systemDatabase, e)
	case e.class == faultFailed, e.class == faultUnknown:
		return fmt.Errorf("%w: %w", statedb.ErrUnavailable, e)
	}
	return fmt.Errorf("rethinkdb: %w", e)
}

// errAmbiguous is of databases or tables that are there twice.
var errAmbiguous = fmt.Errorf("%w: RethinkDB has two of one name", statedb.ErrUnavailable)

// isMissing reports whether the error says that a database, a table or an
// index does not exist.
func (e *serverError) isMissing(what string) bool {
	return e.class == faultFailed && strings.HasPrefix(e.text, what+" `") && strings.Contains(e.text, "` does not exist")
}

// isRefusal reports whether an error is the server's own, with this text in it.
func isRefusal(err error, text string) bool {
	var e *serverError
	return errors.As(err, &e) && strings.Contains(e.text, text)
}

// malformed is an answer that does not have what was asked for.
func malformed(what string) error {
	return fmt.Errorf("%w: RethinkDB: %w: %s", statedb.ErrUnavailable, errMalformed, what)
}

// outcome names an error for the metrics.
func outcome(err error) string {
	for name, kind := range map[string]error{
		"denied": statedb.ErrDenied, "no_database": statedb.ErrNoDatabase, "unavailable": statedb.ErrUnavailable,
		"closed": statedb.ErrClosed, "canceled": context.Canceled,
	} {
		if errors.Is(err, kind) {
			return name
		}
	}
	if err != nil {
		return "error"
	}
	return "ok"
}

// literal is a value in a query. Arrays and objects go as JSON texts: as terms
// each of their elements would be one.
func literal(v canonical.Value) r.Term {
	if v.Kind() == canonical.Array || v.Kind() == canonical.Object {
		return r.JSON(string(v.Bytes()))
	}
	return r.RawQuery(v.Bytes())
}
