package statedbtest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

func testLifecycle(s *suite) {
	db := s.open()
	defer db.Close()
	s.wantErr(db.Health(s.ctx), statedb.ErrNoDatabase, "Health before Create")
	s.wantErr(db.Drop(s.ctx), statedb.ErrNoDatabase, "Drop before Create")
	_, err := db.Get(s.ctx, statedb.Votes, []string{"a"})
	s.wantErr(err, statedb.ErrNoDatabase, "Get before Create")
	_, err = db.Write(s.ctx, statedb.Votes, []statedb.Write{{ID: "a", Body: []byte(`{}`)}})
	s.wantErr(err, statedb.ErrNoDatabase, "Write before Create")

	for i, want := range []bool{true, false} {
		created, err := db.Create(s.ctx)
		if err != nil || created != want {
			s.Fatalf("Create number %d = %v, %v; want %v", i+1, created, err, want)
		}
	}
	if err := db.Health(s.ctx); err != nil {
		s.Errorf("Health: %v", err)
	}
	s.put(db, statedb.Votes, "a", `{}`)
	if _, err := db.Create(s.ctx); err != nil {
		s.Fatal(err)
	}
	if s.get(db, statedb.Votes, "a").Rev == "" {
		s.Error("Create on an existing database lost a document")
	}
	limits := db.Limits()
	if limits.MaxBatch < 1 || limits.MaxDocumentBytes < 1 {
		s.Errorf("Limits = %+v", limits)
	}
	if err := db.Drop(s.ctx); err != nil {
		s.Fatalf("Drop: %v", err)
	}
	s.wantErr(db.Health(s.ctx), statedb.ErrNoDatabase, "Health after Drop")
}

func testDropAndCreateAgain(s *suite) {
	db := s.create()
	s.deploy(db, statedb.Votes, index("n", "n"))
	s.put(db, statedb.Votes, "a", `{"n":1}`)
	if err := db.Drop(s.ctx); err != nil {
		s.Fatal(err)
	}
	if created, err := db.Create(s.ctx); err != nil || !created {
		s.Fatalf("Create after Drop = %v, %v", created, err)
	}
	if rev := s.get(db, statedb.Votes, "a").Rev; rev != "" {
		s.Errorf("a document outlived Drop at revision %s", rev)
	}
	s.deploy(db, statedb.Votes, index("n", "n"))
	s.put(db, statedb.Votes, "b", `{"n":1}`)
	if got := s.find(db, statedb.Votes, statedb.Query{Selector: parse(`{"n":1}`), Limit: 10}); !slices.Equal(got, []string{"b"}) {
		s.Errorf("Find after Drop and Create = %v, want [b]", got)
	}
}

func testUnknownTable(s *suite) {
	db := s.create()
	_, err := db.Get(s.ctx, "nosuchtable", []string{"a"})
	s.wantErr(err, statedb.ErrNoDatabase, "Get from a table that is none")
}

func testTablesAreSeparate(s *suite) {
	db := s.create()
	for _, table := range statedb.Tables {
		s.put(db, table, "a", fmt.Sprintf(`{"table":%q}`, table))
	}
	if err := db.Remove(s.ctx, statedb.Backlog, []string{"a"}); err != nil {
		s.Fatal(err)
	}
	for _, table := range statedb.Tables[1:] {
		if got, want := string(s.get(db, table, "a").Body), fmt.Sprintf(`{"table":%q}`, table); got != want {
			s.Errorf("%s: %s, want %s", table, got, want)
		}
	}
}

