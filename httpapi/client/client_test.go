package client_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/httpapi"
	"github.com/couchledger/couchledger/httpapi/client"
	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
)

const noID = "04c00267af82c161b4bf2ad4a47d1ddbfeb47eef1a14b8d51f37d6ee00ea5cdd"

func serve(t *testing.T, n *fakenode.Node) *client.Client {
	t.Helper()
	s := httpapi.New(n, httpapi.Options{Logger: slog.New(slog.DiscardHandler)})
	ts := httptest.NewServer(s)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		ts.Close()
	})
	c, err := client.New(ts.URL+"/", client.WithHTTPClient(ts.Client()), client.WithPageSize(2))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func collect[T any](t *testing.T, rows iter.Seq2[T, error]) []T {
	t.Helper()
	var list []T
	for row, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, row)
	}
	return list
}

func wantStatus(t *testing.T, err error, status int, message string) {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) || e.Status != status || message != "" && e.Message != message {
		t.Errorf("got error %v, want status %d %s", err, status, message)
	}
}

// TestDriver creates, transfers and reads an asset back.
func TestDriver(t *testing.T) {
	ctx := t.Context()
	n := fakenode.New()
	c := serve(t, n)
	stream, err := c.Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	alice, bob := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	create, err := ledger.NewCreate([]ledger.KeyPair{alice}, canonical.Value{}, canonical.Value{},
		ledger.PayTo(alice.Public, 1), ledger.PayTo(alice.Public, 2), ledger.PayTo(alice.Public, 3))
	if err != nil {
		t.Fatal(err)
	}
	if valid, err := c.Post(ctx, create, client.Async); valid || err != nil {
		t.Fatalf("Post: %v, %v", valid, err)
	}
	transfer, err := ledger.NewTransfer(create.ID, []ledger.Source{ledger.SourceOf(create, 1)}, canonical.Value{},
		[]ledger.Payment{ledger.PayTo(bob.Public, 2)}, alice)
	if err != nil {
		t.Fatal(err)
	}
	if valid, err := c.Post(ctx, transfer, client.Commit); !valid || err != nil {
		t.Fatalf("Post and commit: %v, %v", valid, err)
	}
	for _, want := range []*ledger.Transaction{create, transfer} {
		event, err := stream.Next(ctx)
		if err != nil || event.TxID != want.ID || event.AssetID != create.ID {
			t.Errorf("got event %+v, %v, want %s of %s", event, err, want.ID, create.ID)
		}
		got, err := c.Transaction(ctx, want.ID)
		if err != nil || !got.SameBody(want) {
			t.Errorf("Transaction: %v", err)
		}
		if status, err := c.Status(ctx, want.ID); status != "valid" || err != nil {
			t.Errorf("got status %q, %v", status, err)
		}
		blocks := collect(t, c.Blocks(ctx, want.ID, "VALID"))
		if len(blocks) != 1 || blocks[0] != event.BlockID {
			t.Fatalf("got blocks %v, want %s", blocks, event.BlockID)
		}
		block, err := c.Block(ctx, blocks[0])
		if err != nil || block.Verify() != nil || !block.Transactions[0].SameBody(want) {
			t.Errorf("Block: %v", err)
		}
		if status, err := c.BlockStatus(ctx, blocks[0]); status != "valid" || err != nil {
			t.Errorf("got block status %q, %v", status, err)
		}
		votes := collect(t, c.Votes(ctx, blocks[0]))
		if len(votes) != 1 || !votes[0].Verify() || !votes[0].Valid {
			t.Errorf("got votes %+v", votes)
		}
	}
	if err := stream.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	ref := func(i int) ledger.OutputRef { return ledger.OutputRef{TxID: create.ID, Index: i} }
	if got, want := collect(t, c.Outputs(ctx, alice.Public, false)), []ledger.OutputRef{ref(0), ref(1), ref(2)}; !slices.Equal(got, want) {
		t.Errorf("got outputs %v, want %v", got, want)
	}
	if got, want := collect(t, c.Outputs(ctx, alice.Public, true)), []ledger.OutputRef{ref(0), ref(2)}; !slices.Equal(got, want) {
		t.Errorf("got unspent outputs %v, want %v", got, want)
	}
	for operation, want := range map[ledger.Operation]int{"": 2, ledger.Create: 1, ledger.Transfer: 1} {
		if got := collect(t, c.AssetTransactions(ctx, create.ID, operation)); len(got) != want {
			t.Errorf("operation %q: got %d transactions, want %d", operation, len(got), want)
		}
	}
}

