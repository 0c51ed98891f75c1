package client_test

import (
	"errors"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/httpapi/client"
	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// TestRange reads documents page by page, as from a database.
func TestRange(t *testing.T) {
	n := fakenode.New()
	c := serve(t, n)
	want := map[string]string{}
	for i := range 5 {
		tx, err := n.Submit(t.Context(), fakenode.CreateTx("4K9sWUMFwTgaDGPfdynrbxWqWS6sWmKbZoTjxLtVUibD", i, 1))
		if err != nil {
			t.Fatal(err)
		}
		want[tx.ID] = string(tx.Bytes())
	}
	read := func(r statedb.Range) (ids []string) {
		for {
			page, err := c.Range(t.Context(), statedb.Transactions, r)
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Documents) > r.Limit {
				t.Errorf("a page of %d has %d documents", r.Limit, len(page.Documents))
			}
			for _, d := range page.Documents {
				if string(d.Body) != want[d.ID] {
					t.Errorf("document %s is %s, want %s", d.ID, d.Body, want[d.ID])
				}
				ids = append(ids, d.ID)
			}
			if r.Bookmark = page.Bookmark; r.Bookmark == "" {
				return ids
			}
		}
	}
	all := read(statedb.Range{Limit: 2})
	if len(all) != 5 {
		t.Fatalf("got %d documents, want 5", len(all))
	}
	if part := read(statedb.Range{Start: all[1], End: all[3], Limit: 1}); len(part) != 2 || part[0] != all[1] {
		t.Errorf("got %v, want %v", part, all[1:3])
	}

	fault := error(node.ErrNotReady)
	n.Hook = func(string, string) error { return fault }
	if _, err := c.Range(t.Context(), statedb.Votes, statedb.Range{Limit: 1}); !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("of a node that is not ready: got %v", err)
	}
	fault = ledger.Invalid(ledger.AmountError, "why not")
	if _, err := c.Range(t.Context(), statedb.Votes, statedb.Range{Limit: 1}); err == nil || errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("of a query that is refused: got %v", err)
	}
	away, err := client.New("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := away.Range(t.Context(), statedb.Votes, statedb.Range{Limit: 1}); !errors.Is(err, statedb.ErrUnavailable) {
		t.Errorf("of nobody: got %v", err)
	}
}

// TestRangeRows reads rows that another server may print otherwise.
func TestRangeRows(t *testing.T) {
	for row, want := range map[string]string{
		`{"_id":"a","b":1}`:          "a",
		`{ "b":1, "_id" : "a" }`:     "a",
		`{"_id":"a\"b","b":1}`:       `a"b`,
		`{"_id":"a\\","b":1}`:        `a\`,
		`{"_id":"","b":1}`:           "",
		`{"_id":"x\u0041","b":1}`:    "xA",
		`{"_id":"\",\"c\":1","b":1}`: `","c":1`,
	} {
		d, err := client.DocumentOf([]byte(row))
		if err != nil || d.ID != want {
			t.Errorf("%s: got id %q, %v, want %q", row, d.ID, err, want)
		}
		if tree, err := canonical.Parse(d.Body); err != nil || string(tree.Bytes()) != `{"b":1}` {
			t.Errorf("%s: got %s, %v", row, d.Body, err)
		}
	}
	for _, row := range []string{`{"b":1}`, `{"_id":1}`, `[]`, `{"_id":"a"`, `{"_id":"a"}x`} {
		if d, err := client.DocumentOf([]byte(row)); err == nil {
			t.Errorf("%s: got %+v, want an error", row, d)
		}
	}
}
