package archive

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/couchledger/couchledger/statedb"
)

// TestCut backs up ledgers that grow under the reader, however the two
// interleave, then what came since: each file is a sound ledger with all that
// was there when it was begun.
func TestCut(t *testing.T) {
	seeds := 8
	if testing.Short() {
		seeds = 4
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
		for range w.random.IntN(150) {
			w.step()
		}
		w.steps = 2 + w.random.IntN(8)
		folder := t.TempDir()
		first, second := filepath.Join(folder, "first"), filepath.Join(folder, "second")

		least := w.copied()
		w.backup(t, first, BackupOptions{})
		full := mustOpenChain(t, first)
		what := fmt.Sprintf("seed %d, %d members", seed, len(w.members))
		wantSound(t, what, full, least)
		late += full.Summary().Documents[statedb.Votes] - len(least[statedb.Votes])

		least = w.copied()
		w.backup(t, second, BackupOptions{Since: full})
		wantSound(t, what+", second", mustOpenChain(t, second), least) // finds the first beside it

		w.steps = 0
		w.backup(t, filepath.Join(folder, "whole"), BackupOptions{})
		report := wantSound(t, what+", at rest", mustOpenChain(t, filepath.Join(folder, "whole")), w.tables)
		if seed == 3 && (report.Blocks.Invalid == 0 || report.Blocks.Valid < 20) {
			t.Errorf("%s: the ledger has too little to show anything: %+v", what, report.Blocks)
		}
	}
	if late < seeds {
		t.Errorf("only %d votes that came meanwhile are in the files", late)
	}
}
