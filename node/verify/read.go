package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	"github.com/couchledger/couchledger/statedb"
)

const (
	// A page brings about pageBytes, and pageRows at most. Its rows follow the
	// size of those before, and grow by pageGrowth at most, since blocks may
	// have thousand times the size of the last ones.
	pageBytes  = 4 << 20
	pageRows   = 1000
	blockRows  = 64 // of the bigchain table
	firstRows  = 4
	pageGrowth = 4
	// jobBytes is about how much one worker checks at a time.
	jobBytes = 512 << 10
)

// patience is how long a source that is not available is asked again.
const (
	firstWait = 250 * time.Millisecond
	patience  = 30 * time.Second
)

// pageOf reads a page, again for a while when the source is not available.
func (v *verifier) pageOf(ctx context.Context, table string, r statedb.Range) (statedb.Page, error) {
	for wait, waited := firstWait, time.Duration(0); ; wait *= 2 {
		page, err := v.source.Range(ctx, table, r)
		if err == nil || !errors.Is(err, statedb.ErrUnavailable) || waited+wait > v.patience {
			return page, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return page, ctx.Err()
		case <-timer.C:
			waited += wait
		}
	}
}

// readTable reads a whole table, and has batches of its documents recorded on
// all cores while the next ones are read. record returns how many of what the
// step counts it checked.
func (v *verifier) readTable(ctx context.Context, table string, record func([]statedb.Document) (int, error)) error {
	group, ctx := errgroup.WithContext(ctx)
	jobs := make(chan []statedb.Document, v.workers)
	group.Go(func() error {
		defer close(jobs)
		most := pageRows
		if table == statedb.Bigchain {
			most = blockRows
		}
		for r := (statedb.Range{Limit: firstRows}); ; {
			page, err := v.pageOf(ctx, table, r)
			if err != nil {
				return err
			}
			size := 0
			for rest := page.Documents; len(rest) > 0; {
				n, bytes := 0, 0
				for n < len(rest) && (n == 0 || bytes+len(rest[n].Body) <= jobBytes) {
					bytes += len(rest[n].Body)
					n++
				}
				size += bytes
				select {
				case jobs <- rest[:n]:
				case <-ctx.Done():
					return ctx.Err()
				}
				rest = rest[n:]
			}
			if r.Bookmark = page.Bookmark; r.Bookmark == "" {
				return nil
			}
			fits := pageRows
			if len(page.Documents) > 0 {
				fits = 1 + pageBytes/(1+size/len(page.Documents))
			}
			r.Limit = min(most, fits, r.Limit*pageGrowth)
		}
	})
	for range v.workers {
		group.Go(func() error {
			for documents := range jobs {
				n, err := record(documents)
				if err != nil {
					return err
				}
				v.progress.add(n, documents[len(documents)-1].ID)
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

// Progress tells how far a run is.
type Progress struct {
	Step, Steps int
	Name        string  // of the step
	Unit        string  // what Count counts
	Count       int     // of this step so far
	Fraction    float64 // of this step, from 0 to 1
}

// meter counts within a step. Ids are hashes, so the id that was reached tells
// what fraction is done.
type meter struct {
	tell func(Progress)

	mu  sync.Mutex // held while tell runs
	now Progress
}

func newMeter(tell func(Progress), steps int) *meter {
	return &meter{tell: tell, now: Progress{Steps: steps}}
}

// begin begins a step.
func (m *meter) begin(step int, name, unit string) {
	m.mu.Lock()
	m.now.Step, m.now.Name, m.now.Unit, m.now.Fraction, m.now.Count = step, name, unit, 0, 0
	m.mu.Unlock()
	m.add(0, "")
}

// add counts n more, up to an id.
func (m *meter) add(n int, id string) {
	const digits = 8
	fraction := 0.0
	if len(id) >= digits {
		if at, err := strconv.ParseUint(id[:digits], 16, 64); err == nil {
			fraction = float64(at) / (1 << (4 * digits))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Count += n
	m.now.Fraction = max(m.now.Fraction, fraction) // what is checked side by side ends in any order
	if m.tell != nil {
		m.tell(m.now)
	}
}
