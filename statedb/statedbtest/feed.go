package statedbtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/couchledger/couchledger/statedb"
)

// drain reads a feed until it has caught up: each document's last row, and the
// last token.
func (s *suite) drain(db statedb.DB, table, since string) (map[string]statedb.Change, string) {
	s.Helper()
	feed, err := db.Changes(s.ctx, table, since)
	if err != nil {
		s.Fatalf("Changes: %v", err)
	}
	defer feed.Close()
	rows := map[string]statedb.Change{}
	for {
		batch := s.next(feed)
		for _, c := range batch.Changes {
			rows[c.ID] = c
		}
		if batch.CaughtUp {
			return rows, batch.Token
		}
	}
}

// next expects a batch within patience.
func (s *suite) next(feed statedb.Feed) statedb.Batch {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	batch, err := feed.Next(ctx)
	if err != nil {
		s.Fatalf("Next: %v", err)
	}
	if len(batch.Changes) == 0 && !batch.CaughtUp {
		s.Fatal("Next gave an empty batch that does not say CaughtUp")
	}
	if batch.Token == "" {
		s.Fatal("Next gave no token")
	}
	return batch
}

func testFeedRows(s *suite) {
	db := s.create()
	rows, token := s.drain(db, statedb.Votes, "")
	if len(rows) != 0 {
		s.Errorf("the feed of an empty table has %v", rows)
	}
	revs := s.put(db, statedb.Votes, "a", `{"n":1}`, "b", `{"n":1}`, "c", `{"n":1}`, "d", `{"n":1}`)
	updated := s.write(db, statedb.Votes, statedb.Write{ID: "a", Rev: revs[0], Body: []byte(`{"n":2}`)})[0]
	s.write(db, statedb.Votes, statedb.Write{ID: "b", Rev: revs[1], Delete: true})
	if err := db.Remove(s.ctx, statedb.Votes, []string{"d"}); err != nil {
		s.Fatal(err)
	}
	for _, since := range []string{"", token} {
		rows, _ = s.drain(db, statedb.Votes, since)
		delete(rows, "d") // a database may or may not tell of what was removed
		if len(rows) != 3 {
			s.Errorf("rows since %q: %v, want those of a, b and c", since, rows)
		}
		if c := rows["a"]; c.Rev != updated || c.Deleted {
			s.Errorf("row %+v, want a at %s", c, updated)
		}
		if c := rows["b"]; !c.Deleted || c.Rev == "" {
			s.Errorf("row %+v, want b deleted at a revision", c)
		}
		if c := rows["c"]; c.Rev != revs[2] || c.Deleted {
			s.Errorf("row %+v, want c at %s", c, revs[2])
		}
	}
	again := s.put(db, statedb.Votes, "b", `{"n":3}`)[0]
	if rows, _ = s.drain(db, statedb.Votes, ""); rows["b"].Deleted || rows["b"].Rev != again {
		s.Errorf("row %+v, want b back at %s", rows["b"], again)
	}
}

// testFeedResumes takes the token of every batch and expects all later rows
// after it.
func testFeedResumes(s *suite) {
	db := s.create()
	const n = 2500
	for i := 0; i < n; i += 500 {
		var writes []statedb.Write
		for j := i; j < i+500; j++ {
			writes = append(writes, statedb.Write{ID: fmt.Sprintf("id%05d", j), Body: []byte(`{}`)})
		}
		s.write(db, statedb.Bigchain, writes...)
	}
	feed, err := db.Changes(s.ctx, statedb.Bigchain, "")
	if err != nil {
		s.Fatal(err)
	}
	defer feed.Close()
	seen := map[string]bool{}
	batches := 0
	for {
		batch := s.next(feed)
		batches++
		for _, c := range batch.Changes {
			seen[c.ID] = true
		}
		after, _ := s.drain(db, statedb.Bigchain, batch.Token)
		together := len(seen)
		for id := range after {
			if !seen[id] {
				together++
			}
		}
		if together != n {
			s.Fatalf("%d rows up to token %s and those after it make %d, want %d", len(seen), batch.Token, together, n)
		}
		if batch.CaughtUp {
			break
		}
	}
	if len(seen) != n {
		s.Errorf("%d rows in %d batches, want %d", len(seen), batches, n)
	}
}

func testFeedFollows(s *suite) {
	db := s.create()
	feed, err := db.Changes(s.ctx, statedb.Votes, "")
	if err != nil {
		s.Fatal(err)
	}
	defer feed.Close()
	if batch := s.next(feed); len(batch.Changes) != 0 || !batch.CaughtUp {
		s.Fatalf("the first batch of an empty table is %+v, want empty and caught up", batch)
	}
	for i := range 20 {
		id := fmt.Sprintf("id%02d", i)
		written := make(chan error, 1)
		go func() {
			results, err := db.Write(s.ctx, statedb.Votes, []statedb.Write{{ID: id, Body: []byte(`{}`)}})
			if err == nil {
				err = results[0].Err
			}
			written <- err
		}()
		for found := false; !found; {
			for _, c := range s.next(feed).Changes {
				found = found || c.ID == id
			}
		}
		if err := <-written; err != nil {
			s.Fatal(err)
		}
		if s.get(db, statedb.Votes, id).Rev == "" {
			s.Fatalf("the feed told of %s, which is not there", id)
		}
	}
}

