package differential_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/embedded"
	"github.com/couchledger/couchledger/statedb/statedbtest/differential"
)

func opened(t *testing.T) statedb.DB {
	t.Helper()
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// faulty changes what a database finds.
type faulty struct {
	statedb.DB
	change func(q statedb.Query, page *statedb.Page) error
}

func (db faulty) Find(ctx context.Context, table string, q statedb.Query) (statedb.Page, error) {
	page, err := db.DB.Find(ctx, table, q)
	if err == nil {
		err = db.change(q, &page)
	}
	return page, err
}

// recorder is a testing.TB that keeps what a run reports.
type recorder struct {
	testing.TB
	errors []string
}

type fatal struct{}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	panic(fatal{})
}

// reported runs the comparison with a fault and returns what it reports.
func reported(t *testing.T, change func(statedb.Query, *statedb.Page) error) []string {
	t.Helper()
	r := &recorder{TB: t}
	func() {
		defer func() {
			if stopped := recover(); stopped != nil && stopped != (fatal{}) {
				panic(stopped)
			}
		}()
		differential.Run(r, differential.Options{Seed: 7, Documents: 120, Selectors: 140}, opened(t), faulty{opened(t), change})
	}()
	return r.errors
}

func TestSameDatabaseHasNoDifference(t *testing.T) {
	differential.Run(t, differential.Options{Seed: 7, Documents: 300, SamePlans: true}, opened(t), opened(t))
}

func TestFaultsAreFound(t *testing.T) {
	asks := func(q statedb.Query, operator string) bool {
		return strings.Contains(string(q.Selector.Bytes()), `"`+operator+`"`)
	}
	for _, test := range []struct {
		name, want string
		change     func(q statedb.Query, page *statedb.Page) error
	}{
		{"a row that is lost", `the smallest is {"`, func(q statedb.Query, page *statedb.Page) error {
			if n := len(page.Documents); n > 0 && asks(q, "$size") {
				page.Documents = page.Documents[:n-1]
			}
			return nil
		}},
		{"a row that is there twice", "rows", func(q statedb.Query, page *statedb.Page) error {
			if n := len(page.Documents); n > 0 && asks(q, "$size") {
				page.Documents = append(page.Documents, page.Documents[0])
			}
			return nil
		}},
		{"pages that end early", "only the first has", func(q statedb.Query, page *statedb.Page) error {
			page.Bookmark = ""
			return nil
		}},
		{"an order that is not the sort's", "another order", func(q statedb.Query, page *statedb.Page) error {
			if len(q.Sort) > 0 && q.Bookmark == "" && page.Bookmark == "" {
				slices.Reverse(page.Documents)
			}
			return nil
		}},
		{"a query that is refused", "refused by one", func(q statedb.Query, page *statedb.Page) error {
			if asks(q, "$mod") {
				return statedb.ErrBadQuery
			}
			return nil
		}},
		{"a failure", "fails", func(q statedb.Query, page *statedb.Page) error {
			if asks(q, "$mod") {
				return context.DeadlineExceeded
			}
			return nil
		}},
	} {
		errors := strings.Join(reported(t, test.change), "\n")
		if !strings.Contains(errors, test.want) || !strings.Contains(errors, "seed 7") {
			t.Errorf("%s: reported is %.2000s; want %q", test.name, errors, test.want)
		}
	}
}

// TestMinimised: of a selector with a fault only the fault is left, and of the
// document what it is about.
func TestMinimised(t *testing.T) {
	errors := reported(t, func(q statedb.Query, page *statedb.Page) error {
		if strings.Contains(string(q.Selector.Bytes()), `"$keyMapMatch"`) {
			page.Documents = nil
		}
		return nil
	})
	for _, e := range errors {
		_, smallest, _ := strings.Cut(e, "the smallest is ")
		selector, rest, _ := strings.Cut(smallest, ", limit")
		_, document, found := strings.Cut(rest, "on the document {")
		if strings.Count(selector, "$") > 5 || !found || len(document) > 150 {
			t.Errorf("not small: %s", e)
		}
	}
	if len(errors) == 0 {
		t.Error("nothing is reported")
	}
}
