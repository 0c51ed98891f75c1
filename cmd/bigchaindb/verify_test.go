package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/httpapi"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
)

func TestVerify(t *testing.T) {
	u := newUser(t)
	u.must(0, "-y configure embedded", "")
	u.must(2, "verify", "", "`bigchain` does not exist", "`bigchaindb init`")
	u.must(0, "init", "")
	out := u.must(0, "verify", "")
	for _, part := range []string{"1 valid", "The ledger is sound."} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in %q", part, out)
		}
	}
	if exists(u.file(".bigchaindb-state/verify")) {
		t.Error("a complete run leaves its folder")
	}

	db := u.open()
	if _, err := db.Write(t.Context(), statedb.Bigchain, []statedb.Write{{ID: "readme", Body: []byte(`{}`)}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	out = u.must(1, "verify", "", "not sound")
	for _, part := range []string{"foreign: 1", "  bigchain/readme: ", "\n1 findings."} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in %q", part, out)
		}
	}
	for i, want := range []bool{false, true} {
		code := 1 - i
		var report struct {
			Findings []verify.Finding
			Checked  verify.Report
			Sound    bool
			Ledger   string
		}
		if err := json.Unmarshal([]byte(u.must(code, "verify --json --scratch "+u.file("scratch"), "")), &report); err != nil {
			t.Fatal(err)
		}
		if report.Sound != want || len(report.Findings) != code || report.Checked.Findings != code || report.Checked.Blocks.Valid != 1 ||
			!strings.HasPrefix(report.Ledger, "embedded /") {
			t.Errorf("got %+v", report)
		}
		db := u.open()
		if err := db.Remove(t.Context(), statedb.Bigchain, []string{"readme"}); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}

	db = u.open() // as a running node has it
	u.must(2, "verify", "", "open in another process", "verify --url http://localhost:9984")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	u.must(2, "verify now", "", "now: no such file")
	u.must(2, "verify now --url http://localhost:1", "", "not both")
	u.must(2, "verify --url nowhere", "", `"nowhere"`)
	u.must(2, "-c none verify", "", "does not exist")
}

// TestVerifyInterrupted: a run that is interrupted keeps what it goes on from,
// and a drop of the ledger deletes that.
func TestVerifyInterrupted(t *testing.T) {
	u := newUser(t)
	u.must(0, "-y configure embedded", "")
	u.must(0, "init", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs strings.Builder
	code := run(ctx, []string{"verify"}, u.environ, strings.NewReader(""), &out, &errs)
	if code != 2 || out.String() != "" || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("code %d, stdout %q, stderr %q", code, out.String(), errs.String())
	}
	folder := u.file(".bigchaindb-state/verify")
	if !exists(folder) {
		t.Errorf("there is no %s", folder)
	}
	u.must(0, "-y drop", "")
	if exists(folder) {
		t.Errorf("after drop there is %s", folder)
	}
}

// servedLedger serves a new ledger until the test ends.
func servedLedger(t *testing.T, opts httpapi.Options) *httpapi.Server {
	t.Helper()
	u := newUser(t)
	u.must(0, "-y configure embedded", "")
	s := u.settings("")
	key, err := ledger.KeyPairFromPrivate(string(s.KeyPair.Private))
	if err != nil {
		t.Fatal(err)
	}
	db := u.open()
	if _, err := node.Init(t.Context(), db, key, nil, nil); err != nil {
		t.Fatal(err)
	}
	n, err := node.Open(t.Context(), node.Options{DB: db, StatePath: filepath.Join(u.home, "state"), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(30 * time.Second); n.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(n.Ready())
		}
	}
	opts.Version, opts.Logger = ownVersion, slog.New(slog.DiscardHandler)
	return httpapi.New(n, opts)
}

// TestVerifyURL verifies a node that runs.
func TestVerifyURL(t *testing.T) {
	u := newUser(t)
	server := httptest.NewServer(servedLedger(t, httpapi.Options{}))
	defer server.Close()
	out := u.must(0, "verify --url "+server.URL, "")
	for _, part := range []string{"ledger        " + server.URL, "1 valid", "not looked at", "The ledger is sound."} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in %q", part, out)
		}
	}
	u.must(0, "verify --json --url "+server.URL+" --scratch "+u.file("scratch"), "")
}

// TestVerifyProgress tells on a terminal often, else now and then.
func TestVerifyProgress(t *testing.T) {
	told := func(width int) string {
		var out strings.Builder
		now := time.Unix(1000, 0)
		p := &stepProgress{progressLine: progressLine{out: &out, width: width, now: func() time.Time { return now }, began: now}}
		for tenth := range 300 {
			now = now.Add(time.Second / 10)
			p.tell(verify.Progress{Step: 1, Steps: 5, Name: "checking blocks", Unit: "transactions", Count: 100 * tenth, Fraction: float64(tenth) / 400})
		}
		p.leave()
		return out.String()
	}
	want := "Step 1 of 5, checking blocks: 25 %, 10100 transactions, 1000/s, 30s to go"
	if got := told(200); !strings.Contains(got, "\r"+want+"\x1b[K") || strings.Count(got, "\n") != 1 || strings.Count(got, "\r") < 100 {
		t.Errorf("no %q in %.500q", want, got)
	}
	if got := told(0); strings.Count(got, "\n") != 3 || strings.Contains(got, "\r") {
		t.Errorf("got %q", got)
	}
}