// testFeedMissesNothing has writers create, update, delete and remove while
// readers follow, each from its own tokens on. Every reader must end with the
// final state of every document that was not removed.
func testFeedMissesNothing(s *suite) {
	db := s.create()
	const writers, each, readers = 4, 150, 3
	final := make([]map[string]string, writers) // id to revision, "" deleted
	var writing sync.WaitGroup
	for w := range writers {
		final[w] = map[string]string{}
		writing.Go(func() {
			for i := range each {
				id := fmt.Sprintf("w%d-%04d", w, i)
				rev, ok := s.try(db, statedb.Write{ID: id, Body: []byte(`{"n":1}`)})
				if ok && i%3 == 1 {
					rev, ok = s.try(db, statedb.Write{ID: id, Rev: rev, Body: []byte(`{"n":2}`)})
				}
				if ok && i%5 == 2 {
					_, ok = s.try(db, statedb.Write{ID: id, Rev: rev, Delete: true})
					rev = ""
				}
				if !ok {
					return
				}
				if i%7 == 3 {
					if err := db.Remove(s.ctx, statedb.Backlog, []string{id}); err != nil {
						s.Errorf("Remove: %v", err)
						return
					}
					continue
				}
				final[w][id] = rev
			}
			s.try(db, statedb.Write{ID: fmt.Sprintf("end%d", w), Body: []byte(`{}`)})
		})
	}
	var reading sync.WaitGroup
	seen := make([]map[string]statedb.Change, readers)
	for r := range readers {
		seen[r] = map[string]statedb.Change{}
		reading.Go(func() { s.follow(db, seen[r], writers, r) })
	}
	writing.Wait()
	reading.Wait()
	for r := range readers {
		for w := range writers {
			for id, rev := range final[w] {
				c, ok := seen[r][id]
				if !ok || c.Deleted != (rev == "") || rev != "" && c.Rev != rev {
					s.Errorf("reader %d ended with %+v for %s, want revision %q", r, c, id, rev)
				}
			}
		}
	}
}

// try writes one document to the backlog from a goroutine.
func (s *suite) try(db statedb.DB, w statedb.Write) (rev string, ok bool) {
	results, err := db.Write(s.ctx, statedb.Backlog, []statedb.Write{w})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		s.Errorf("Write of %s: %v", w.ID, err)
		return "", false
	}
	return results[0].Rev, true
}

// follow reads until it has seen the end of every writer, and opens the feed
// anew after every so many batches.
func (s *suite) follow(db statedb.DB, seen map[string]statedb.Change, writers, reopenEvery int) {
	ctx, cancel := context.WithTimeout(s.ctx, 2*patience)
	defer cancel()
	token := ""
	var feed statedb.Feed
	for batches, ends := 0, 0; ends < writers; batches++ {
		if feed == nil || reopenEvery > 0 && batches%reopenEvery == 0 {
			if feed != nil {
				feed.Close()
			}
			var err error
			if feed, err = db.Changes(ctx, statedb.Backlog, token); err != nil {
				s.Errorf("Changes: %v", err)
				return
			}
		}
		batch, err := feed.Next(ctx)
		if err != nil {
			s.Errorf("Next: %v", err)
			return
		}
		for _, c := range batch.Changes {
			seen[c.ID] = c
		}
		token = batch.Token
		ends = 0
		for w := range writers {
			if _, ok := seen[fmt.Sprintf("end%d", w)]; ok {
				ends++
			}
		}
	}
	feed.Close()
}

func testFeedTokens(s *suite) {
	db := s.create()
	s.put(db, statedb.Votes, "a", `{}`)
	_, token := s.drain(db, statedb.Votes, "")
	_, err := db.Changes(s.ctx, statedb.Votes, "rubbish")
	s.wantErr(err, statedb.ErrBadToken, "a made-up token")
	if err := db.Drop(s.ctx); err != nil {
		s.Fatal(err)
	}
	if _, err := db.Create(s.ctx); err != nil {
		s.Fatal(err)
	}
	s.put(db, statedb.Votes, "b", `{}`)
	_, err = db.Changes(s.ctx, statedb.Votes, token)
	s.wantErr(err, statedb.ErrBadToken, "a token of a database that was dropped")
}

func testFeedEnds(s *suite) {
	db := s.create()
	s.put(db, statedb.Votes, "a", `{}`)
	open := func() statedb.Feed {
		feed, err := db.Changes(s.ctx, statedb.Votes, "")
		if err != nil {
			s.Fatal(err)
		}
		for !s.next(feed).CaughtUp {
		}
		return feed
	}
	waiting := func(ctx context.Context, feed statedb.Feed) <-chan error {
		ended := make(chan error, 1)
		go func() {
			_, err := feed.Next(ctx)
			ended <- err
		}()
		return ended
	}
	expect := func(what string, ended <-chan error, want error) {
		s.Helper()
		select {
		case err := <-ended:
			if !errors.Is(err, want) {
				s.Errorf("%s: Next returned %v, want %v", what, err, want)
			}
		case <-time.After(patience):
			s.Fatalf("%s: Next still waits", what)
		}
	}

	feed := open()
	ctx, cancel := context.WithCancel(s.ctx)
	ended := waiting(ctx, feed)
	cancel()
	expect("a cancelled context", ended, context.Canceled)
	if _, err := feed.Next(s.ctx); err == nil {
		s.Error("Next after an error succeeded")
	}

	feed = open()
	ended = waiting(s.ctx, feed)
	feed.Close()
	expect("a closed feed", ended, statedb.ErrClosed)

	feed = open()
	ended = waiting(s.ctx, feed)
	if err := db.Close(); err != nil {
		s.Fatal(err)
	}
	expect("a closed database", ended, statedb.ErrClosed)
	_, err := db.Get(s.ctx, statedb.Votes, []string{"a"})
	s.wantErr(err, statedb.ErrClosed, "Get from a closed database")
}
