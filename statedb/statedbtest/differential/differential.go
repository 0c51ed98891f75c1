// Package differential compares two databases: it loads the same generated
// documents into both and runs the same generated Mango selectors on them. It
// is how the embedded store and its matcher are held against a real CouchDB.
//
// What it draws stays within what all databases do alike. It has no ranges
// over strings that bytes and ICU order differently, no $nor inside $elemMatch
// and its kin, and patterns that PCRE and RE2 read alike; package mango lists
// these differences. Nor has it what CouchDB 3.5.0 fails on.
package differential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// Options of a run. The zero value of a number is the acceptance of issue 3.
type Options struct {
	Seed      uint64
	Documents int // 2,000
	Selectors int // 300: half of them without indexes, half with
	// SamePlans demands that where both choose an index it is the same.
	SamePlans bool
	// Fit changes what one of the databases cannot hold, where else the document
	// is left out.
	Fit bool
	// Bytes tells that all of them order strings by their bytes, so that rows must
	// be in the same order whatever they are sorted by.
	Bytes bool
	// All draws also selectors that CouchDB itself fails on, which an adapter
	// has to answer by other means.
	All bool
}

// table is where everything happens.
const table = statedb.Transactions

// mismatches is after how many a run gives up.
const mismatches = 8

// Run compares a with each of the others, all with the same documents, in
// databases that it creates and drops.
func Run(t testing.TB, opts Options, a statedb.DB, others ...statedb.DB) {
	opts = opts.withDefaults()
	all := append([]statedb.DB{a}, others...)
	for _, db := range all {
		defer create(t, db)()
	}
	documents := load(t, opts, all...)
	queries := draw(opts, documents)
	comparisons := make([]*comparison, len(others))
	for i, b := range others {
		c := &comparison{TB: t, ctx: t.Context(), a: a, b: b, opts: opts, paging: newSource(opts.Seed, 3), documents: documents}
		comparisons[i] = c
		for _, q := range queries.scanned {
			c.compare(q)
		}
		drawn := c.figures
		for _, q := range queries.odd {
			c.compare(q)
		}
		c.Logf("seed %d: %d odd and malformed selectors, %d of them refused by both",
			opts.Seed, c.queries-drawn.queries, c.refused-drawn.refused)
		c.figures = drawn
	}
	for _, db := range all {
		deploy(t, db)
	}
	for _, c := range comparisons {
		for _, q := range queries.indexed {
			c.compare(q)
		}
		c.report()
	}
}

func (opts Options) withDefaults() Options {
	if opts.Documents == 0 {
		opts.Documents = 2000
	}
	if opts.Selectors == 0 {
		opts.Selectors = 300
	}
	return opts
}

// create makes a database and returns what drops it.
func create(t testing.TB, db statedb.DB) (drop func()) {
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatalf("Create: %v", err)
	}
	return func() { db.Drop(context.WithoutCancel(t.Context())) }
}

// load writes the documents that all databases can hold to all of them, and
// returns them; id(i) is the id.
func load(t testing.TB, opts Options, dbs ...statedb.DB) []canonical.Value {
	var fitting []canonical.Value
	var writes []statedb.Write
	for _, document := range documents(opts.Seed, opts.Documents) {
		if opts.Fit {
			document = fit(document, dbs)
		}
		if !held(document, dbs) {
			continue
		}
		writes = append(writes, statedb.Write{ID: id(len(fitting)), Body: document.Bytes()})
		fitting = append(fitting, document)
	}
	if len(fitting) < opts.Documents/2 {
		t.Fatalf("seed %d: only %d of %d documents can be held by all", opts.Seed, len(fitting), opts.Documents)
	}
	for chunk := range slices.Chunk(writes, 200) {
		for _, db := range dbs {
			write(t, db, chunk)
		}
	}
	return fitting
}

