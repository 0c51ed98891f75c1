package rethinkdb

import (
	"context"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

// Definitions stand in the table they are of, under ids that no document of
// the ledger has, as CouchDB has its design documents. The definition is a JSON
// text, so that the numbers of a partial filter stay as they were written.
const (
	definitionPrefix = "_index/"
	definitionEnd    = "_index0" // what follows all ids that begin so
	fieldDefinition  = "definition"
)

// keyLayout is part of the names of indexes, and changes with what they hold.
const keyLayout = "1"

// indexName is RethinkDB's name for an index. It names the definition too, so
// that nobody takes the rows of one definition for another's: an index that
// was defined anew is another one.
func indexName(ix statedb.Index) string { return ix.Name + "$" + keyset.Fingerprint(ix) + keyLayout }

// ownName are names that indexName gives; the index's own is the group.
var ownName = regexp.MustCompile(`^(.*)\$[0-9a-f]{16}[0-9]+$`)

// catalog is a table's indexes as they were last listed. It is replaced, never
// changed.
type catalog struct {
	listed  time.Time
	states  []statedb.IndexState // by name
	servers []string             // all that RethinkDB has, by its names
}

// ready reports whether all indexes can be used.
func (c *catalog) ready() bool {
	return !slices.ContainsFunc(c.states, func(state statedb.IndexState) bool { return state.Pending > 0 })
}

// definitionOf writes a definition as JSON.
func definitionOf(ix statedb.Index) canonical.Value {
	var fields []canonical.Value
	for _, f := range ix.Fields {
		fields = append(fields, canonical.StringsOf([]string{f.Field, keyset.Direction(f)}))
	}
	return canonical.ObjectOf(
		canonical.Member{Key: "name", Value: canonical.StringOf(ix.Name)},
		canonical.Member{Key: "ddoc", Value: canonical.StringOf(ix.DDoc)},
		canonical.Member{Key: "fields", Value: canonical.ArrayOf(fields...)},
		canonical.Member{Key: "partial_filter_selector", Value: ix.PartialFilter},
	)
}

// readDefinition reads what definitionOf wrote; false for anything else.
func readDefinition(text string) (ix statedb.Index, ok bool) {
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		return ix, false
	}
	name, _ := v.Get("name")
	ddoc, _ := v.Get("ddoc")
	fields, _ := v.Get("fields")
	ix.Name, ix.DDoc = name.Text(), ddoc.Text()
	ix.PartialFilter, _ = v.Get("partial_filter_selector")
	for i := range fields.Len() {
		f := fields.At(i)
		if f.Kind() != canonical.Array || f.Len() != 2 {
			return ix, false
		}
		ix.Fields = append(ix.Fields, statedb.SortField{Field: f.At(0).Text(), Descending: f.At(1).Text() == "desc"})
	}
	return ix, ix.Name != "" && len(ix.Fields) > 0
}

// list asks for a table's indexes and remembers them.
func (db *DB) list(ctx context.Context, table string) (*catalog, error) {
	t := db.table(table)
	definitions := t.Between(definitionPrefix, definitionEnd).Filter(func(row r.Term) r.Term {
		return row.Field(fieldDefinition).Default(nil).TypeOf().Eq("STRING")
	}).Field(fieldDefinition).CoerceTo("array")
	answer, err := db.one(ctx, "indexes", r.Expr([]any{
		definitions, t.IndexStatus().Pluck("index", "ready", "progress"), t.Info().Field("doc_count_estimates").Sum(),
	}), nil)
	if err != nil {
		return nil, err
	}
	progress := map[string]float64{} // 1 is ready
	c := &catalog{listed: time.Now()}
	for i := range answer.At(1).Len() {
		status := answer.At(1).At(i)
		name, _ := status.Get("index")
		ready, _ := status.Get("ready")
		c.servers = append(c.servers, name.Text())
		progress[name.Text()] = 1
		if done, _ := status.Get("progress"); !ready.Bool() {
			progress[name.Text()] = min(numberOf(done), math.Nextafter(1, 0))
		}
	}
	total := max(1, int(numberOf(answer.At(2))))
	for i := range answer.At(0).Len() {
		ix, ok := readDefinition(answer.At(0).At(i).Text())
		if !ok {
			continue
		}
		state := statedb.IndexState{Index: ix}
		// One that is not there yet has no progress.
		if done := progress[indexName(ix)]; done < 1 {
			state.Total = total
			state.Pending = min(total, max(1, int(math.Ceil((1-done)*float64(total)))))
		}
		c.states = append(c.states, state)
	}
	slices.SortFunc(c.states, func(a, b statedb.IndexState) int { return strings.Compare(a.Name, b.Name) })
	db.mu.Lock()
	defer db.mu.Unlock()
	db.catalogs[table] = c
	return c, nil
}

// listedFor is how long a list of indexes that are all ready is good: others
// may deploy some.
const listedFor = time.Second

// indexes gives the table's indexes, asking the server when what is known is
// not fresh.
func (db *DB) indexes(ctx context.Context, table string) (*catalog, error) {
	db.mu.Lock()
	c := db.catalogs[table]
	db.mu.Unlock()
	if c != nil && c.ready() && time.Since(c.listed) < listedFor {
		return c, nil
	}
	return db.list(ctx, table)
}

// forgetIndexes is for databases that are deleted, and for lists that proved
// wrong.
func (db *DB) forgetIndexes() {
	db.mu.Lock()
	defer db.mu.Unlock()
	clear(db.catalogs)
}
