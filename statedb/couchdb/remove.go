package couchdb

import (
	"bytes"
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
		leaves, left, err := db.leaves(ctx, name, unknown)
		if err != nil {
			return err
		}
		if len(leaves) > 0 {
			if err := db.purgeLeaves(ctx, name, leaves); err != nil {
				return err
			}
		}
		unknown = slices.AppendSeq(slices.Clone(left), maps.Keys(leaves))
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

// purgeLeaves purges as many revisions at a time as one request may.
func (db *DB) purgeLeaves(ctx context.Context, name string, leaves map[string][]string) error {
	most := int(db.server.maxPurgeRevs.Load())
	part, n := map[string][]string{}, 0
	for id, revs := range leaves {
		for len(revs) > 0 {
			some := revs[:min(len(revs), most-n)]
			part[id], n, revs = some, n+len(some), revs[len(some):]
			if n < most {
				continue
			}
			if _, err := db.purgeRevisions(ctx, name, part); err != nil {
				return err
			}
			part, n = map[string][]string{}, 0
		}
	}
	if n == 0 {
		return nil
	}
	_, err := db.purgeRevisions(ctx, name, part)
	return err
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

// leaves returns all leaf revisions of documents, tombstones among them, by id. It
// reads their bodies, too, as CouchDB does not tell the one without the other; where
// that is much it is of the first only, and left are those to be asked for again.
func (db *DB) leaves(ctx context.Context, name string, ids []string) (revs map[string][]string, left []string, err error) {
	body := []byte(`{"docs":[`)
	for i, id := range ids {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"id":`...)
		body = append(canonical.AppendString(body, id), '}')
	}
	body = append(body, `]}`...)
	for most := db.opts.maxAnswer; ; most *= 2 {
		answer, err := db.do(ctx, request{method: http.MethodPost, path: path(name, "_bulk_get"), body: body, reads: true, most: most})
		if err != nil {
			return nil, nil, err
		}
		revs = map[string][]string{}
		add := func(id string) func(doc []byte) error {
			return func(doc []byte) error {
				if ok, found := fieldOf(doc, "ok"); found {
					rev, _ := fieldOf(ok, "_rev")
					revs[id] = append(revs[id], textOf(rev))
				}
				return nil
			}
		}
		results := 0
		err = eachElementOf(answer, "results", func(result []byte) error {
			if results == len(ids) {
				return malformed("_bulk_get: more results than documents")
			}
			id, _ := fieldOf(result, "id")
			if textOf(id) != ids[results] {
				return malformed("_bulk_get: a result is of another document")
			}
			results++
			return eachElementOf(result, "docs", add(ids[results-1]))
		})
		cut := len(answer) == most
		switch {
		case err == nil && results < len(ids) && !cut:
			return nil, nil, malformed("_bulk_get: fewer results than documents")
		case !cut:
			return revs, nil, err
		case results == 0: // one document has as many leaves, or as large ones
			if at, err := findField(answer, "results"); err == nil {
				_ = eachElementOf(bytes.TrimLeft(answer[at:], "[ \r\n\t"), "docs", add(ids[0]))
			}
		}
		if len(revs) > 0 {
			return revs, ids[results:], nil
		}
	}
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
