package couchdb

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/couchledger/couchledger/statedb"
)

// A bookmark is what the next page needs to know, and a hash of that with the
// query, in URL-safe base64. CouchDB itself takes a bookmark with any query and
// answers something.
const bookmarkHash = 12

type queryHash [sha256.Size]byte

// hashQuery makes one value of what defines a query. The limit is no part of
// it: pages may differ in size.
func hashQuery(parts ...string) queryHash {
	h := sha256.New()
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return queryHash(h.Sum(nil))
}

func sealBookmark(data []byte, query queryHash) string {
	sum := hashQuery(string(query[:]), string(data))
	return base64.RawURLEncoding.EncodeToString(append(sum[:bookmarkHash:bookmarkHash], data...))
}

// openBookmark returns what sealBookmark was given, or ErrBadBookmark.
func openBookmark(bookmark string, query queryHash) ([]byte, error) {
	data, err := base64.RawURLEncoding.DecodeString(bookmark)
	// The decoder skips line feeds and takes loose bits.
	if err != nil || len(data) < bookmarkHash || base64.RawURLEncoding.EncodeToString(data) != bookmark {
		return nil, fmt.Errorf("%w: malformed", statedb.ErrBadBookmark)
	}
	rest := data[bookmarkHash:]
	if sum := hashQuery(string(query[:]), string(rest)); string(sum[:bookmarkHash]) != string(data[:bookmarkHash]) {
		return nil, fmt.Errorf("%w: it belongs to another query", statedb.ErrBadBookmark)
	}
	return rest, nil
}

// place is where a page of Find ended.
type place struct {
	Index string `json:"i,omitempty"` // signature of the index; "" for _all_docs
	// Native is CouchDB's own bookmark. It goes on behind the first row at or
	// after Key and ID: behind another document when this one is gone.
	Native string          `json:"b,omitempty"`
	Key    json.RawMessage `json:"k,omitempty"` // of the last row, as a view has it
	ID     string          `json:"d"`
	Rev    string          `json:"r"`
	Skip   int             `json:"s,omitempty"` // rows so far, for servers without bookmarks
}

func (p place) seal(query queryHash) string {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and JSON that was parsed before
	}
	return sealBookmark(data, query)
}

func openPlace(bookmark string, query queryHash) (*place, error) {
	data, err := openBookmark(bookmark, query)
	if err != nil {
		return nil, err
	}
	p := &place{}
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%w: malformed", statedb.ErrBadBookmark)
	}
	return p, nil
}
