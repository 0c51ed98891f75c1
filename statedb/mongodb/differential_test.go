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
// store the same questions. Indexes are read as in MongoDB, or, in some runs,
// as it is done where the server uses none. DIFFERENTIAL_SEED chooses another
// run, of 2,000 documents, which takes minutes.
func TestSameRowsAsEmbedded(t *testing.T) {
	address := mongotest.Shared(t)
	type run struct {
		differential.Options
		chains bool
	}
	runs := []run{
		{differential.Options{Seed: 1, SamePlans: true, Documents: 200, Selectors: 60}, true},
		{differential.Options{Seed: 12, SamePlans: true, All: true, Documents: 200, Selectors: 100}, true},
		{differential.Options{Seed: 13, SamePlans: true, All: true, Documents: 200, Selectors: 60}, false},
	}
	if testing.Short() {
		runs = []run{{differential.Options{Seed: 3, SamePlans: true, All: true, Documents: 200, Selectors: 100}, true}}
	}
	if text := os.Getenv("DIFFERENTIAL_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("DIFFERENTIAL_SEED: %v", err)
		}
		runs = []run{{differential.Options{Seed: seed, SamePlans: true, All: true}, true}, {differential.Options{Seed: seed, SamePlans: true}, false}}
	}
	for _, r := range runs {
		r.Fit, r.Bytes = true, true
		t.Run(fmt.Sprintf("seed %d, all %v, chains %v", r.Seed, r.All, r.chains), func(t *testing.T) {
			local, err := embedded.Open(t.TempDir(), embedded.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer local.Close()
			opts := optionsFor(address)
			opts.likeMongoDB = r.chains
			remote := open(t, opts)
			defer remote.Close()
			differential.Run(t, r.Options, local, remote)
		})
	}
}