func TestErrors(t *testing.T) {
	ctx := t.Context()
	n := fakenode.New()
	n.Retry = 3 * time.Second
	var fault error
	n.Hook = func(string, string) error { return fault }
	c := serve(t, n)
	create, err := ledger.NewCreate([]ledger.KeyPair{ledger.GenerateKeyPair()}, canonical.Value{}, canonical.Value{}, ledger.PayTo(n.PublicKey(), 1))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Status(ctx, noID)
	wantStatus(t, err, 404, "")
	_, err = c.Transaction(ctx, "../../x?y")
	wantStatus(t, err, 404, "")
	for _, err := range c.Outputs(ctx, "nobody", false) {
		wantStatus(t, err, 400, "")
	}
	_, err = c.Post(ctx, create, "sometime")
	wantStatus(t, err, 400, "")

	fault = ledger.Invalid(ledger.AmountError, "why not")
	_, err = c.Post(ctx, create, client.Async)
	wantStatus(t, err, 400, "Invalid transaction (AmountError): why not")
	fault = fmt.Errorf("wrapped: %w", node.ErrBusy)
	_, err = c.Post(ctx, create, client.Async)
	wantStatus(t, err, 503, "")
	var e *client.Error
	if errors.As(err, &e) && e.RetryAfter != 3*time.Second {
		t.Errorf("got RetryAfter %v, want 3s", e.RetryAfter)
	}
	for _, bad := range []string{"", "localhost:9984", "ftp://x", "http://", "://"} {
		if _, err := client.New(bad); err == nil {
			t.Errorf("New(%q) gave no error", bad)
		}
	}
}

// TestQuery iterates over all pages of a query.
func TestQuery(t *testing.T) {
	n := fakenode.New()
	c := serve(t, n) // pages of 2
	for i := range 5 {
		if _, err := n.Submit(t.Context(), fakenode.CreateTx("4K9sWUMFwTgaDGPfdynrbxWqWS6sWmKbZoTjxLtVUibD", i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	q := client.Query{Table: "transactions", Selector: map[string]any{"asset.data.serial": map[string]any{"$gte": 1}}, Fields: []string{"asset.data.serial"}}
	docs := collect(t, c.Query(t.Context(), q))
	var serials []string
	for _, d := range docs {
		serials = append(serials, string(d))
	}
	slices.Sort(serials)
	if want := `{"asset":{"data":{"serial":1}}}`; len(serials) != 4 || serials[0] != want {
		t.Errorf("got %q, want 4 that begin with %s", serials, want)
	}
	page, err := c.QueryPage(t.Context(), q)
	if err != nil || len(page.Docs) != 2 || page.Bookmark == "" || page.Warning == "" {
		t.Errorf("got page %+v, %v", page, err)
	}
	q.Bookmark = page.Bookmark
	if rest := collect(t, c.Query(t.Context(), q)); len(rest) != 2 {
		t.Errorf("from a bookmark on: got %d documents, want 2", len(rest))
	}
	plan, err := c.Explain(t.Context(), client.Query{Table: "votes", Selector: map[string]any{"a": 1}})
	if err != nil || !plan.Scan || plan.Index != nil || !slices.Equal(plan.IndexAdvised, []string{"a"}) {
		t.Errorf("got plan %+v, %v", plan, err)
	}
	plan, err = c.Explain(t.Context(), client.Query{Table: "votes", Selector: map[string]any{"a": 1}, UseIndex: "x"})
	if err != nil || plan.Scan || plan.Index == nil || len(plan.Index.Fields) != 2 || plan.Covering == "" {
		t.Errorf("got plan %+v, %v", plan, err)
	}
	start := ""
	if docs := collect(t, c.Query(t.Context(), client.Query{Table: "transactions", StartKey: &start})); len(docs) != 5 {
		t.Errorf("a range: got %d documents, want 5", len(docs))
	}
	for doc, err := range c.Query(t.Context(), client.Query{Table: "transactions", Selector: map[string]any{}, Sort: []client.Sort{{Field: "a", Descending: true}}}) {
		if doc != nil {
			t.Errorf("got a document %s", doc)
		}
		wantStatus(t, err, 400, "Invalid query: no usable index")
	}
}
