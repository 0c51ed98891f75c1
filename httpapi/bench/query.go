package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

const (
	queryPage = 100
	// farPage is the page that is compared with the first.
	farPage = 1000
)

// askCreates asks for a page of all CREATEs by a packaged index.
func askCreates(bookmark string) (question, error) {
	body, err := json.Marshal(map[string]any{
		"table": "transactions", "selector": map[string]string{"operation": "CREATE"}, "use_index": "by_operation",
		"limit": queryPage, "bookmark": bookmark,
	})
	return question{http.MethodPost, "/api/v1/query", body}, err
}

// query compares the first page of a query that an index serves with the
// thousandth, which takes 100,000 CREATEs on the ledger. With fewer it takes
// the last full page and judges nothing.
func (r *run) query(ctx context.Context, report *Report) error {
	first, err := askCreates("")
	if err != nil {
		return err
	}
	far, page, err := r.walk(ctx, first)
	if err != nil {
		return err
	}
	near, deep, err := r.compare(ctx, "pages of a query", first, far, queryPage)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("Query, page %d", page)
	goal := r.goals.query
	if page < farPage {
		name += " (there are no more)"
		goal = 0
	}
	report.add(Figure{Name: "Query, page 1, median", Value: milliseconds(near), Unit: "ms"})
	report.add(Figure{Name: name + ", median", Value: milliseconds(deep), Unit: "ms"})
	report.add(atMost(name+" / page 1", quotient(deep, near), "×", goal))
	return nil
}

// walk follows a query's bookmarks to farPage, or to the last full page, and
// gives the question that is answered with that one.
func (r *run) walk(ctx context.Context, first question) (far question, page int, err error) {
	w, err := r.dial()
	if err != nil {
		return far, 0, err
	}
	defer w.close()
	r.progress.start("walking through a query", farPage)
	var sizes [2]int // of the first page and the last one read, in bytes
	for next := first; page < farPage; {
		resp, _, err := r.ask(ctx, w, next.method, next.path, next.body)
		if err != nil || resp.status != http.StatusOK {
			return far, 0, errors.New("bench: reading pages of a query: " + failure(resp, err))
		}
		var answer struct {
			Docs     []json.RawMessage
			Bookmark string
			Warning  string
		}
		if err := json.Unmarshal(resp.body, &answer); err != nil {
			return far, 0, fmt.Errorf("bench: reading pages of a query: %w", err)
		}
		if answer.Warning != "" {
			return far, 0, errors.New("bench: the query uses no index: " + answer.Warning)
		}
		if len(answer.Docs) < queryPage {
			break
		}
		far, page = next, page+1
		if sizes[1] = len(resp.body); page == 1 {
			sizes[0] = sizes[1]
		}
		r.progress.at(page)
		if answer.Bookmark == "" {
			break
		}
		if next, err = askCreates(answer.Bookmark); err != nil {
			return far, 0, err
		}
		if ctx.Err() != nil {
			return far, 0, fmt.Errorf("bench: %w", ctx.Err())
		}
	}
	r.progress.finish(page)
	if page == 0 {
		return far, 0, fmt.Errorf("bench: not even one page of %d CREATEs", queryPage)
	}
	// A ledger with other CREATEs than the load's compares documents, not pages.
	if tenth := sizes[0] / 10; sizes[1] < sizes[0]-tenth || sizes[1] > sizes[0]+tenth {
		r.fail("pages of a query differ in size by more than a tenth: use a fresh ledger")
	}
	return far, page, nil
}
