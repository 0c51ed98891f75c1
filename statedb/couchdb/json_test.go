package couchdb

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// FuzzFields compares the walk over an object with encoding/json's.
func FuzzFields(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1,"b":[1,{"c":"}"}],"d":"\"]"}`, ` { "rows" : [ 1 , 2 ] } `, `{"a":{"b":{}},"e":null}`,
		`{"a"`, `{"a":`, `{"a":1`, `{"a":}`, `[1,2]`, `{"a":"\`, `{,}`, `{"a":1,}`, `{"a":[1,2}`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var keys []string
		var values [][]byte
		err := eachField(data, func(key, value []byte) bool {
			keys = append(keys, textOf(append(append([]byte{'"'}, key...), '"')))
			values = append(values, value)
			_ = eachElement(value, func(e []byte) error { return nil }) // must not panic
			return true
		})
		if !json.Valid(data) || len(bytes.TrimSpace(data)) == 0 || bytes.TrimSpace(data)[0] != '{' {
			return // whatever comes out is checked by whoever reads it
		}
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.Token()
		for i := 0; decoder.More(); i++ {
			key, _ := decoder.Token()
			var value json.RawMessage
			if err := decoder.Decode(&value); err != nil {
				t.Fatal(err)
			}
			if i >= len(keys) || keys[i] != key || !bytes.Equal(values[i], value) {
				t.Fatalf("%s: field %d: got %q, want %v: %s", data, i, keys, key, value)
			}
		}
	})
}

// FuzzReadDocument must not panic, and must give back what is no reserved name, to
// the byte.
func FuzzReadDocument(f *testing.F) {
	f.Add([]byte(`{"_id":"a","_rev":"1-x","_attachments":{},"n":1.0,"":[]}`))
	f.Add([]byte(`{"_id":1,"_rev":"1-x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := readDocument(data)
		if err != nil {
			return
		}
		whole, err := canonical.Parse(data)
		if err != nil {
			return // CouchDB gives no such thing, and who uses it checks it
		}
		body, err := canonical.Parse(d.Body)
		if err != nil {
			t.Fatalf("%s gave %s: %v", data, d.Body, err)
		}
		for i := range whole.Len() {
			v, there := body.Get(whole.Key(i))
			if there == isReserved(whole.Key(i)) || there && !canonical.Equal(v, whole.At(i)) {
				t.Fatalf("%s gave %s", data, d.Body)
			}
		}
	})
}

// Wherever an answer is cut off, what is read of it is how the whole one begins.
func TestCutOff(t *testing.T) {
	answer := []byte(`{"total_rows":9,"offset":0,"rows":[` +
		`{"id":"a","key":"a","value":{"rev":"1-a"},"doc":{"_id":"a","_rev":"1-a","n":"]}\"","_conflicts":["1-b","1-c"]}},` + "\r\n" +
		`{"key":"b","error":"not_found"},` + "\r\n" +
		`{"id":"c","key":"c","value":{"rev":"2-c","deleted":true},"doc":null},` +
		`{"id":"d","key":"d","value":{"rev":"1-d"},"doc":{"_id":"d","_rev":"1-d","n":[1,{"m":[]}]}}]}`)
	read := func(answer []byte) (documents []statedb.Document, rows int, others []leaf, err error) {
		documents = []statedb.Document{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "d"}}
		rows, others, err = readRows(answer, documents, []int{0, 1, 2, 3})
		return documents[:rows], rows, others, err
	}
	whole, rows, others, err := read(answer)
	if err != nil || rows != 4 || len(others) != 2 || whole[0].Rev != "1-a" || whole[1].Rev != "" || string(whole[3].Body) != `{"n":[1,{"m":[]}]}` {
		t.Fatalf("got %v, %v, %v", whole, others, err)
	}
	last := -1
	for i := range answer {
		part, rows, _, err := read(answer[:i])
		if !reflect.DeepEqual(part, whole[:rows]) || rows < max(last, 0) {
			t.Fatalf("%s: got %v after %d rows", answer[:i], part, last)
		}
		if err == nil && i < len(answer)-1 { // the array's end is there
			t.Fatalf("%s: no error", answer[:i])
		}
		last = rows
	}
	if last != 4 {
		t.Errorf("got %d rows in the end", last)
	}
}
