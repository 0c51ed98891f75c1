package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/httpapi"
	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
)

func serve(t *testing.T, n *fakenode.Node) string {
	t.Helper()
	return serveWith(t, n, httpapi.Options{Logger: slog.New(slog.DiscardHandler)})
}

func serveWith(t *testing.T, n *fakenode.Node, opts httpapi.Options) string {
	t.Helper()
	s := httpapi.New(n, opts)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-served); err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func quick(url string) Options {
	return Options{URL: url, Connections: []int{4}, Count: 300, Singles: 5, Outputs: 1500, Transfers: 250, Steady: 20 * time.Millisecond, Patience: 20 * time.Second}
}

func TestRun(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"signing while posting": func(*Options) {},
		"signed before":         func(o *Options) { o.PreSign = true },
	} {
		opts := quick(serve(t, fakenode.New()))
		change(&opts)
		var progress bytes.Buffer
		report, err := Run(t.Context(), opts, &progress)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(report.Errors) != 0 || report.Retries != 0 {
			t.Errorf("%s: got errors %v and %d retries", name, report.Errors, report.Retries)
		}
		var names []string
		for _, f := range report.Figures {
			names = append(names, f.Name)
			if f.Value <= 0 {
				t.Errorf("%s: %s is %v", name, f.Name, f.Value)
			}
		}
		for _, want := range []string{
			"Ed25519 verifications, all cores", "CREATE, final", "TRANSFER, final", "CREATE, last / first", "GET by id",
			"One at a time, POST to valid, median", "Unspent outputs, with history / alone", "Page, last / first", "Node's resident memory over the loads, peak",
		} {
			if !slices.Contains(names, want) {
				t.Errorf("%s: no figure %q in %q", name, want, names)
			}
		}
		if !strings.Contains(progress.String(), "CREATE") || strings.Contains(progress.String(), "\x1b") {
			t.Errorf("%s: got progress %q", name, progress.String())
		}
		var table, text bytes.Buffer
		if err := errors.Join(report.WriteTable(&table), report.WriteJSON(&text)); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(table.String(), "≥ 0.12") || !strings.Contains(table.String(), "errors: none") {
			t.Errorf("%s: got table\n%s", name, &table)
		}
		var back Report
		if err := json.Unmarshal(text.Bytes(), &back); err != nil || len(back.Figures) != len(report.Figures) {
			t.Errorf("%s: the JSON does not read back: %v", name, err)
		}
	}
}

// TestTrouble: a node that is busy now and then, refuses some transactions,
// and drops its streams. The run ends and says so.
func TestTrouble(t *testing.T) {
	n := fakenode.New()
	var posts atomic.Int64
	n.Hook = func(method, _ string) error {
		if method != "Submit" {
			return nil
		}
		switch i := posts.Add(1); {
		case i == 7:
			return node.ErrBusy
		case i%100 == 50:
			return ledger.Invalid(ledger.AmountError, "transaction %d displeases", i)
		case i%100 == 80:
			n.EndSubscriptions()
		}
		return nil
	}
	opts := quick(serve(t, n))
	report, err := Run(t.Context(), opts, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Retries != 1 {
		t.Errorf("got %d retries, want 1", report.Retries)
	}
	for _, kind := range []string{"400 Invalid transaction (AmountError)", "stream interrupted"} {
		if report.Errors[kind] == 0 {
			t.Errorf("no error %q in %v", kind, report.Errors)
		}
	}
	if report.OK() {
		t.Error("the report is OK")
	}
}

// TestLost: transactions that are accepted and never decided do not keep the
// run from ending.
func TestLost(t *testing.T) {
	n := fakenode.New()
	n.Manual = true
	opts := quick(serve(t, n))
	opts.Count, opts.Singles, opts.Patience = 10, 1, 50*time.Millisecond
	report, err := Run(t.Context(), opts, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Errors["accepted, but never decided"] < 10 {
		t.Errorf("got errors %v", report.Errors)
	}
}

func TestLoopbackOnly(t *testing.T) {
	_, err := Run(t.Context(), Options{URL: "http://192.0.2.1:9984"}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "not on this machine") {
		t.Errorf("got %v", err)
	}
	_, err = Run(t.Context(), Options{URL: "http://127.0.0.1:1"}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "not ready") {
		t.Errorf("got %v", err)
	}
}

func TestAssetBytes(t *testing.T) {
	r := &run{id: fmt.Sprintf("%026d", 1)}
	for _, i := range []int{0, 99_999} {
		if got := len(r.asset("create", i).Bytes()); got != assetBytes {
			t.Errorf("asset %d has %d bytes, want %d", i, got, assetBytes)
		}
	}
}