func testConflicts(s *suite) {
	db := s.create()
	rev := s.put(db, statedb.Bigchain, "a", `{"n":1}`)[0]
	newer := s.write(db, statedb.Bigchain, statedb.Write{ID: "a", Rev: rev, Body: []byte(`{"n":2}`)})[0]
	if newer == rev {
		s.Errorf("an update kept the revision %s", rev)
	}
	conflict := func(what string, w statedb.Write) {
		s.Helper()
		results, err := db.Write(s.ctx, statedb.Bigchain, []statedb.Write{w})
		if err != nil || !errors.Is(results[0].Err, statedb.ErrConflict) {
			s.Errorf("%s: %v, %v; want ErrConflict", what, results, err)
		}
	}
	conflict("create of an existing document", statedb.Write{ID: "a", Body: []byte(`{"n":3}`)})
	conflict("create with the same body", statedb.Write{ID: "a", Body: []byte(`{"n":2}`)})
	conflict("update of an old revision", statedb.Write{ID: "a", Rev: rev, Body: []byte(`{"n":3}`)})
	conflict("update of a document that is not there", statedb.Write{ID: "b", Rev: rev, Body: []byte(`{}`)})
	conflict("delete of an old revision", statedb.Write{ID: "a", Rev: rev, Delete: true})
	conflict("delete without a revision", statedb.Write{ID: "a", Delete: true})
	conflict("delete of what is not there", statedb.Write{ID: "b", Rev: rev, Delete: true})
	if d := s.get(db, statedb.Bigchain, "a"); d.Rev != newer || string(d.Body) != `{"n":2}` {
		s.Errorf("after conflicts: %s at %s, want the update at %s", d.Body, d.Rev, newer)
	}

	s.write(db, statedb.Bigchain, statedb.Write{ID: "a", Rev: newer, Delete: true})
	if d := s.get(db, statedb.Bigchain, "a"); d.Rev != "" || len(d.Body) != 0 {
		s.Errorf("after a delete: %s at %q", d.Body, d.Rev)
	}
	conflict("update after a delete", statedb.Write{ID: "a", Rev: rev, Body: []byte(`{"n":3}`)})
	again := s.put(db, statedb.Bigchain, "a", `{"n":4}`)[0]
	if d := s.get(db, statedb.Bigchain, "a"); d.Rev != again || string(d.Body) != `{"n":4}` {
		s.Errorf("created again: %s at %s, want revision %s", d.Body, d.Rev, again)
	}
}

func testSameIDTwice(s *suite) {
	db := s.create()
	results, err := db.Write(s.ctx, statedb.Backlog, []statedb.Write{
		{ID: "a", Body: []byte(`{"n":1}`)},
		{ID: "b", Body: []byte(`{"n":2}`)},
		{ID: "a", Body: []byte(`{"n":3}`)},
	})
	if err != nil {
		s.Fatal(err)
	}
	if results[0].Err != nil || results[1].Err != nil || !errors.Is(results[2].Err, statedb.ErrConflict) {
		s.Errorf("results %v; want the third only to be a conflict", results)
	}
	if d := s.get(db, statedb.Backlog, "a"); string(d.Body) != `{"n":1}` || d.Rev != results[0].Rev {
		s.Errorf("%s at %s, want the first write", d.Body, d.Rev)
	}
}

func testPartOfABatchFails(s *suite) {
	db := s.create()
	s.put(db, statedb.Backlog, "id050", `{"old":true}`)
	var writes []statedb.Write
	for i := range 100 {
		writes = append(writes, statedb.Write{ID: fmt.Sprintf("id%03d", i), Body: []byte(fmt.Sprintf(`{"n":%d}`, i))})
	}
	writes[20].Body = []byte(`[1]`)
	results, err := db.Write(s.ctx, statedb.Backlog, writes)
	if err != nil {
		s.Fatal(err)
	}
	for i, r := range results {
		var want error
		switch i {
		case 20:
			want = statedb.ErrBadDocument
		case 50:
			want = statedb.ErrConflict
		}
		if !errors.Is(r.Err, want) {
			s.Errorf("write %d: %v, want %v", i, r.Err, want)
		}
		if there := s.get(db, statedb.Backlog, writes[i].ID).Rev != ""; there != (i != 20) {
			s.Errorf("document %d is there: %v", i, there)
		}
	}
}

func testBadDocuments(s *suite) {
	db := s.create()
	for _, w := range []statedb.Write{
		{ID: "", Body: []byte(`{}`)},
		{ID: "_design/x", Body: []byte(`{}`)},
		{ID: "a\x00b", Body: []byte(`{}`)},
		{ID: "a\xffb", Body: []byte(`{}`)},
		{ID: "a", Body: nil},
		{ID: "a", Body: []byte(`"text"`)},
		{ID: "a", Body: []byte(`{"a":`)},
		{ID: "a", Body: []byte(`{"a":1}x`)},
		{ID: "a", Body: []byte(`{"_id":"b"}`)},
		{ID: "a", Body: []byte(`{"_rev":"1-a"}`)},
	} {
		results, err := db.Write(s.ctx, statedb.Votes, []statedb.Write{w})
		if err != nil || !errors.Is(results[0].Err, statedb.ErrBadDocument) {
			s.Errorf("Write of %q under %q: %v, %v; want ErrBadDocument", w.Body, w.ID, results, err)
		}
	}
}

