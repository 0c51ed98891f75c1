package verify

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// TestAnyByte changes a byte, drops or repeats a part anywhere in a document:
// a finding names the document, and nothing panics.
func TestAnyByte(t *testing.T) {
	s := makeSample(t, 60)
	random := rand.New(rand.NewPCG(7, 7))
	m := s.memory()
	for range 150 {
		table := []string{statedb.Bigchain, statedb.Votes, statedb.Transactions}[random.IntN(3)]
		ids := make([]string, 0, len(m.tables[table]))
		for id := range m.tables[table] {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		id := ids[random.IntN(len(ids))]
		body := m.tables[table][id]
		changed := slices.Clone(body)
		at := random.IntN(len(changed))
		what := random.IntN(3)
		switch what {
		case 0:
			changed[at] ^= byte(1 + random.IntN(255))
		case 1:
			changed = slices.Delete(changed, at, min(at+1+random.IntN(80), len(changed)))
		case 2:
			changed = slices.Insert(changed, at, body[at:min(at+1+random.IntN(80), len(body))]...)
		}
		if tree, err := canonical.Parse(changed); err == nil && string(tree.Bytes()) == string(body) {
			continue // it still says the same
		}
		m.apply(change{table, id, changed})
		found, _ := check(t, m, Options{})
		if !slices.ContainsFunc(found, func(f Finding) bool { return f.Table == table && f.ID == id }) {
			t.Errorf("%s/%s, change %d at byte %d: got %s\n%s", table, id, what, at, few(found), changed)
		}
		m.apply(change{table, id, body})
	}
}
