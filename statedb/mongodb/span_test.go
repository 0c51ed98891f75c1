package mongodb

import (
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb/mango"
)

// One of each kind of value, in Mango's order, and some that BSON does not have.
var ordered = []string{
	`null`, `false`, `true`, `-99999999999999999999`, `-9223372036854775808`, `-1.5`, `0`, `0.5`, `9007199254740993`, `9223372036854775807`,
	`9223372036854775808`, `1e300`, `""`, `"a"`, `"b"`, `[]`, `[1]`, `{}`, `{"a":1}`,
}

// A span has the type of every value that it must find, and of those that it
// must not find only ones whose comparison cannot be told to MongoDB.
func TestSpans(t *testing.T) {
	for _, op := range []mango.Op{mango.OpEq, mango.OpLt, mango.OpLte, mango.OpGt, mango.OpGte} {
		for _, argText := range ordered {
			arg := parse(t, argText)
			s := spanOf(op, arg)
			if s.whole&s.part != 0 {
				t.Errorf("%s %s: a type is both whole and part: %+v", operators[op], argText, s)
			}
			for _, text := range ordered {
				v := parse(t, text)
				found := finds(op, mango.Compare(v, arg))
				if found && !s.has(classOf(v)) {
					t.Errorf("%s %s lacks the type of %s", operators[op], argText, text)
				}
				if !found && s.whole&classOf(v) != 0 && classOf(v)&classOdd == 0 {
					t.Errorf("%s %s has all of the type of %s", operators[op], argText, text)
				}
			}
			both := s.and(everything)
			if both.whole != s.whole || both.part != s.part {
				t.Errorf("%s %s and everything: %+v", operators[op], argText, both)
			}
		}
	}
}

func finds(op mango.Op, c int) bool {
	switch op {
	case mango.OpLt:
		return c < 0
	case mango.OpLte:
		return c <= 0
	case mango.OpGt:
		return c > 0
	case mango.OpGte:
		return c >= 0
	}
	return c == 0
}

func TestSpanFilters(t *testing.T) {
	extended := func(d bson.D) string {
		text, err := bson.MarshalExtJSON(d, false, false)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	between := spanOf(mango.OpGt, parse(t, `5`)).and(spanOf(mango.OpLt, parse(t, `"m"`)))
	for _, test := range []struct {
		span span
		of   class
		want string
	}{
		{everything, classBool, `{"p":{"$type":["bool"]}}`},
		{between, classNumber, `{"p":{"$gt":5}}`},
		{between, classString, `{"p":{"$lt":"m"}}`},
		{between, classAll, `{"$or":[{"p":{"$gt":5}},{"p":{"$lt":"m"}}]}`},
		{between, classBool, ``},
		{spanOf(mango.OpGte, canonical.BoolOf(true)), classBool, `{"p":{"$eq":true}}`},
		{spanOf(mango.OpLt, parse(t, `9223372036854775808`)), classNumber, `{"p":{"$lte":9.223372036854778E+18}}`},
		{spanOf(mango.OpGte, parse(t, `3`)).and(spanOf(mango.OpGte, parse(t, `4`))), classNumber, `{"$and":[{"p":{"$gte":3}},{"p":{"$gte":4}}]}`},
	} {
		got := ""
		if d, ok := test.span.filter("p", test.of); ok {
			got = extended(d)
		}
		if got != test.want {
			t.Errorf("%+v of %b: %s, want %s", test.span, test.of, got, test.want)
		}
	}
}
