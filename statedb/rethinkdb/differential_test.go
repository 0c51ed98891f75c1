package rethinkdb

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/couchledger/couchledger/statedb/embedded"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
	"github.com/couchledger/couchledger/statedb/statedbtest/differential"
)

// TestSameRowsAsEmbedded compares what is translated into RethinkDB's language
// with package mango as embedded uses it. DIFFERENTIAL_SEED chooses another run.
func TestSameRowsAsEmbedded(t *testing.T) {
	address := rethinktest.Shared(t)
	runs := []differential.Options{
		{Seed: 1, SamePlans: true, Fit: true, Selectors: 200}, {Seed: 3, All: true, Fit: true, Documents: 300, Selectors: 200},
	}
	if testing.Short() {
		runs = []differential.Options{{Seed: 5, SamePlans: true, Fit: true, Documents: 200, Selectors: 100}, {Seed: 6, All: true, Fit: true, Documents: 200, Selectors: 100}}
	}
	if text := os.Getenv("DIFFERENTIAL_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("DIFFERENTIAL_SEED: %v", err)
		}
		runs = []differential.Options{{Seed: seed, SamePlans: true, Fit: true}, {Seed: seed, All: true, Fit: true}}
	}
	for _, opts := range runs {
		opts.Bytes = true
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
