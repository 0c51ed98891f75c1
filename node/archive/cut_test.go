package archive

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// TestCut backs up ledgers that grow under the reader, however the two
// interleave, then what came since: each file is a sound ledger with all that
// was there when it was begun.
func TestCut(t *testing.T) {
	seeds, verified := 60, 4
	if testing.Short() {
		seeds, verified = 10, 2
	}
	if text := os.Getenv("ARCHIVE_SEEDS"); text != "" {
		var err error
		if seeds, err = strconv.Atoi(text); err != nil {
			t.Fatalf("ARCHIVE_SEEDS: %v", err)
		}
	}
	late := 0
	for seed := range uint64(seeds) {
		w := newWorld(t, seed, 1+int(seed%4))
		for range w.random.IntN(80) {
			w.step()
		}
		w.steps, w.most = 2+w.random.IntN(8), 120
		folder := t.TempDir()
		first, second := filepath.Join(folder, "first"), filepath.Join(folder, "second")

		least := w.copied()
		w.backup(t, first, BackupOptions{})
		full := mustOpenChain(t, first)
		what := fmt.Sprintf("seed %d, %d members", seed, len(w.members))
		check := wantClosed
		if seed < uint64(verified) {
			check = wantSound
		}
		check(t, what, w, full, least)
		late += full.Summary().Documents[statedb.Votes] - len(least[statedb.Votes])

		least, w.most = w.copied(), 120
		w.backup(t, second, BackupOptions{Since: full})
		check(t, what+", second", w, mustOpenChain(t, second), least) // finds the first beside it
		if seed >= uint64(verified) {
			continue
		}
		w.steps = 0
		w.backup(t, filepath.Join(folder, "whole"), BackupOptions{})
		report := wantSound(t, what+", at rest", w, mustOpenChain(t, filepath.Join(folder, "whole")), w.tables)
		if seed == 1 && (report.Blocks.Invalid == 0 || report.Blocks.Valid < 10) {
			t.Errorf("%s: the ledger has too little to show anything: %+v", what, report.Blocks)
		}
	}
	if late < seeds {
		t.Errorf("only %d votes that came meanwhile are in the files", late)
	}
}

// late is a world in which something is written just before its votes are read
// again.
type late struct {
	*world
	readings int
	write    func()
}

func (l *late) Range(ctx context.Context, table string, r statedb.Range) (statedb.Page, error) {
	if table == statedb.Votes && r.Bookmark == "" {
		if l.readings++; l.readings == 2 {
			l.write()
		}
	}
	return l.world.Range(ctx, table, r)
}

// TestRival: a late vote against a block says that another one has the same
// transaction, which no vote in the cut is on. That block is in the file, too; a
// late one that nothing refers to is not.
func TestRival(t *testing.T) {
	w := newWorld(t, 1, 3)
	block := func(maker int, txs ...*ledger.Transaction) *ledger.Block {
		return ledger.NewBlock(w.members[maker], w.genesis.Timestamp+1, w.voters(), txs)
	}
	create := func(n int64) *ledger.Transaction {
		owner := w.key()
		tx, err := ledger.NewCreate([]ledger.KeyPair{owner}, canonical.ObjectOf(canonical.Member{Key: "n", Value: canonical.IntOf(n)}), canonical.Value{}, ledger.PayTo(owner.Public, 1))
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	tx := create(1)
	rival, refused, unknown := block(0, tx), block(1, tx), block(2, create(2))
	vote := ledger.NewVote(w.members[2], refused.ID, w.genesis.ID, false, "DUPLICATE_TRANSACTION", 1_600_000_000)
	source := &late{world: w, write: func() {
		for _, b := range []*ledger.Block{rival, refused, unknown} {
			w.tables[statedb.Bigchain][b.ID] = b.Bytes()
		}
		w.tables[statedb.Votes][ledger.VoteID(refused.ID, vote.NodePubkey)] = vote.Bytes()
	}}
	path := filepath.Join(t.TempDir(), "file")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Backup(t.Context(), source, out, BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	c := mustOpenChain(t, path)
	least := map[string]map[string][]byte{statedb.Bigchain: {rival.ID: rival.Bytes(), refused.ID: refused.Bytes()}}
	wantSound(t, "a rival", w, c, least)
	if n := c.Summary().Documents[statedb.Bigchain]; n != 4 {
		t.Errorf("got %d documents, want the claim and three blocks", n)
	}
}