// fit puts 2.5 in the place of what one of the databases cannot hold, and
// leaves out members whose names one cannot.
func fit(v canonical.Value, dbs []statedb.DB) canonical.Value {
	switch v.Kind() {
	case canonical.Array:
		var items []canonical.Value
		for i := range v.Len() {
			item := fit(v.At(i), dbs)
			if !fits(canonical.ArrayOf(item), dbs) {
				item = canonical.FloatOf(2.5)
			}
			items = append(items, item)
		}
		return canonical.ArrayOf(items...)
	case canonical.Object:
		fitting := canonical.ObjectOf()
		for i := range v.Len() {
			if fits(object(v.Key(i), canonical.Value{}), dbs) {
				fitting = fitting.With(v.Key(i), fit(v.At(i), dbs))
			}
		}
		return fitting
	}
	if !fits(v, dbs) {
		return canonical.FloatOf(2.5)
	}
	return v
}

// fits reports whether all databases hold a value in a field.
func fits(v canonical.Value, dbs []statedb.DB) bool { return held(object("v", v), dbs) }

func held(document canonical.Value, dbs []statedb.DB) bool {
	return !slices.ContainsFunc(dbs, func(db statedb.DB) bool { return db.Check(document) != nil })
}

func write(t testing.TB, db statedb.DB, writes []statedb.Write) {
	results, err := db.Write(t.Context(), table, writes)
	if err != nil {
		t.Fatalf("%T: Write: %v", db, err)
	}
	for i, r := range results {
		if r.Err != nil {
			t.Fatalf("%T: Write of %s: %v", db, writes[i].Body, r.Err)
		}
	}
}

func deploy(t testing.TB, db statedb.DB) {
	if err := db.DeployIndexes(t.Context(), table, indexes(), nil); err != nil {
		t.Fatalf("%T: DeployIndexes: %v", db, err)
	}
}

// comparison is one run.
type comparison struct {
	testing.TB
	ctx       context.Context
	a, b      statedb.DB
	opts      Options
	paging    source
	documents []canonical.Value

	figures
	failed int
}

// figures count the queries: those refused by both, those that found some
// documents but not all, and those that found none.
type figures struct {
	queries, refused, selective, none int
	plans, samePlans                  int
}

// answer is what a database said to a query.
type answer struct {
	ids     []string
	bodies  map[string][]byte // by id, when only some fields are asked for
	refusal error             // ErrNoIndex, ErrBadQuery or nil
	failure error             // any other
}

// ask reads all pages.
func ask(ctx context.Context, db statedb.DB, q statedb.Query) answer {
	const most = 10_000 // pages
	found := answer{bodies: map[string][]byte{}}
	for range most {
		page, err := db.Find(ctx, table, q)
		for _, refusal := range []error{statedb.ErrNoIndex, statedb.ErrBadQuery} {
			if errors.Is(err, refusal) {
				return answer{refusal: refusal}
			}
		}
		if err != nil {
			return answer{failure: fmt.Errorf("%T fails: %w", db, err)}
		}
		for _, d := range page.Documents {
			found.ids = append(found.ids, d.ID)
			if len(q.Fields) > 0 {
				found.bodies[d.ID] = d.Body
			}
		}
		if page.Bookmark == "" {
			return found
		}
		q.Bookmark = page.Bookmark
	}
	return answer{failure: fmt.Errorf("the pages of %T do not end", db)}
}

// compare runs a query on both, in one page and in several.
func (c *comparison) compare(q statedb.Query) {
	difference, found := c.difference(q)
	c.queries++
	switch {
	case found.refusal != nil:
		c.refused++
	case len(found.ids) == 0:
		c.none++
	case len(found.ids) < len(c.documents):
		c.selective++
	}
	if paged := q; difference == "" && len(found.ids) > 1 && c.paging.chance(30) {
		paged.Limit = max(1, len(found.ids)/(1+c.paging.IntN(4))+c.paging.IntN(2))
		if difference, _ = c.difference(paged); difference != "" {
			q = paged
		}
	}
	if difference == "" {
		return
	}
	c.Errorf("seed %d: %s: %s%s", c.opts.Seed, describe(q), difference, c.smallest(q))
	if c.failed++; c.failed == mismatches {
		c.Fatalf("seed %d: %d queries differ, giving up", c.opts.Seed, c.failed)
	}
}

