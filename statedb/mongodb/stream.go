package mongodb

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/couchledger/couchledger/statedb"
)

// How long the server waits for changes before it answers that there are none:
// while a feed follows, and when it has to tell that it has caught up.
const (
	streamWait  = time.Second
	caughtUpFor = 50 * time.Millisecond
)

// stream follows a collection by a change stream. It is opened first; then the
// collection is read by id; then what the stream has had since then is told.
// What changed while reading may so come twice, and nothing is missed.
//
// The commands are sent as such: a cursor of the driver keeps to one time to
// wait, and hides a stream that it has opened anew.
type stream struct {
	db      *DB
	table   string
	at      place
	session *mongo.Session // the server ties a cursor to one
	cursor  int64          // 0 when the stream is not open
	waiting []streamEvent  // events of the last answer that were not told yet
	after   []byte         // where the stream stands behind them
	told    bool           // that the feed has caught up
}

// openStream opens a change stream: at a place, or at its end for a new feed.
func (db *DB) openStream(outer context.Context, table string, p place) (*stream, error) {
	session, err := db.client.StartSession(options.Session().SetCausalConsistency(false))
	if err != nil {
		return nil, err
	}
	s := &stream{db: db, table: table, at: p, session: session}
	if err := s.open(outer); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stream) place() place { return s.at }

func (s *stream) close() {
	if s.session == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.db.opts.ConnectTimeout)
	defer cancel()
	if s.cursor != 0 {
		kill := bson.D{{Key: "killCursors", Value: s.table}, {Key: "cursors", Value: bson.A{s.cursor}}}
		_ = s.db.mongo.RunCommand(mongo.NewSessionContext(ctx, s.session), kill).Err() // the server forgets it by itself, too
		s.cursor = 0
	}
	s.session.EndSession(ctx)
	s.session = nil
}

// streamAnswer is the answer to a command that opens or reads a change stream.
type streamAnswer struct {
	Cursor struct {
		ID    int64      `bson:"id"`
		First []bson.Raw `bson:"firstBatch"`
		Next  []bson.Raw `bson:"nextBatch"`
		After bson.Raw   `bson:"postBatchResumeToken"`
	} `bson:"cursor"`
}

// run sends a command that is answered after a wait at most. The command's
// context has no deadline: the driver would send it along as a time of its own.
func (s *stream) run(outer context.Context, command bson.D, wait time.Duration) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(outer))
	defer cancel()
	defer context.AfterFunc(outer, cancel)()
	patience := wait + min(s.db.opts.RequestTimeout, s.db.opts.patience)
	silent := time.AfterFunc(patience, cancel)
	var answer streamAnswer
	err := s.db.mongo.RunCommand(mongo.NewSessionContext(ctx, s.session), command).Decode(&answer)
	if err != nil && !silent.Stop() && outer.Err() == nil {
		return fmt.Errorf("%w: MongoDB does not answer for %v", statedb.ErrUnavailable, patience)
	}
	silent.Stop()
	if err != nil {
		return streamFault(err)
	}
	s.cursor = answer.Cursor.ID
	for _, raw := range append(answer.Cursor.First, answer.Cursor.Next...) {
		e, err := readEvent(raw)
		if err != nil {
			return err
		}
		s.waiting = append(s.waiting, e)
	}
	if len(answer.Cursor.After) > 0 {
		s.after = answer.Cursor.After
	}
	return nil
}

// streamFault tells that a place is not in the server's history any more.
func streamFault(err error) error {
	switch codeOf(err) {
	case codeStreamHistoryLost, codeStreamFatal, codeBadResumeToken:
		return fmt.Errorf("%w: MongoDB's oplog does not go back as far: %w", statedb.ErrBadToken, err)
	}
	return err
}

func (s *stream) open(ctx context.Context) error {
	if err := s.run(ctx, openCommand(s.table, s.at.Stream), 0); err != nil {
		return err
	}
	if s.cursor == 0 || len(s.after) == 0 {
		return malformed("a change stream that is not open or says not where it stands")
	}
	if s.at.Stream == nil {
		s.at.Stream, s.at.Scanning = s.after, true
	}
	return nil
}

// openCommand opens a change stream after a place; nil is the end. Of an event
// only what a row is made of is sent. Of a document that others updated in
// parts the server looks the revision up; replaced ones come with theirs.
func openCommand(table string, after []byte) bson.D {
	start := bson.D{{Key: "fullDocument", Value: "updateLookup"}}
	if after != nil {
		start = append(start, bson.E{Key: "resumeAfter", Value: bson.Raw(after)})
	}
	project := bson.D{
		{Key: "operationType", Value: 1}, {Key: "documentKey._id", Value: 1},
		{Key: "fullDocument._rev", Value: 1}, {Key: "fullDocument._deleted", Value: 1},
	}
	return bson.D{
		{Key: "aggregate", Value: table},
		{Key: "pipeline", Value: bson.A{
			bson.D{{Key: "$changeStream", Value: start}},
			bson.D{{Key: "$project", Value: project}},
		}},
		{Key: "cursor", Value: bson.D{{Key: "batchSize", Value: int32(feedBatch)}}},
		{Key: "readConcern", Value: bson.D{{Key: "level", Value: "majority"}}},
	}
}

