package e2e

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/ledger"
)

// TestRestartVotes kills the node at moments that sweep over the way of a
// transaction from POST to valid, every other time deletes its chainstate, and
// looks at all blocks and votes there have been after each restart: no vote
// ever changes, and no transaction stands in two live blocks.
func TestRestartVotes(t *testing.T) { eachBackend(t, testRestartVotes) }

func testRestartVotes(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.start()
	rounds, step := 16, 4*time.Millisecond
	if testing.Short() {
		rounds, step = 4, 12*time.Millisecond
	}
	if n.backend != configs.Embedded {
		step *= 8 // what is written takes that much longer
	}
	alice := ledger.GenerateKeyPair()
	seen := map[string]string{} // block → its vote
	homes := map[string]string{}
	var ids []string
	for round := range rounds {
		var posts sync.WaitGroup
		for range 5 {
			tx := create(t, alice)
			ids = append(ids, tx.ID)
			posts.Go(func() { _, _ = n.do("POST", transactionsPath, tx.Bytes()) }) // the kill may cut it
		}
		time.Sleep(time.Duration(round) * step) // the moment that this round is about
		n.kill()
		posts.Wait()
		if round%2 == 1 {
			n.remove(n.chainstate())
		}
		n.start()
		a := newAudit(t, n)
		for _, id := range ids {
			blocks := n.list(t, "/api/v1/blocks?tx_id="+id)
			live := slices.Concat(n.list(t, "/api/v1/blocks?status=VALID&tx_id="+id), n.list(t, "/api/v1/blocks?status=UNDECIDED&tx_id="+id))
			slices.Sort(live) // it may have been decided between the two
			if live = slices.Compact(live); len(live) > 1 {
				t.Errorf("round %d: transaction %s is in the live blocks %q", round, id, live)
			}
			if before := homes[id]; before != "" && !slices.Contains(blocks, before) {
				t.Errorf("round %d: transaction %s was in block %s, is in %q", round, id, before, blocks)
			}
			for _, block := range blocks {
				homes[id] = block
				if a.blocks[block] != nil {
					continue
				}
				eventually(t, "the node votes on block "+block, func() (bool, string) { return len(n.votes(t, "", block)) > 0, "" })
				a.fetchBlock(block)
				vote := string(a.votes[block].Bytes())
				if before := seen[block]; before != "" && before != vote {
					t.Errorf("round %d: the vote on %s was\n%s\nand is\n%s", round, block, before, vote)
				}
				seen[block] = vote
			}
		}
		a.checkBlocks()
		a.checkVotes()
		if len(a.votes) < len(seen) {
			t.Errorf("round %d: got %d votes, there were %d", round, len(a.votes), len(seen))
		}
	}
	t.Logf("%d kills, %d transactions, %d blocks", rounds, len(ids), len(seen))
	if len(seen) < rounds/2 {
		t.Errorf("got %d blocks, too few to show anything", len(seen))
	}
}
