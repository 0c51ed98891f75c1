package rethinkdb

import (
	"context"
	"fmt"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// maxRequestBytes is about how much one query carries; what is more goes in
// several.
const maxRequestBytes = 16 << 20

// hard has the server answer when what it wrote is on disk.
const hard = "hard"

// change is one write on its way.
type change struct {
	place int // among the writes
	id    string
	old   string // the revision to replace; "" creates
	rev   string // the new one
	row   []byte // as it is stored
}

// Write sends what creates documents as one insert, and what changes them as
// one replace. Writes of an id that comes again wait for the one before.
func (db *DB) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	if err := db.checkTable(table); err != nil {
		return nil, err
	}
	w := writer{db: db, ctx: ctx, table: table, results: make([]statedb.Result, len(writes))}
	var rounds [][]change
	round := map[string]int{}
	for i, write := range writes {
		c, err := prepare(i, write)
		if err != nil {
			w.results[i].Err = err
			continue
		}
		n := round[c.id]
		round[c.id]++
		if n == len(rounds) {
			rounds = append(rounds, nil)
		}
		rounds[n] = append(rounds[n], c)
	}
	for _, changes := range rounds {
		var creates, replaces []change
		for _, c := range changes {
			if c.old == "" {
				creates = append(creates, c)
			} else {
				replaces = append(replaces, c)
			}
		}
		if err := w.each(creates, w.create); err != nil {
			return nil, err
		}
		if err := w.each(replaces, w.replace); err != nil {
			return nil, err
		}
	}
	return w.results, w.settle()
}

// prepare makes the row of a write, or says why it cannot be one.
func prepare(place int, w statedb.Write) (change, error) {
	c := change{place: place, id: w.ID, old: w.Rev, rev: newRev(w.Rev)}
	if err := checkID(w.ID); err != nil {
		return c, err
	}
	body := w.Body
	if w.Delete {
		if w.Rev == "" {
			return c, fmt.Errorf("%w: a deletion needs a revision", statedb.ErrConflict)
		}
		body = []byte(`{"` + fieldDeleted + `":true}`)
	} else if err := checkBody(body); err != nil {
		return c, err
	}
	c.row = appendRow(nil, c.id, c.rev, body)
	return c, nil
}

// writer is one Write.
type writer struct {
	db         *DB
	ctx        context.Context
	table      string
	results    []statedb.Result
	conflicted bool
}

// each calls do with as many changes as fit into a query.
func (w *writer) each(changes []change, do func([]change) error) error {
	for len(changes) > 0 {
		n, size := 0, 0
		for n < len(changes) && n < w.db.opts.MaxBatch && (n == 0 || size+len(changes[n].row) <= maxRequestBytes) {
			size += len(changes[n].row)
			n++
		}
		if err := do(changes[:n]); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// create inserts documents. One that is there stays, but for what is left of a
// deleted one.
func (w *writer) create(changes []change) error {
	rows := []byte{'['}
	for i, c := range changes {
		if i > 0 {
			rows = append(rows, ',')
		}
		rows = append(rows, c.row...)
	}
	insert := w.db.table(w.table).Insert(r.JSON(string(append(rows, ']'))), r.InsertOpts{
		Durability: hard, ReturnChanges: true,
		Conflict: func(_, there, made r.Term) r.Term { return r.Branch(isDeleted(there), made, there) },
	})
	return w.apply("insert", insert, changes)
}

// replace writes over documents that are at the revisions given.
func (w *writer) replace(changes []change) error {
	// Keys of an object may not be $reql_type$, which an id may be.
	const before = "="
	ids := make([]any, len(changes))
	wanted := []byte{'{'}
	for i, c := range changes {
		ids[i] = c.id
		if i > 0 {
			wanted = append(wanted, ',')
		}
		wanted = canonical.AppendString(wanted, before+c.id)
		wanted = canonical.AppendString(append(wanted, `:{"old":`...), c.old)
		wanted = append(append(append(wanted, `,"row":`...), c.row...), '}')
	}
	replace := r.Do(r.JSON(string(append(wanted, '}'))), func(wanted r.Term) r.Term {
		return w.db.table(w.table).GetAll(ids...).Replace(func(there r.Term) r.Term {
			mine := wanted.Field(r.Add(before, there.Field(fieldID)))
			fits := r.And(isDeleted(there).Not(), revOf(there).Eq(mine.Field("old")))
			return r.Branch(fits, mine.Field("row"), there)
		}, r.ReplaceOpts{Durability: hard, ReturnChanges: true})
	})
	return w.apply("replace", replace, changes)
}

// apply runs a write and reads the outcomes. The server tells them by the
// revisions that it wrote, and only when not all changes were made: they make
// the answer long.
func (w *writer) apply(what string, write r.Term, changes []change) error {
	answer, err := w.db.one(w.ctx, what, r.Do(write, func(done r.Term) r.Term {
		all := r.And(done.Field("errors").Eq(0), r.Add(done.Field("inserted"), done.Field("replaced")).Eq(len(changes)))
		return r.Branch(all, nil, map[string]any{
			"written": done.Field("changes").Default([]any{}).Field("new_val").Field(fieldRev),
			"fault":   done.Field("first_error").Default(""),
		})
	}), nil)
	if err != nil {
		return err
	}
	if fault, _ := answer.Get("fault"); fault.Text() != "" {
		return fmt.Errorf("%w: RethinkDB: %s", statedb.ErrUnavailable, fault.Text())
	}
	revs := map[string]bool{}
	written, _ := answer.Get("written")
	for i := range written.Len() {
		revs[written.At(i).Text()] = true
	}
	for _, c := range changes {
		if answer.IsNull() || revs[c.rev] {
			w.results[c.place].Rev = c.rev
			continue
		}
		w.results[c.place].Err = fmt.Errorf("%w: %s", statedb.ErrConflict, c.id)
		w.conflicted = true
	}
	return nil
}

// settle makes durable what a conflict was with: another's write may be seen
// before it is on disk.
func (w *writer) settle() error {
	if !w.conflicted {
		return nil
	}
	_, err := w.db.run(w.ctx, "sync", w.db.table(w.table).Sync(), nil)
	return err
}
