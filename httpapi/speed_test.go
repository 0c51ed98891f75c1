package httpapi

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node/ledger"
)

// discard is a ResponseWriter without cost of its own.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// BenchmarkGetTransaction is what the server adds to a read by id.
func BenchmarkGetTransaction(b *testing.B) {
	n := fakenode.New()
	s := New(n, Options{})
	t, err := n.Submit(b.Context(), fakenode.CreateTx(someKey, 1, 1))
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/api/v1/transactions/"+t.ID, nil)
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		s.ServeHTTP(w, r)
	}
}

// BenchmarkPostTransaction is what the server adds to a POST, beside the
// parser and the hash that the fake node needs.
func BenchmarkPostTransaction(b *testing.B) {
	s := New(fakenode.New(), Options{})
	body := fakenode.CreateTx(someKey, 1, 1)
	r := httptest.NewRequest(http.MethodPost, "/api/v1/transactions/", nil)
	r.ContentLength = int64(len(body))
	w := &discard{header: http.Header{}}
	reader := bytes.NewReader(body)
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		reader.Reset(body)
		r.Body = readCloser{reader}
		s.ServeHTTP(w, r)
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// BenchmarkEncodeEvents is what one block of a thousand costs all streams.
func BenchmarkEncodeEvents(b *testing.B) {
	batch := events(0, ledger.MaxBlockTransactions)
	b.ReportAllocs()
	for b.Loop() {
		encode(batch)
	}
}
