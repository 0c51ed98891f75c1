package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
)

// TestTwoNodes has two nodes of a federation share one database. They start at
// once, every transaction is posted to both at the same time, and outputs are
// spent through both: documents conflict all the time. Both must come to the
// same ledger.
func TestTwoNodes(t *testing.T) { eachServer(t, testTwoNodes) }

func testTwoNodes(t *testing.T, b backend) {
	address := b.shared(t)
	one, two := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	first := b.newNode(t, address, keysOf(one, two)...)
	second := newNode(t, append(b.environ(address, first.ledger()), keysOf(two, one)...)...)
	nodes := []*node{first, second}
	runs := []*process{first.launch(), second.launch()}
	for i, n := range nodes {
		n.awaitReady(runs[i])
	}

	rounds := 20
	if testing.Short() {
		rounds = 6
	}
	posted := map[string]*ledger.Transaction{}
	rivals := map[string][2]string{} // asset → the two that spend it
	post := func(txs ...*ledger.Transaction) {
		var group sync.WaitGroup
		for i, tx := range txs {
			posted[tx.ID] = tx
			group.Go(func() {
				a, err := nodes[i%2].do(http.MethodPost, transactionsPath, tx.Bytes())
				// The other node may have been first with a rival.
				if err != nil || a.status != http.StatusAccepted && !strings.Contains(string(a.body), "DoubleSpend") {
					t.Errorf("POST: %v, %v", a, err)
				}
			})
		}
		group.Wait()
	}
	for round := range rounds {
		if round == rounds/2 {
			for _, n := range nodes {
				n.wantDone(t, []string{"verify", "--url", "http://" + n.addr}, "The ledger is sound.")
			}
		}
		owner, a, b := ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
		asset := create(t, owner)
		post(asset, asset) // to both
		for _, n := range nodes {
			n.awaitValid(t, asset.ID)
		}
		toA, toB := mustSpend(t, owner, a.Public, coinsOf(asset)...), mustSpend(t, owner, b.Public, coinsOf(asset)...)
		rivals[asset.ID] = [2]string{toA.ID, toB.ID}
		post(toA, toB)
	}

	// All are asked for together: of what only the other one refused a node says for a
	// moment that it is in the backlog.
	left := slices.Collect(maps.Keys(posted))
	eventually(t, "both nodes say the same of every transaction", func() (bool, string) {
		found := ""
		left = slices.DeleteFunc(left, func(id string) bool {
			var both [2]string
			for i, n := range nodes {
				status, _, err := n.status(id)
				if err != nil || status == "undecided" || status == "backlog" {
					found = fmt.Sprintln(id, status, err)
					return false
				}
				both[i] = status
			}
			found = fmt.Sprintln(id, both)
			return both[0] == both[1]
		})
		return len(left) == 0, found
	})
	for asset, pair := range rivals {
		winners := 0
		for _, id := range pair {
			var valid [2][]string
			for i, n := range nodes {
				valid[i] = n.list(t, "/api/v1/blocks?status=VALID&tx_id="+id)
			}
			if !slices.Equal(valid[0], valid[1]) || len(valid[0]) > 1 {
				t.Errorf("transaction %s is valid in %v on one node, in %v on the other", id, valid[0], valid[1])
			}
			winners += len(valid[0])
		}
		if winners != 1 {
			t.Errorf("of two that spend asset %s %d are valid, want 1", asset, winners)
		}
	}
	for _, n := range nodes {
		if faults, err := n.metric("couchledger_faults_total"); err != nil || faults != 0 {
			t.Errorf("a node saw faults in an honest ledger: %v, %v", faults, err)
		}
		n.stop()
	}
	out := first.wantDone(t, []string{"verify"}, "The ledger is sound.")
	if !strings.Contains(out, "members: 2") {
		t.Errorf("verify: got %q, want 2 members", out)
	}
}

// keysOf is the environment of a member with its own key, and the others'.
func keysOf(own ledger.KeyPair, others ...ledger.KeyPair) []string {
	keyring := make([]string, len(others))
	for i, other := range others {
		keyring[i] = other.Public
	}
	return []string{
		"BIGCHAINDB_KEYPAIR_PUBLIC=" + own.Public, "BIGCHAINDB_KEYPAIR_PRIVATE=" + own.Private(), "BIGCHAINDB_KEYRING=" + strings.Join(keyring, ":"),
	}
}
