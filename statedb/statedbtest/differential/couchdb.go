package differential

import (
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// badArgument reports whether CouchDB 3.5.0 answers the selector with an
// internal error as soon as the table has an index: its
// mango_idx_view:is_text_search walks over the arguments too, and does not
// expect null or an array in an array, nor an object with several members.
func badArgument(selector canonical.Value) bool {
	if selector.Kind() != canonical.Object {
		return breaksTextSearch(selector)
	}
	for i := range selector.Len() {
		key, v := selector.Key(i), selector.At(i)
		switch {
		case key == "$and" || key == "$or" || key == "$nor":
			for j := range v.Len() {
				if badArgument(v.At(j)) {
					return true
				}
			}
		case key == "$not" || strings.HasSuffix(key, "Match") || !strings.HasPrefix(key, "$"):
			if badArgument(v) {
				return true
			}
		case breaksTextSearch(v):
			return true
		}
	}
	return false
}

func breaksTextSearch(v canonical.Value) bool {
	switch v.Kind() {
	case canonical.Array:
		for i := range v.Len() {
			e := v.At(i)
			if e.IsNull() || e.Kind() == canonical.Array || breaksTextSearch(e) {
				return true
			}
		}
	case canonical.Object:
		return v.Len() > 1 || v.Len() == 1 && breaksTextSearch(v.At(0))
	}
	return false
}

// emptyList reports whether an operator has an empty list of selectors. To
// CouchDB that makes indexes usable that leave out documents which match.
func emptyList(selector canonical.Value) bool {
	for i := range selector.Len() {
		if selector.Kind() == canonical.Array {
			if emptyList(selector.At(i)) {
				return true
			}
			continue
		}
		v := selector.At(i)
		if list := v.Kind() == canonical.Array && slices.Contains([]string{"$and", "$or", "$nor"}, selector.Key(i)); list && v.Len() == 0 || emptyList(v) {
			return true
		}
	}
	return false
}

// emptyPrefix reports whether CouchDB 3.5.0 might answer the selector with an
// internal error because $beginsWith stands beside other bounds of its field
// that leave nothing: its mango_idx_view:range does not expect that.
func emptyPrefix(selector canonical.Value) bool {
	bounds := map[string][]string{}
	collectBounds(selector, "", bounds)
	for _, names := range bounds {
		if len(names) > 1 && slices.Contains(names, "$beginsWith") {
			return true
		}
	}
	return false
}

// collectBounds finds the operators of each path that an index can serve.
func collectBounds(v canonical.Value, path string, bounds map[string][]string) {
	if v.Kind() != canonical.Object || v.Len() == 0 {
		bounds[path] = append(bounds[path], "$eq")
		return
	}
	for i := range v.Len() {
		switch key := v.Key(i); key {
		case "$and", "$or", "$nor":
			for j := range v.At(i).Len() {
				collectBounds(v.At(i).At(j), path, bounds)
			}
		case "$not":
			collectBounds(v.At(i), path, bounds)
		case "$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$beginsWith":
			bounds[path] = append(bounds[path], key)
		default:
			if !strings.HasPrefix(key, "$") {
				collectBounds(v.At(i), path+"."+key, bounds)
			}
		}
	}
}
