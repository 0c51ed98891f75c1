package statedbtest

import (
	"fmt"
	"slices"

	"github.com/couchledger/couchledger/statedb"
)

func testForeignBookmark(s *suite) {
	db := s.create()
	s.deploy(db, statedb.Votes, index("n", "n"))
	for i := range 10 {
		s.put(db, statedb.Votes, fmt.Sprintf("id%d", i), fmt.Sprintf(`{"n":%d,"m":1}`, i))
	}
	s.put(db, statedb.Bigchain, "a", `{"n":1}`, "b", `{"n":2}`, "c", `{"n":3}`)
	queries := []statedb.Query{
		{Selector: parse(`{"n":{"$gt":1}}`)},
		{Selector: parse(`{"n":{"$gt":2}}`)},
		{Selector: parse(`{"n":{"$gt":1}}`), Sort: order("n")},
		{Selector: parse(`{"n":{"$gt":1}}`), Sort: order("-n")},
		{Selector: parse(`{"m":1}`)},
		{Selector: parse(`{}`)},
	}
	for i, q := range queries {
		q.Limit = 2
		page, err := db.Find(s.ctx, statedb.Votes, q)
		if err != nil || page.Bookmark == "" {
			s.Fatalf("query %d: %v, bookmark %q", i, err, page.Bookmark)
		}
		for j, other := range queries {
			if i == j {
				continue
			}
			other.Limit, other.Bookmark = 2, page.Bookmark
			_, err := db.Find(s.ctx, statedb.Votes, other)
			s.wantErr(err, statedb.ErrBadBookmark, "the bookmark of query %d with query %d", i, j)
		}
		q.Bookmark = page.Bookmark
		_, err = db.Find(s.ctx, statedb.Bigchain, q)
		s.wantErr(err, statedb.ErrBadBookmark, "the bookmark of query %d with another table", i)
		for _, bad := range []string{"x", "rubbish", page.Bookmark + "AAAA", page.Bookmark[:len(page.Bookmark)/2]} {
			q.Bookmark = bad
			_, err := db.Find(s.ctx, statedb.Votes, q)
			s.wantErr(err, statedb.ErrBadBookmark, "the bookmark %q with query %d", bad, i)
		}
	}
}

// testBookmarksUnderChange pages over documents that stay while others come
// and go and are changed between the pages, around the very rows where pages
// end: what stays is found once, in order.
func testBookmarksUnderChange(s *suite) {
	for _, sort := range [][]statedb.SortField{nil, order("n"), order("-n")} {
		for _, limit := range []int{1, 3} {
			s.pageUnderChange(sort, limit)
		}
	}
}

func (s *suite) pageUnderChange(sort []statedb.SortField, limit int) {
	db := s.create()
	s.deploy(db, statedb.Votes, index("n", "n"))
	revs := map[string]string{}
	var stay []string
	const n = 30
	for i := range n {
		id := fmt.Sprintf("doc%03d", i)
		revs[id] = s.put(db, statedb.Votes, id, fmt.Sprintf(`{"n":%d}`, i*10))[0]
		if i%3 != 1 {
			stay = append(stay, id)
		}
	}
	if len(sort) > 0 && sort[0].Descending {
		slices.Reverse(stay)
	}
	q := statedb.Query{Selector: parse(`{"n":{"$gte":0}}`), Sort: sort, Limit: limit}
	var got []string
	for round := 0; ; round++ {
		page, err := db.Find(s.ctx, statedb.Votes, q)
		if err != nil {
			s.Fatal(err)
		}
		for _, d := range page.Documents {
			got = append(got, d.ID)
		}
		if page.Bookmark == "" {
			break
		}
		q.Bookmark = page.Bookmark
		last := got[len(got)-1]
		var i int
		fmt.Sscanf(last, "doc%03d", &i)
		for j := max(0, i-1); j < min(n, i+2); j++ {
			id := fmt.Sprintf("doc%03d", j)
			switch {
			case revs[id] == "":
			case j%3 == 1 && round%2 == 0:
				s.write(db, statedb.Votes, statedb.Write{ID: id, Rev: revs[id], Delete: true})
				revs[id] = ""
			case j%3 == 1:
				if err := db.Remove(s.ctx, statedb.Votes, []string{id}); err != nil {
					s.Fatal(err)
				}
				revs[id] = ""
			default: // its key stays
				revs[id] = s.write(db, statedb.Votes, statedb.Write{
					ID: id, Rev: revs[id], Body: []byte(fmt.Sprintf(`{"n":%d,"round":%d}`, j*10, round)),
				})[0]
			}
		}
		// newcomers before, at and behind the place where the page ended
		s.put(db, statedb.Votes,
			fmt.Sprintf("new%03da", round), fmt.Sprintf(`{"n":%d}`, i*10-1),
			fmt.Sprintf("new%03db", round), fmt.Sprintf(`{"n":%d}`, i*10),
			fmt.Sprintf("new%03dc", round), fmt.Sprintf(`{"n":%d}`, i*10+1))
		// The pages must end although documents keep coming.
		if round > 2*n {
			for r := range round + 1 {
				if err := db.Remove(s.ctx, statedb.Votes, []string{
					fmt.Sprintf("new%03da", r), fmt.Sprintf("new%03db", r), fmt.Sprintf("new%03dc", r),
				}); err != nil {
					s.Fatal(err)
				}
			}
		}
	}
	counts := map[string]int{}
	kept := []string{}
	for _, id := range got {
		counts[id]++
		if slices.Contains(stay, id) {
			kept = append(kept, id)
		}
	}
	if len(sort) > 0 && !slices.Equal(kept, stay) || !same(kept, stay) {
		s.Errorf("sort %v, limit %d: the documents that stayed came as %v, want %v", sort, limit, kept, stay)
	}
	for id, count := range counts {
		if count > 1 {
			s.Errorf("sort %v, limit %d: %s came %d times", sort, limit, id, count)
		}
	}
}
