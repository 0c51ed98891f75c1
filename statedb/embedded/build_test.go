package embedded

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

func indexOver(name, field string) statedb.Index {
	return statedb.Index{Name: name, DDoc: name, Fields: []statedb.SortField{{Field: field}}}
}

// sorted asks for the documents that have a field, in its order.
func sorted(t testing.TB, field string) statedb.Query {
	t.Helper()
	selector, err := canonical.Parse(fmt.Appendf(nil, `{%q:{"$gte":0}}`, field))
	if err != nil {
		t.Fatal(err)
	}
	return statedb.Query{Selector: selector, Sort: []statedb.SortField{{Field: field}}, Limit: 1_000_000}
}

// padding makes documents so large that a step takes few of them.
var padding = strings.Repeat("x", buildStepBytes/50)

func numbered(from, to int) []statedb.Write {
	var writes []statedb.Write
	for i := from; i < to; i++ {
		writes = append(writes, statedb.Write{ID: fmt.Sprintf("id%05d", i), Body: fmt.Appendf(nil, `{"n":%d,"m":%d,"pad":%q}`, i, -i, padding)})
	}
	return writes
}

// TestWhileAnIndexIsBuilt stops the building after each step: queries that
// need the index are told so, others are answered, writers go on, and what
// they write meanwhile is in the index.
func TestWhileAnIndexIsBuilt(t *testing.T) {
	db := created(t)
	mustWrite(t, db, statedb.Votes, numbered(0, 175))
	if err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{indexOver("m", "m")}, nil); err != nil {
		t.Fatal(err)
	}
	byN := sorted(t, "n")
	unsorted, scanning := byN, byN
	unsorted.Sort, scanning.Sort = nil, nil
	scanning.NoScan = true
	named := unsorted
	named.UseIndex = "n"
	steps, before := 0, 0
	err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{indexOver("n", "n")}, func(told []statedb.IndexState) {
		for what, q := range map[string]statedb.Query{"sort": byN, "selector": unsorted, "name": named, "selector that must not scan": scanning} {
			if _, err := db.Find(t.Context(), statedb.Votes, q); !errors.Is(err, statedb.ErrBuilding) || !strings.Contains(err.Error(), "n, ") {
				t.Errorf("step %d: Find by the %s: %v, want ErrBuilding", steps, what, err)
			}
			if _, err := db.Explain(t.Context(), statedb.Votes, q); !errors.Is(err, statedb.ErrBuilding) {
				t.Errorf("step %d: Explain of the %s: %v, want ErrBuilding", steps, what, err)
			}
		}
		if page, err := db.Find(t.Context(), statedb.Votes, sorted(t, "nosuch")); !errors.Is(err, statedb.ErrNoIndex) {
			t.Errorf("a sort that no index will serve: %v, %v, want ErrNoIndex", page, err)
		}
		other := sorted(t, "m")
		other.Selector, _ = canonical.Parse([]byte(`{"n":{"$gte":0},"m":{"$lt":1}}`))
		if page, err := db.Find(t.Context(), statedb.Votes, other); err != nil || len(page.Documents) != 175 || page.Warning != "" {
			t.Errorf("by the index that is ready: %d documents, %q, %v", len(page.Documents), page.Warning, err)
		}
		listed, err := db.Indexes(t.Context(), statedb.Votes)
		if err != nil || len(listed) != 2 || listed[0].Pending != 0 || listed[1].Name != "n" || listed[1].Pending == 0 {
			t.Errorf("Indexes = %+v, %v", listed, err)
		}
		if len(told) != 1 || told[0].Name != "n" || told[0].Total < 175 || steps == 0 && told[0].Pending != 175 || steps > 0 && told[0].Pending >= before {
			t.Errorf("step %d tells %+v after %d to go", steps, told, before)
		}
		before = told[0].Pending
		// A writer waits for no more than a step. One comes before what was
		// gone over, one after.
		mustWrite(t, db, statedb.Votes, []statedb.Write{{ID: fmt.Sprint("a", steps), Body: []byte(`{"n":-1}`)}, {ID: fmt.Sprint("z", steps), Body: []byte(`{"n":1000}`)}})
		if results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: "id00003", Rev: "1-x", Body: []byte(`{}`)}}); err != nil || !errors.Is(results[0].Err, statedb.ErrConflict) {
			t.Errorf("a conflict: %v, %v", results, err)
		}
		steps++
	})
	if err != nil || steps < 3 {
		t.Fatalf("%v after %d steps", err, steps)
	}
	checkStore(t, db)
	// The negative ones are below the range of byN.
	page, err := db.Find(t.Context(), statedb.Votes, byN)
	if err != nil || len(page.Documents) != 175+steps {
		t.Errorf("by the index when it is there: %d documents, %v, want %d", len(page.Documents), err, 175+steps)
	}
}

