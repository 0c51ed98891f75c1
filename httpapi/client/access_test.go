package client_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/httpapi"
	"github.com/couchledger/couchledger/httpapi/client"
	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
)

// TestToken: every kind of request shows the token.
func TestToken(t *testing.T) {
	token := httpapi.NewToken()
	s := httpapi.New(fakenode.New(), httpapi.Options{
		Logger: slog.New(slog.DiscardHandler), Tokens: []httpapi.Token{{Name: "a", Hash: httpapi.HashToken(token), May: httpapi.MayPost | httpapi.MayQuery}},
	})
	ts := httptest.NewServer(s)
	defer ts.Close()
	ask := func(options ...client.Option) []error {
		c, err := client.New(ts.URL, options...)
		if err != nil {
			t.Fatal(err)
		}
		tx := fakenode.CreateTx("4K9sWUMFwTgaDGPfdynrbxWqWS6sWmKbZoTjxLtVUibD", 1, 1)
		_, posted := c.Post(t.Context(), parse(t, tx), client.Async)
		_, status := c.BlockStatus(t.Context(), noID)
		_, asked := c.QueryPage(t.Context(), client.Query{Table: "votes", Selector: map[string]any{}})
		stream, followed := c.Stream(t.Context())
		if followed == nil {
			stream.Close()
		}
		return []error{posted, status, asked, followed}
	}
	for i, err := range ask() {
		wantStatus(t, err, http.StatusUnauthorized, "")
		if err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("request %d: the error shows the token", i)
		}
	}
	for i, err := range ask(client.WithToken(token)) {
		var answer *client.Error
		if err != nil && !(errors.As(err, &answer) && answer.Status == http.StatusNotFound) {
			t.Errorf("request %d with the token: %v", i, err)
		}
	}
	if _, err := client.New("http://user:hunter2@localhost"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("an address with a password: %v", err)
	}
}

func parse(t *testing.T, body []byte) *ledger.Transaction {
	t.Helper()
	tx, err := ledger.ParseTransaction(body)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// TestPatience: a client comes again when it is asked to, and not for ever.
func TestPatience(t *testing.T) {
	var busy atomic.Int64
	n := fakenode.New()
	n.Hook = func(method, _ string) error {
		if busy.Add(-1) >= 0 {
			return node.ErrBusy
		}
		return nil
	}
	ts := httptest.NewServer(httpapi.New(n, httpapi.Options{Logger: slog.New(slog.DiscardHandler)}))
	defer ts.Close()
	patient, err := client.New(ts.URL, client.WithPatience(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	tx := parse(t, fakenode.CreateTx("4K9sWUMFwTgaDGPfdynrbxWqWS6sWmKbZoTjxLtVUibD", 1, 1))
	busy.Store(1)
	began := time.Now()
	if _, err := patient.Post(t.Context(), tx, client.Async); err != nil || time.Since(began) < time.Second {
		t.Errorf("got %v after %v, want the second answer a second later", err, time.Since(began))
	}
	busy.Store(1)
	hurried, err := client.New(ts.URL, client.WithPatience(time.Second/2))
	if err != nil {
		t.Fatal(err)
	}
	_, err = hurried.Post(t.Context(), tx, client.Async)
	wantStatus(t, err, http.StatusServiceUnavailable, "")
	busy.Store(100)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := patient.Post(ctx, tx, client.Async); !errors.Is(err, context.Canceled) {
		t.Errorf("given up while it waits: got %v", err)
	}
}
