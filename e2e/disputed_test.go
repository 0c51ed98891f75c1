package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// TestDisputedLedger: the only member of a ledger is made to contradict itself,
// as a stolen key would. The block is disputed, its transaction valid by another
// one, the proof is told; and verify, backup, restore and reindex know of it.
func TestDisputedLedger(t *testing.T) {
	skipCommands(t)
	key, alice := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	n := newNode(t, keysOf(key)...)
	n.expected = []string{"a member voted valid and invalid on one block", "members voted both ways on a block", "is the key used by another node?",
		"and before on one that is valid and contradicts it"} // until the votes that dispute that one come
	n.start()
	tx := create(t, alice, 5)
	n.mustBecomeValid(t, tx)
	block := n.list(t, "/api/v1/blocks?tx_id="+tx.ID)[0]
	n.stop()

	db, err := n.store()
	if err != nil {
		t.Fatal(err)
	}
	lie := ledger.NewVote(key, block, block, false, "DoubleSpend", time.Now().Unix())
	results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: lie.ProofID(), Body: lie.Bytes()}})
	if err != nil || results[0].Err != nil {
		t.Fatal(err, results)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	n.start()
	n.awaitValid(t, tx.ID)
	wantDisputed(t, n, block, tx, alice)
	faults := string(n.get(t, "/api/v1/faults").body)
	if !strings.Contains(faults, `"two-verdicts"`) || !strings.Contains(faults, `"disputed-block"`) || strings.Count(faults, lie.Signature) == 0 || strings.Contains(faults, `"rival-votes"`) {
		t.Errorf("faults: %s", faults)
	}
	n.stop()
	if code, out, _ := n.run("verify"); code != 1 || !strings.Contains(out, "vote-twice") || !strings.Contains(out, "1 disputed") {
		t.Errorf("verify: exit code %d\n%s", code, out)
	}
	file := n.file("ledger.backup")
	n.wantDone(t, []string{"backup", file})
	n.wantDone(t, []string{"reindex"})
	n.start()
	n.awaitValid(t, tx.ID)
	wantDisputed(t, n, block, tx, alice)
	n.stop()

	other := newNode(t, keysOf(key)...)
	other.expected = n.expected
	other.wantDone(t, []string{"restore", file}, "1 disputed")
	other.start()
	other.awaitValid(t, tx.ID)
	wantDisputed(t, other, block, tx, alice)
	other.stop()
}

// wantDisputed wants a transaction to be valid by another block than the disputed
// one, once.
func wantDisputed(t *testing.T, n *node, block string, tx *ledger.Transaction, owner ledger.KeyPair) {
	t.Helper()
	if got := string(n.get(t, "/api/v1/statuses?block_id="+block).body); got != `{"status":"disputed"}` {
		t.Errorf("the block: got %s", got)
	}
	n.wantList(t, "/api/v1/blocks?status=DISPUTED&tx_id="+tx.ID, block)
	if valid := n.list(t, "/api/v1/blocks?status=VALID&tx_id="+tx.ID); len(valid) != 1 || valid[0] == block {
		t.Errorf("valid by the blocks %v", valid)
	}
	n.wantList(t, "/api/v1/outputs?unspent=true&public_key="+owner.Public, outputLink(tx.ID, 0))
	n.wantTransactions(t, "/api/v1/transactions?asset_id="+tx.ID, tx)
}
