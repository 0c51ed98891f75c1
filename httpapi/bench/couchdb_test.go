package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/couchledger/couchledger/httpapi"
	"github.com/couchledger/couchledger/httpapi/internal/fakenode"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
)

func TestMain(m *testing.M) { os.Exit(couchtest.Main(m)) }

// realCouch is a CouchDB with the four databases of a ledger of its own.
func realCouch(t *testing.T) *couch {
	a := couchtest.Shared(t)
	c := newCouch(CouchDB{
		URL:  fmt.Sprintf("http://%s:%d", a.Host, a.Port),
		Name: "bench" + strconv.FormatInt(time.Now().UnixNano(), 10), Login: a.Login, Password: a.Password,
	})
	t.Cleanup(c.close)
	for _, table := range statedb.Tables {
		if _, err := c.do(t.Context(), http.MethodPut, c.Name+"_"+table, nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := c.do(context.Background(), http.MethodDelete, c.Name+"_"+table, nil); err != nil {
				t.Error(err)
			}
		})
	}
	return c
}

// checkNothingLeft: of the ledger's databases there are those it had.
func checkNothingLeft(t *testing.T, c *couch) {
	t.Helper()
	answer, err := c.do(context.Background(), http.MethodGet, "_all_dbs", nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	if err := json.Unmarshal(answer, &names); err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, c.Name) })
	if len(names) != len(statedb.Tables) {
		t.Errorf("left behind: got %v, want the ledger's own %v", names, statedb.Tables)
	}
}

func TestRawRate(t *testing.T) {
	c := realCouch(t)
	for name, test := range map[string]struct {
		documents int
		cancel    bool // when the first batch is written
		wantErr   string
	}{
		"whole batches": {documents: 2 * rawBatch},
		"and a rest":    {documents: rawBatch + 1},
		"interrupted":   {documents: 4 * rawBatch, cancel: true, wantErr: context.Canceled.Error()},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		most := atomic.Int64{}
		rate, err := c.rawRate(ctx, test.documents, func(done int) {
			most.Store(max(most.Load(), int64(done)))
			if test.cancel {
				cancel()
			}
		})
		cancel()
		switch {
		case test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)):
			t.Errorf("%s: got %v, want an error with %q", name, err, test.wantErr)
		case test.wantErr == "" && (err != nil || rate <= 0 || most.Load() != int64(test.documents)):
			t.Errorf("%s: got %v/s, %v, progress to %d", name, rate, err, most.Load())
		}
		checkNothingLeft(t, c)
	}
}

// TestRawRateRefused: a server that does not store every document gives no
// rate, and is rid of the database all the same.
func TestRawRateRefused(t *testing.T) {
	for name, test := range map[string]struct {
		status  int
		body    string
		wantErr string
	}{
		"one document": {http.StatusCreated, strings.Repeat(`{"ok":true},`, rawBatch-1) + `{"error":"forbidden"}`, "stored 999 of 1000"},
		"all of them":  {http.StatusInsufficientStorage, "disk full", "507 to POST"},
	} {
		var deleted atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "_bulk_docs"):
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			case r.Method == http.MethodDelete:
				deleted.Add(1)
			}
		}))
		c := newCouch(CouchDB{URL: server.URL, Name: "x"})
		_, err := c.rawRate(t.Context(), rawBatch, func(int) {})
		c.close()
		server.Close()
		if err == nil || !strings.Contains(err.Error(), test.wantErr) {
			t.Errorf("%s: got %v, want %q", name, err, test.wantErr)
		}
		if deleted.Load() != 1 {
			t.Errorf("%s: the database was deleted %d times", name, deleted.Load())
		}
	}
}

func TestRawBatches(t *testing.T) {
	seen := map[string]bool{}
	var counts []int
	for _, body := range rawBatches(2*rawBatch + 5) {
		var batch struct{ Docs []json.RawMessage }
		if err := json.Unmarshal(body, &batch); err != nil {
			t.Fatal(err)
		}
		counts = append(counts, len(batch.Docs))
		for _, doc := range batch.Docs {
			var d struct {
				ID string `json:"_id"`
			}
			if err := json.Unmarshal(doc, &d); err != nil || !ledger.IsID(d.ID) || len(doc) != rawDocumentBytes {
				t.Fatalf("%d bytes, id %q, %v: %s", len(doc), d.ID, err, doc)
			}
			seen[d.ID] = true
		}
	}
	if !slices.Equal(counts, []int{rawBatch, rawBatch, 5}) || len(seen) != 2*rawBatch+5 {
		t.Errorf("got batches of %v with %d ids", counts, len(seen))
	}
}