func testTooLarge(s *suite) {
	db := s.create()
	body := func(size int) []byte {
		const frame = len(`{"a":""}`)
		return []byte(`{"a":"` + strings.Repeat("x", size-frame) + `"}`)
	}
	limit := db.Limits().MaxDocumentBytes
	results, err := db.Write(s.ctx, statedb.Votes, []statedb.Write{
		{ID: "small", Body: body(100)},
		{ID: "over", Body: body(limit + 1)},
	})
	if err != nil || results[0].Err != nil || !errors.Is(results[1].Err, statedb.ErrTooLarge) {
		s.Errorf("%v, %v; want the second to be ErrTooLarge", results, err)
	}
	large := body(limit / 2)
	s.write(db, statedb.Votes, statedb.Write{ID: "large", Body: large})
	if got := s.get(db, statedb.Votes, "large").Body; !bytes.Equal(got, large) {
		s.Errorf("a document of %d bytes came back with %d", len(large), len(got))
	}
}

func testLargeBatches(s *suite) {
	db := s.create()
	n := min(db.Limits().MaxBatch, 1000)
	var writes []statedb.Write
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("id%05d", i))
		writes = append(writes, statedb.Write{ID: ids[i], Body: []byte(fmt.Sprintf(`{"n":%d,"pad":%q}`, i, strings.Repeat("p", 1000)))})
	}
	revs := s.write(db, statedb.Transactions, writes...)
	documents, err := db.Get(s.ctx, statedb.Transactions, ids)
	if err != nil {
		s.Fatal(err)
	}
	for i, d := range documents {
		if d.ID != ids[i] || d.Rev != revs[i] || !bytes.Equal(d.Body, writes[i].Body) {
			s.Fatalf("document %d: %s at %s", i, d.ID, d.Rev)
		}
	}
	if results, err := db.Write(s.ctx, statedb.Transactions, nil); err != nil || len(results) != 0 {
		s.Errorf("Write of nothing = %v, %v", results, err)
	}
	if err := db.Remove(s.ctx, statedb.Transactions, ids); err != nil {
		s.Fatal(err)
	}
	documents, err = db.Get(s.ctx, statedb.Transactions, ids)
	if err != nil {
		s.Fatal(err)
	}
	for _, d := range documents {
		if d.Rev != "" {
			s.Fatalf("%s is there after Remove", d.ID)
		}
	}
}

func testRemove(s *suite) {
	db := s.create()
	s.deploy(db, statedb.Backlog, index("n", "n"))
	rev := s.put(db, statedb.Backlog, "a", `{"n":1}`, "b", `{"n":1}`, "c", `{"n":1}`)[0]
	s.write(db, statedb.Backlog, statedb.Write{ID: "a", Rev: rev, Body: []byte(`{"n":1,"m":2}`)})
	if err := db.Remove(s.ctx, statedb.Backlog, []string{"a", "nothing", "c", "a"}); err != nil {
		s.Fatal(err)
	}
	if err := db.Remove(s.ctx, statedb.Backlog, []string{"a", "c"}); err != nil {
		s.Errorf("Remove of what is gone: %v", err)
	}
	if err := db.Remove(s.ctx, statedb.Backlog, nil); err != nil {
		s.Errorf("Remove of nothing: %v", err)
	}
	if s.get(db, statedb.Backlog, "a").Rev != "" || s.get(db, statedb.Backlog, "b").Rev == "" {
		s.Error("Remove took the wrong documents")
	}
	if got := s.find(db, statedb.Backlog, statedb.Query{Selector: parse(`{"n":1}`), Limit: 5}); !slices.Equal(got, []string{"b"}) {
		s.Errorf("Find after Remove = %v, want [b]", got)
	}
	s.put(db, statedb.Backlog, "a", `{"n":1}`)
	if got := s.find(db, statedb.Backlog, statedb.Query{Selector: parse(`{"n":1}`), Limit: 5}); !same(got, []string{"a", "b"}) {
		s.Errorf("Find after creating again = %v, want a and b", got)
	}
}

func testGetKeepsOrder(s *suite) {
	db := s.create()
	s.put(db, statedb.Votes, "a", `{"n":1}`, "b", `{"n":2}`, "c", `{"n":3}`)
	ids := []string{"c", "none", "a", "c", "_odd", "b"}
	documents, err := db.Get(s.ctx, statedb.Votes, ids)
	if err != nil {
		s.Fatal(err)
	}
	if len(documents) != len(ids) {
		s.Fatalf("Get of %d ids gave %d documents", len(ids), len(documents))
	}
	for i, body := range []string{`{"n":3}`, "", `{"n":1}`, `{"n":3}`, "", `{"n":2}`} {
		d := documents[i]
		if d.ID != ids[i] || string(d.Body) != body || (d.Rev == "") != (body == "") {
			s.Errorf("element %d is %s %s at %q, want %s %s", i, d.ID, d.Body, d.Rev, ids[i], body)
		}
	}
	if documents, err := db.Get(s.ctx, statedb.Votes, nil); err != nil || len(documents) != 0 {
		s.Errorf("Get of nothing = %v, %v", documents, err)
	}
}

