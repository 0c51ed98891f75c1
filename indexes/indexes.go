// Package indexes holds the packaged Mango indexes: one file each,
// <table>/<name>.json, in the JSON that CouchDB's POST /{db}/_index takes.
// Every adapter builds the same indexes from them. An operator's own stand in a
// folder of the same layout.
package indexes

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

//go:embed */*.json
var packaged embed.FS

// Packaged returns the indexes in the program, by table, sorted by name.
func Packaged() map[string][]statedb.Index {
	all, err := Load(packaged)
	if err != nil {
		panic(fmt.Sprintf("indexes: the packaged files are malformed: %v", err))
	}
	return all
}

// Own returns the indexes in the operator's folder, by table, sorted by name;
// none when folder is "". Errors name the setting indexes.path and what in the
// folder is wrong, a name that a packaged index has among it.
func Own(folder string) (map[string][]statedb.Index, error) {
	if folder == "" {
		return nil, nil
	}
	info, err := os.Stat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("indexes.path: the folder %s does not exist", folder)
	case err != nil:
		return nil, fmt.Errorf("indexes.path: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("indexes.path: %s is not a folder", folder)
	}
	own, err := Load(os.DirFS(folder))
	if err != nil {
		return nil, fmt.Errorf("indexes.path: in %s: %w", folder, err)
	}
	for table, list := range Packaged() {
		for _, index := range list {
			if slices.ContainsFunc(own[table], func(o statedb.Index) bool { return o.Name == index.Name }) {
				return nil, fmt.Errorf("indexes.path: in %s: %s: a packaged index of this table has the name; choose another", folder, path.Join(table, index.Name+".json"))
			}
		}
	}
	return own, nil
}

// All returns the packaged indexes and those in the operator's folder; see Own.
func All(folder string) (map[string][]statedb.Index, error) {
	own, err := Own(folder)
	if err != nil {
		return nil, err
	}
	all := Packaged()
	for table, list := range own {
		all[table] = append(all[table], list...)
	}
	return all, nil
}

// Load reads the indexes in a folder that is laid out like this package's:
// one folder for each table that has any, in it one file for each index, named
// for it. Passed over are files that are not .json at the top level, and what
// has a name that begins with a dot. Anything else that is not understood is an
// error that begins with the file.
func Load(fsys fs.FS) (map[string][]statedb.Index, error) {
	tables, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, err
	}
	all := map[string][]statedb.Index{}
	for _, table := range tables {
		name := table.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		info, err := fs.Stat(fsys, name) // of what a link leads to
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if path.Ext(name) == ".json" {
				return nil, fmt.Errorf("%s: stands outside a table's folder", name)
			}
			continue
		}
		if !slices.Contains(statedb.Tables, name) {
			return nil, fmt.Errorf("%s: there is no such table; the tables are %s", name, strings.Join(statedb.Tables, ", "))
		}
		if all[name], err = loadTable(fsys, name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func loadTable(fsys fs.FS, table string) ([]statedb.Index, error) {
	files, err := fs.ReadDir(fsys, table)
	if err != nil {
		return nil, err
	}
	var list []statedb.Index
	byName := map[string]string{}
	for _, file := range files {
		if strings.HasPrefix(file.Name(), ".") {
			continue
		}
		full := path.Join(table, file.Name())
		if file.IsDir() || path.Ext(full) != ".json" {
			return nil, fmt.Errorf("%s: not a .json file", full)
		}
		data, err := fs.ReadFile(fsys, full)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", full, err)
		}
		index, err := parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", full, err)
		}
		if other, ok := byName[index.Name]; ok {
			return nil, fmt.Errorf("%s: the name %q is that of %s", full, index.Name, other)
		}
		byName[index.Name] = full
		if index.Name != strings.TrimSuffix(file.Name(), ".json") {
			return nil, fmt.Errorf("%s: the index in it is named %q; file and index have the same name", full, index.Name)
		}
		list = append(list, index)
	}
	slices.SortFunc(list, func(a, b statedb.Index) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func parse(data []byte) (statedb.Index, error) {
	var index statedb.Index
	file, err := canonical.Parse(data)
	if err != nil {
		return index, err
	}
	if err := onlyKeys(file, "index", "ddoc", "name", "type"); err != nil {
		return index, err
	}
	for key, target := range map[string]*string{"name": &index.Name, "ddoc": &index.DDoc} {
		v, _ := file.Get(key)
		if v.Kind() != canonical.String || v.Text() == "" {
			return index, fmt.Errorf("%s: needs a string that is not empty", key)
		}
		*target = v.Text()
	}
	if kind, ok := file.Get("type"); ok && kind.Text() != "json" {
		return index, fmt.Errorf(`type: is %s; only "json" is known`, kind.Bytes())
	}
	definition, _ := file.Get("index")
	if err := onlyKeys(definition, "fields", "partial_filter_selector"); err != nil {
		return index, fmt.Errorf("index: %w", err)
	}
	if index.Fields, err = parseFields(definition); err != nil {
		return index, fmt.Errorf("index.fields: %w", err)
	}
	if filter, ok := definition.Get("partial_filter_selector"); ok {
		if _, err := mango.Parse(filter); err != nil {
			return index, fmt.Errorf("index.partial_filter_selector: %w", err)
		}
		index.PartialFilter = filter
	}
	return index, nil
}

func onlyKeys(v canonical.Value, known ...string) error {
	if v.Kind() != canonical.Object {
		return fmt.Errorf("is a %s, not an object", v.Kind())
	}
	for i := range v.Len() {
		if !slices.Contains(known, v.Key(i)) {
			return fmt.Errorf("the key %q is not known; known are %s", v.Key(i), strings.Join(known, ", "))
		}
	}
	return nil
}

// parseFields reads "field" and {"field": "asc" or "desc"}; as in CouchDB all
// have the same direction.
func parseFields(definition canonical.Value) ([]statedb.SortField, error) {
	list, _ := definition.Get("fields")
	if list.Kind() != canonical.Array || list.Len() == 0 {
		return nil, errors.New("needs an array of at least one field")
	}
	var fields []statedb.SortField
	for i := range list.Len() {
		f := statedb.SortField{Field: list.At(i).Text()}
		switch v := list.At(i); v.Kind() {
		case canonical.String:
		case canonical.Object:
			if v.Len() != 1 || v.At(0).Text() != "asc" && v.At(0).Text() != "desc" {
				return nil, fmt.Errorf(`%s: needs one field, "asc" or "desc"`, v.Bytes())
			}
			f = statedb.SortField{Field: v.Key(0), Descending: v.At(0).Text() == "desc"}
		default:
			return nil, fmt.Errorf("%s: is neither a string nor an object", v.Bytes())
		}
		if slices.Contains(mango.ParsePath(f.Field), "") {
			return nil, fmt.Errorf("the field name %q has an empty part", f.Field)
		}
		if strings.HasPrefix(f.Field, "_") {
			return nil, fmt.Errorf("the field %q cannot be indexed; documents are in the order of their ids anyway", f.Field)
		}
		if slices.ContainsFunc(fields, func(g statedb.SortField) bool { return g.Field == f.Field }) {
			return nil, fmt.Errorf("the field %q is there twice", f.Field)
		}
		if len(fields) > 0 && fields[0].Descending != f.Descending {
			return nil, errors.New("all fields must ascend or all descend")
		}
		fields = append(fields, f)
	}
	return fields, nil
}
