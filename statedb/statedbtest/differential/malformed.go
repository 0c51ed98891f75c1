package differential

import (
	"maps"
	"slices"

	"github.com/couchledger/couchledger/canonical"
)

// wrong are arguments that operators do not take. What CouchDB takes or only
// fails on later, and package mango refuses at once, is not among them.
var wrong = map[string][]canonical.Value{
	"$and":         valuesOf(`{}`, `1`, `null`, `"a"`, `{"a":1}`),
	"$or":          valuesOf(`{}`, `1`, `null`, `true`, `{"a":1}`),
	"$nor":         valuesOf(`{}`, `1.5`, `null`, `{"a":1}`),
	"$not":         valuesOf(`[]`, `1`, `null`, `"a"`, `[{"a":1}]`),
	"$in":          valuesOf(`{}`, `1`, `null`, `"a"`),
	"$nin":         valuesOf(`{}`, `1`, `null`, `"a"`),
	"$all":         valuesOf(`{}`, `1`, `null`, `"a"`),
	"$exists":      valuesOf(`1`, `null`, `"true"`, `[]`, `{}`),
	"$type":        valuesOf(`1`, `null`, `[]`, `{"$eq":"string"}`, `["string"]`),
	"$mod":         valuesOf(`[]`, `[2]`, `[2,1,0]`, `[2.0,1]`, `[2,1.0]`, `["2",1]`, `2`, `null`, `{"a":1}`),
	"$regex":       valuesOf(`"("`, `"["`, `"*"`, `"a)"`, `1`, `null`, `[]`),
	"$size":        valuesOf(`-1`, `1.0`, `"1"`, `null`, `[]`, `1.5`),
	"$elemMatch":   valuesOf(`1`, `null`, `[]`, `"a"`, `[{"a":1}]`, `{"$nosuch":1}`, `{"a":{"$in":1}}`),
	"$allMatch":    valuesOf(`1`, `null`, `[]`, `"a"`, `{"$nosuch":1}`, `{"$or":{}}`),
	"$keyMapMatch": valuesOf(`1`, `null`, `[]`, `"a"`, `{"$nosuch":1}`),
	"$beginsWith":  valuesOf(`1`, `null`, `[]`, `{}`),
	"$nosuch":      valuesOf(`1`, `null`, `{}`),
	"$":            valuesOf(`1`, `{}`),
	"$EQ":          valuesOf(`1`),
	"$where":       valuesOf(`"a"`),
	"$near":        valuesOf(`[1,2]`),
	"$text":        valuesOf(`{}`, `null`, `[]`),
	"$default":     valuesOf(`1`, `"a"`),
}

var wrongNames = slices.Sorted(maps.Keys(wrong))

// odd are selectors that are refused, or only look as if they should be.
var odd = valuesOf(
	`[]`, `1`, `null`, `"a"`, `{"":1}`, `{"v.":1}`, `{"v":{"":1}}`, `{"v":{".a":1}}`, `{"$gt":1}`, `{"$elemMatch":{"a":1}}`, `{"$not":{}}`,
	`{"a":{"$eq":{"$nosuch":1}}}`, `{"v":{"$in":[{"$nosuch":1}]}}`, `{"v":{"$not":{}}}`, `{"v":{"$or":[{},1,[2]]}}`,
	`{"v":{"$elemMatch":{}}}`, `{"a.$b":1}`, `{"\\$a":1}`, `{"$and":[{"$and":[]}]}`, `{"$or":[{"$or":[]}]}`, `{"$nor":[{"$nor":[]}]}`,
	`{"$not":{"$or":[]}}`, `{"v":{"$and":[]}}`, `{"v":{"$and":[],"$or":[]}}`, `{"$or":[],"s":"a"}`, `{"$not":{"$not":{"$and":[]}}}`,
	`{"v":{"$not":{"$and":[]}}}`, `{"v":{"$or":[[],1]}}`, `{"_id":{"$gt":5}}`, `{"_id":{"$lt":{}}}`, `{"_id":{"$gte":[]}}`,
	`{"_id":{"$ne":null}}`, `{"_rev":{"$exists":true}}`, `{"_id":{"$exists":false}}`, `{"_id":{"$lt":null}}`,
)

// malformed draws a selector with a fault at some depth.
func (g *generator) malformed() canonical.Value {
	name := pick(g.source, wrongNames)
	fault := object(name, pick(g.source, wrong[name]))
	if g.chance(50) {
		fault = fault.With("$exists", canonical.BoolOf(true))
	}
	selector := object(pick(g.source, []string{"v", "s", "a.b", "list"}), fault)
	switch g.IntN(6) {
	case 0:
		return object("$and", canonical.ArrayOf(object("s", canonical.IntOf(1)), selector))
	case 1:
		return object("$not", selector)
	case 2:
		return object("$or", canonical.ArrayOf(selector, object("s", canonical.IntOf(1))))
	case 3:
		return object("v", object("$elemMatch", fault))
	case 4:
		return object("o", selector)
	}
	return selector
}
