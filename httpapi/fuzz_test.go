package httpapi

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
)

// FuzzQuery sends any query to every list: the answer is a 200 or an error of
// the documented shape, never a fault.
func FuzzQuery(f *testing.F) {
	n := fakenode.New()
	s := New(n, Options{})
	if _, err := n.Submit(f.Context(), fakenode.CreateTx(someKey, 1, 3)); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		"asset_id=" + noID, "public_key=" + someKey + "&unspent=true&limit=1", "tx_id=" + noID + "&status=valid",
		"limit=1&bookmark=AAAAAAAAAAA", "a=%zz", "&&=&", "block_id=" + strings.ToUpper(noID), "tx_id=%00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		for _, path := range []string{"/transactions", "/outputs", "/blocks", "/votes", "/statuses"} {
			r := httptest.NewRequest(http.MethodGet, "/api/v1"+path, nil)
			r.URL.RawQuery = query
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code == 200 {
				continue
			}
			if w.Code != 400 && w.Code != 404 {
				t.Errorf("%s?%q: got %d %s", path, query, w.Code, w.Body)
			}
			wantError(t, path, answer{w.Code, w.Header(), w.Body.String()}, w.Code, "")
		}
	})
}

// FuzzQueryBody posts any body as a query: the answer is a 200 or an error of
// the documented shape, never a fault.
func FuzzQueryBody(f *testing.F) {
	n := fakenode.New()
	s := New(n, Options{})
	for i := range 3 {
		if _, err := n.Submit(f.Context(), fakenode.CreateTx(someKey, i, 1)); err != nil {
			f.Fatal(err)
		}
	}
	for _, seed := range []string{
		`{"table":"transactions","selector":{"asset.data.serial":{"$gte":1}},"fields":["_id","asset.data"],"limit":1}`,
		`{"table":"votes","start_key":"a","end_key":"b","bookmark":"AAAAAAAAAAAAAAAA"}`,
		`{"table":"transactions","selector":{"$or":[{"id":{"$regex":"^a"}},{"$not":{"id":1}}]},"use_index":["a","b"],"execution_stats":true}`,
		`{"table":"backlog","selector":{},"sort":[{"a":"desc"}]}`, `[`, `{"a":1,"a":2}`,
		`{"table":"votes","end_key":""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"/query", "/query/explain"} {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/v1"+path, bytes.NewReader(body)))
			if w.Code == 200 {
				if _, err := canonical.Parse(w.Body.Bytes()); err != nil {
					t.Errorf("%s %q: got %s: %v", path, body, w.Body, err)
				}
				continue
			}
			if w.Code != 413 {
				wantError(t, path, answer{w.Code, w.Header(), w.Body.String()}, 400, "")
			}
		}
	})
}

// FuzzBookmark: a bookmark opens to its cursor for its own list only, and no
// text breaks it.
func FuzzBookmark(f *testing.F) {
	f.Add("AAAA", "cursor")
	f.Add(sealBookmark("x", 1), "")
	f.Fuzz(func(t *testing.T, text, cursor string) {
		const own, other = 7, 8
		if opened, err := openBookmark(text, own); err == nil && sealBookmark(opened, own) != text {
			t.Errorf("%q opens to %q, which seals to %q", text, opened, sealBookmark(opened, own))
		}
		sealed := sealBookmark(cursor, own)
		if opened, err := openBookmark(sealed, own); cursor != "" && (err != nil || opened != cursor) {
			t.Errorf("cursor %q came back as %q, %v", cursor, opened, err)
		}
		if _, err := openBookmark(sealed, other); err == nil {
			t.Errorf("another list's bookmark %q was taken", sealed)
		}
	})
}

// FuzzHost: whatever hosts a client claims, the links hold no other character
// than a host's.
func FuzzHost(f *testing.F) {
	f.Add("example.com:9984", "[::1]")
	f.Add("a b", `"><script>`)
	s := New(fakenode.New(), Options{TrustForwarded: true})
	f.Fuzz(func(t *testing.T, host, forwarded string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		r.Header.Set("X-Forwarded-Host", forwarded)
		rest := strings.TrimPrefix(s.baseURL(r), "http://")
		if !soundHost(rest) {
			t.Errorf("host %q, forwarded %q: got %q", host, forwarded, rest)
		}
	})
}
