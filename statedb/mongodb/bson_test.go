package mongodb

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/couchledger/couchledger/canonical"
)

func parse(tb testing.TB, text string) canonical.Value {
	tb.Helper()
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return v
}

func TestDocumentsComeBack(t *testing.T) {
	for _, text := range []string{
		`{}`, `{"":{"":[]}}`, `{"a":[1,"x",null,true,false,[],{},[[2]]]}`, `{"id":"x","b":{"c":{"d":[{}]}}}`,
		`{"n":[0,-1,2147483647,2147483648,-2147483648,-2147483649,9223372036854775807,-9223372036854775808]}`,
		`{"f":[0.0,-0.0,1.0,0.1,1e100,-1.5,5e-324,1.7976931348623157e308,9007199254740993.0]}`,
		`{"s":["","\u0000","a\u0000b","ünïcödé 漢字 😀","\"\\\n"]}`,
	} {
		body := parse(t, text)
		raw, err := encodeDocument("some id", "3-x", body)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if err := raw.Validate(); err != nil {
			t.Errorf("%s: the driver finds its BSON wrong: %v", text, err)
		}
		r, ok, err := readRecord(raw)
		if err != nil || !ok || r.id != "some id" || r.rev != "3-x" || r.deleted || !canonical.Equal(r.body, body) {
			t.Errorf("%s came back as %+v %s, %v, %v", text, r, r.body.Bytes(), ok, err)
		}
	}
	r, ok, err := readRecord(encodeTombstone("a", "2-y"))
	if err != nil || !ok || !r.deleted || r.id != "a" || r.rev != "2-y" || r.body.Len() != 0 {
		t.Errorf("a deletion came back as %+v, %v, %v", r, ok, err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, text := range []string{`{"a":9223372036854775808}`, `{"a":[-9223372036854775809]}`, `{"a":{"b\u0000":1}}`} {
		if _, err := encodeDocument("a", "1-a", parse(t, text)); err == nil {
			t.Errorf("%s was encoded", text)
		}
	}
}

// No body of the size that is let through may exceed what MongoDB takes.
func TestLargestDocument(t *testing.T) {
	const mongoDBTakes = 16 << 20
	array := func(element string) string {
		return `{"a":[` + element + strings.Repeat(`,`+element, (maxDocumentBytes-8)/(len(element)+1)-1) + `]}`
	}
	for name, text := range map[string]string{
		"digits": array("1"), "empty texts": array(`""`), "empty arrays": array("[]"), "floats": array("1.0"), "nulls": array("null"),
		"pairs": array("[1,1]"), "a text": `{"a":"` + strings.Repeat("x", maxDocumentBytes-8) + `"}`,
		"levels": array(`[[[[[[[]]]]]]]`), "objects": array(`{"":1}`),
	} {
		if len(text) > maxDocumentBytes || len(text) < maxDocumentBytes-100 {
			t.Fatalf("%s: the body has %d bytes", name, len(text))
		}
		raw, err := encodeDocument(strings.Repeat("i", 1000), "1-x", parse(t, text))
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > mongoDBTakes {
			t.Errorf("%s: %d bytes of JSON make %d of BSON, %d are too many", name, len(text), len(raw), mongoDBTakes)
		}
	}
}

// Others can write what JSON does not have.
func TestForeignTypes(t *testing.T) {
	decimal, _ := bson.ParseDecimal128("1.5")
	raw, err := bson.Marshal(bson.D{
		{Key: "_id", Value: "x"}, {Key: "_rev", Value: 7}, {Key: "_other", Value: 1},
		{Key: "z", Value: bson.NewObjectID()}, {Key: "date", Value: time.Unix(1, 0)}, {Key: "binary", Value: bson.Binary{Subtype: 4, Data: []byte{1}}},
		{Key: "decimal", Value: decimal}, {Key: "regex", Value: bson.Regex{Pattern: "a", Options: "i"}}, {Key: "nan", Value: math.NaN()},
		{Key: "inf", Value: math.Inf(-1)}, {Key: "min", Value: bson.MinKey{}}, {Key: "max", Value: bson.MaxKey{}}, {Key: "undefined", Value: bson.Undefined{}},
		{Key: "timestamp", Value: bson.Timestamp{T: 1, I: 2}}, {Key: "code", Value: bson.JavaScript("f()")},
		{Key: "scope", Value: bson.CodeWithScope{Code: "f()", Scope: bson.D{{Key: "a", Value: 1}}}}, {Key: "symbol", Value: bson.Symbol("s")},
		{Key: "pointer", Value: bson.DBPointer{DB: "a", Pointer: bson.NewObjectID()}}, {Key: "twice", Value: 1}, {Key: "twice", Value: 2},
		{Key: "a\xff", Value: "b\xff"},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, ok, err := readRecord(raw)
	if err != nil || !ok || r.rev != foreignRev {
		t.Fatalf("%+v, %v, %v", r, ok, err)
	}
	again, err := canonical.Parse(r.body.Bytes())
	if err != nil || !canonical.Equal(again, r.body) {
		t.Errorf("%s is no JSON: %v", r.body.Bytes(), err)
	}
	for key, want := range map[string]string{
		"nan": `{"$numberDouble":"NaN"}`, "inf": `{"$numberDouble":"-Infinity"}`, "twice": "2", "decimal": `{"$numberDecimal":"1.5"}`,
		"date": `{"$date":{"$numberLong":"1000"}}`, "min": `{"$minKey":1}`, "a\uFFFD": `"b\uFFFD"`,
	} {
		if got, _ := r.body.Get(key); !canonical.Equal(got, parse(t, want)) {
			t.Errorf("%s came as %s, want %s", key, got.Bytes(), want)
		}
	}
	if _, found := r.body.Get("_other"); found {
		t.Error("a field that begins with an underscore is in the body")
	}
	for _, id := range []any{1, bson.NewObjectID(), nil, "", "_x", "a\x00b", bson.A{"x"}} {
		raw, err := bson.Marshal(bson.D{{Key: "_id", Value: id}})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := readRecord(raw); ok || err != nil {
			t.Errorf("a document under the id %v was taken: %v", id, err)
		}
	}
}

// FuzzReadRecord reads anything without failing otherwise than with an error.
func FuzzReadRecord(f *testing.F) {
	deep := []byte{5, 0, 0, 0, 0}
	for range maxReadDepth + 10 {
		deep, _ = bson.Marshal(bson.D{{Key: "a", Value: bson.Raw(deep)}})
	}
	f.Add(deep)
	for _, d := range []bson.D{
		{{Key: "_id", Value: "x"}, {Key: "_rev", Value: "1-x"}, {Key: "a", Value: bson.A{1, 2.5, "x", nil, true, bson.D{}}}},
		{{Key: "a", Value: bson.CodeWithScope{Code: "f()", Scope: bson.D{{Key: "a", Value: 1}}}}, {Key: "b", Value: bson.Regex{Pattern: "a"}}},
		{{Key: "a", Value: bson.Binary{Subtype: 2, Data: []byte{1, 2}}}, {Key: "b", Value: bson.NewObjectID()}},
	} {
		raw, err := bson.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, ok, err := readRecord(data)
		if err != nil || !ok {
			return
		}
		printed := r.body.Bytes()
		again, err := canonical.Parse(printed)
		if err != nil || !bytes.Equal(again.Bytes(), printed) {
			t.Errorf("%x gave %s, which is no canonical JSON: %v", data, printed, err)
		}
	})
}
