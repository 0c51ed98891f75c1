package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/embedded"
)

// dumped is a ledger that nodes made, as a dump could hold it.
type dumped struct {
	keys   []ledger.KeyPair
	states []string // folders of the nodes' states, at rest
	tables map[string][]statedb.Document
	order  map[string]int // blocks by the first member's votes on them
	in     map[string]string
	txs    map[string]*ledger.Transaction
}

// makeDumped has so many nodes on one database make a ledger.
func makeDumped(t *testing.T, members, rounds int) *dumped {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	defer db.Close()
	d := &dumped{tables: map[string][]statedb.Document{}, order: map[string]int{}, in: map[string]string{}, txs: map[string]*ledger.Transaction{}}
	for range members {
		d.keys = append(d.keys, ledger.GenerateKeyPair())
	}
	var nodes []*testNode
	for i, key := range d.keys {
		n := startNode(t, filepath.Join(folder, fmt.Sprint(i)), key, sharing(db), among(d.keys...))
		nodes = append(nodes, n)
		d.states = append(d.states, filepath.Join(folder, fmt.Sprint(i), "state"))
	}
	alice := ledger.GenerateKeyPair()
	var last []*ledger.Transaction
	for round := range rounds {
		var now []*ledger.Transaction
		for i := range 3 {
			now = append(now, newCreate(t, alice, 100*round+i))
		}
		for i, tx := range last {
			if i%4 != 3 {
				now = append(now, newTransfer(t, alice, tx, 0, alice.Public))
			}
		}
		for i, tx := range now {
			nodes[i%members].mustPost(t, tx)
			d.txs[tx.ID] = tx
		}
		for i, tx := range now {
			for range members {
				nodes[i%members].mustBecomeValid(t, tx)
			}
		}
		for _, n := range nodes { // each knows all, to check what spends it
			for _, tx := range now {
				n.mustBecomeValid(t, tx)
			}
		}
		if last = now; len(last) > 8 {
			last = last[:8]
		}
	}
	for id := range d.txs {
		_, block, err := nodes[0].state.TransactionStatus(id) // another block with it may have come to nothing
		if err != nil {
			t.Fatal(err)
		}
		d.in[id] = block
	}
	for _, n := range nodes {
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
	}
	after := map[string]string{}
	for _, table := range statedb.Tables {
		page, err := db.Range(t.Context(), table, statedb.Range{Limit: 100_000})
		if err != nil {
			t.Fatal(err)
		}
		d.tables[table] = page.Documents
		for _, document := range page.Documents {
			if b, err := ledger.ParseBlock(document.Body); table == statedb.Bigchain && err == nil {
				for _, tx := range b.Transactions {
					if d.in[tx.ID] == "" {
						d.in[tx.ID] = b.ID // the GENESIS
					}
				}
			}
			if v, err := ledger.ParseVote(document.Body); table == statedb.Votes && err == nil && v.NodePubkey == d.keys[0].Public {
				after[v.PreviousBlock] = v.BlockID
			}
		}
	}
	// A ledger is restored later than its dump was made. A member that made a block
	// with the time of one that is gone, or even that block again, would have to
	// send its old vote, whose chain goes over what is gone.
	made := time.Now().Unix()
	eventually(t, "the dump's last second is over", func() bool { return time.Now().Unix() > made })
	for block, place := nodes[0].genesis.ID, 0; block != ""; block, place = after[block], place+1 {
		d.order[block] = place
	}
	if len(d.order) < 10 {
		t.Fatalf("the ledger has %d blocks", len(d.order))
	}
	return d
}

// restore writes a part of the ledger into a new database: of what came with
// the last blocks, each document with some probability.
func (d *dumped) restore(t *testing.T, random *rand.Rand) (db statedb.DB, sound int, left map[string]bool) {
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	sound = 1 + random.IntN(len(d.order)-1)
	share := random.Float64()
	left = map[string]bool{}
	for table, documents := range d.tables {
		var writes []statedb.Write
		for _, document := range documents {
			block, _, _ := strings.Cut(document.ID, ":")
			if table == statedb.Transactions {
				block = d.in[document.ID]
			}
			if place, placed := d.order[block]; (placed && place >= sound || !placed && block != genesisID) && random.Float64() > share {
				continue
			}
			left[table+"/"+document.ID] = true
			writes = append(writes, statedb.Write{ID: document.ID, Body: document.Body})
		}
		mustWriteTo(t, db, table, writes...)
	}
	for _, tx := range d.txs {
		if random.IntN(20) == 0 {
			mustWriteTo(t, db, statedb.Backlog, statedb.Write{ID: tx.ID, Body: backlogDocument(tx, d.keys[0].Public, 1)})
		}
	}
	return db, sound, left
}

