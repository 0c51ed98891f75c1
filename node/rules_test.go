package node

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/node/verify"
)

func twoThirds(t testing.TB) consensus.Rules {
	t.Helper()
	rules, err := consensus.Lookup(consensus.TwoThirds)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// counted returns how many valid votes the node has counted on the only block with
// a transaction.
func (n *testNode) counted(t *testing.T, tx string) (valid int) {
	t.Helper()
	done := make(chan error, 1)
	n.pauses <- func(context.Context) error {
		u := n.state.Begin()
		defer u.Discard()
		refs, err := n.state.BlocksWith(tx)
		if err == nil && len(refs) == 1 {
			var votes consensus.Votes
			votes, _, _, err = u.Count(refs[0].ID)
			valid = votes.Valid
		}
		done <- err
		return nil
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return valid
}

// Of four members that decide by two thirds, three must vote. Two are not enough,
// and what they have accepted is decided when a third one is back.
func TestTwoThirds(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	keys := make([]ledger.KeyPair, 4)
	for i := range keys {
		keys[i] = ledger.GenerateKeyPair()
	}
	start := func(i int) *testNode {
		return startNode(t, filepath.Join(folder, fmt.Sprint(i)), keys[i], sharing(db), among(keys...), func(o *Options) {
			o.Rules, o.ReassignDelay = twoThirds(t), 100*time.Millisecond
		})
	}
	nodes := []*testNode{start(0), start(1)}
	if got := nodes[0].Rules(); got != consensus.TwoThirds {
		t.Errorf("the node's rules: got %s, want %s", got, consensus.TwoThirds)
	}
	tx := newCreate(t, ledger.GenerateKeyPair(), 1)
	nodes[0].mustPost(t, tx)
	for _, n := range nodes {
		eventually(t, "two votes are counted", func() bool { return n.counted(t, tx.ID) == 2 })
		if status, err := n.TransactionStatus(t.Context(), tx.ID); err != nil || status != "undecided" {
			t.Errorf("with two votes of four: got %q, %v, want undecided", status, err)
		}
	}
	nodes = append(nodes, start(2))
	for _, n := range nodes {
		n.mustBecomeValid(t, tx)
	}
	report, err := verify.Run(t.Context(), db, verify.Options{Derived: true, Finding: func(f verify.Finding) error {
		t.Errorf("verify: %+v", f)
		return nil
	}})
	if err != nil || report.Blocks.Valid < 2 {
		t.Errorf("verify: got %+v, %v, want at least two valid blocks", report, err)
	}
}

// A node whose rules are not its ledger's does not start.
func TestRulesAreTheLedgers(t *testing.T) {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	key := ledger.GenerateKeyPair()
	if _, err := Init(t.Context(), db, key, nil, twoThirds(t)); err != nil {
		t.Fatal(err)
	}
	majority, err := consensus.Lookup("")
	if err != nil {
		t.Fatal(err)
	}
	want := `consensus_plugin is "majority"`
	if _, err := Init(t.Context(), db, key, nil, majority); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Init: got %v, want one that says %q", err, want)
	}
	o := Options{DB: db, StatePath: filepath.Join(folder, "state"), Key: key, Rules: majority}
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Open: got %v, want one that says %q", err, want)
	}
	if _, err := Reindex(t.Context(), o, func(ReindexProgress) {}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Reindex: got %v, want one that says %q", err, want)
	}
	o.Rules = nil
	n, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("with none chosen: %v", err)
	}
	if got := n.Rules(); got != consensus.TwoThirds {
		t.Errorf("with none chosen: got %s, want the ledger's", got)
	}
	if err := n.close(); err != nil {
		t.Error(err)
	}
}
