package mongodb

import (
	"errors"
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mongodb/mongotest"
)

// Every document of a batch has its own outcome, however they are mixed: new,
// there already, deleted before, updated at the right revision, at an old one,
// and at that of a document that is not there.
func TestMixedBatch(t *testing.T) {
	for _, likeMongoDB := range []bool{false, true} {
		t.Run(fmt.Sprintf("like MongoDB %v", likeMongoDB), func(t *testing.T) {
			opts := optionsFor(mongotest.Shared(t))
			opts.likeMongoDB = likeMongoDB
			db := made(t, opts)
			const n = 120
			revs := map[string]string{}
			var writes []statedb.Write
			for i := range n {
				id := fmt.Sprintf("id%03d", i)
				if i%6 != 0 && i%6 != 5 {
					revs[id] = put(t, db, statedb.Votes, id, "", `{"n":0}`)
				}
				w := statedb.Write{ID: id, Rev: revs[id], Body: fmt.Appendf(nil, `{"n":%d}`, i)}
				switch i % 6 {
				case 1:
					w.Rev = "" // it is there
				case 2:
					results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: id, Rev: revs[id], Delete: true}})
					if err != nil || results[0].Err != nil {
						t.Fatal(err, results)
					}
					w.Rev = ""
				case 4:
					put(t, db, statedb.Votes, id, revs[id], `{"n":-1}`)
				case 5:
					w.Rev = "1-0000000000000000"
				}
				writes = append(writes, w)
			}
			results, err := db.Write(t.Context(), statedb.Votes, writes)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range results {
				conflict := i%6 == 1 || i%6 == 4 || i%6 == 5
				if errors.Is(r.Err, statedb.ErrConflict) != conflict || !conflict && r.Err != nil || conflict != (r.Rev == "") {
					t.Errorf("case %d: %+v", i%6, r)
				}
				documents, err := db.Get(t.Context(), statedb.Votes, []string{writes[i].ID})
				if err != nil || !conflict && (documents[0].Rev != r.Rev || string(documents[0].Body) != string(writes[i].Body)) {
					t.Errorf("case %d: %+v is %s at %s, %v", i%6, r, documents[0].Body, documents[0].Rev, err)
				}
			}
		})
	}
}

// Revisions count, and never come again.
func TestRevisions(t *testing.T) {
	random := []byte{1, 2, 3, 4, 5, 6, 7, 255}
	for old, want := range map[string]string{
		"": "1-01020304050607ff", "1-x": "2-01020304050607ff", "41-y": "42-01020304050607ff", foreignRev: "1-01020304050607ff",
		"rubbish": "1-01020304050607ff", "99999999999999999999-x": "4294967296-01020304050607ff",
	} {
		if got := nextRev(old, random); got != want {
			t.Errorf("after %q: %s, want %s", old, got, want)
		}
	}
}

// What the server says of one document is that one's outcome; what it says of
// itself is nobody's.
func TestRefusedDocuments(t *testing.T) {
	refusal := func(index, code int) mongo.BulkWriteError {
		return mongo.BulkWriteError{WriteError: mongo.WriteError{Index: index, Code: code, Message: "a reason"}}
	}
	writes := []write{{place: 3, id: "a"}, {place: 2, id: "b"}, {place: 1, id: "c"}, {place: 0, id: "d"}}
	b := batch{results: make([]statedb.Result, len(writes))}
	duplicates, err := b.refused(writes, mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{
		refusal(0, codeDuplicateKey), refusal(1, codeDocumentTooLarge), refusal(2, 16746),
	}})
	if err != nil || len(duplicates) != 1 || duplicates[0].id != "a" {
		t.Errorf("duplicates %v, %v", duplicates, err)
	}
	for place, want := range []error{nil, statedb.ErrBadDocument, statedb.ErrTooLarge, nil} {
		if got := b.results[place].Err; !errors.Is(got, want) {
			t.Errorf("outcome %d: %v, want %v", place, got, want)
		}
	}
	db := &DB{closed: t.Context()}
	for what, failure := range map[string]error{
		"an election":               mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{refusal(0, 10107)}},
		"no majority":               mongo.BulkWriteException{WriteConcernError: &mongo.WriteConcernError{Code: 64, Message: "waiting timed out"}},
		"an outcome of nothing":     mongo.BulkWriteException{WriteErrors: []mongo.BulkWriteError{refusal(4, 2)}},
		"no answer":                 errors.New("the connection broke"),
		"a command that is refused": mongo.CommandError{Code: 11600},
	} {
		if _, err := b.refused(writes, failure); !errors.Is(db.fault(t.Context(), err), statedb.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
