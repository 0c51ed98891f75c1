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
	seeds := 60
	if testing.Short() {
		seeds = 20
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
		if seed < 4 {
			check = wantSound
		}
		check(t, what, w, full, least)
		late += full.Summary().Documents[statedb.Votes] - len(least[statedb.Votes])

		least, w.most = w.copied(), 120
		w.backup(t, second, BackupOptions{Since: full})
		check(t, what+", second", w, mustOpenChain(t, second), least) // finds the first beside it
		if seed >= 4 {
			continue
		}
		w.steps = 0
		w.backup(t, filepath.Join(folder, "whole"), BackupOptions{})
		report := wantSound(t, what+", at rest", w, mustOpenChain(t, filepath.Join(folder, "whole")), w.tables)
		if seed == 3 && (report.Blocks.Invalid == 0 || report.Blocks.Valid < 10) {
			t.Errorf("%s: the ledger has too little to show anything: %+v", what, report.Blocks)
		}
	}
	if late < seeds {
		t.Errorf("only %d votes that came meanwhile are in the files", late)
	}
}
