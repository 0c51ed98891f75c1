package embedded

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/statedb"
)

// TestMendIndexes damages rows of two indexes of a store and has them mended,
// while documents change. In the end the indexes have exactly the rows of the
// documents.
func TestMendIndexes(t *testing.T) {
	db := opened(t, "mend", Options{FS: vfs.NewMem()})
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{indexOver("n", "n"), indexOver("m", "m")}, nil); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, db, statedb.Votes, numbered(0, 300))
	random := rand.New(rand.NewPCG(5, 6))
	code := tableCodes[statedb.Votes]
	lost, junk := 0, 0
	batch := db.store.pebble.NewBatch()
	prefix := tableKey(code, kindIndex)
	each(t, db, prefix, func(k, _ []byte) {
		switch random.IntN(4) {
		case 0:
			lost++
			if err := batch.Delete(append([]byte{}, k...), nil); err != nil {
				t.Fatal(err)
			}
		case 1: // the same value under a document that is not there, or has another
			junk++
			row := fmt.Appendf(append([]byte{}, k[:len(k)-len("id00000")]...), "id%05d", 1000+junk)
			if junk%2 == 0 {
				row = append(append([]byte{}, k...), "~"...)
			}
			if junk%5 == 0 {
				row = append(append([]byte{}, k[:indexOffset]...), 0xEE, byte(junk), byte(junk>>8)) // no value at all
			}
			if err := batch.Set(row, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
	})
	if err := batch.Commit(pebble.Sync); err != nil {
		t.Fatal(err)
	}
	steps := 0
	added, removed, err := db.MendIndexes(t.Context(), statedb.Votes, func(int) { steps++ })
	if err != nil || added != lost || removed != junk || lost < 50 || junk < 50 {
		t.Errorf("got %d added and %d removed, %v, want %d and %d", added, removed, err, lost, junk)
	}
	if steps < 5 {
		t.Errorf("it took %d steps: too few for anything to come between", steps)
	}
	checkStore(t, db)

	written, err := db.Range(t.Context(), statedb.Votes, statedb.Range{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	c := changer{db: db, random: random, revs: map[string]string{}}
	for _, d := range written.Documents {
		c.ids = append(c.ids, d.ID)
		c.revs[d.ID] = d.Rev
	}
	end := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		if err := c.run(t.Context(), end); err != nil {
			t.Error(err)
		}
	})
	for range 5 {
		if added, removed, err := db.MendIndexes(t.Context(), statedb.Votes, func(int) {}); added+removed != 0 || err != nil {
			t.Errorf("sound indexes: got %d added and %d removed, %v", added, removed, err)
		}
	}
	close(end)
	group.Wait()
	checkStore(t, db)
}
