// Package statedbtest is the suite that every statedb adapter passes,
// unchanged. What databases may do differently it leaves open: the order of
// strings beyond lower-case ASCII letters and digits (ICU or bytes), whether
// the feed tells of removed documents, whether a page can be empty and still
// have a bookmark.
package statedbtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// Options tell what the suite can ask of an adapter beyond the contract.
type Options struct {
	// Reopen closes a database and opens the same one again, as a process does
	// that was restarted. Nil skips the tests of durability.
	Reopen func(t *testing.T, db statedb.DB) statedb.DB
	// LongestID is how many bytes an id of the adapter may have; 0 is 200 or more.
	LongestID int
	// Skip names tests that a server cannot pass, with the reason. It is for
	// substitutes of the real thing.
	Skip map[string]string
	// Only chooses tests by name, for what an adapter does in two ways. Nil
	// runs all.
	Only func(name string) bool
}

// patience is how long the suite waits for anything before it fails.
const patience = 30 * time.Second

// Run tests an adapter. open returns a new connection to a database that does
// not exist yet, another one every time; the suite creates and drops it.
func Run(t *testing.T, open func(t *testing.T) statedb.DB) { RunWith(t, Options{}, open) }

// RunWith is Run with options.
func RunWith(t *testing.T, opts Options, open func(t *testing.T) statedb.DB) {
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"Lifecycle", testLifecycle},
		{"DropAndCreateAgain", testDropAndCreateAgain},
		{"UnknownTable", testUnknownTable},
		{"TablesAreSeparate", testTablesAreSeparate},
		{"Conflicts", testConflicts},
		{"SameIDTwiceInOneBatch", testSameIDTwice},
		{"PartOfABatchFails", testPartOfABatchFails},
		{"BadDocuments", testBadDocuments},
		{"TooLarge", testTooLarge},
		{"LargeBatches", testLargeBatches},
		{"Remove", testRemove},
		{"GetKeepsOrder", testGetKeepsOrder},
		{"ExactBodies", testExactBodies},
		{"UnicodeIDs", testUnicodeIDs},
		{"RangePages", testRangePages},
		{"NoLostUpdates", testNoLostUpdates},
		{"Durable", testDurable},
		{"Operators", testOperators},
		{"BadQueries", testBadQueries},
		{"FieldsKept", testFieldsKept},
		{"ExactNumbers", testExactNumbers},
		{"Sort", testSort},
		{"SortOmitsConstants", testSortOmitsConstants},
		{"NoIndex", testNoIndex},
		{"PartialFilter", testPartialFilter},
		{"IndexOnExistingDocuments", testIndexOnExisting},
		{"IndexRedefined", testIndexRedefined},
		{"IndexBuilding", testIndexBuilding},
		{"Indexes", testIndexes},
		{"IndexFollowsChanges", testIndexFollowsChanges},
		{"Explain", testExplain},
		{"BookmarkOfAnotherQuery", testForeignBookmark},
		{"BookmarksWhileDocumentsComeAndGo", testBookmarksUnderChange},
		{"FeedRows", testFeedRows},
		{"FeedResumes", testFeedResumes},
		{"FeedFollows", testFeedFollows},
		{"FeedMissesNothing", testFeedMissesNothing},
		{"FeedTokens", testFeedTokens},
		{"FeedEnds", testFeedEnds},
	} {
		if opts.Only != nil && !opts.Only(test.name) {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			if reason, ok := opts.Skip[test.name]; ok {
				t.Skip("not tested: " + reason)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
			t.Cleanup(cancel)
			test.run(&suite{T: t, ctx: ctx, opts: opts, open: func() statedb.DB { return open(t) }})
		})
	}
}

// suite is one test with what it needs.
type suite struct {
	*testing.T
	ctx  context.Context
	opts Options
	open func() statedb.DB
}

// create opens a database, makes it, and drops it when the test ends.
func (s *suite) create() statedb.DB {
	s.Helper()
	db := s.open()
	created, err := db.Create(s.ctx)
	if err != nil || !created {
		s.Fatalf("Create = %v, %v; want true, nil", created, err)
	}
	s.Cleanup(func() {
		db.Drop(context.WithoutCancel(s.ctx))
		db.Close()
	})
	return db
}

