package mongodb

import (
	"bytes"
	"errors"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/couchledger/couchledger/statedb"
)

// streamed makes an event as MongoDB's manual shows it.
func streamed(t *testing.T, id, kind, key string, full bson.D) bson.Raw {
	d := bson.D{{Key: "_id", Value: bson.D{{Key: "_data", Value: id}}}, {Key: "operationType", Value: kind}}
	if full != nil {
		d = append(d, bson.E{Key: "fullDocument", Value: full})
	}
	if key != "" {
		d = append(d, bson.E{Key: "documentKey", Value: bson.D{{Key: "_id", Value: key}}})
	}
	raw, err := bson.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestStreamEvents(t *testing.T) {
	rev := bson.D{{Key: "_rev", Value: "2-b"}}
	for _, test := range []struct {
		kind string
		full bson.D
		want statedb.Change
	}{
		{"insert", rev, statedb.Change{ID: "a", Rev: "2-b"}},
		{"replace", rev, statedb.Change{ID: "a", Rev: "2-b"}},
		{"replace", append(rev, bson.E{Key: "_deleted", Value: true}), statedb.Change{ID: "a", Rev: "2-b", Deleted: true}},
		{"update", rev, statedb.Change{ID: "a", Rev: "2-b"}},
		{"update", nil, statedb.Change{ID: "a", Rev: removedRev, Deleted: true}}, // it was removed since
		{"insert", bson.D{}, statedb.Change{ID: "a", Rev: foreignRev}},
		{"delete", nil, statedb.Change{ID: "a", Rev: removedRev, Deleted: true}},
	} {
		e, err := readEvent(streamed(t, "1", test.kind, "a", test.full))
		if err != nil || !e.row || e.ends || e.change != test.want || e.id == nil {
			t.Errorf("%s %v: %+v, %v; want %+v", test.kind, test.full, e, err, test.want)
		}
	}
	for _, kind := range []string{"drop", "rename", "dropDatabase", "invalidate"} {
		if e, err := readEvent(streamed(t, "1", kind, "", nil)); err != nil || !e.ends {
			t.Errorf("%s: %+v, %v", kind, e, err)
		}
	}
	foreign, _ := bson.Marshal(bson.D{
		{Key: "_id", Value: bson.D{}}, {Key: "operationType", Value: "insert"}, {Key: "documentKey", Value: bson.D{{Key: "_id", Value: 7}}},
	})
	for _, raw := range []bson.Raw{streamed(t, "1", "createIndexes", "", nil), foreign} {
		if e, err := readEvent(raw); err != nil || e.row || e.ends {
			t.Errorf("%s: %+v, %v; want nothing", raw, e, err)
		}
	}
	if _, err := readEvent(bson.Raw{5, 0, 0, 0, 0}); err == nil {
		t.Error("an event without anything was taken")
	}
}

// The place of a batch is behind its last event, and where the server stands
// when no more wait.
func TestStreamPlaces(t *testing.T) {
	s := &stream{db: &DB{}, table: "votes", after: []byte("after")}
	for range feedBatch + 1 {
		s.waiting = append(s.waiting, streamEvent{id: []byte("earlier"), row: true})
	}
	s.waiting[feedBatch-1].id = []byte("full")
	take := func(changes int, caughtUp bool, at string) {
		t.Helper()
		batch, err := s.take()
		if err != nil || len(batch.Changes) != changes || batch.CaughtUp != caughtUp || string(s.at.Stream) != at {
			t.Errorf("%d changes, caught up %v, at %q, %v; want %d, %v, %q", len(batch.Changes), batch.CaughtUp, s.at.Stream, err, changes, caughtUp, at)
		}
	}
	take(feedBatch, false, "full")
	take(1, true, "after")
	take(0, true, "after")
	s.waiting = []streamEvent{{id: []byte("before"), row: true}, {id: []byte("index")}, {id: []byte("drop"), ends: true}}
	take(1, false, "index")
	if _, err := s.take(); !errors.Is(err, statedb.ErrNoDatabase) {
		t.Errorf("a dropped collection: %v", err)
	}
}

func TestTokens(t *testing.T) {
	for _, p := range []place{
		{Collection: "u"}, {Collection: "u", Scanning: true, Scanned: "é\n", Stream: []byte{1, 2}}, {Collection: "u", Stream: []byte("x")},
	} {
		got, err := readPlace(p.token())
		if err != nil || got.Collection != p.Collection || got.Scanning != p.Scanning || got.Scanned != p.Scanned || !bytes.Equal(got.Stream, p.Stream) {
			t.Errorf("%+v came back as %+v, %v", p, got, err)
		}
	}
	for _, token := range []string{"rubbish", "e30", "%", place{}.token()} {
		if _, err := readPlace(token); !errors.Is(err, statedb.ErrBadToken) {
			t.Errorf("%q: %v", token, err)
		}
	}
}
