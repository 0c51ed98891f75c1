package e2e

import (
	"bytes"
	"crypto/sha256"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// vote writes another member's vote into the node's database, while it is
// stopped.
func (n *node) vote(t testing.TB, v *ledger.Vote) {
	t.Helper()
	db, err := n.store()
	if err != nil {
		t.Fatal(err)
	}
	results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: ledger.VoteID(v.BlockID, v.NodePubkey), Body: v.Bytes()}})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func (n *node) wantStatus(t testing.TB, query string, want map[string]any) {
	t.Helper()
	a := n.get(t, "/api/v1/statuses?"+query)
	if got := decode[map[string]any](t, a); !reflect.DeepEqual(got, want) {
		t.Errorf("status of %s: got %v, want %v", query, got, want)
	}
	if got := a.header.Get("Location"); (got != "") != (want["status"] == "valid") {
		t.Errorf("status of %s, which is %v: got Location %q", query, want["status"], got)
	}
}

// TestUndecided runs one of two members. Its blocks stay undecided until the
// other one votes: then they are valid, or invalid and their transactions go
// into another block. All of it shows over HTTP, across restarts.
func TestUndecided(t *testing.T) { eachBackend(t, testUndecided) }

func testUndecided(t *testing.T, newNode nodeMaker) {
	other := ledger.GenerateKeyPair()
	n := newNode(t, "BIGCHAINDB_KEYRING="+other.Public)
	n.start()
	alice, bob := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	waiting, mine := postUntilBoth(t, n, alice)
	block := n.list(t, "/api/v1/blocks?tx_id="+mine.ID)[0]

	check := func() {
		t.Helper()
		n.wantStatus(t, "tx_id="+waiting.ID, map[string]any{"status": "backlog", "_links": map[string]any{"tx": "/transactions/" + waiting.ID}})
		n.wantStatus(t, "tx_id="+mine.ID, map[string]any{"status": "undecided", "_links": map[string]any{"tx": "/transactions/" + mine.ID}})
		n.wantStatus(t, "block_id="+block, map[string]any{"status": "undecided"})
		n.wantError(t, http.MethodGet, transactionsPath+mine.ID, nil, http.StatusNotFound)
		n.wantTransactions(t, transactionsPath+"?asset_id="+mine.ID)
		n.wantList(t, "/api/v1/blocks?tx_id="+mine.ID, block)
		n.wantList(t, "/api/v1/blocks?status=UNDECIDED&tx_id="+mine.ID, block)
		n.wantList(t, "/api/v1/blocks?status=VALID&tx_id="+mine.ID, []string{}...)
		n.wantList(t, "/api/v1/blocks?tx_id="+waiting.ID, []string{}...)
		// Outputs are of undecided blocks too; what waits is in none.
		n.wantList(t, "/api/v1/outputs?public_key="+alice.Public, outputLink(mine.ID, 0))
		n.wantError(t, http.MethodPost, transactionsPath, mustSpend(t, alice, bob.Public, coinsOf(mine)...).Bytes(),
			http.StatusBadRequest, "Invalid transaction (TransactionNotInValidBlock): ")
		n.wantError(t, http.MethodPost, transactionsPath, mustSpend(t, alice, bob.Public, coinsOf(waiting)...).Bytes(),
			http.StatusBadRequest, "Invalid transaction (InputDoesNotExist): ")
		n.postAccepted(t, mine)
		n.postAccepted(t, waiting)
	}
	check()
	n.kill()
	n.start()
	check()
	n.kill()
	n.remove(n.chainstate())
	n.start()
	check()
	votes := n.votes(t, "", block)
	if len(votes) != 1 || !votes[0].Valid {
		t.Fatalf("votes on %s: got %+v, want this node's", block, votes)
	}
	n.stop()

	n.vote(t, ledger.NewVote(other, block, votes[0].PreviousBlock, false, "DISLIKE", time.Now().Unix()))
	n.expected = append(n.expected, "voted invalid")
	n.start()
	eventually(t, "the transaction goes into another block", func() (bool, string) {
		status, _, err := n.status(mine.ID)
		return status == "undecided" && err == nil, status
	})
	n.wantStatus(t, "block_id="+block, map[string]any{"status": "invalid"})
	n.wantList(t, "/api/v1/blocks?status=INVALID&tx_id="+mine.ID, block)
	again := n.list(t, "/api/v1/blocks?status=UNDECIDED&tx_id="+mine.ID)
	if len(again) != 1 || again[0] == block {
		t.Fatalf("undecided blocks: got %q, want another than %s", again, block)
	}
	if votes := n.votes(t, "", block); len(votes) != 2 {
		t.Errorf("votes on the invalid block: got %d, want 2", len(votes))
	}
	if b, err := ledger.ParseBlock(n.get(t, "/api/v1/blocks/"+block).body); err != nil || b.Verify() != nil {
		t.Errorf("the invalid block: %v", err)
	}
	n.kill() // a stop would wait for the block to be decided
	n.vote(t, ledger.NewVote(other, again[0], block, true, "", time.Now().Unix()))
	n.start()
	n.awaitValid(t, mine.ID)
	n.wantStatus(t, "block_id="+again[0], map[string]any{"status": "valid", "_links": map[string]any{"block": "/blocks/" + again[0]}})
	n.wantStatus(t, "block_id="+block, map[string]any{"status": "invalid"})
	n.wantTransactions(t, transactionsPath+"?asset_id="+mine.ID, mine)
	n.postAccepted(t, mustSpend(t, alice, bob.Public, coinsOf(mine)...))
}

// postUntilBoth posts CREATEs until one is in this node's undecided block, and
// one waits for the other member, who is not there. Their owners differ from
// everybody else's, so that lists by owner hold nothing more.
func postUntilBoth(t *testing.T, n *node, owner ledger.KeyPair) (waiting, mine *ledger.Transaction) {
	t.Helper()
	for waiting == nil || mine == nil {
		tx := create(t, owner)
		if assignedToFirst(n.key(t), n.keyring(t)[0], tx.ID) {
			mine = tx
		} else {
			waiting = tx
		}
	}
	n.postAccepted(t, waiting)
	n.postAccepted(t, mine)
	eventually(t, "a block is made", func() (bool, string) {
		status, _, err := n.status(mine.ID)
		return status == "undecided" && err == nil, status
	})
	return waiting, mine
}

// assignedToFirst is rendezvous hashing: of two members the one with the
// larger hash of its key and the subject has it.
func assignedToFirst(first, second, subject string) bool {
	weight := func(member string) []byte {
		sum := sha256.Sum256([]byte(member + "\x00" + subject))
		return sum[:8]
	}
	return bytes.Compare(weight(first), weight(second)) > 0
}
