package mongodb

import (
	"context"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb/keyset"
	"github.com/couchledger/couchledger/statedb/mango"
)

// A page over an index is read like this. The index's fields behind those that
// the selector holds constant are its variable fields.
//
// Rows whose variable fields are all null, numbers, strings or booleans come
// from the index. MongoDB puts booleans last and Mango puts them second, so
// there is a source for each way in which the fields behind the first can be
// booleans or not, and package keyset merges them. A source is a chain of
// commands, one for each type of the first field, in Mango's order, and, when a
// page goes on behind a row, for each field in which what follows can differ
// from that row. So each command reads a range of the index from its beginning,
// and most pages send only the first of each chain.
//
// Rows with an array or an object in a variable field come from the small
// indexes of such, unordered, and are sorted here.

// segment is one command of a chain.
type segment struct {
	filter bson.D
	first  class // the only type of the first variable field that is wanted; 0 for any
}

// reading is a source: a chain of commands and what it leaves out.
type reading struct {
	f        *finder
	segments []segment
	options  func() *options.FindOptionsBuilder
	wanted   func(canonical.Value, segment) bool // nil takes all
	cursor   *mongo.Cursor
}

func (r *reading) close(ctx context.Context) {
	if r.cursor != nil {
		_ = r.cursor.Close(ctx) // the server forgets it by itself, too
		r.cursor = nil
	}
}

// next is the keyset.Source.
func (r *reading) next(ctx context.Context) (keyset.Row, bool, error) {
	for len(r.segments) > 0 {
		s := r.segments[0]
		if r.cursor == nil {
			var err error
			if r.cursor, err = r.f.collection.Find(ctx, s.filter, r.options()); err != nil {
				return keyset.Row{}, false, err
			}
		}
		for r.cursor.Next(ctx) {
			record, ok, err := readRecord(r.cursor.Current)
			if err != nil {
				return keyset.Row{}, false, err
			}
			if ok && !record.deleted && (r.wanted == nil || r.wanted(record.body, s)) {
				return keyset.Row{ID: record.id, Rev: record.rev, Body: record.body}, true, nil
			}
		}
		if err := r.cursor.Err(); err != nil {
			return keyset.Row{}, false, err
		}
		r.close(ctx)
		r.segments = r.segments[1:]
	}
	return keyset.Row{}, false, nil
}

// read makes a source. sort and hint may be nil.
func (f *finder) read(segments []segment, sort, hint bson.D, wanted func(canonical.Value, segment) bool) keyset.Source {
	r := &reading{f: f, segments: segments, wanted: wanted}
	r.options = func() *options.FindOptionsBuilder {
		opts := options.Find().SetBatchSize(int32(min(f.limit+1, maxBatch)))
		if sort != nil {
			opts.SetSort(sort)
		}
		if !f.db.server.substitute {
			opts.SetAllowDiskUse(true)
		}
		if f.hints && hint != nil {
			opts.SetHint(hint)
		}
		return opts
	}
	f.readings = append(f.readings, r)
	return r.next
}

// maxBatch is how many documents come at once at most.
const maxBatch = 1000

// rest is what the index does not say of the selector, as far as MongoDB can
// say it; it may be empty.
func (f *finder) rest() []bson.D {
	if f.query.Plan.Residual == nil {
		return nil
	}
	if d, ok := translate(f.query.Plan.Residual.Tree()); ok {
		return []bson.D{d}
	}
	return nil
}

// direction is 1, or -1 to read backwards.
func (f *finder) direction() int32 {
	if f.query.Plan.Reverse {
		return -1
	}
	return 1
}

// behind is the comparison with what comes behind a value.
func (f *finder) behind() mango.Op {
	if f.query.Plan.Reverse {
		return mango.OpLt
	}
	return mango.OpGt
}

// behindID are the ids behind that of the page before.
func (f *finder) behindID() bson.D {
	return bson.D{{Key: fieldID, Value: bson.D{{Key: operators[f.behind()], Value: f.query.After.ID}}}}
}

