package couchdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// Remove purges documents: a deletion would leave a tombstone of each, and the
// backlog holds every transaction once. Purging takes revisions; those that
// this process wrote are remembered, others are asked for.
func (db *DB) Remove(ctx context.Context, table string, ids []string) error {
	name, err := db.database(table)
	if err != nil {
		return err
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	ids = slices.DeleteFunc(ids, func(id string) bool { return statedb.CheckID(id) != nil })
	if db.server.substitute {
		return db.deleteAll(ctx, table, name, ids)
	}
	for part := range slices.Chunk(ids, int(db.server.maxPurge.Load())) {
		if err := db.purge(ctx, name, part); err != nil {
			return err
		}
	}
	return nil
}

// purge takes as many documents away as one request may.
func (db *DB) purge(ctx context.Context, name string, ids []string) error {
	known := map[string][]string{}
	var unknown []string
	for _, id := range ids {
		if rev := db.revs.take(name, id); rev != "" {
			known[id] = []string{rev}
		} else {
			unknown = append(unknown, id)
		}
	}
	if len(known) > 0 {
		purged, err := db.purgeRevisions(ctx, name, known)
		if err != nil {
			return err
		}
		for id := range known {
			if len(purged[id]) == 0 {
				unknown = append(unknown, id) // it has changed since, or is gone
			}
		}
		if db.peers.Load() {
			more, err := db.stillThere(ctx, name, slices.Sorted(maps.Keys(known)))
			if err != nil {
				return err
			}
			unknown = append(unknown, more...)
		}
	}
	// A document can have several leaves when others write to it, too.
	for len(unknown) > 0 {
		leaves, err := db.leaves(ctx, name, unknown)
		if err != nil || len(leaves) == 0 {
			return err
		}
		if _, err := db.purgeRevisions(ctx, name, leaves); err != nil {
			return err
		}
		unknown = unknown[:0]
		for id := range leaves {
			unknown = append(unknown, id)
		}
	}
	return nil
}

// stillThere lists what stands under ids that were purged by one revision:
// replication may have brought others.
func (db *DB) stillThere(ctx context.Context, name string, ids []string) (there []string, err error) {
	revs, err := db.currentRevs(ctx, name, ids)
	if err != nil {
		return nil, err
	}
	for i, rev := range revs {
		if rev != "" {
			there = append(there, ids[i])
		}
	}
	return there, nil
}

func (db *DB) purgeRevisions(ctx context.Context, name string, revs map[string][]string) (map[string][]string, error) {
	body, err := json.Marshal(revs)
	if err != nil {
		return nil, err
	}
	// Purging again what is gone is no error.
	answer, err := db.do(ctx, request{method: http.MethodPost, path: path(name, "_purge"), body: body, reads: true})
	if err != nil {
		return nil, err
	}
	var result struct {
		Purged map[string][]string `json:"purged"`
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return nil, malformed("_purge")
	}
	return result.Purged, nil
}

// leaves returns all leaf revisions of documents, tombstones among them.
func (db *DB) leaves(ctx context.Context, name string, ids []string) (map[string][]string, error) {
	body := []byte(`{"docs":[`)
	for i, id := range ids {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"id":`...)
		body = append(canonical.AppendString(body, id), '}')
	}
	body = append(body, `]}`...)
	answer, err := db.do(ctx, request{method: http.MethodPost, path: path(name, "_bulk_get"), body: body, reads: true})
	if err != nil {
		return nil, err
	}
	var result struct {
		Results []struct {
			ID   string `json:"id"`
			Docs []struct {
				OK *struct {
					Rev string `json:"_rev"`
				} `json:"ok"`
			} `json:"docs"`
		} `json:"results"`
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return nil, malformed("_bulk_get")
	}
	leaves := map[string][]string{}
	for _, r := range result.Results {
		for _, d := range r.Docs {
			if d.OK != nil && d.OK.Rev != "" {
				leaves[r.ID] = append(leaves[r.ID], d.OK.Rev)
			}
		}
	}
	return leaves, nil
}

// deleteAll is for servers that cannot purge.
func (db *DB) deleteAll(ctx context.Context, table, name string, ids []string) error {
	for len(ids) > 0 {
		documents, err := db.Get(ctx, table, ids)
		if err != nil {
			return err
		}
		var writes []statedb.Write
		for _, d := range documents {
			if d.Rev != "" {
				writes = append(writes, statedb.Write{ID: d.ID, Rev: d.Rev, Delete: true})
			}
		}
		results, err := db.Write(ctx, table, writes)
		if err != nil {
			return err
		}
		ids = ids[:0]
		for i, r := range results {
			if r.Err != nil && !errors.Is(r.Err, statedb.ErrConflict) {
				return fmt.Errorf("delete from %s: %w", name, r.Err)
			}
			if r.Err != nil {
				ids = append(ids, writes[i].ID)
			}
		}
	}
	return nil
}

// maxRevisions bounds the memory of revisions: at 64 hexadecimal digits of id
// about 20 MB.
const maxRevisions = 100_000

// revisions remembers the last revision written of documents, the youngest
// 100,000 or more of them. A wrong one costs a request, no more.
type revisions struct {
	mu           sync.Mutex
	young, older map[revisionKey]string
}

type revisionKey struct{ database, id string }

func (r *revisions) put(database, id, rev string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.young) >= maxRevisions || r.young == nil {
		r.older, r.young = r.young, map[revisionKey]string{}
	}
	r.young[revisionKey{database, id}] = rev
}

func (r *revisions) take(database, id string) (rev string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := revisionKey{database, id}
	rev = r.young[key]
	if rev == "" {
		rev = r.older[key]
	}
	delete(r.young, key)
	delete(r.older, key)
	return rev
}
