package rethinkdb

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

// values are of every type, with neighbours.
var values = []string{
	`null`, `false`, `true`, `-7`, `-1.5`, `-0.0`, `0`, `0.5`, `1`, `2`, `3`, `9007199254740991`, `9007199254740992`, `9007199254740994.0`,
	`1e300`, `1.7976931348623157e308`, `-1.7976931348623157e308`, `5e-324`,
	`""`, `"a"`, `"a\u0000"`, `"ab"`, `"abc"`, `"a\nb"`, `"é"`, `"😀"`, `"\uffff"`, `"$reql_type$"`,
	`[]`, `[1]`, `[1,2,3]`, `["a","ab"]`, `[[1]]`, `[null]`, `[{"b":1},{"b":2}]`, `[{"b":"x"}]`,
	`{}`, `{"b":1}`, `{"b":null}`, `{"b":{"c":[0,7]}}`, `{"0":5,"b":[true,{"c":1}]}`,
}

// tight are selectors of which RethinkDB itself finds just what matches.
var tight = []string{
	`{}`, `{"a":1}`, `{"a":1.0}`, `{"a":0}`, `{"a":null}`, `{"a":true}`, `{"a":"a"}`, `{"a":"a\u0000"}`, `{"a":[1,2,3]}`, `{"a":{"$eq":{}}}`, `{"a":{"$eq":{"b":1}}}`,
	`{"a":9007199254740993}`, `{"a":9007199254740992}`, `{"a":0.1}`, `{"a":1e300}`,
	`{"a":{"$ne":1}}`, `{"a":{"$ne":null}}`, `{"a":{"$ne":[1]}}`, `{"a":{"$ne":9007199254740993}}`,
	`{"a":{"$lt":0}}`, `{"a":{"$lte":0}}`, `{"a":{"$gt":0}}`, `{"a":{"$gte":0}}`, `{"a":{"$lt":true}}`, `{"a":{"$lte":true}}`, `{"a":{"$gt":false}}`, `{"a":{"$gte":false}}`,
	`{"a":{"$lt":null}}`, `{"a":{"$lte":null}}`, `{"a":{"$gt":null}}`, `{"a":{"$gte":null}}`, `{"a":{"$lt":"a"}}`, `{"a":{"$lte":"a\u0000"}}`, `{"a":{"$gt":"é"}}`, `{"a":{"$gte":"\uffff"}}`,
	`{"a":{"$lt":9007199254740993}}`, `{"a":{"$lte":9007199254740993}}`, `{"a":{"$gt":9007199254740993}}`, `{"a":{"$gte":9007199254740993}}`,
	`{"a":{"$gt":1` + strings.Repeat("0", 400) + `}}`, `{"a":{"$lt":1` + strings.Repeat("0", 400) + `}}`,
	`{"a":{"$gt":-1` + strings.Repeat("0", 400) + `}}`, `{"a":{"$lte":-1` + strings.Repeat("0", 400) + `}}`,
	`{"a":{"$in":[1,"a",null,9007199254740993]}}`, `{"a":{"$in":[]}}`, `{"a":{"$in":[[1],{"b":1}]}}`, `{"a":{"$nin":[1,"a"]}}`, `{"a":{"$nin":[]}}`, `{"a":{"$nin":[9007199254740993]}}`,
	`{"a":{"$exists":true}}`, `{"a":{"$exists":false}}`, `{"a.b":{"$exists":true}}`, `{"a.b":{"$exists":false}}`, `{"a.b.c.1":7}`, `{"a.0":1}`, `{"a.0":5}`, `{"a.0.b":1}`, `{"a.b.1.c":1}`, `{"a.7":{"$exists":true}}`, `{"a.01":2}`,
	`{"a.b":null}`, `{"a.b":{"$ne":1}}`, `{"a.b.c":{"$exists":false}}`, `{"a.99999999999999999999":1}`,
	`{"a":{"$type":"null"}}`, `{"a":{"$type":"boolean"}}`, `{"a":{"$type":"number"}}`, `{"a":{"$type":"string"}}`, `{"a":{"$type":"array"}}`, `{"a":{"$type":"object"}}`, `{"a":{"$not":{"$type":"array"}}}`,
	`{"a":{"$size":0}}`, `{"a":{"$size":3}}`, `{"a":{"$not":{"$size":1}}}`, `{"a":{"$mod":[2,1]}}`, `{"a":{"$mod":[-3,-1]}}`,
	`{"a":{"$regex":"^a"}}`, `{"a":{"$regex":"b$"}}`, `{"a":{"$regex":"^.$"}}`, `{"a":{"$regex":"[^a]"}}`, `{"a":{"$beginsWith":"a"}}`, `{"a":{"$beginsWith":""}}`, `{"a":{"$beginsWith":"$reql"}}`,
	`{"a":{"$all":[1,3]}}`, `{"a":{"$all":[]}}`, `{"a":{"$elemMatch":{"b":1}}}`, `{"a":{"$elemMatch":{"$gt":2}}}`, `{"a":{"$elemMatch":{"$not":{"$type":"object"}}}}`,
	`{"a":{"$allMatch":{"b":{"$gte":1}}}}`, `{"a":{"$allMatch":{"$type":"number"}}}`, `{"a":{"$keyMapMatch":{"$eq":"b"}}}`, `{"a":{"$keyMapMatch":{"$regex":"^0"}}}`,
	`{"$or":[{"a":1},{"a.b":1}]}`, `{"$or":[]}`, `{"$nor":[{"a":1},{"a":{"$type":"string"}}]}`, `{"$not":{"a":{"$gt":1}}}`, `{"_id":"v03"}`, `{"_id":{"$gt":"v30"}}`, `{"_id":{"$regex":"1$"}}`, `{"a":{"$gt":0,"$lt":"b","$ne":2}}`,
}

