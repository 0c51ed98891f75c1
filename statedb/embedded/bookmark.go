package embedded

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/couchledger/couchledger/statedb"
)

// A bookmark is the key of the last row of a page and a hash of that key with
// the query, in URL-safe base64. The next page begins after that key, be the
// row still there or not; with another query the hash is wrong.
const bookmarkHash = 12

type queryHash [sha256.Size]byte

// hashQuery makes one value of what defines a query. The limit is no part of
// it: pages may differ in size.
func hashQuery(parts ...[]byte) queryHash {
	h := sha256.New()
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return queryHash(h.Sum(nil))
}

func rangeHash(table string, r statedb.Range) queryHash {
	return hashQuery([]byte("range"), []byte(table), []byte(r.Start), []byte(r.End))
}

func makeBookmark(key []byte, query queryHash) string {
	sum := hashQuery(query[:], key)
	return base64.RawURLEncoding.EncodeToString(append(sum[:bookmarkHash:bookmarkHash], key...))
}

// readBookmark returns the key that a page ended with, or ErrBadBookmark.
func readBookmark(bookmark string, query queryHash) ([]byte, error) {
	data, err := base64.RawURLEncoding.DecodeString(bookmark)
	// The decoder skips line feeds and takes loose bits.
	if err != nil || len(data) < bookmarkHash || base64.RawURLEncoding.EncodeToString(data) != bookmark {
		return nil, fmt.Errorf("%w: malformed", statedb.ErrBadBookmark)
	}
	key := data[bookmarkHash:]
	if sum := hashQuery(query[:], key); string(sum[:bookmarkHash]) != string(data[:bookmarkHash]) {
		return nil, fmt.Errorf("%w: it belongs to another query", statedb.ErrBadBookmark)
	}
	return key, nil
}

func badLimit(limit int) error {
	return fmt.Errorf("%w: the limit is %d, at least 1 is needed", statedb.ErrBadQuery, limit)
}
