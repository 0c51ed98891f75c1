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
}

// table is where everything happens.
const table = statedb.Transactions

// mismatches is after how many a run gives up.
const mismatches = 8

// Run compares a with b, in databases that it creates and drops.
func Run(t *testing.T, opts Options, a, b statedb.DB) {
	if opts.Documents == 0 {
		opts.Documents = 2000
	}
	if opts.Selectors == 0 {
		opts.Selectors = 300
	}
	c := &comparison{T: t, ctx: t.Context(), a: a, b: b, opts: opts}
	for _, db := range []statedb.DB{a, b} {
		if _, err := db.Create(c.ctx); err != nil {
			t.Fatalf("Create: %v", err)
		}
		defer db.Drop(context.WithoutCancel(c.ctx))
	}
	c.load()
	g := &generator{source: newSource(opts.Seed, 2), documents: c.documents}
	for range opts.Selectors / 2 {
		c.compare(g.scanned(), g)
	}
	drawn := c.figures
	for _, selector := range odd {
		c.compare(statedb.Query{Selector: selector}, g)
	}
	for range opts.Selectors / 4 {
		c.compare(statedb.Query{Selector: g.malformed()}, g)
	}
	c.Logf("seed %d: %d odd and malformed selectors, %d of them refused by both",
		opts.Seed, c.queries-drawn.queries, c.refused-drawn.refused)
	c.figures = drawn
	for _, db := range []statedb.DB{a, b} {
		if err := db.DeployIndexes(c.ctx, table, indexes(), nil); err != nil {
			t.Fatalf("DeployIndexes: %v", err)
		}
	}
	for range opts.Selectors - opts.Selectors/2 {
		c.compare(g.indexed(indexes()), g)
	}
	c.report()
}

// comparison is one run.
type comparison struct {
	*testing.T
	ctx       context.Context
	a, b      statedb.DB
	opts      Options
	documents []canonical.Value // that both hold; id(i) is the id

	figures
	failed int
}

// figures count the queries: those refused by both, those that found some
// documents but not all, and those that found none.
type figures struct {
	queries, refused, selective, none int
	plans, samePlans                  int
}

// load writes the documents that both databases can hold to both.
func (c *comparison) load() {
	var writes []statedb.Write
	for _, document := range documents(c.opts.Seed, c.opts.Documents) {
		if c.a.Check(document) != nil || c.b.Check(document) != nil {
			continue
		}
		writes = append(writes, statedb.Write{ID: id(len(c.documents)), Body: document.Bytes()})
		c.documents = append(c.documents, document)
	}
	if len(writes) < c.opts.Documents/2 {
		c.Fatalf("seed %d: only %d of %d documents can be held by both", c.opts.Seed, len(writes), c.opts.Documents)
	}
	for chunk := range slices.Chunk(writes, 200) {
		for _, db := range []statedb.DB{c.a, c.b} {
			c.write(db, chunk)
		}
	}
}

func (c *comparison) write(db statedb.DB, writes []statedb.Write) {
	results, err := db.Write(c.ctx, table, writes)
	if err != nil {
		c.Fatalf("seed %d: Write: %v", c.opts.Seed, err)
	}
	for i, r := range results {
		if r.Err != nil {
			c.Fatalf("seed %d: Write of %s: %v", c.opts.Seed, writes[i].Body, r.Err)
		}
	}
}

// answer is what a database said to a query.
type answer struct {
	ids     []string
	refusal error // ErrNoIndex, ErrBadQuery or nil
	failure error // any other
}

func (c *comparison) ask(db statedb.DB, q statedb.Query) answer {
	var ids []string
	for range len(c.documents) + 10 {
		page, err := db.Find(c.ctx, table, q)
		for _, refusal := range []error{statedb.ErrNoIndex, statedb.ErrBadQuery} {
			if errors.Is(err, refusal) {
				return answer{refusal: refusal}
			}
		}
		if err != nil {
			return answer{failure: fmt.Errorf("%T fails: %w", db, err)}
		}
		for _, d := range page.Documents {
			ids = append(ids, d.ID)
		}
		if page.Bookmark == "" {
			return answer{ids: ids}
		}
		q.Bookmark = page.Bookmark
	}
	return answer{failure: fmt.Errorf("the pages of %T do not end", db)}
}

// compare runs a query on both, in one page and in several.
func (c *comparison) compare(q statedb.Query, g *generator) {
	q.Limit = len(c.documents) + 1
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
	if paged := q; difference == "" && len(found.ids) > 1 && g.chance(30) {
		paged.Limit = len(found.ids)/(1+g.IntN(4)) + g.IntN(2)
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
	a, b := c.ask(c.a, q), c.ask(c.b, q)
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
	if planA == planB && len(q.Sort) > 0 && c.sameOrder(q.Sort) && !slices.Equal(a.ids, b.ids) {
		return "the rows are in another order", a
	}
	return "", a
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
func (c *comparison) sameOrder(sort []statedb.SortField) bool {
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