// difference tells how the answers differ, "" when they do not, and the first.
func (c *comparison) difference(q statedb.Query) (string, answer) {
	a, b := ask(c.ctx, c.a, q), ask(c.ctx, c.b, q)
	if err := cmp.Or(a.failure, b.failure); err != nil {
		return err.Error(), answer{refusal: err}
	}
	if a.refusal != b.refusal {
		return fmt.Sprintf("refused by one with %v, by the other with %v", a.refusal, b.refusal), answer{refusal: cmp.Or(a.refusal, b.refusal)}
	}
	if a.refusal != nil {
		return "", a
	}
	if onlyA, onlyB := without(a.ids, b.ids), without(b.ids, a.ids); len(onlyA)+len(onlyB) > 0 || len(a.ids) != len(b.ids) {
		return fmt.Sprintf("%d rows and %d; only the first has %q, only the second %q",
			len(a.ids), len(b.ids), onlyA[:min(3, len(onlyA))], onlyB[:min(3, len(onlyB))]), a
	}
	for id, body := range a.bodies {
		if !sameJSON(body, b.bodies[id]) {
			return fmt.Sprintf("of %s the fields are %s and %s", id, body, b.bodies[id]), a
		}
	}
	if len(a.ids) == 0 {
		return "", a
	}
	planA, planB := c.explain(c.a, q), c.explain(c.b, q)
	c.plans++
	if planA == planB {
		c.samePlans++
	} else if c.opts.SamePlans && planA != "" && planB != "" {
		return fmt.Sprintf("one uses the index %q, the other %q", planA, planB), a
	}
	if planA == planB && len(q.Sort) > 0 && (c.opts.Bytes || sameOrder(q.Sort)) && !slices.Equal(a.ids, b.ids) {
		return "the rows are in another order", a
	}
	return "", a
}

func sameJSON(a, b []byte) bool {
	x, errX := canonical.Parse(a)
	y, errY := canonical.Parse(b)
	return errX == nil && errY == nil && canonical.Equal(x, y)
}

func (c *comparison) explain(db statedb.DB, q statedb.Query) string {
	plan, err := db.Explain(c.ctx, table, q)
	if err != nil {
		c.Fatalf("seed %d: %T: Explain %s: %v", c.opts.Seed, db, describe(q), err)
	}
	return plan.Index
}

// sameOrder reports whether all databases order the values of the fields
// alike.
func sameOrder(sort []statedb.SortField) bool {
	for _, s := range sort {
		if i := slices.IndexFunc(fields, func(f field) bool { return f.path == s.Field }); i >= 0 && fields[i].kind.wild && s.Field != "operation" {
			return false
		}
	}
	return true
}

func without(ids, others []string) []string {
	there := map[string]bool{}
	for _, id := range others {
		there[id] = true
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return there[id] })
}

func describe(q statedb.Query) string {
	text := string(q.Selector.Bytes())
	for _, f := range q.Sort {
		direction := "ascending"
		if f.Descending {
			direction = "descending"
		}
		text += " sorted by " + f.Field + " " + direction
	}
	if len(q.Fields) > 0 {
		text += fmt.Sprintf(", the fields %q", q.Fields)
	}
	if q.UseIndex != "" {
		text += " with the index " + q.UseIndex
	}
	return fmt.Sprintf("%s, limit %d", text, q.Limit)
}

// report logs the figures, and fails when the selectors were not worth asking.
func (c *comparison) report() {
	asked := c.queries - c.refused
	c.Logf("seed %d: %d documents, %d selectors; refused by both %d; of the others %d found some but not all, %d nothing; %d of %d plans name the same index",
		c.opts.Seed, len(c.documents), c.queries, c.refused, c.selective, c.none, c.samePlans, c.plans)
	if c.selective*2 < asked {
		c.Errorf("seed %d: only %d of %d selectors found some documents but not all", c.opts.Seed, c.selective, asked)
	}
}
