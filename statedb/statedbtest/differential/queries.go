package differential

import (
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

func index(name string, paths ...string) statedb.Index {
	ix := statedb.Index{Name: name, DDoc: name}
	for _, path := range paths {
		ix.Fields = append(ix.Fields, statedb.SortField{Field: path})
	}
	return ix
}

// Indexes are those that the second part of a run deploys.
func indexes() []statedb.Index {
	created := index("created", "n")
	created.PartialFilter = value(`{"operation":"CREATE"}`)
	return []statedb.Index{
		index("by_operation", "operation"), index("by_block", "block_id"), index("by_asset", "asset.id", "operation"),
		index("by_n", "n"), index("by_m_n", "m", "n"), index("by_s", "s"), index("by_s_m", "s", "m"), index("by_s_m_n", "s", "m", "n"),
		index("by_v", "v"), index("by_w", "w"), index("by_t", "t"), index("by_tag", "tags.0"), index("by_amount", "outputs.0.amount", "m"),
		index("by_dot", `dot\.ted`), index("by_owner", "asset.data.a", "asset.data.b.c"), created,
	}
}

// queries are all the queries of a run.
type queries struct {
	scanned []statedb.Query // on a table without indexes
	odd     []statedb.Query // there too; most are refused
	indexed []statedb.Query // with indexes deployed
}

func draw(opts Options, documents []canonical.Value) queries {
	g := &generator{source: newSource(opts.Seed, 2), documents: documents}
	var all queries
	for range opts.Selectors / 2 {
		all.scanned = append(all.scanned, g.scanned())
	}
	for _, selector := range odd {
		all.odd = append(all.odd, statedb.Query{Selector: selector})
	}
	for range opts.Selectors / 4 {
		all.odd = append(all.odd, statedb.Query{Selector: g.malformed()})
	}
	for range opts.Selectors - opts.Selectors/2 {
		all.indexed = append(all.indexed, g.indexed(indexes()))
	}
	for _, part := range [][]statedb.Query{all.scanned, all.odd, all.indexed} {
		for i := range part {
			part[i].Limit = len(documents) + 1
		}
	}
	return all
}

// scanned draws a query for a table without indexes.
func (g *generator) scanned() statedb.Query {
	for {
		if s := g.selector(2); !emptyPrefix(s) {
			return statedb.Query{Selector: s, Fields: g.fields()}
		}
	}
}

// indexed draws a query for a table with indexes.
func (g *generator) indexed(indexes []statedb.Index) statedb.Query {
	for {
		if q := g.query(indexes); !emptyPrefix(q.Selector) && !badArgument(q.Selector) && !emptyList(q.Selector) {
			return q
		}
	}
}

// query draws a query: sorted or not, by a named index or not.
func (g *generator) query(indexes []statedb.Index) statedb.Query {
	q := statedb.Query{Selector: g.selector(1), Fields: g.fields()}
	ix := pick(g.source, indexes)
	if g.chance(25) {
		return q
	}
	if g.chance(8) {
		q.Sort = []statedb.SortField{{Field: "_id", Descending: g.chance(50)}}
		if g.chance(70) {
			from := canonical.StringOf(id(g.IntN(len(g.documents))))
			q.Selector = g.and(q.Selector, object("_id", object(pick(g.source, []string{"$gt", "$lte"}), from)))
		}
		return q
	}
	columns := ix.Fields
	if g.chance(20) && len(columns) > 1 { // leave out what is constant
		q.Selector = g.and(q.Selector, object(columns[0].Field, g.constant(columns[0].Field)))
		columns = columns[1:]
	}
	if g.chance(60) {
		descending := g.chance(40)
		for _, column := range columns[:1+g.IntN(len(columns))] {
			q.Sort = append(q.Sort, statedb.SortField{Field: column.Field, Descending: descending})
		}
	}
	for _, column := range columns {
		if !g.chance(80) {
			continue
		}
		condition := pick(g.source, valuesOf(`{"$exists":true}`, `{"$gt":null}`, `{"$gte":0}`, `{"$lt":{}}`, `{"$ne":7}`))
		if g.chance(50) {
			condition = g.constant(column.Field)
		}
		q.Selector = g.and(q.Selector, object(column.Field, condition))
	}
	if g.chance(25) || !ix.PartialFilter.IsNull() {
		q.UseIndex = ix.Name
	}
	return q
}

// fields draws what is to be kept of documents: mostly everything, and never
// a field and one inside of it.
func (g *generator) fields() []string {
	if g.chance(75) {
		return nil
	}
	var kept []string
	for range 1 + g.IntN(3) {
		path := g.target().path
		if path != "_id" && !slices.ContainsFunc(kept, func(other string) bool {
			return strings.HasPrefix(path+".", other+".") || strings.HasPrefix(other+".", path+".")
		}) {
			kept = append(kept, path)
		}
	}
	return kept
}

// and joins selectors, as members of one object where they can be.
func (g *generator) and(a, b canonical.Value) canonical.Value {
	if _, there := a.Get(b.Key(0)); there || g.chance(20) {
		return object("$and", canonical.ArrayOf(a, b))
	}
	if g.chance(60) {
		return b // mostly with nothing beside it, to match more
	}
	return a.With(b.Key(0), b.At(0))
}

// constant draws an equality with a value that is there.
func (g *generator) constant(path string) canonical.Value {
	for range 20 {
		if v, ok := lookup(pick(g.source, g.documents), path); ok {
			return object("$eq", v)
		}
	}
	return object("$eq", canonical.IntOf(1))
}
