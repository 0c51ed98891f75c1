package rethinkdb

import (
	"fmt"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

// batchOf makes documents of about 800 bytes.
func batchOf(n, from int) (writes []statedb.Write) {
	for i := from; i < from+n; i++ {
		writes = append(writes, statedb.Write{
			ID:   fmt.Sprintf("%064d", i),
			Body: fmt.Appendf(nil, `{"n":%d,"asset":{"data":{"serial":"s%d"}},"inputs":[{"owners":["a","b"],"fulfills":null}],"pad":%q}`, i, i, strings.Repeat("x", 600)),
		})
	}
	return writes
}

func perSecond(b *testing.B, documents int) {
	b.ReportMetric(float64(documents)/b.Elapsed().Seconds(), "docs/s")
}

func BenchmarkCreate(b *testing.B) {
	for _, size := range []int{1, 16, 64, 256, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			db := made(b, optionsFor(rethinktest.Shared(b)))
			for i := 0; b.Loop(); i++ {
				write(b, db, batchOf(size, i*size)...)
			}
			perSecond(b, b.N*size)
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	const size = 1000
	db := made(b, optionsFor(rethinktest.Shared(b)))
	writes := batchOf(size, 0)
	for b.Loop() {
		for i, rev := range write(b, db, writes...) {
			writes[i].Rev = rev
		}
	}
	perSecond(b, b.N*size)
}

func BenchmarkReads(b *testing.B) {
	const size = 20_000
	db := made(b, optionsFor(rethinktest.Shared(b)))
	var ids []string
	for from := 0; from < size; from += 1000 {
		for _, w := range batchOf(1000, from) {
			ids = append(ids, w.ID)
		}
		write(b, db, batchOf(1000, from)...)
	}
	b.Run("Get 1000", func(b *testing.B) {
		for b.Loop() {
			if _, err := db.Get(b.Context(), table, ids[:1000]); err != nil {
				b.Fatal(err)
			}
		}
		perSecond(b, b.N*1000)
	})
	b.Run("Get 1", func(b *testing.B) {
		for b.Loop() {
			if _, err := db.Get(b.Context(), table, ids[:1]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Range", func(b *testing.B) {
		for b.Loop() {
			if _, err := db.Range(b.Context(), table, statedb.Range{Limit: 1000}); err != nil {
				b.Fatal(err)
			}
		}
		perSecond(b, b.N*1000)
	})
	b.Run("rescan of a feed", func(b *testing.B) {
		for b.Loop() {
			follow(b, db, "")
		}
		perSecond(b, b.N*size)
	})
	b.Run("scan", func(b *testing.B) {
		for b.Loop() {
			find(b, db, statedb.Query{Selector: parse(b, `{"asset.data.serial":"s1234"}`), Limit: 10})
		}
		perSecond(b, b.N*size)
	})
	deploy(b, db, index("n", "n"), index("serial", "asset.data.serial"))
	b.Run("Find by an index", func(b *testing.B) {
		for b.Loop() {
			find(b, db, statedb.Query{Selector: parse(b, `{"asset.data.serial":"s1234"}`), Limit: 10})
		}
	})
	b.Run("Create with two indexes", func(b *testing.B) {
		for i := size; b.Loop(); i += 1000 {
			write(b, db, batchOf(1000, i)...)
		}
		perSecond(b, b.N*1000)
	})
}

func BenchmarkRemove(b *testing.B) {
	const size = 1000
	db := made(b, optionsFor(rethinktest.Shared(b)))
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		var ids []string
		for _, w := range batchOf(size, i*size) {
			ids = append(ids, w.ID)
		}
		write(b, db, batchOf(size, i*size)...)
		b.StartTimer()
		if err := db.Remove(b.Context(), table, ids); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, b.N*size)
}