// TestRedefinedIndexIsBuilt: the old keys are gone at once, and no reader takes
// what is left of them for the whole.
func TestRedefinedIndexIsBuilt(t *testing.T) {
	db := created(t)
	var writes []statedb.Write
	for i := range 20 {
		writes = append(writes, statedb.Write{ID: fmt.Sprint("id", i), Body: fmt.Appendf(nil, `{"n":%d,"m":%d}`, i, -i)})
	}
	mustWrite(t, db, statedb.Votes, writes)
	if err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{indexOver("i", "n")}, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				for _, field := range []string{"n", "m"} {
					q := sorted(t, field)
					q.Selector, _ = canonical.Parse(fmt.Appendf(nil, `{%q:{"$gt":null}}`, field))
					page, err := db.Find(t.Context(), statedb.Votes, q)
					if errors.Is(err, statedb.ErrBuilding) || errors.Is(err, statedb.ErrNoIndex) {
						continue
					}
					if err != nil || len(page.Documents) != 20 {
						t.Errorf("by %s: %d documents, %v", field, len(page.Documents), err)
						return
					}
				}
			}
		})
	}
	for i := range 100 {
		field := []string{"m", "n"}[i%2]
		if err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{indexOver("i", field)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	readers.Wait()
	checkStore(t, db)
}

// changer changes random documents until told to stop: creates, updates that
// move them in the index or out of it, deletions, removals.
type changer struct {
	db     *DB
	random *rand.Rand
	ids    []string // its own
	revs   map[string]string
}

func (c *changer) run(ctx context.Context, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := c.change(ctx); err != nil {
			return err
		}
	}
}

func (c *changer) change(ctx context.Context) error {
	id := c.ids[c.random.IntN(len(c.ids))]
	if c.random.IntN(6) == 0 {
		delete(c.revs, id)
		return c.db.Remove(ctx, statedb.Votes, []string{id})
	}
	w := statedb.Write{ID: id, Rev: c.revs[id], Body: fmt.Appendf(nil, `{"n":%d,"pad":%q}`, c.random.IntN(1000), padding)}
	if c.random.IntN(4) == 0 {
		w.Body = []byte(`{"out of":"the index"}`)
	}
	w.Delete = w.Rev != "" && c.random.IntN(5) == 0
	results, err := c.db.Write(ctx, statedb.Votes, []statedb.Write{w})
	if err != nil {
		return err
	}
	if c.revs[id] = results[0].Rev; w.Delete {
		delete(c.revs, id)
	}
	return results[0].Err
}

