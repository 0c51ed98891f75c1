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
// CouchDB (3.1 to 3.5 at least) answers 500 to any selector that compares with
// an object of several fields, or with an array that holds null or an array,
// as soon as the database has an index: is_text_search in mango_idx_view walks
// into arguments as if they were selectors. Conditions of that kind are left
// out, or reduced to that the field exists.
func relax(selector canonical.Value) (relaxed canonical.Value, changed bool) {
	var parts []canonical.Value
	for _, part := range conjuncts(selector, nil) {
		key, condition := part.Key(0), part.At(0)
		if !fails(key, condition) {
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
		return slices.ContainsFunc(elements(v), selectorFails)
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