func testExactBodies(s *suite) {
	db := s.create()
	for i, text := range []string{
		`{}`,
		`{"":{"":[]}}`,
		`{"a":[1,"x",null,true,false,[],{}]}`,
		`{"n":9007199254740993}`,
		`{"n":-9223372036854775809}`,
		`{"n":123456789012345678901234567890123456789012345678901234567890}`,
		`{"n":1.0}`,
		`{"n":0.1}`,
		`{"n":1.7976931348623157e308}`,
		`{"n":-0.0}`,
		`{"n":5e-324}`,
		`{"s":"quote \" backslash \\ newline \n nul \u0000 slash /"}`,
		`{"s":"ünïcödé 漢字 😀 \u001F"}`,
		`{"ключ":{"鍵":"値"}}`,
		`{"a.b":{"$c":1}}`,
	} {
		body := parse(text)
		if err := db.Check(body); err != nil {
			var unsupported *statedb.UnsupportedError
			if !errors.As(err, &unsupported) || unsupported.Path == "" {
				s.Errorf("Check of %s: %v, want an *UnsupportedError with a path", text, err)
			}
			continue
		}
		id := fmt.Sprintf("body%02d", i)
		s.write(db, statedb.Votes, statedb.Write{ID: id, Body: body.Bytes()})
		got, err := canonical.Parse(s.get(db, statedb.Votes, id).Body)
		if err != nil || !canonical.Equal(got, body) {
			s.Errorf("%s came back as %s, %v", text, got.Bytes(), err)
		}
		found := s.findDocuments(db, statedb.Votes, statedb.Query{Selector: parse(fmt.Sprintf(`{"_id":%q}`, id)), Limit: 2})
		if len(found) != 1 || !bytes.Equal(found[0].Body, body.Bytes()) {
			s.Errorf("Find of %s = %v", text, found)
		}
	}
}

func testUnicodeIDs(s *suite) {
	db := s.create()
	ids := []string{"ü", "漢字", "😀", "a b/c?d=e&f#g%h+i", `"quoted"`, `back\slash`, "new\nline", "é", "e\u0301",
		strings.Repeat("x", cmp.Or(s.opts.LongestID, 200))}
	for _, id := range ids {
		s.put(db, statedb.Votes, id, fmt.Sprintf(`{"id":%s}`, canonical.StringOf(id).Bytes()))
	}
	documents, err := db.Get(s.ctx, statedb.Votes, ids)
	if err != nil {
		s.Fatal(err)
	}
	for i, d := range documents {
		if got, _ := parse(string(d.Body)).Get("id"); got.Text() != ids[i] {
			s.Errorf("%q holds %s", ids[i], d.Body)
		}
	}
	page, err := db.Range(s.ctx, statedb.Votes, statedb.Range{Limit: 100})
	if err != nil {
		s.Fatal(err)
	}
	var got []string
	for _, d := range page.Documents {
		got = append(got, d.ID)
	}
	if !same(got, ids) {
		s.Errorf("Range found %q, want %q", got, ids)
	}
	if err := db.Remove(s.ctx, statedb.Votes, ids); err != nil {
		s.Fatal(err)
	}
	if page, err := db.Range(s.ctx, statedb.Votes, statedb.Range{Limit: 1}); err != nil || len(page.Documents) != 0 {
		s.Errorf("after Remove: %v, %v", page, err)
	}
}