// put writes bodies under ids, all new, and returns their revisions.
func (s *suite) put(db statedb.DB, table string, documents ...string) []string {
	s.Helper()
	var writes []statedb.Write
	for i := 0; i+1 < len(documents); i += 2 {
		writes = append(writes, statedb.Write{ID: documents[i], Body: []byte(documents[i+1])})
	}
	return s.write(db, table, writes...)
}

// write expects every write to succeed and returns the revisions.
func (s *suite) write(db statedb.DB, table string, writes ...statedb.Write) []string {
	s.Helper()
	results, err := db.Write(s.ctx, table, writes)
	if err != nil {
		s.Fatalf("Write: %v", err)
	}
	if len(results) != len(writes) {
		s.Fatalf("Write of %d gave %d results", len(writes), len(results))
	}
	var revs []string
	for i, r := range results {
		if r.Err != nil {
			s.Fatalf("Write of %s: %v", writes[i].ID, r.Err)
		}
		if r.Rev == "" && !writes[i].Delete {
			s.Fatalf("Write of %s gave no revision", writes[i].ID)
		}
		revs = append(revs, r.Rev)
	}
	return revs
}

// get reads one document, "" for the revision when it is not there.
func (s *suite) get(db statedb.DB, table, id string) statedb.Document {
	s.Helper()
	documents, err := db.Get(s.ctx, table, []string{id})
	if err != nil || len(documents) != 1 {
		s.Fatalf("Get %s = %d documents, %v", id, len(documents), err)
	}
	return documents[0]
}

func (s *suite) deploy(db statedb.DB, table string, indexes ...statedb.Index) {
	s.Helper()
	if err := db.DeployIndexes(s.ctx, table, indexes, nil); err != nil {
		s.Fatalf("DeployIndexes: %v", err)
	}
}

// find reads all pages and returns the ids in order.
func (s *suite) find(db statedb.DB, table string, q statedb.Query) []string {
	s.Helper()
	ids := []string{}
	for _, d := range s.findDocuments(db, table, q) {
		ids = append(ids, d.ID)
	}
	return ids
}

func (s *suite) findDocuments(db statedb.DB, table string, q statedb.Query) []statedb.Document {
	s.Helper()
	var documents []statedb.Document
	for range 10_000 {
		page, err := db.Find(s.ctx, table, q)
		if err != nil {
			s.Fatalf("Find %s: %v", q.Selector.Bytes(), err)
		}
		if len(page.Documents) > q.Limit {
			s.Fatalf("Find gave %d documents, limit %d", len(page.Documents), q.Limit)
		}
		documents = append(documents, page.Documents...)
		if page.Bookmark == "" {
			return documents
		}
		q.Bookmark = page.Bookmark
	}
	s.Fatalf("Find %s does not end", q.Selector.Bytes())
	return nil
}

func (s *suite) wantErr(err, want error, doing string, args ...any) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: error %v, want %v", fmt.Sprintf(doing, args...), err, want)
	}
}

// parse reads JSON that the suite itself wrote.
func parse(text string) canonical.Value {
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		panic(fmt.Sprintf("statedbtest: %s: %v", text, err))
	}
	return v
}

// same compares ids as sets.
func same(got, want []string) bool {
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	return slices.Equal(got, want)
}

// index makes a definition over ascending fields.
func index(name string, fields ...string) statedb.Index {
	ix := statedb.Index{Name: name, DDoc: name}
	for _, f := range fields {
		ix.Fields = append(ix.Fields, statedb.SortField{Field: f})
	}
	return ix
}

// order makes a sort; a field with a minus in front descends.
func order(fields ...string) []statedb.SortField {
	var sort []statedb.SortField
	for _, f := range fields {
		name, descending := strings.CutPrefix(f, "-")
		sort = append(sort, statedb.SortField{Field: name, Descending: descending})
	}
	return sort
}
