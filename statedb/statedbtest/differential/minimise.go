package differential

import (
	"fmt"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// patience is how many smaller ones are tried to find the smallest that still
// shows a difference.
const patience = 300

// smallest tells of the smallest query that still shows a difference, and of
// the document that it is about.
func (c *comparison) smallest(q statedb.Query) string {
	if _, found := c.difference(q); found.refusal != nil {
		return ""
	}
	q = c.minimise(q)
	difference, _ := c.difference(q)
	return fmt.Sprintf("\nthe smallest is %s: %s%s", describe(q), difference, c.witness(q))
}

// minimise makes the query smaller as long as the answers differ.
func (c *comparison) minimise(q statedb.Query) statedb.Query {
	tries := 0
	differs := func(smaller statedb.Query) bool {
		tries++
		difference, found := c.difference(smaller)
		return difference != "" && found.refusal == nil
	}
	if whole := q; q.Limit <= len(c.documents) {
		if whole.Limit = len(c.documents) + 1; differs(whole) {
			q = whole
		}
	}
	if every := q; len(q.Fields) > 0 {
		if every.Fields = nil; differs(every) {
			q = every
		}
	}
	if plain := q; len(q.Sort) > 0 {
		if plain.Sort = nil; differs(plain) {
			q = plain
		}
	}
	q.Selector = smallest(q.Selector, &tries, func(v canonical.Value) bool {
		smaller := q
		smaller.Selector = v
		return v.Kind() == canonical.Object && differs(smaller)
	})
	return q
}

// witness names a document on which the answers differ, made small.
func (c *comparison) witness(q statedb.Query) string {
	a, b := ask(c.ctx, c.a, q), ask(c.ctx, c.b, q)
	only := append(without(a.ids, b.ids), without(b.ids, a.ids)...)
	if len(only) == 0 {
		return ""
	}
	found, err := c.a.Get(c.ctx, table, only[:1])
	if err != nil || len(found) != 1 {
		return fmt.Sprintf("\n%s cannot be read: %v", only[0], err)
	}
	document, err := canonical.Parse(found[0].Body)
	if err != nil {
		return fmt.Sprintf("\n%s cannot be parsed: %v", only[0], err)
	}
	tries := 0
	document = smallest(document, &tries, func(v canonical.Value) bool {
		tries++
		return v.Kind() == canonical.Object && c.differsOn(q, v)
	})
	return fmt.Sprintf("\non the document %s", document.Bytes())
}

// differsOn reports whether the answers differ on a document, which is there
// only for that.
func (c *comparison) differsOn(q statedb.Query, document canonical.Value) bool {
	const probe = "probe"
	for _, db := range []statedb.DB{c.a, c.b} {
		write(c, db, []statedb.Write{{ID: probe, Body: document.Bytes()}})
	}
	q.Limit = len(c.documents) + 2
	a, b := ask(c.ctx, c.a, q), ask(c.ctx, c.b, q)
	for _, db := range []statedb.DB{c.a, c.b} {
		if err := db.Remove(c.ctx, table, []string{probe}); err != nil {
			c.Fatalf("Remove: %v", err)
		}
	}
	return len(without(a.ids, b.ids))+len(without(b.ids, a.ids)) > 0 &&
		contains(a.ids, probe) != contains(b.ids, probe)
}

func contains(ids []string, id string) bool { return len(without([]string{id}, ids)) == 0 }

// smallest replaces v by smaller values for as long as they are still good.
func smallest(v canonical.Value, tries *int, good func(canonical.Value) bool) canonical.Value {
	for {
		next, found := v, false
		for _, smaller := range reductions(v) {
			if *tries >= patience {
				return v
			}
			if good(smaller) {
				next, found = smaller, true
				break
			}
		}
		if !found {
			return v
		}
		v = next
	}
}

// reductions are the values that are a little smaller: a part taken out, a
// part in place of the whole, a part made smaller.
func reductions(v canonical.Value) []canonical.Value {
	var all []canonical.Value
	switch v.Kind() {
	case canonical.Object:
		for i := range v.Len() {
			all = append(all, v.Without(v.Key(i)))
		}
		for i := range v.Len() {
			all = append(all, v.At(i))
			if v.At(i).Kind() == canonical.Array {
				for j := range v.At(i).Len() {
					all = append(all, v.At(i).At(j))
				}
			}
			for _, smaller := range reductions(v.At(i)) {
				all = append(all, v.With(v.Key(i), smaller))
			}
		}
	case canonical.Array:
		for i := range v.Len() {
			all = append(all, replaced(v, i))
		}
		for i := range v.Len() {
			for _, smaller := range reductions(v.At(i)) {
				all = append(all, replaced(v, i, smaller))
			}
		}
	}
	return all
}

// replaced puts other elements, or none, in the place of one.
func replaced(v canonical.Value, at int, with ...canonical.Value) canonical.Value {
	var items []canonical.Value
	for i := range v.Len() {
		if i == at {
			items = append(items, with...)
		} else {
			items = append(items, v.At(i))
		}
	}
	return canonical.ArrayOf(items...)
}
