package couchdb

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/couchledger/couchledger/canonical"
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