func mustBeSound(t *testing.T, db statedb.DB, when string) *verify.Report {
	t.Helper()
	report, err := verify.Run(t.Context(), db, verify.Options{Derived: true, Finding: func(f verify.Finding) error {
		t.Errorf("%s: %+v", when, f)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func yes(*RestorePlan) (bool, error) { return true, nil }

func TestAfterRestore(t *testing.T) {
	for _, members := range []int{1, 3} {
		t.Run(fmt.Sprintf("members: %d", members), func(t *testing.T) {
			if members > 1 && testing.Short() {
				t.Skip("not with -short: it takes some seconds")
			}
			d := makeDumped(t, members, 12)
			rounds := 12 / members
			if testing.Short() {
				rounds = 4
			}
			for range max(rounds, 2) {
				seed := rand.Uint64()
				t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { d.testRestore(t, rand.New(rand.NewPCG(seed, 1))) })
			}
		})
	}
}

func (d *dumped) testRestore(t *testing.T, random *rand.Rand) {
	db, sound, left := d.restore(t, random)
	var options []Options
	journal := false // the first member has its own
	for i, key := range d.keys {
		o := Options{DB: db, StatePath: filepath.Join(t.TempDir(), "state"), Key: key}
		for _, other := range d.keys {
			o.Keyring = append(o.Keyring, other.Public)
		}
		if random.IntN(3) > 0 { // else it is lost, too
			journal = journal || i == 0
			if err := os.CopyFS(o.StatePath, os.DirFS(d.states[i])); err != nil {
				t.Fatal(err)
			}
		}
		options = append(options, o)
	}
	stands := sound // what hangs together, of one member's ledger
	for place := sound; len(d.keys) == 1; place++ {
		found := ""
		for block, at := range d.order {
			if at == place {
				found = block
			}
		}
		if found == "" || !left[statedb.Bigchain+"/"+found] || !journal && !left[statedb.Votes+"/"+ledger.VoteID(found, d.keys[0].Public)] {
			break
		}
		stands = place + 1
	}
	before := count(t, db)
	first, err := AfterRestore(t.Context(), options[0], func(ReindexProgress) {}, func(*RestorePlan) (bool, error) { return false, nil })
	if err != nil || first.Rebuilt != nil {
		t.Fatalf("declined: got %+v, %v", first, err)
	}
	if after := count(t, db); before != after {
		t.Errorf("declined: there were %s, now %s", before, after)
	}
	for i, o := range options {
		done, err := AfterRestore(t.Context(), o, func(ReindexProgress) {}, yes)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 && (len(done.Plan.Blocks) != len(first.Plan.Blocks) || len(done.Plan.Votes) != len(first.Plan.Votes) || done.Plan.Backlog != first.Plan.Backlog) {
			t.Errorf("declined, it would do %+v, and then did %+v", first.Plan, done.Plan)
		}
		if i == 0 {
			checkRemoved(t, done)
			mustBeSound(t, db, "in order")
		}
		if i > 0 && len(done.Plan.Blocks)+len(done.Plan.Votes)+done.Plan.Backlog != 0 {
			t.Errorf("member %d finds %+v", i, done.Plan)
		}
	}
	if len(d.keys) == 1 && first.Plan.Valid != stands {
		t.Errorf("%d blocks stay valid, want %d", first.Plan.Valid, stands)
	}
	var nodes []*testNode
	for _, o := range options {
		n := startNode(t, filepath.Dir(o.StatePath), o.Key, sharing(db), among(d.keys...))
		nodes = append(nodes, n)
	}
	again := 0
	for id, block := range d.in {
		tx := d.txs[id]
		if tx == nil {
			continue // the GENESIS
		}
		status, err := nodes[0].TransactionStatus(t.Context(), id)
		switch {
		case d.order[block] < sound && status != "valid":
			t.Errorf("transaction %s of block %d is %s, %v, want it valid still", id, d.order[block], status, err)
		case status == "" && tx.Operation == ledger.Create && again < 5:
			again++
			nodes[0].mustPost(t, tx)
			nodes[0].mustBecomeValid(t, tx)
		}
	}
	more := newCreate(t, ledger.GenerateKeyPair(), 5000)
	last := nodes[len(nodes)-1]
	last.mustPost(t, more)
	last.mustBecomeValid(t, more)
	for _, n := range nodes {
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
	}
	mustBeSound(t, db, "in use again")
}

func count(t *testing.T, db statedb.DB) string {
	t.Helper()
	var text strings.Builder
	for _, table := range statedb.Tables {
		page, err := db.Range(t.Context(), table, statedb.Range{Limit: 100_000})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s %d ", table, len(page.Documents))
	}
	return text.String()
}

// checkRemoved looks into the file of what was removed.
func checkRemoved(t *testing.T, done *Restored) {
	t.Helper()
	want := map[string]int{statedb.Votes: len(done.Plan.Votes), statedb.Bigchain: len(done.Plan.Blocks), statedb.Backlog: done.Plan.Backlog}
	if done.File == "" {
		if want[statedb.Votes]+want[statedb.Bigchain]+want[statedb.Backlog] > 0 {
			t.Errorf("no file, but %+v was removed", done.Plan)
		}
		return
	}
	info, err := os.Stat(done.File)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	text, err := os.ReadFile(done.File)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var saved struct {
			Table, ID string
			Document  json.RawMessage
		}
		if err := json.Unmarshal(line, &saved); err != nil || saved.ID == "" || len(saved.Document) < 10 {
			t.Errorf("got %.100s, %v", line, err)
		}
		want[saved.Table]--
	}
	for table, n := range want {
		if n != 0 {
			t.Errorf("of %s the file lacks %d", table, n)
		}
	}
}

// breaking is a database that fails for good after so many removals.
type breaking struct {
	statedb.DB
	after  int
	cancel context.CancelFunc
}

func (b *breaking) Remove(ctx context.Context, table string, ids []string) error {
	if b.after--; b.after < 0 {
		b.cancel()
		return context.Canceled
	}
	return b.DB.Remove(ctx, table, ids[:max(1, len(ids)/2)])
}

// TestAfterRestoreBrokenOff: begun and not ended it must be called again, and
// then comes to its end.
func TestAfterRestoreBrokenOff(t *testing.T) {
	d := makeDumped(t, 1, 12)
	for after := range 3 {
		db, _, _ := d.restore(t, rand.New(rand.NewPCG(uint64(after), 7)))
		mustWriteTo(t, db, statedb.Backlog, statedb.Write{ID: strings.Repeat("ab", 32), Body: []byte(`{}`)})
		o := Options{DB: db, StatePath: filepath.Join(t.TempDir(), "state"), Key: d.keys[0]}
		if err := os.CopyFS(o.StatePath, os.DirFS(d.states[0])); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		broken := o
		broken.DB = &breaking{db, after, cancel}
		if _, err := AfterRestore(ctx, broken, func(ReindexProgress) {}, yes); err == nil {
			continue // nothing more was to be removed
		}
		for what, err := range map[string]error{
			"start":   func() error { _, err := Open(t.Context(), o); return err }(),
			"reindex": func() error { _, err := Reindex(t.Context(), o, func(ReindexProgress) {}); return err }(),
		} {
			if err == nil || !contains(err, "call `bigchaindb reindex --after-restore` again") {
				t.Errorf("%s: got %v", what, err)
			}
		}
		if _, err := AfterRestore(t.Context(), o, func(ReindexProgress) {}, yes); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(o.StatePath, unfinishedFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the note is left: %v", err)
		}
		mustBeSound(t, db, "called again")
		startNode(t, filepath.Dir(o.StatePath), o.Key, sharing(db)).stop()
	}
}
