package couchdb

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
	"github.com/couchledger/couchledger/statedb/mango"
)

// deployed is an index as CouchDB lists it.
type deployed struct {
	statedb.Index
	signature string // tells it from one of the same name and another definition
	// ready: it was seen to be built; queries only bring it up to date.
	ready *atomic.Bool
}

// catalog is a table's indexes as they were last listed. It is replaced, never
// changed.
type catalog []*deployed

// find returns the first index that fits, or nil.
func (c catalog) find(fits func(*deployed) bool) *deployed {
	if i := slices.IndexFunc(c, fits); i >= 0 {
		return c[i]
	}
	return nil
}

// named finds an index by its name, which is unique unless others made it so.
func named(name string) func(*deployed) bool {
	return func(ix *deployed) bool { return ix.Name == name }
}

func signed(signature string) func(*deployed) bool {
	return func(ix *deployed) bool { return ix.signature == signature }
}

// design is the prefix of a design document's id.
const design = "_design/"

// readDesign reads the indexes of a design document; none when it is not one
// of Mango's. The definition there is as it was sent: _index shows the filter
// in another form.
func readDesign(data []byte) ([]*deployed, error) {
	tree, err := canonical.Parse(data)
	if err != nil {
		return nil, malformed("a design document")
	}
	if textIn(tree, "language") != "query" {
		return nil, nil
	}
	ddoc := strings.TrimPrefix(textIn(tree, "_id"), design)
	views, _ := tree.Get("views")
	var all []*deployed
	for i := range views.Len() {
		options, _ := views.At(i).Get("options")
		definition, _ := options.Get("def")
		ix := &deployed{Index: statedb.Index{Name: views.Key(i), DDoc: ddoc}, ready: &atomic.Bool{}}
		if ix.Fields, err = readFields(definition); err != nil {
			return nil, err
		}
		if filter, ok := definition.Get("partial_filter_selector"); ok && filter.Len() > 0 {
			ix.PartialFilter = filter
		}
		ix.signature = keyset.Fingerprint(ix.Index)
		all = append(all, ix)
	}
	return all, nil
}

func textIn(object canonical.Value, key string) string {
	field, _ := object.Get(key)
	return field.Text()
}

// readFields reads the fields of a definition: names, or names with a
// direction.
func readFields(definition canonical.Value) ([]statedb.SortField, error) {
	list, _ := definition.Get("fields")
	var fields []statedb.SortField
	for i := range list.Len() {
		switch f := list.At(i); {
		case f.Kind() == canonical.String:
			fields = append(fields, statedb.SortField{Field: f.Text()})
		case f.Kind() == canonical.Object && f.Len() == 1:
			fields = append(fields, statedb.SortField{Field: f.Key(0), Descending: f.At(0).Text() == "desc"})
		default:
			return nil, malformed("the fields of an index")
		}
	}
	return fields, nil
}

// key is what the index holds of a document: the values of its fields.
func (ix *deployed) key(d statedb.Document) (canonical.Value, error) {
	tree := parseBody(d)
	var values []canonical.Value
	for _, f := range ix.Fields {
		v, ok := mango.ParsePath(f.Field).Lookup(tree)
		if !ok {
			return v, fmt.Errorf("couchdb: document %q is in the index %s without its field %s", d.ID, ix.Name, f.Field)
		}
		values = append(values, v)
	}
	return canonical.ArrayOf(values...), nil
}

// list asks for a table's indexes and remembers them.
func (db *DB) list(ctx context.Context, table, name string) (catalog, error) {
	query := url.Values{"include_docs": {"true"}, "startkey": {`"_design/"`}, "endkey": {`"_design0"`}}
	answer, err := db.do(ctx, request{method: http.MethodGet, path: path(name, "_all_docs"), query: query, reads: true})
	if err != nil {
		return nil, err
	}
	var all catalog
	err = eachRow(answer, func(r row) error {
		if r.document == nil {
			return nil
		}
		list, err := readDesign(r.document)
		all = append(all, list...)
		return err
	})
	if err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, ix := range all {
		if old := db.catalogs[table].find(signed(ix.signature)); old != nil {
			ix.ready = old.ready
		}
	}
	db.catalogs[table] = all
	return all, nil
}

// lookUp finds an index, asking the server when it is not known; nil for none.
func (db *DB) lookUp(ctx context.Context, table, name string, fits func(*deployed) bool) (*deployed, error) {
	db.mu.Lock()
	ix := db.catalogs[table].find(fits)
	db.mu.Unlock()
	if ix != nil {
		return ix, nil
	}
	all, err := db.list(ctx, table, name)
	return all.find(fits), err
}

// forgetIndexes is for databases that are deleted.
func (db *DB) forgetIndexes() {
	db.mu.Lock()
	defer db.mu.Unlock()
	clear(db.catalogs)
}
