package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
)

// Query asks for documents of a table: by a Mango Selector, or those with
// StartKey <= id < EndKey.
type Query struct {
	Table    string   `json:"table"`              // transactions, bigchain, votes or backlog
	Selector any      `json:"selector,omitempty"` // anything that encodes to a JSON object
	Sort     []Sort   `json:"sort,omitempty"`
	Fields   []string `json:"fields,omitempty"` // dotted paths to keep; empty keeps all
	UseIndex string   `json:"use_index,omitempty"`
	StartKey *string  `json:"start_key,omitempty"`
	EndKey   *string  `json:"end_key,omitempty"`
	Limit    int      `json:"limit,omitempty"`    // rows of a page; 0 is the client's page size
	Bookmark string   `json:"bookmark,omitempty"` // of the page before, "" for the first
}

// Sort is one field to sort by, as a dotted path. All of a query's have one
// direction, and some index must give the order.
type Sort struct {
	Field      string
	Descending bool
}

// MarshalJSON gives {"<field>": "asc" or "desc"}.
func (s Sort) MarshalJSON() ([]byte, error) {
	direction := "asc"
	if s.Descending {
		direction = "desc"
	}
	return json.Marshal(map[string]string{s.Field: direction})
}

// QueryPage is one page of what a query finds. It may be shorter than the
// limit, even empty, though others follow.
type QueryPage struct {
	Docs     []json.RawMessage
	Bookmark string // of the next page; "" when this was the last
	Warning  string // that the node read the whole table, or ""
}

// QueryPlan tells how a node answers a query.
type QueryPlan struct {
	Index *struct { // nil where none is used
		Name   string
		Fields []string
	}
	Covering     string   // what the index serves, in one sentence
	Scan         bool     // the whole table is read
	IndexAdvised []string `json:"index_advised"` // fields of an index that would spare the scan
}

// QueryPage fetches the page of q that begins at its Bookmark.
func (c *Client) QueryPage(ctx context.Context, q Query) (QueryPage, error) {
	if q.Limit == 0 {
		q.Limit = c.page
	}
	var page QueryPage
	err := c.ask(ctx, "/api/v1/query", q, &page)
	return page, err
}

// Query iterates over all documents that q asks for, from its Bookmark on, page
// by page. An error ends the iteration.
func (c *Client) Query(ctx context.Context, q Query) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for {
			page, err := c.QueryPage(ctx, q)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, doc := range page.Docs {
				if !yield(doc, nil) {
					return
				}
			}
			if q.Bookmark = page.Bookmark; q.Bookmark == "" {
				return
			}
		}
	}
}

// Explain tells how the node would answer q.
func (c *Client) Explain(ctx context.Context, q Query) (QueryPlan, error) {
	var plan QueryPlan
	err := c.ask(ctx, "/api/v1/query/explain", q, &plan)
	return plan, err
}

// ask posts q and reads the answer.
func (c *Client) ask(ctx context.Context, path string, q Query, answer any) error {
	text, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("client: the query: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+path, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.send(req)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return readError(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return fmt.Errorf("client: reading the answer to %s: %w", path, err)
	}
	if len(body) > maxBody {
		return fmt.Errorf("client: the answer to %s has more than %d bytes", path, maxBody)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("client: the answer to %s: %w", path, err)
	}
	return nil
}