// streamEvent is one event of a change stream.
type streamEvent struct {
	id     []byte // the place behind it
	change statedb.Change
	row    bool // it is one: change says which
	ends   bool // the collection is gone
}

// removedRev stands for the revision of a document that was removed.
const removedRev = "0-removed"

// readEvent reads what openCommand asks for.
func readEvent(raw bson.Raw) (e streamEvent, err error) {
	var kind string
	var full, key bson.Raw
	err = eachElement(raw, func(t bson.Type, name, value []byte) error {
		switch {
		case string(name) == fieldID && t == bson.TypeEmbeddedDocument:
			e.id = value
		case string(name) == "operationType" && t == bson.TypeString:
			kind = textOf(value)
		case string(name) == "documentKey" && t == bson.TypeEmbeddedDocument:
			key = value
		case string(name) == "fullDocument" && t == bson.TypeEmbeddedDocument:
			full = value
		}
		return nil
	})
	if err != nil || e.id == nil {
		return e, malformed("an event of a change stream")
	}
	switch kind {
	case "insert", "replace", "update", "delete":
	case "drop", "rename", "dropDatabase", "invalidate":
		e.ends = true
		return e, nil
	default:
		return e, nil // of indexes and the like
	}
	r, ok, err := readRecord(key)
	if err != nil || !ok {
		return e, err
	}
	e.row = true
	e.change = statedb.Change{ID: r.id, Rev: removedRev, Deleted: true}
	if full != nil { // an updated document may have been removed since
		stored, _, err := readRecord(full)
		if err != nil {
			return e, err
		}
		e.change.Rev, e.change.Deleted = stored.rev, stored.deleted
	}
	return e, nil
}

func (s *stream) next(ctx context.Context) (statedb.Batch, error) {
	if s.at.Scanning {
		return s.scan(ctx)
	}
	for {
		batch, err := s.take()
		if err != nil || len(batch.Changes) > 0 {
			s.told = s.told || batch.CaughtUp
			return batch, err
		}
		wait := streamWait
		if !s.told {
			wait = caughtUpFor
		}
		if err := s.more(ctx, wait); err != nil {
			return statedb.Batch{}, err
		}
		if !s.told && len(s.waiting) == 0 {
			s.told = true
			return statedb.Batch{CaughtUp: true}, nil
		}
	}
}

// scan reads some of the collection.
func (s *stream) scan(ctx context.Context) (statedb.Batch, error) {
	var batch statedb.Batch
	for {
		bounded, cancel := s.db.bound(ctx)
		c, err := s.db.ids(bounded, s.db.mongo.Collection(s.table), "$gt", s.at.Scanned, "", onlyRevisions, feedBatch)
		cancel()
		if err != nil {
			return batch, err
		}
		for _, r := range c.records {
			batch.Changes = append(batch.Changes, r.change())
		}
		if s.at.Scanned = c.last; c.last == "" {
			s.at.Scanning = false
		}
		if len(batch.Changes) > 0 {
			return batch, nil
		}
		if !s.at.Scanning {
			return s.next(ctx)
		}
	}
}

// take makes a batch of the events that wait.
func (s *stream) take() (statedb.Batch, error) {
	var batch statedb.Batch
	for len(s.waiting) > 0 && len(batch.Changes) < feedBatch {
		e := s.waiting[0]
		if e.ends {
			if len(batch.Changes) > 0 {
				return batch, nil // told with the next one
			}
			return batch, fmt.Errorf("%w: the collection %s.%s was dropped or replaced", statedb.ErrNoDatabase, s.db.opts.Name, s.table)
		}
		s.waiting = s.waiting[1:]
		s.at.Stream = e.id
		if e.row {
			batch.Changes = append(batch.Changes, e.change)
		}
	}
	if len(s.waiting) == 0 {
		s.at.Stream = s.after
		batch.CaughtUp = true
	}
	return batch, nil
}

// more asks for events, and waits for the first so long.
func (s *stream) more(ctx context.Context, wait time.Duration) error {
	if s.cursor == 0 {
		return fmt.Errorf("%w: MongoDB ended the change stream of %s.%s", statedb.ErrUnavailable, s.db.opts.Name, s.table)
	}
	return s.run(ctx, bson.D{
		{Key: "getMore", Value: s.cursor}, {Key: "collection", Value: s.table},
		{Key: "batchSize", Value: int32(feedBatch)}, {Key: "maxTimeMS", Value: wait.Milliseconds()},
	}, wait)
}
