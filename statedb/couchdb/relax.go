package couchdb

import (
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
)

// relax makes a selector that CouchDB can answer of one on which it fails, and
// reports whether it had to. What it finds by the relaxed one is then matched
// against the original here.
//
// What CouchDB 3.5 does not survive, or answers wrongly, conditions of these
// kinds, is left out, or reduced to that the field exists:
//
//   - Compared with an object of several fields, or with an array that holds
//     null or an array, any selector is a 500 as soon as the database has an
//     index: is_text_search in mango_idx_view walks into arguments as if they
//     were selectors.
//   - $beginsWith beside another bound of the same field is a 500 where the two
//     leave nothing.
//   - An empty $and, $or or $nor makes it take an index that leaves out
//     documents which match.
func relax(selector canonical.Value) (relaxed canonical.Value, changed bool) {
	var parts []canonical.Value
	prefixed := prefixAmongBounds(selector)
	for _, part := range conjuncts(selector, nil) {
		key, condition := part.Key(0), part.At(0)
		if !fails(key, condition) && !(prefixed && mentions(part, "$beginsWith")) {
			parts = append(parts, part)
			continue
		}
		changed = true
		if needsField(key, condition) {
			exists := canonical.ObjectOf(canonical.Member{Key: "$exists", Value: canonical.BoolOf(true)})
			parts = append(parts, canonical.ObjectOf(canonical.Member{Key: key, Value: exists}))
		}
	}
	switch {
	case !changed:
		return selector, false
	case len(parts) == 0:
		return canonical.ObjectOf(), true
	}
	return canonical.ObjectOf(canonical.Member{Key: "$and", Value: canonical.ArrayOf(parts...)}), true
}

// conjuncts splits a selector into objects of one field, all of which have to
// match.
func conjuncts(selector canonical.Value, parts []canonical.Value) []canonical.Value {
	for i := range selector.Len() {
		key, value := selector.Key(i), selector.At(i)
		if key != "$and" {
			parts = append(parts, canonical.ObjectOf(canonical.Member{Key: key, Value: value}))
			continue
		}
		if value.Len() == 0 {
			parts = append(parts, canonical.ObjectOf(canonical.Member{Key: key, Value: value}))
		}
		for j := range value.Len() {
			parts = conjuncts(value.At(j), parts)
		}
	}
	return parts
}

// fails reports whether CouchDB fails on a field or operator with its value.
// The selector was parsed before, so that its shape is right.
func fails(key string, v canonical.Value) bool {
	switch key {
	case "$and", "$or", "$nor":
		return v.Len() == 0 || slices.ContainsFunc(elements(v), selectorFails)
	case "$not", "$elemMatch", "$allMatch", "$keyMapMatch":
		return selectorFails(v)
	}
	if strings.HasPrefix(key, "$") || v.Kind() != canonical.Object {
		return argumentFails(v)
	}
	return selectorFails(v)
}

func selectorFails(selector canonical.Value) bool {
	for i := range selector.Len() {
		if selector.Kind() != canonical.Object || fails(selector.Key(i), selector.At(i)) {
			return true
		}
	}
	return false
}

func elements(v canonical.Value) []canonical.Value {
	list := make([]canonical.Value, v.Len())
	for i := range list {
		list[i] = v.At(i)
	}
	return list
}

// argumentFails reports whether CouchDB fails on a value to compare with.
func argumentFails(v canonical.Value) bool {
	switch v.Kind() {
	case canonical.Object:
		return v.Len() > 1 || v.Len() == 1 && argumentFails(v.At(0))
	case canonical.Array:
		return slices.ContainsFunc(elements(v), func(e canonical.Value) bool {
			return e.Kind() == canonical.Null || e.Kind() == canonical.Array || argumentFails(e)
		})
	}
	return false
}

// needsField reports whether only documents with the field can match: where it
// is compared with something, in the plain ways.
func needsField(key string, condition canonical.Value) bool {
	if strings.HasPrefix(key, "$") {
		return false
	}
	if condition.Kind() != canonical.Object {
		return true // equality
	}
	plain := []string{"$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$all"}
	for i := range condition.Len() {
		if slices.Contains(plain, condition.Key(i)) {
			return true
		}
	}
	return false
}

// mentions reports whether an operator occurs anywhere.
func mentions(v canonical.Value, operator string) bool {
	for i := range v.Len() {
		if v.Kind() == canonical.Object && v.Key(i) == operator || mentions(v.At(i), operator) {
			return true
		}
	}
	return false
}

// prefixAmongBounds reports whether a field with a $beginsWith has another
// condition that an index can serve.
func prefixAmongBounds(selector canonical.Value) bool {
	if !mentions(selector, "$beginsWith") {
		return false
	}
	bounds := map[string][]string{}
	collectBounds(selector, "", bounds)
	for _, operators := range bounds {
		if len(operators) > 1 && slices.Contains(operators, "$beginsWith") {
			return true
		}
	}
	return false
}

// collectBounds lists by path the operators that an index can serve.
func collectBounds(v canonical.Value, path string, bounds map[string][]string) {
	if v.Kind() != canonical.Object || v.Len() == 0 {
		bounds[path] = append(bounds[path], "$eq")
		return
	}
	for i := range v.Len() {
		switch key := v.Key(i); key {
		case "$and", "$or", "$nor":
			for _, part := range elements(v.At(i)) {
				collectBounds(part, path, bounds)
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
