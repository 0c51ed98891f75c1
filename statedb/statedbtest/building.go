package statedbtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/couchledger/couchledger/statedb"
)

// testIndexBuilding queries and writes while an index is built over documents
// that are there. A query that needs the index finds all documents or says
// ErrBuilding; that no index serves it is true before the deployment alone.
// What was written meanwhile is in the index when it can be used.
func testIndexBuilding(s *suite) {
	db := s.create()
	const documents = 2000
	for from := 0; from < documents; from += 500 {
		var writes []statedb.Write
		for i := from; i < from+500; i++ {
			writes = append(writes, statedb.Write{ID: fmt.Sprintf("id%05d", i), Body: fmt.Appendf(nil, `{"n":%d,"m":{"k":"x%d"}}`, i, i%10)})
		}
		s.write(db, statedb.Transactions, writes...)
	}
	query := statedb.Query{Selector: parse(`{"n":{"$gte":0}}`), Sort: order("n"), Limit: 1000}

	deployed, stop := context.WithCancel(s.ctx)
	defer stop()
	written := 0
	var other sync.WaitGroup
	other.Go(func() {
		known := false // the database has heard of the index
		for deployed.Err() == nil && !s.Failed() {
			results, err := db.Write(s.ctx, statedb.Transactions, []statedb.Write{{ID: fmt.Sprintf("w%05d", written), Body: fmt.Appendf(nil, `{"n":%d}`, documents+written)}})
			if err != nil || results[0].Err != nil {
				s.Errorf("Write while an index is built: %v, %v", results, err)
				return
			}
			written++
			n, err := count(s.ctx, db, query)
			switch {
			case errors.Is(err, statedb.ErrNoIndex) && !known:
			case errors.Is(err, statedb.ErrBuilding) && errors.Is(err, statedb.ErrUnavailable):
				known = true
			case err != nil || n != documents+written:
				s.Errorf("Find while an index is built: %d documents of %d, %v", n, documents+written, err)
			default:
				known = true
			}
		}
	})
	err := db.DeployIndexes(s.ctx, statedb.Transactions, []statedb.Index{index("n", "n"), index("k", "m.k")}, func(states []statedb.IndexState) {
		listed, err := db.Indexes(s.ctx, statedb.Transactions)
		if err != nil {
			s.Errorf("Indexes while they are built: %v", err)
		}
		for _, state := range states {
			if state.Name != "n" && state.Name != "k" || state.Pending < 0 || state.Pending > state.Total {
				s.Errorf("progress tells %+v", state)
			}
			if !slices.ContainsFunc(listed, func(l statedb.IndexState) bool { return l.Equal(state.Index) }) {
				s.Errorf("Indexes lists %+v while progress tells %+v", listed, state)
			}
		}
	})
	stop()
	other.Wait()
	if err != nil {
		s.Fatalf("DeployIndexes: %v", err)
	}
	listed, err := db.Indexes(s.ctx, statedb.Transactions)
	if err != nil || len(listed) != 2 || listed[0].Pending != 0 || listed[1].Pending != 0 {
		s.Errorf("Indexes when they are built = %+v, %v", listed, err)
	}
	if n, err := count(s.ctx, db, query); err != nil || n != documents+written {
		s.Errorf("Find when the index is built: %d documents of %d, %v", n, documents+written, err)
	}
	told := 0
	err = db.DeployIndexes(s.ctx, statedb.Transactions, []statedb.Index{index("n", "n"), index("k", "m.k")}, func(states []statedb.IndexState) {
		for _, state := range states {
			told += state.Pending
		}
	})
	if err != nil || told > 0 {
		s.Errorf("the same definitions again: %v, with %d documents to go", err, told)
	}
}

// count reads all pages.
func count(ctx context.Context, db statedb.DB, q statedb.Query) (n int, err error) {
	for {
		page, err := db.Find(ctx, statedb.Transactions, q)
		if err != nil {
			return n, err
		}
		n += len(page.Documents)
		if q.Bookmark = page.Bookmark; q.Bookmark == "" {
			return n, nil
		}
	}
}
