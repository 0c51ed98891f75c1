package embedded

import (
	"fmt"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/indexes"
	"github.com/couchledger/couchledger/statedb"
)

const batchSize = 500

// transaction makes a document of about 800 bytes as the backlog has it.
func transaction(i int) statedb.Write {
	const key = "4K9sWUMFwTgaDGPfdynrbxWqWS6sWmKbZoTjxLtVUibD"
	body := fmt.Sprintf(`{"asset":{"data":{"serial":"%0100d"}},"assignee":"%s","assignment_timestamp":"%d","block_id":"%064x",`+
		`"id":"%064x","inputs":[{"fulfillment":"%s","fulfills":null,"owners_before":["%s"]}],"metadata":null,"operation":"CREATE",`+
		`"outputs":[{"amount":"1","condition":{"details":{"bitmask":32,"public_key":"%s","signature":null,"type":"fulfillment",`+
		`"type_id":4},"uri":"cc:4:20:%s:96"},"public_keys":["%s"]}],"version":"0.9"}`,
		i, key, 1_500_000_000+i, i/batchSize, i, strings.Repeat("x", 140), key, key, key, key)
	return statedb.Write{ID: fmt.Sprintf("%064x", uint64(i)*0x9E3779B97F4A7C15), Body: []byte(body)}
}

func transactions(from, n int) ([]statedb.Write, []string) {
	var writes []statedb.Write
	var ids []string
	for i := from; i < from+n; i++ {
		writes = append(writes, transaction(i))
		ids = append(ids, writes[len(writes)-1].ID)
	}
	return writes, ids
}

func benchDB(b *testing.B, table string) *DB {
	b.Helper()
	db := created(b)
	if err := db.DeployIndexes(b.Context(), table, indexes.Packaged()[table], nil); err != nil {
		b.Fatal(err)
	}
	return db
}

func perDocument(b *testing.B, documents int) {
	b.ReportMetric(float64(documents)/b.Elapsed().Seconds(), "docs/s")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(documents), "ns/doc")
}

func mustWrite(b testing.TB, db *DB, table string, writes []statedb.Write) {
	b.Helper()
	results, err := db.Write(b.Context(), table, writes)
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, table := range []string{statedb.Backlog, statedb.Transactions} {
		b.Run(table, func(b *testing.B) {
			db := benchDB(b, table)
			n := 0
			for b.Loop() {
				b.StopTimer()
				writes, _ := transactions(n, batchSize)
				n += batchSize
				b.StartTimer()
				mustWrite(b, db, table, writes)
			}
			perDocument(b, n)
		})
	}
}

func BenchmarkRemove(b *testing.B) {
	db := benchDB(b, statedb.Backlog)
	n := 0
	for b.Loop() {
		b.StopTimer()
		writes, ids := transactions(n, batchSize)
		n += batchSize
		mustWrite(b, db, statedb.Backlog, writes)
		b.StartTimer()
		if err := db.Remove(b.Context(), statedb.Backlog, ids); err != nil {
			b.Fatal(err)
		}
	}
	perDocument(b, n)
}

func BenchmarkGet(b *testing.B) {
	db := benchDB(b, statedb.Transactions)
	const n = 50_000
	var all []string
	for i := 0; i < n; i += batchSize {
		writes, ids := transactions(i, batchSize)
		mustWrite(b, db, statedb.Transactions, writes)
		all = append(all, ids...)
	}
	_, missing := transactions(n, n) // ids between those that are there
	for name, ids := range map[string][]string{"there": all, "missing": missing} {
		b.Run(name, func(b *testing.B) {
			documents := 0
			for b.Loop() {
				at := documents % n
				if _, err := db.Get(b.Context(), statedb.Transactions, ids[at:at+100]); err != nil {
					b.Fatal(err)
				}
				documents += 100
			}
			perDocument(b, documents)
		})
	}
}

func BenchmarkFind(b *testing.B) {
	db := benchDB(b, statedb.Transactions)
	for i := 0; i < 20_000; i += batchSize {
		writes, _ := transactions(i, batchSize)
		mustWrite(b, db, statedb.Transactions, writes)
	}
	for name, selector := range map[string]string{
		"index":    fmt.Sprintf(`{"block_id":"%064x"}`, 3),
		"residual": fmt.Sprintf(`{"block_id":"%064x","version":"0.9"}`, 3),
		"scan":     `{"version":"0.8"}`,
	} {
		b.Run(name, func(b *testing.B) {
			v, err := canonical.Parse([]byte(selector))
			if err != nil {
				b.Fatal(err)
			}
			documents := 0
			for b.Loop() {
				page, err := db.Find(b.Context(), statedb.Transactions, statedb.Query{Selector: v, Limit: 100})
				if err != nil {
					b.Fatal(err)
				}
				documents += page.Stats.Documents
			}
			perDocument(b, documents)
		})
	}
}

func BenchmarkChanges(b *testing.B) {
	db := benchDB(b, statedb.Backlog)
	for i := 0; i < 20_000; i += batchSize {
		writes, _ := transactions(i, batchSize)
		mustWrite(b, db, statedb.Backlog, writes)
	}
	rows := 0
	for b.Loop() {
		feed, err := db.Changes(b.Context(), statedb.Backlog, "")
		if err != nil {
			b.Fatal(err)
		}
		for caughtUp := false; !caughtUp; {
			batch, err := feed.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			rows += len(batch.Changes)
			caughtUp = batch.CaughtUp
		}
		feed.Close()
	}
	perDocument(b, rows)
}

func BenchmarkExtract(b *testing.B) {
	db := benchDB(b, statedb.Transactions)
	writes, _ := transactions(0, 1)
	set := db.ledger.Load().tables[statedb.Transactions].indexes.Load()
	b.SetBytes(int64(len(writes[0].Body)))
	for b.Loop() {
		if p := prepare(set, writes); p[0].err != nil {
			b.Fatal(p[0].err)
		}
	}
}
