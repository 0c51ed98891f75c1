package mango

import (
	"fmt"
	"slices"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// ParseFields reads the dotted paths of a query's Fields.
func ParseFields(fields []string) ([]Path, error) {
	paths := make([]Path, len(fields))
	for i, field := range fields {
		paths[i] = ParsePath(field)
		if slices.Contains(paths[i], "") {
			return nil, fmt.Errorf("%w: fields: the field name %q has an empty part", statedb.ErrBadQuery, field)
		}
	}
	return paths, nil
}

// Project keeps the fields of a document that the paths name, each inside the
// objects that lead to it. Those that are missing are left out.
func Project(document canonical.Value, paths []Path) canonical.Value {
	kept := canonical.ObjectOf()
	for _, path := range paths {
		if v, ok := path.Lookup(document); ok {
			kept = put(kept, path, v)
		}
	}
	return kept
}

func put(object canonical.Value, path Path, v canonical.Value) canonical.Value {
	if len(path) > 1 {
		inner, ok := object.Get(path[0])
		if !ok || inner.Kind() != canonical.Object {
			inner = canonical.ObjectOf()
		}
		v = put(inner, path[1:], v)
	}
	return object.With(path[0], v)
}