// byID reads by id.
func (f *finder) byID() []keyset.Source {
	var parts []bson.D
	least := ""
	for _, b := range f.query.Plan.Range {
		// Bounds of other types hold for all ids or for none, which is found
		// when the rows are matched.
		if b.Arg.Kind() != canonical.String {
			continue
		}
		if b.Op == mango.OpLte && b.Arg.Text() == least && least != "" {
			// One document; FerretDB finds it by its index only so.
			return []keyset.Source{f.read([]segment{{filter: bson.D{{Key: fieldID, Value: least}}}}, nil, nil, nil)}
		}
		if b.Op == mango.OpGte {
			least = b.Arg.Text()
		}
		parts = append(parts, bson.D{{Key: fieldID, Value: bson.D{{Key: operators[b.Op], Value: valueOf(b.Arg)}}}})
	}
	if f.query.After != nil {
		parts = append(parts, f.behindID())
	}
	if len(parts) == 0 {
		parts = append(parts, bson.D{{Key: fieldID, Value: bson.D{{Key: "$gte", Value: ""}}}}) // texts only
	}
	filter, _ := allOf(append(parts, f.rest()...))
	return []keyset.Source{f.read([]segment{{filter: filter}}, bson.D{{Key: fieldID, Value: f.direction()}}, nil, nil)}
}

// byScan reads the whole table: for an index that MongoDB has no words for, and
// once where FerretDB would do so for every command.
func (f *finder) byScan() []keyset.Source {
	filter, ok := translate(f.query.Selector.Tree())
	if !ok {
		filter = bson.D{}
	}
	return []keyset.Source{f.query.Collect(f.limit, f.read([]segment{{filter: filter}}, nil, nil, nil))}
}

// shape is an index as a query sees it.
type shape struct {
	index     *deployed
	variable  []string     // MongoDB's paths of the variable fields
	paths     []mango.Path // the same as Mango's
	constants []bson.D     // conditions on the fields before them
	within    span         // what the selector wants of the first variable field
	rest      []bson.D
}

func (f *finder) byIndex(index *deployed) []keyset.Source {
	constants := f.query.Plan.Constants
	s := shape{index: index, variable: index.keys[len(constants):], paths: f.query.Paths[len(constants):], within: everything, rest: f.rest()}
	for _, b := range f.query.Plan.Range {
		s.within = s.within.and(spanOf(b.Op, b.Arg))
	}
	for i, c := range constants {
		condition, _ := spanOf(mango.OpEq, c).filter(index.keys[i], classOf(c)) // there is always one
		s.constants = append(s.constants, condition)
	}
	for i, c := range constants {
		if classOf(c)&classOdd != 0 {
			filter, _ := allOf(slices.Concat(s.constants, s.rest))
			return []keyset.Source{f.query.Collect(f.limit, f.read([]segment{{filter: filter}}, nil, oddHint(index, index.keys[i]), nil))}
		}
	}
	sources := f.ordered(s)
	for k := range s.variable {
		if source := f.odd(s, k); source != nil {
			sources = append(sources, source)
		}
	}
	return sources
}

// oddHint is the index of documents with an array or object under a field; nil
// where there is none.
func oddHint(index *deployed, key string) bson.D {
	if slices.Contains(index.odd, key) {
		return oddPattern(key)
	}
	return nil
}

// odd is the source of the rows of which the k-th variable field is the first
// with an array or an object; nil where the selector wants no such.
func (f *finder) odd(s shape, k int) keyset.Source {
	if k == 0 && !s.within.has(classOdd) {
		return nil
	}
	parts := slices.Concat(s.constants, []bson.D{isOdd(s.variable[k])}, s.rest)
	if s.within.whole != classAll {
		within, ok := s.within.filter(s.variable[0], classAll)
		if !ok {
			return nil
		}
		parts = append(parts, within)
	}
	wanted := func(body canonical.Value, _ segment) bool {
		return slices.IndexFunc(s.paths, func(path mango.Path) bool {
			v, ok := path.Lookup(body)
			return ok && classOf(v)&classOdd != 0
		}) == k
	}
	filter, _ := allOf(parts)
	return f.query.Collect(f.limit, f.read([]segment{{filter: filter}}, nil, oddHint(s.index, s.variable[k]), wanted))
}

