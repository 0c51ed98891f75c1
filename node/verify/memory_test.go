package verify

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/statedb"
)

// memory is a source in memory, as it is at some moment.
type memory struct {
	tables map[string]map[string][]byte
	// before, unless nil, is called before each page is read.
	before func(table string, r statedb.Range) error
}

func memoryOf(changes ...change) *memory {
	m := &memory{tables: map[string]map[string][]byte{}}
	m.apply(changes...)
	return m
}

func (m *memory) apply(changes ...change) {
	for _, c := range changes {
		if m.tables[c.table] == nil {
			m.tables[c.table] = map[string][]byte{}
		}
		if m.tables[c.table][c.id] = c.body; c.body == nil {
			delete(m.tables[c.table], c.id)
		}
	}
}

// Range has the last id of a page as its bookmark.
func (m *memory) Range(ctx context.Context, table string, r statedb.Range) (page statedb.Page, err error) {
	if m.before != nil {
		if err := m.before(table, r); err != nil {
			return page, err
		}
	}
	var ids []string
	for id := range m.tables[table] {
		if id >= r.Start && (r.End == "" || id < r.End) && id > r.Bookmark {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	if len(ids) > r.Limit {
		ids = ids[:r.Limit]
		page.Bookmark = ids[r.Limit-1]
	}
	for _, id := range ids {
		page.Documents = append(page.Documents, statedb.Document{ID: id, Rev: "1", Body: m.tables[table][id]})
	}
	return page, ctx.Err()
}

// of copies a sample's tables.
func (s *sample) memory() *memory {
	m := memoryOf()
	for table, documents := range s.tables {
		for id, body := range documents {
			m.apply(change{table, id, body})
		}
	}
	return m
}

// TestReadAhead: what was read and is not checked yet has a bound, however
// large documents are. The worker gives way to the reader whenever it can.
func TestReadAhead(t *testing.T) {
	const count, size = 400, 300 << 10
	m := memoryOf()
	for i := range count {
		m.apply(change{statedb.Bigchain, fmt.Sprintf("%08x", i), make([]byte, size)})
	}
	v := &verifier{source: m, workers: 1, progress: NewMeter(nil, 1)}
	var asked, checked atomic.Int64
	m.before = func(_ string, r statedb.Range) error {
		// A page may be on the way beside the jobs that wait and the one that
		// is being checked.
		if ahead, most := int(asked.Load()-checked.Load())*size, 2*pageBytes+3*jobBytes; ahead > most {
			t.Errorf("%d bytes are read ahead, %d at most", ahead, most)
		}
		if asked.Load() > 100 && r.Limit*size > pageBytes+size {
			t.Errorf("%d rows of %d bytes are asked for", r.Limit, size)
		}
		asked.Add(int64(r.Limit))
		return nil
	}
	err := v.readTable(t.Context(), statedb.Bigchain, func(documents []statedb.Document) (int, error) {
		for range 1000 {
			runtime.Gosched()
		}
		checked.Add(int64(len(documents)))
		return len(documents), nil
	})
	if err != nil || checked.Load() != count {
		t.Errorf("checked %d documents, %v", checked.Load(), err)
	}
}

func TestPatience(t *testing.T) {
	s := makeSample(t, 100)
	m := s.memory()
	failures := 2
	m.before = func(string, statedb.Range) error {
		if failures--; failures >= 0 {
			return fmt.Errorf("%w: for a moment", statedb.ErrUnavailable)
		}
		return nil
	}
	found, _ := check(t, m, Options{})
	wantNone(t, found)

	broken := errors.New("broken")
	m.before = func(string, statedb.Range) error { return broken }
	if _, err := Run(t.Context(), m, Options{}); !errors.Is(err, broken) {
		t.Errorf("got %v, want the source's error", err)
	}
	m.before = func(string, statedb.Range) error { return statedb.ErrUnavailable }
	impatient := &verifier{source: m, workers: 1}
	if _, err := impatient.run(t.Context()); !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("got %v, want the source's error once patience is over", err)
	}
}

// TestStrangersAreNotKept: of what spends an output only that is kept which a
// member voted on; others may be any number.
func TestStrangersAreNotKept(t *testing.T) {
	var all rivals
	for i := range 1000 {
		all.add(spender{tx: id{byte(i), byte(i >> 8)}, decision: decision{now: consensus.Undecided}})
	}
	all.add(spender{tx: id{1, 99}, decision: decision{now: consensus.Valid}})
	all.add(spender{tx: id{2, 99}, decision: decision{now: consensus.Invalid, against: true}})
	if len(all.judged) != 2 || len(all.any) != 2 || len(all.valid) != 1 {
		t.Errorf("%d, %d and %d are kept, want 2, 2 and 1", len(all.judged), len(all.any), len(all.valid))
	}
}