// loose are selectors that are matched here in part.
var loose = []string{
	`{"a":{"$gt":[1]}}`, `{"a":{"$lte":{"b":1}}}`, `{"a":{"$gte":[1,9007199254740993]}}`, `{"a":[9007199254740993]}`, `{"a":{"$ne":{"$reql_type$":"TIME"}}}`, `{"a":{"$eq":{"$reql_type$":7}}}`,
	`{"a":{"$in":[{"$reql_type$":7}]}}`, `{"a":{"$nin":[[9007199254740993]]}}`, `{"a":{"$mod":[9223372036854775807,1]}}`, `{"a":{"$mod":[2,0]}}`, `{"a":{"$not":{"$mod":[2,0]}}}`,
	`{"a":{"$regex":"(?i)^A"}}`, `{"a":{"$regex":"\\pL"}}`, `{"a":{"$regex":"a{1000}"}}`, `{"a":{"$regex":"((a{0,30}){0,30}){0,1}$"}}`, `{"a":{"$regex":"\\x00"}}`, `{"a":{"$not":{"$regex":"^a"}}}`, `{"a":{"$beginsWith":"a\u0000"}}`,
	`{"a":{"$all":[[1]]}}`, `{"a":{"$all":[1.0]}}`, `{"a":{"$all":[{"$reql_type$":1}]}}`, `{"a":{"$elemMatch":{"$not":{"b":1}}}}`, `{"a":{"$elemMatch":{"$eq":{"$reql_type$":1}}}}`,
	`{"_rev":{"$gt":"1"}}`, `{"_x":{"$exists":false}}`, `{"_id.x":1}`, `{"a":{"$allMatch":{"$not":{"b":1}}}}`,
}

// TestTranslation: RethinkDB finds all that match, and of most selectors no
// other; none fails.
func TestTranslation(t *testing.T) {
	db := made(t, optionsFor(rethinktest.Shared(t)))
	rows := map[string]canonical.Value{}
	var writes []statedb.Write
	for i, text := range append(slices.Clone(values), "") {
		body := `{"a":` + text + `}`
		if text == "" {
			body = `{"b":1}`
		}
		id := fmt.Sprintf("v%02d", i)
		rows[id] = parse(t, body).With("_id", canonical.StringOf(id))
		writes = append(writes, statedb.Write{ID: id, Body: []byte(body)})
	}
	for i, rev := range write(t, db, writes...) {
		id := writes[i].ID
		rows[id] = rows[id].With("_rev", canonical.StringOf(rev))
	}
	deep := strings.Repeat(`{"$or":[`, 30) + `{"a":1}` + strings.Repeat(`]}`, 30)
	long := `{"$or":[` + strings.Repeat(`{"a":-1},`, 900) + `{"a":1}]}`
	for i, text := range append(append(slices.Clone(tight), loose...), deep, long, `{"a`+strings.Repeat(".a", 50)+`":1}`) {
		selector, err := mango.Parse(parse(t, text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		tree := selector.Tree()
		found, err := db.one(t.Context(), "test", db.table(table).Filter(func(row r.Term) r.Term { return superset(row, tree) }).Field("_id").CoerceTo("array"), nil)
		if err != nil {
			t.Errorf("%.200s: %v", text, err)
			continue
		}
		passed := map[string]bool{}
		for i := range found.Len() {
			passed[found.At(i).Text()] = true
		}
		for id, row := range rows {
			switch matches := selector.Match(row); {
			case matches && !passed[id]:
				t.Errorf("%.200s: %s matches and is left out", text, row.Bytes())
			case !matches && passed[id] && i < len(tight) && !strings.Contains(string(row.Bytes()), "-0.0"):
				t.Errorf("%.200s: %s does not match and is let through", text, row.Bytes())
			}
		}
	}
}

func TestDoublesAround(t *testing.T) {
	for text, want := range map[string]string{
		"1": "1 1", "-0.0": "0 0", "9007199254740993": "9007199254740992 9.007199254740994e+15", "-9007199254740993": "-9.007199254740994e+15 -9007199254740992",
		"1e23": "1e+23 1e+23", "1" + strings.Repeat("0", 309): "1.7976931348623157e+308 +Inf", "-1" + strings.Repeat("0", 309): "-Inf -1.7976931348623157e+308",
	} {
		below, above := doublesAround(parse(t, text))
		got := fmt.Sprint(canonicalNumber(below), " ", canonicalNumber(above))
		if got != want {
			t.Errorf("%s: between %s, want %s", text, got, want)
		}
	}
}

// canonicalNumber prints as the table above has it.
func canonicalNumber(f float64) string {
	if f == float64(int64(f)) && f <= maxWhole && f >= -maxWhole {
		return fmt.Sprint(int64(f))
	}
	return fmt.Sprint(f)
}