// ordered are the sources of all other rows.
func (f *finder) ordered(s shape) []keyset.Source {
	var sort bson.D
	for _, key := range append(slices.Clone(s.variable), fieldID) {
		sort = append(sort, bson.E{Key: key, Value: f.direction()})
	}
	var sources []keyset.Source
	for _, pattern := range patterns(len(s.variable)) {
		wanted := func(body canonical.Value, at segment) bool {
			for i, path := range s.paths {
				v, ok := path.Lookup(body)
				if !ok || classOf(v)&pattern[i] == 0 || i == 0 && at.first != 0 && classOf(v) != at.first {
					return false
				}
			}
			return true
		}
		segments := f.chain(s, pattern)
		sources = append(sources, f.read(segments, sort, keyPattern(s.index.keys), wanted))
	}
	return sources
}

// patterns are the ways in which fields but the first can be booleans or not.
func patterns(fields int) [][]class {
	all := [][]class{{classPlain | classBool}}
	if fields == 0 {
		return [][]class{nil}
	}
	for len(all[0]) < fields {
		var longer [][]class
		for _, pattern := range all {
			longer = append(longer, append(slices.Clone(pattern), classPlain), append(slices.Clone(pattern), classBool))
		}
		all = longer
	}
	return all
}

// inOrder are the types of a class in the order of the query.
func (f *finder) inOrder(of class) []class {
	var list []class
	for _, c := range classes {
		if c.class&of != 0 {
			list = append(list, c.class)
		}
	}
	if f.query.Plan.Reverse {
		slices.Reverse(list)
	}
	return list
}

// chain makes the commands for a pattern.
func (f *finder) chain(s shape, pattern []class) []segment {
	var segments []segment
	add := func(first class, parts ...[]bson.D) {
		filter, ok := allOf(slices.Concat(parts...))
		if !ok {
			filter = bson.D{}
		}
		segments = append(segments, segment{filter: filter, first: first})
	}
	// tail has the fields from one on be of the pattern's types.
	tail := func(from int) []bson.D {
		parts := slices.Clone(s.rest)
		for i := from; i < len(pattern); i++ {
			d, _ := span{whole: pattern[i]}.filter(s.variable[i], classAll)
			parts = append(parts, d)
		}
		return parts
	}
	first := s.within
	if f.query.After != nil {
		after := f.query.After.Values[len(f.query.Plan.Constants):]
		var equal [][]bson.D // conditions that the first so many fields are as in that row
		equal = append(equal, nil)
		for i, v := range after {
			d, ok := spanOf(mango.OpEq, v).filter(s.variable[i], pattern[i]&^classOdd)
			if !ok {
				break
			}
			equal = append(equal, append(slices.Clone(equal[i]), d))
		}
		if len(equal) > len(after) {
			add(0, s.constants, equal[len(after)], []bson.D{f.behindID()}, s.rest)
		}
		for i := min(len(equal), len(after)) - 1; i > 0; i-- {
			for _, c := range f.inOrder(pattern[i]) {
				if d, ok := spanOf(f.behind(), after[i]).filter(s.variable[i], c); ok {
					add(0, s.constants, equal[i], []bson.D{d}, tail(i+1))
				}
			}
		}
		if len(after) > 0 {
			first = first.and(spanOf(f.behind(), after[0]))
		}
	}
	switch {
	case len(pattern) > 0:
		for _, c := range f.inOrder(pattern[0]) {
			if d, ok := first.filter(s.variable[0], c); ok {
				add(c, s.constants, []bson.D{d}, tail(1))
			}
		}
	case f.query.After == nil:
		add(0, s.constants, s.rest)
	}
	return segments
}
