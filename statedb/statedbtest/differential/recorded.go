package differential

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/statedb"
)

// recorded is what CouchDB 3.5.0 answered: the lines of Record.
//
//go:embed couchdb-3.5.0.txt
var recorded string

// recordedRun is the run whose answers are recorded.
var recordedRun = Options{Seed: 1}.withDefaults()

// Record runs a fixed choice of queries on a database and returns a line for
// each: the number of rows, a digest of them, and the
// query. Of CouchDB's answers couchdb-3.5.0.txt is made, anew whenever the
// generators change.
func Record(t testing.TB, db statedb.DB) string {
	defer create(t, db)()
	queries := draw(recordedRun, load(t, recordedRun, db))
	var lines strings.Builder
	for _, q := range append(queries.scanned, queries.odd...) {
		lines.WriteString(line(t, db, q))
	}
	deploy(t, db)
	for _, q := range queries.indexed {
		lines.WriteString(line(t, db, q))
	}
	return lines.String()
}

func line(t testing.TB, db statedb.DB, q statedb.Query) string {
	found := ask(t.Context(), db, q)
	switch {
	case found.failure != nil:
		t.Fatalf("%s: %v", describe(q), found.failure)
	case found.refusal != nil:
		return fmt.Sprintf("refused, %v: %s\n", found.refusal, describe(q))
	}
	rows := slices.Clone(found.ids)
	if len(q.Sort) == 0 || !sameOrder(q.Sort) {
		slices.Sort(rows)
	}
	sum := sha256.Sum256([]byte(strings.Join(rows, " ")))
	return fmt.Sprintf("%d rows, %s: %s\n", len(rows), hex.EncodeToString(sum[:6]), describe(q))
}

// CheckRecorded compares a database with what CouchDB answered, where there is
// no CouchDB to ask.
func CheckRecorded(t testing.TB, db statedb.DB) {
	got, want := strings.Split(Record(t, db), "\n"), strings.Split(recorded, "\n")
	if len(got) != len(want) {
		t.Fatalf("%d queries, recorded are %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s\nCouchDB: %s", got[i], want[i])
		}
	}
}
