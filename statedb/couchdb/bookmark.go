package couchdb

import (
	"encoding/json"
	"fmt"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/keyset"
)

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

func (p place) seal(query keyset.Hash) string {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and JSON that was parsed before
	}
	return keyset.Seal(data, query)
}

func openPlace(bookmark string, query keyset.Hash) (*place, error) {
	data, err := keyset.Open(bookmark, query)
	if err != nil {
		return nil, err
	}
	p := &place{}
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%w: malformed", statedb.ErrBadBookmark)
	}
	return p, nil
}
