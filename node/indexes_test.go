package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/indexes"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// slowToIndex is a database in which indexes take as long as the test wants.
type slowToIndex struct {
	statedb.DB
	fails atomic.Int32  // calls to come that fail
	begun chan struct{} // gets a word at every call that does not
	gate  chan struct{} // closed to let indexes be built
}

func (d *slowToIndex) DeployIndexes(ctx context.Context, table string, all []statedb.Index, progress func([]statedb.IndexState)) error {
	if d.fails.Add(-1) >= 0 {
		return fmt.Errorf("%w: not now", statedb.ErrUnavailable)
	}
	select {
	case d.begun <- struct{}{}:
	default:
	}
	select {
	case <-d.gate:
		return d.DB.DeployIndexes(ctx, table, all, progress)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestIndexesAreDeployedWhileTheNodeRuns: transactions are accepted and decided
// before any index is there, and a database that fails is tried again.
func TestIndexesAreDeployedWhileTheNodeRuns(t *testing.T) {
	folder := t.TempDir()
	inner := openEmbedded(t, folder)
	t.Cleanup(func() { inner.Close() }) // after the node has stopped
	db := &slowToIndex{DB: inner, begun: make(chan struct{}, 1), gate: make(chan struct{})}
	db.fails.Store(2)
	all := indexes.Packaged()
	key, alice := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	n := startNode(t, folder, key, sharing(db), func(o *Options) { o.Indexes, o.Queries.NoScans = all, true })
	<-db.begun
	tx := newCreate(t, alice, 1)
	n.mustPost(t, tx)
	n.mustBecomeValid(t, tx)
	served := QueryRequest{Table: statedb.Transactions, Selector: parsed(t, `{"operation":"CREATE"}`), Limit: 1}
	if _, err := n.Query(t.Context(), served); !errors.Is(err, statedb.ErrBuilding) {
		t.Errorf("a query whose index is still to be deployed: got %v, want %v", err, statedb.ErrBuilding)
	}
	scan := QueryRequest{Table: statedb.Transactions, Selector: parsed(t, `{"metadata":1}`), Limit: 1}
	if _, err := n.Query(t.Context(), scan); !errors.Is(err, statedb.ErrScan) {
		t.Errorf("a query that no index will serve: got %v, want %v", err, statedb.ErrScan)
	}
	for table := range all {
		if there, err := inner.Indexes(t.Context(), table); err != nil || len(there) > 0 {
			t.Errorf("%s has indexes already: %+v, %v", table, there, err)
		}
	}
	close(db.gate)
	for table, list := range all {
		eventually(t, "the indexes of "+table+" are there", func() bool {
			there, err := inner.Indexes(t.Context(), table)
			return err == nil && len(there) == len(list)
		})
	}
	eventually(t, "the query is answered", func() bool {
		page, err := n.Query(t.Context(), served)
		return err == nil && len(page.Documents) == 1
	})
}

// TestNodeStopsWhileIndexesAreBuilt: a stop does not wait for them.
func TestNodeStopsWhileIndexesAreBuilt(t *testing.T) {
	folder := t.TempDir()
	inner := openEmbedded(t, folder)
	t.Cleanup(func() { inner.Close() }) // after the node has stopped
	db := &slowToIndex{DB: inner, begun: make(chan struct{}, 1), gate: make(chan struct{})}
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(db), func(o *Options) { o.Indexes = indexes.Packaged() })
	<-db.begun
	if err := n.stop(); err != nil {
		t.Error(err)
	}
}

// refusing is a database that takes no index.
type refusing struct {
	statedb.DB
	calls atomic.Int32
	err   error
}

func (d *refusing) DeployIndexes(context.Context, string, []statedb.Index, func([]statedb.IndexState)) error {
	d.calls.Add(1)
	return d.err
}

// TestIndexesThatAreRefused: what waiting does not mend is tried once, and the
// node does without.
func TestIndexesThatAreRefused(t *testing.T) {
	for _, reason := range []error{statedb.ErrBadQuery, statedb.ErrDenied} {
		folder := t.TempDir()
		inner := openEmbedded(t, folder)
		db := &refusing{DB: inner, err: fmt.Errorf("%w: it says no", reason)}
		var log bytes.Buffer
		n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(db), func(o *Options) {
			o.Indexes = indexes.Packaged()
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		tx := newCreate(t, ledger.GenerateKeyPair(), 1)
		n.mustPost(t, tx)
		n.mustBecomeValid(t, tx)
		eventually(t, "the indexes are tried", func() bool { return db.calls.Load() > 0 })
		if err := errors.Join(n.Ready(), n.stop(), inner.Close()); err != nil || db.calls.Load() != 1 {
			t.Errorf("%v: %v after %d calls, want one", reason, err, db.calls.Load())
		}
		if text := log.String(); strings.Count(text, "indexes are missing") != 1 || strings.Contains(text, "trying again") || strings.Contains(text, "the indexes are built") {
			t.Errorf("%v: the log has %s", reason, text)
		}
	}
}

func TestDeployIndexes(t *testing.T) {
	db := openEmbedded(t, t.TempDir())
	defer db.Close()
	if err := DeployIndexes(t.Context(), db, indexes.Packaged(), nil); !errors.Is(err, statedb.ErrNoDatabase) {
		t.Errorf("without a database: %v", err)
	}
	if _, err := Init(t.Context(), db, ledger.GenerateKeyPair(), nil, nil); err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	if err := DeployIndexes(t.Context(), db, indexes.Packaged(), func(table string, building []statedb.IndexState) {
		for _, state := range building {
			told[table+"/"+state.Name] = true
		}
	}); err != nil {
		t.Fatal(err)
	}
	// The genesis block and its claim are there.
	if len(told) != 2 || !told["bigchain/by_node"] || !told["bigchain/by_timestamp"] {
		t.Errorf("progress told of %v", told)
	}
	selector, err := canonical.Parse([]byte(`{"block.timestamp":{"$gt":0}}`))
	if err != nil {
		t.Fatal(err)
	}
	page, err := db.Find(t.Context(), statedb.Bigchain, statedb.Query{Selector: selector, UseIndex: "by_timestamp", Limit: 2})
	if err != nil || len(page.Documents) != 1 {
		t.Errorf("by the deployed index: %d documents, %v", len(page.Documents), err)
	}
}

func TestBuildReport(t *testing.T) {
	var log bytes.Buffer
	r := buildReport{log: slog.New(slog.NewTextHandler(&log, nil))}
	at := time.Unix(0, 0)
	building := func(pending int) []statedb.IndexState {
		return []statedb.IndexState{{Index: statedb.Index{Name: "a"}, Pending: pending, Total: 100}, {Index: statedb.Index{Name: "ready"}}}
	}
	r.tell(at, "votes", building(0)) // nothing to build: nothing is said
	r.end(at)
	if log.Len() > 0 {
		t.Errorf("without anything to build: %s", &log)
	}
	for second := range 21 {
		r.tell(at.Add(time.Duration(second)*time.Second), "votes", building(100-second))
	}
	r.end(at.Add(21 * time.Second))
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	for i, want := range []string{"table=votes indexes=a documents=10 of=100", "table=votes indexes=a documents=20 of=100", `"the indexes are built" after=21s`} {
		if len(lines) != 3 || !strings.Contains(lines[i], want) {
			t.Errorf("the log has %q, want %q as line %d of 3", lines, want, i+1)
		}
	}
}
