package mongodb

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/couchledger/couchledger/statedb/embedded"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
	"github.com/couchledger/couchledger/statedb/statedbtest/differential"
)

// TestSameRowsAsEmbedded asks MongoDB through the adapter and the embedded
// store the same questions. DIFFERENTIAL_SEED chooses another run.
func TestSameRowsAsEmbedded(t *testing.T) {
	address := mongotest.Shared(t)
	runs := []differential.Options{{Seed: 1, SamePlans: true, Selectors: 200}, {Seed: 2, All: true, Documents: 300, SamePlans: true}}
	for seed := uint64(11); seed < 15; seed++ {
		runs = append(runs, differential.Options{Seed: seed, SamePlans: true, All: true, Documents: 200})
	}
	if testing.Short() {
		runs = []differential.Options{{Seed: 3, SamePlans: true, All: true, Documents: 200, Selectors: 100}}
	}
	if text := os.Getenv("DIFFERENTIAL_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("DIFFERENTIAL_SEED: %v", err)
		}
		runs = []differential.Options{{Seed: seed, SamePlans: true, All: true}}
	}
	for _, opts := range runs {
		opts.Fit, opts.Bytes = true, true
		t.Run(fmt.Sprintf("seed %d, all %v", opts.Seed, opts.All), func(t *testing.T) {
			local, err := embedded.Open(t.TempDir(), embedded.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer local.Close()
			remote := open(t, optionsFor(address))
			defer remote.Close()
			differential.Run(t, opts, local, remote)
		})
	}
}
