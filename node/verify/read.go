package verify

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	"github.com/couchledger/couchledger/statedb"
)

// jobBytes is about how much one worker checks at a time.
const jobBytes = 512 << 10

// readTable reads a whole table, and has batches of its documents recorded on
// all cores while the next ones are read. record returns how many of what the
// step counts it checked.
func (v *verifier) readTable(ctx context.Context, table string, record func([]statedb.Document) (int, error)) error {
	group, ctx := errgroup.WithContext(ctx)
	jobs := make(chan []statedb.Document, v.workers)
	group.Go(func() error {
		defer close(jobs)
		return v.pages().Each(ctx, table, func(rest []statedb.Document) error {
			for len(rest) > 0 {
				n, bytes := 0, 0
				for n < len(rest) && (n == 0 || bytes+len(rest[n].Body) <= jobBytes) {
					bytes += len(rest[n].Body)
					n++
				}
				select {
				case jobs <- rest[:n]:
				case <-ctx.Done():
					return ctx.Err()
				}
				rest = rest[n:]
			}
			return nil
		})
	})
	for range v.workers {
		group.Go(func() error {
			for documents := range jobs {
				n, err := record(documents)
				if err != nil {
					return err
				}
				v.progress.Add(n, documents[len(documents)-1].ID)
			}
			return nil
		})
	}
	return group.Wait()
}

// readTruth reads a table of blocks or votes and checks what was not checked yet.
func (v *verifier) readTruth(ctx context.Context, table string, check func(statedb.Document, *pebble.Batch) (sound bool, n int, err error)) error {
	err := v.readTable(ctx, table, func(documents []statedb.Document) (total int, err error) {
		err = v.scratch.write(func(b *pebble.Batch) error {
			for _, d := range documents {
				if table == statedb.Bigchain && isHistory(d.ID) {
					continue // read with every evaluation
				}
				n, err := v.checkOnce(table, d, b, check)
				if err != nil {
					return err
				}
				total += n
			}
			return nil
		})
		return total, err
	})
	if err != nil {
		return err
	}
	return v.findVanished(ctx, table)
}

// checkOnce checks a document unless it was checked, to the byte, before.
func (v *verifier) checkOnce(table string, d statedb.Document, b *pebble.Batch, check func(statedb.Document, *pebble.Batch) (bool, int, error)) (n int, err error) {
	k := seenKey(table, d.ID)
	value, err := v.scratch.get(k)
	if err != nil {
		return 0, err
	}
	now := seenRecord{lap: v.lap, hash: sha256.Sum256(d.Body)}
	if value != nil {
		before, err := readSeen(value)
		if err != nil {
			return 0, err
		}
		now.sound = before.sound
		if before.hash == now.hash {
			return 0, b.Set(k, now.append(nil), nil)
		}
		if before.sound {
			err = find(b, classDocument, Finding{Table: table, ID: d.ID, Rule: Changed, Seen: "it was something else when it was first read"})
		} else { // what stood there was reported and is gone
			prefix := documentFindings(classDocument, table, d.ID)
			err = b.DeleteRange(prefix, after(prefix), nil)
		}
		if err != nil {
			return 0, err
		}
	}
	sound, n, err := check(d, b)
	if err != nil {
		return 0, err
	}
	now.sound = now.sound || sound
	return n, b.Set(k, now.append(nil), nil)
}

// findVanished finds the documents of a table that an earlier reading found and
// this one did not.
func (v *verifier) findVanished(ctx context.Context, table string) (err error) {
	w := v.scratch.bulk()
	defer w.end(&err)
	prefix := seenKey(table, "")
	return v.scratch.each(ctx, prefix, func(k, value []byte) error {
		seen, err := readSeen(value)
		if err != nil || seen.lap == v.lap {
			return err
		}
		id := string(k[len(prefix):])
		if seen.sound {
			return find(w, classDocument, Finding{Table: table, ID: id, Rule: Changed, Seen: "it was there when it was first read, and is gone"})
		}
		findings := documentFindings(classDocument, table, id)
		return errors.Join(w.batch.DeleteRange(findings, after(findings), nil), w.batch.Delete(k, nil))
	})
}