// TestBuildUnderWrites builds and rebuilds an index, at times broken off, while
// documents before, at and behind the builder change. In the end the index has
// exactly the keys of the documents.
func TestBuildUnderWrites(t *testing.T) {
	db := opened(t, "build", Options{FS: vfs.NewMem()})
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	const documents, writers = 400, 3
	mustWrite(t, db, statedb.Votes, numbered(0, documents))
	written, err := db.Range(t.Context(), statedb.Votes, statedb.Range{Limit: documents})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	rounds, steps := 12, 0
	if testing.Short() {
		rounds = 5
	}
	for round := range rounds {
		end := make(chan struct{})
		var group sync.WaitGroup
		for i := range writers {
			c := changer{db: db, random: rand.New(rand.NewPCG(uint64(round), uint64(i))), revs: map[string]string{}}
			for n, d := range written.Documents {
				if n%writers == i {
					c.ids = append(c.ids, d.ID)
					c.revs[d.ID] = d.Rev
				}
			}
			group.Go(func() {
				if err := c.run(t.Context(), end); err != nil {
					t.Error(err)
				}
			})
		}
		breakOff := random.IntN(2) == 0
		building, stop := context.WithCancel(t.Context())
		at := random.IntN(6)
		err := db.DeployIndexes(building, statedb.Votes, []statedb.Index{indexOver("n", []string{"n", "pad"}[round%2])}, func([]statedb.IndexState) {
			steps++
			if at--; at == 0 && breakOff {
				stop()
			}
		})
		if err != nil && building.Err() == nil {
			t.Fatal(err)
		}
		stop()
		close(end)
		group.Wait()
		checkStore(t, db)
		if written, err = db.Range(t.Context(), statedb.Votes, statedb.Range{Limit: documents}); err != nil {
			t.Fatal(err)
		}
	}
	if steps < 3*rounds {
		t.Errorf("the builder took %d steps: too few for anything to come between", steps)
	}
	if err := db.DeployIndexes(t.Context(), statedb.Votes, nil, nil); err != nil { // finishes what was broken off
		t.Fatal(err)
	}
	checkStore(t, db)
	if states, err := db.Indexes(t.Context(), statedb.Votes); err != nil || len(states) != 1 || states[0].Pending != 0 {
		t.Errorf("Indexes = %+v, %v", states, err)
	}
}

// TestCrashWhileBuilding takes the disk as a crash would leave it after each
// step, opens it and deploys again: the building goes on from about where it
// was, and ends with a whole index.
func TestCrashWhileBuilding(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	fs := vfs.NewCrashableMem()
	db := opened(t, "crash", Options{FS: fs})
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	const documents = 300
	mustWrite(t, db, statedb.Votes, numbered(0, documents))
	deploy := func(db *DB, progress func([]statedb.IndexState)) {
		t.Helper()
		if err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{indexOver("n", "n")}, progress); err != nil {
			t.Fatal(err)
		}
	}
	steps := 0
	deploy(db, func(told []statedb.IndexState) {
		steps++
		crashed := opened(t, "crash", Options{FS: fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})})
		defer crashed.Close()
		checkStore(t, crashed)
		if _, err := crashed.Find(t.Context(), statedb.Votes, sorted(t, "n")); !errors.Is(err, statedb.ErrBuilding) {
			t.Errorf("after a crash with %d to go: %v, want ErrBuilding", told[0].Pending, err)
		}
		listed, err := crashed.Indexes(t.Context(), statedb.Votes)
		// A step that was acknowledged is not done again.
		if err != nil || listed[0].Pending > told[0].Pending || listed[0].Pending == 0 {
			t.Errorf("after a crash with %d to go: Indexes = %+v, %v", told[0].Pending, listed, err)
		}
		first := 0
		deploy(crashed, func(states []statedb.IndexState) {
			if first == 0 {
				first = states[0].Pending
			}
		})
		if first > told[0].Pending {
			t.Errorf("after a crash with %d to go the building began with %d", told[0].Pending, first)
		}
		checkStore(t, crashed)
		if page, err := crashed.Find(t.Context(), statedb.Votes, sorted(t, "n")); err != nil || len(page.Documents) != documents {
			t.Errorf("after a crash and another deployment: %d documents, %v", len(page.Documents), err)
		}
	})
	if steps < 3 {
		t.Errorf("only %d steps", steps)
	}
}

// TestEndsWhileBuilding: a database that is dropped or closed meanwhile ends
// the building.
func TestEndsWhileBuilding(t *testing.T) {
	for what, end := range map[error]func(*DB) error{
		statedb.ErrNoDatabase: func(db *DB) error { return db.Drop(context.Background()) },
		statedb.ErrClosed: func(db *DB) error {
			go db.Close() // which waits for the building
			<-db.store.done
			return nil
		},
	} {
		db := created(t)
		mustWrite(t, db, statedb.Votes, numbered(0, 200))
		steps := 0
		err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{indexOver("n", "n")}, func([]statedb.IndexState) {
			if steps++; steps == 2 {
				if err := end(db); err != nil {
					t.Error(err)
				}
			}
		})
		if !errors.Is(err, what) || steps != 2 {
			t.Errorf("%v after %d steps, want %v after 2", err, steps, what)
		}
	}
}
