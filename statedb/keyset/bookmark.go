package keyset

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"github.com/couchledger/couchledger/statedb"
)

// Hash is one value for all that defines a query. The limit is no part of it:
// pages may differ in size.
type Hash [sha256.Size]byte

// HashOf makes a Hash of parts.
func HashOf(parts ...string) Hash {
	h := sha256.New()
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return Hash(h.Sum(nil))
}

// RangeHash is the Hash of a Range.
func RangeHash(table string, r statedb.Range) Hash {
	return HashOf("range", table, r.Start, r.End)
}

// FindHash is the Hash of a Query.
func FindHash(table string, q statedb.Query) Hash {
	parts := []string{"find", table, string(q.Selector.Bytes()), q.UseIndex}
	for _, f := range q.Sort {
		parts = append(parts, "sort", f.Field, Direction(f))
	}
	for _, f := range q.Fields {
		parts = append(parts, "field", f)
	}
	return HashOf(parts...)
}

// Direction is how JSON writes a sort order: asc or desc.
func Direction(f statedb.SortField) string {
	if f.Descending {
		return "desc"
	}
	return "asc"
}

// sealBytes is how much of the hash stands in a bookmark.
const sealBytes = 12

// Seal makes a bookmark: where a page ended, and a hash of that with the
// query, in URL-safe base64.
func Seal(place []byte, query Hash) string {
	sum := HashOf(string(query[:]), string(place))
	return base64.RawURLEncoding.EncodeToString(append(sum[:sealBytes:sealBytes], place...))
}

// Open returns what Seal was given. A bookmark that is malformed or was made
// for another query is statedb.ErrBadBookmark.
func Open(bookmark string, query Hash) ([]byte, error) {
	data, err := base64.RawURLEncoding.DecodeString(bookmark)
	// The decoder skips line feeds and takes loose bits.
	if err != nil || len(data) < sealBytes || base64.RawURLEncoding.EncodeToString(data) != bookmark {
		return nil, fmt.Errorf("%w: malformed", statedb.ErrBadBookmark)
	}
	place := data[sealBytes:]
	if sum := HashOf(string(query[:]), string(place)); string(sum[:sealBytes]) != string(data[:sealBytes]) {
		return nil, fmt.Errorf("%w: it belongs to another query", statedb.ErrBadBookmark)
	}
	return place, nil
}

// CheckLimit refuses pages without rows.
func CheckLimit(limit int) error {
	if limit < 1 {
		return fmt.Errorf("%w: the limit is %d, at least 1 is needed", statedb.ErrBadQuery, limit)
	}
	return nil
}