func testRangePages(s *suite) {
	db := s.create()
	var all []string
	for i := range 57 {
		all = append(all, fmt.Sprintf("k%03d", i))
		s.put(db, statedb.Bigchain, all[i], fmt.Sprintf(`{"n":%d}`, i))
	}
	rev := s.get(db, statedb.Bigchain, "k010").Rev
	s.write(db, statedb.Bigchain, statedb.Write{ID: "k010", Rev: rev, Delete: true})
	all = slices.Delete(all, 10, 11)
	for _, test := range []struct {
		r    statedb.Range
		want []string
	}{
		{statedb.Range{Limit: 100}, all},
		{statedb.Range{Limit: 7}, all},
		{statedb.Range{Limit: 56}, all},
		{statedb.Range{Limit: 1, Start: "k054"}, all[53:]},
		{statedb.Range{Limit: 3, End: "k005"}, all[:5]},
		{statedb.Range{Limit: 3, Start: "k005", End: "k012"}, all[5:11]},
		{statedb.Range{Limit: 3, Start: "k0055", End: "k0075"}, all[6:8]},
		{statedb.Range{Limit: 3, Start: "k012", End: "k012"}, nil},
		{statedb.Range{Limit: 3, Start: "k020", End: "k012"}, nil},
		{statedb.Range{Limit: 3, Start: "l"}, nil},
	} {
		var got []string
		r := test.r
		for {
			page, err := db.Range(s.ctx, statedb.Bigchain, r)
			if err != nil {
				s.Fatalf("Range %+v: %v", r, err)
			}
			if len(page.Documents) > r.Limit {
				s.Fatalf("Range %+v gave %d documents", r, len(page.Documents))
			}
			for _, d := range page.Documents {
				if want := s.get(db, statedb.Bigchain, d.ID); d.Rev != want.Rev || !bytes.Equal(d.Body, want.Body) {
					s.Errorf("Range has %s at %s as %s", d.ID, d.Rev, d.Body)
				}
				got = append(got, d.ID)
			}
			if page.Bookmark == "" {
				break
			}
			r.Bookmark = page.Bookmark
		}
		if !slices.Equal(got, test.want) {
			s.Errorf("Range %+v = %v, want %v", test.r, got, test.want)
		}
	}
	_, err := db.Range(s.ctx, statedb.Bigchain, statedb.Range{Limit: 3, Bookmark: "rubbish"})
	s.wantErr(err, statedb.ErrBadBookmark, "Range with a made-up bookmark")
	_, err = db.Range(s.ctx, statedb.Bigchain, statedb.Range{})
	s.wantErr(err, statedb.ErrBadQuery, "Range without a limit")
}

// testNoLostUpdates counts in one document from many goroutines.
func testNoLostUpdates(s *suite) {
	db := s.create()
	s.put(db, statedb.Votes, "counter", `{"n":0}`)
	const workers, each = 4, 10
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				documents, err := db.Get(s.ctx, statedb.Votes, []string{"counter"})
				if err != nil {
					s.Errorf("Get: %v", err)
					return
				}
				n, _ := parse(string(documents[0].Body)).Get("n")
				count, _ := n.Int64()
				results, err := db.Write(s.ctx, statedb.Votes, []statedb.Write{{
					ID: "counter", Rev: documents[0].Rev, Body: []byte(fmt.Sprintf(`{"n":%d}`, count+1)),
				}})
				if err != nil {
					s.Errorf("Write: %v", err)
					return
				}
				if results[0].Err == nil {
					done++
				} else if !errors.Is(results[0].Err, statedb.ErrConflict) {
					s.Errorf("Write: %v", results[0].Err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, want := string(s.get(db, statedb.Votes, "counter").Body), fmt.Sprintf(`{"n":%d}`, workers*each); got != want {
		s.Errorf("counted %s, want %s", got, want)
	}
}

func testDurable(s *suite) {
	if s.opts.Reopen == nil {
		s.Skip("the adapter cannot be reopened")
	}
	db := s.open()
	if _, err := db.Create(s.ctx); err != nil {
		s.Fatal(err)
	}
	s.deploy(db, statedb.Votes, index("n", "n"))
	revs := s.put(db, statedb.Votes, "a", `{"n":1}`, "b", `{"n":2}`, "c", `{"n":3}`)
	s.write(db, statedb.Votes, statedb.Write{ID: "b", Rev: revs[1], Delete: true})
	_, token := s.drain(db, statedb.Votes, "")
	db = s.opts.Reopen(s.T, db)
	defer db.Close()
	if d := s.get(db, statedb.Votes, "a"); d.Rev != revs[0] || string(d.Body) != `{"n":1}` {
		s.Errorf("after reopening: %s at %s", d.Body, d.Rev)
	}
	if s.get(db, statedb.Votes, "b").Rev != "" {
		s.Error("a deleted document is back after reopening")
	}
	if plan, err := db.Explain(s.ctx, statedb.Votes, statedb.Query{Selector: parse(`{"n":3}`), Limit: 1}); err != nil || plan.Index != "n" {
		s.Errorf("Explain after reopening = %+v, %v; want the index n", plan, err)
	}
	if created, err := db.Create(s.ctx); err != nil || created {
		s.Errorf("Create after reopening = %v, %v", created, err)
	}
	s.put(db, statedb.Votes, "d", `{"n":4}`)
	rows, _ := s.drain(db, statedb.Votes, token)
	if _, ok := rows["d"]; !ok {
		s.Errorf("the feed resumed after reopening lacks a later change: %v", rows)
	}
	if err := db.Drop(s.ctx); err != nil {
		s.Error(err)
	}
}