// TestRunOnCouchDB: the report puts rates in proportion to the CouchDB beside
// the node, and judges those that have a goal.
func TestRunOnCouchDB(t *testing.T) {
	c := realCouch(t)
	registry := prometheus.NewRegistry()
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "couchledger_couchdb_requests_total"}, []string{"request", "status"})
	registry.MustRegister(requests)
	requests.WithLabelValues("_all_docs", "200").Add(7)
	n := fakenode.New()
	n.Hook = func(method, _ string) error {
		if method == "Submit" {
			requests.WithLabelValues("_bulk_docs", "201").Inc()
		}
		return nil
	}
	opts := quick(serveWith(t, n, httpapi.Options{Logger: slog.New(slog.DiscardHandler), Registry: registry}))
	opts.CouchDB, opts.Connections, opts.RawDocuments = &c.CouchDB, []int{manyConnections, 5}, rawBatch
	report, err := Run(t.Context(), opts, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	checkNothingLeft(t, c)
	figures := map[string]Figure{}
	for _, f := range report.Figures {
		figures[f.Name] = f
	}
	raw := min(figures["CouchDB alone, documents, before"].Value, figures["CouchDB alone, documents, after"].Value)
	for name, target := range map[string]string{
		"CREATE, 256 in flight, final": "≥ 0.18", "TRANSFER, 256 in flight, final": "≥ 0.15",
		"CREATE, 5 in flight, final": "", "TRANSFER, 5 in flight, final": "",
	} {
		f := figures[name]
		if raw <= 0 || f.PerRaw != f.Value/raw || f.Target != target {
			t.Errorf("%s: got %+v, want target %q and %v per raw", name, f, target, f.Value/raw)
		}
	}
	for name, target := range map[string]string{
		"CouchDB requests per transaction, 256 in flight": "≤ 0.10", "CouchDB requests per transaction, 5 in flight": "",
	} {
		if f := figures[name]; f.Value != 1 || f.Target != target || target != "" && *f.OK {
			t.Errorf("%s: got %+v, want 1 and target %q", name, f, target)
		}
	}
	for _, name := range []string{"Database files per transaction", "Database in use per transaction", "Last event to all written, 256 in flight"} {
		if _, ok := figures[name]; !ok {
			t.Errorf("no figure %q", name)
		}
	}
	if f := figures["One at a time, POST to valid, median"]; f.Target != "≤ 250" {
		t.Errorf("got %+v", f)
	}
	var text bytes.Buffer
	if err := report.WriteJSON(&text); err != nil || strings.Contains(text.String(), couchtest.Password) {
		t.Errorf("%v, or the password is in the report: %s", err, &text)
	}
}

// TestOtherSettings: a node that does not work on the CouchDB of the settings
// is not measured against it.
func TestOtherSettings(t *testing.T) {
	c := realCouch(t)
	opts := quick(serve(t, fakenode.New()))
	opts.CouchDB, opts.RawDocuments = &c.CouchDB, 10
	_, err := Run(t.Context(), opts, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "counts no requests to CouchDB") {
		t.Errorf("got %v", err)
	}
	checkNothingLeft(t, c)
}

// TestFootprint: sizes are those of all four databases, and what follows a
// load is waited for, within bounds.
func TestFootprint(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		backlog := 0
		if r.URL.Path == "/x_backlog" && asked.Add(1) < 3 {
			backlog = 5
		}
		fmt.Fprintf(w, `{"doc_count":%d,"sizes":{"file":1000,"active":600}}`, backlog)
	}))
	defer server.Close()
	c := newCouch(CouchDB{URL: server.URL, Name: "x"})
	defer c.close()
	if done, err := c.settled(t.Context(), 0, time.Minute); !done || err != nil || asked.Load() != 3 {
		t.Errorf("settled: got %v, %v after asking %d times, want true after 3", done, err, asked.Load())
	}
	asked.Store(0)
	if done, err := c.settled(t.Context(), 0, time.Nanosecond); done || err != nil {
		t.Errorf("out of patience: got %v, %v", done, err)
	}
	asked.Store(3)
	got, err := c.footprint(t.Context())
	if want := (footprint{file: 4000, active: 2400}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	report := Report{}
	report.addFootprint(footprint{file: 1000, active: 400}, got, 2)
	if f := report.Figures; f[0].Value != 1.5 || f[1].Value != 1 {
		t.Errorf("got %+v, want 1.5 and 1 kB per transaction", f)
	}
}
