package canonical

import (
	"encoding/json"
	"os"
	"testing"
)

// documentTransaction is the first transaction printed in the server
// documents, in canonical form: 726 bytes.
func documentTransaction(tb testing.TB) []byte {
	data, err := os.ReadFile("../testdata/vectors/documents.json")
	if err != nil {
		tb.Fatal(err)
	}
	v, err := Parse(data)
	if err != nil {
		tb.Fatal(err)
	}
	list, _ := v.Get("transactions")
	return list.At(0).Bytes()
}

func BenchmarkParse(b *testing.B) {
	data := documentTransaction(b)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseUnordered has keys as a driver might send them, not sorted.
func BenchmarkParseUnordered(b *testing.B) {
	var v struct {
		Version, Operation, ID, Outputs, Metadata, Inputs, Asset Value
	}
	if err := json.Unmarshal(documentTransaction(b), &v); err != nil {
		b.Fatal(err)
	}
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrint(b *testing.B) {
	data := documentTransaction(b)
	v, err := Parse(data)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	var out []byte
	for b.Loop() {
		out = v.Append(out[:0])
	}
}
