package e2e

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// TestFourNodes has four nodes share a database and decide by two thirds.
// Conflicting spends are posted to two of them in the same instant, E2E_PAIRS=500
// of them; then two nodes die. Nothing is decided meanwhile, nothing is lost, and
// when they are back all four say the same of everything.
func TestFourNodes(t *testing.T) {
	eachServer(t, func(t *testing.T, b backend) {
		if b.name == configs.MongoDB {
			t.Skip("not tested: four nodes on MongoDB, for which FerretDB stands in; it cannot compare and replace in one step")
		}
		testFourNodes(t, b)
	})
}

// quartet is a federation of four on one database.
type quartet struct {
	t      *testing.T
	nodes  []*node
	mu     sync.Mutex
	posted []string // ids
}

func testFourNodes(t *testing.T, b backend) {
	q := &quartet{t: t, nodes: startMembers(t, b, b.shared(t), 4)}
	owners := q.quarrel()
	q.halve(owners[0])
	q.agree()
	q.sameOutputs(owners)
	for _, n := range q.nodes {
		if faults, err := n.metric("couchledger_faults_total"); err != nil || faults != 0 {
			t.Errorf("a node saw faults in an honest ledger: %v, %v", faults, err)
		}
		n.stop()
	}
	q.nodes[0].wantDone(t, []string{"verify"}, "The ledger is sound.", "members: 4", "decides by two-thirds")
}

// quarrel posts pairs of conflicting spends, each to two of the nodes in the same
// instant: exactly one of each pair becomes valid, at all nodes.
func (q *quartet) quarrel() (owners []ledger.KeyPair) {
	t := q.t
	pairs := 12
	if text := os.Getenv("E2E_PAIRS"); text != "" {
		var err error
		if pairs, err = strconv.Atoi(text); err != nil {
			t.Fatalf("E2E_PAIRS: %v", err)
		}
	}
	owners = make([]ledger.KeyPair, pairs)
	assets := make([]*ledger.Transaction, pairs)
	rivals := make([][2]*ledger.Transaction, pairs)
	for i := range pairs {
		owners[i] = ledger.GenerateKeyPair()
		assets[i] = create(t, owners[i])
		for side := range rivals[i] {
			rivals[i][side] = mustSpend(t, owners[i], ledger.GenerateKeyPair().Public, coinsOf(assets[i])...)
		}
	}
	inParallel(pairs, func(i int) { q.post(i, assets[i]) })
	for _, asset := range assets {
		q.awaitValid(asset.ID)
	}
	inParallel(pairs, func(i int) {
		var both sync.WaitGroup
		for side, tx := range rivals[i] {
			both.Go(func() { q.post(i+side*(1+i/4%3), tx) }) // every two of the nodes
		}
		both.Wait()
	})
	q.agree()
	for i, pair := range rivals {
		winners := 0
		for _, tx := range pair {
			winners += len(q.nodes[0].list(t, "/api/v1/blocks?status=VALID&tx_id="+tx.ID))
		}
		if winners != 1 {
			t.Errorf("of two that spend asset %s %d are valid, want 1", assets[i].ID, winners)
		}
	}
	return owners
}

// halve kills two of the nodes: nothing is decided until they are back.
func (q *quartet) halve(owner ledger.KeyPair) {
	t := q.t
	for _, n := range q.nodes[2:] {
		n.kill()
	}
	late := create(t, owner)
	q.post(0, late)
	for _, n := range q.nodes[:2] {
		eventually(t, "the two that are left have voted", func() (bool, string) {
			for _, block := range n.list(t, "/api/v1/blocks?tx_id="+late.ID) {
				if a, err := n.do(http.MethodGet, "/api/v1/votes?block_id="+block, nil); err == nil && strings.Count(string(a.body), `"signature"`) == 2 {
					return true, ""
				}
			}
			return false, "no block with two votes"
		})
		if status, _, err := n.status(late.ID); err != nil || status != "undecided" {
			t.Errorf("with two of four down: got %q, %v, want undecided", status, err)
		}
	}
	for _, n := range q.nodes[2:] {
		n.start()
	}
	q.awaitValid(late.ID)
}

// awaitValid waits until a transaction is valid at all nodes, which may not have
// heard of it yet.
func (q *quartet) awaitValid(id string) {
	q.t.Helper()
	for i, n := range q.nodes {
		eventually(q.t, fmt.Sprintf("transaction %s is valid at node %d", id, i), func() (bool, string) {
			status, reason, err := n.status(id)
			return status == "valid", fmt.Sprint(status, reason, err)
		})
	}
}

// startMembers starts nodes of one federation on one database, all at once:
// exactly one makes the genesis block.
func startMembers(t *testing.T, b backend, address address, count int, more ...string) (nodes []*node) {
	keys := make([]ledger.KeyPair, count)
	for i := range keys {
		keys[i] = ledger.GenerateKeyPair()
	}
	for i := range keys {
		environ := append(keysOf(keys[i], slices.Concat(keys[:i], keys[i+1:])...),
			"BIGCHAINDB_CONSENSUS_PLUGIN="+consensus.TwoThirds, "BIGCHAINDB_BACKLOG_REASSIGN_DELAY=1")
		environ = append(environ, more...)
		var n *node
		if i == 0 {
			n = b.newNode(t, address, environ...)
		} else {
			n = newNode(t, append(b.environ(address, nodes[0].ledger()), environ...)...)
		}
		// Who takes over what another was slow with may come second.
		n.expected = append(n.expected, "voted a block invalid")
		nodes = append(nodes, n)
	}
	runs := make([]*process, len(keys))
	for i, n := range nodes {
		runs[i] = n.launch()
	}
	for i, n := range nodes {
		n.awaitReady(runs[i])
	}
	return nodes
}

// post posts a transaction to one of the nodes. Another may have been first with a
// rival.
func (q *quartet) post(to int, tx *ledger.Transaction) {
	q.mu.Lock()
	q.posted = append(q.posted, tx.ID)
	q.mu.Unlock()
	a, err := q.nodes[to%len(q.nodes)].do(http.MethodPost, transactionsPath, tx.Bytes())
	if err != nil || a.status != http.StatusAccepted && !strings.Contains(string(a.body), "DoubleSpend") {
		q.t.Errorf("POST: %v, %v", a, err)
	}
}

// agree waits until all nodes say the same of every transaction: that it is valid,
// by the same block, or that there is none.
func (q *quartet) agree() {
	q.t.Helper()
	for _, id := range q.posted {
		var said []string
		eventually(q.t, "all nodes say the same of "+id, func() (bool, string) {
			said = said[:0]
			for _, n := range q.nodes {
				status, _, err := n.status(id)
				if err != nil || status == "undecided" || status == "backlog" {
					return false, fmt.Sprint(status, err)
				}
				said = append(said, status)
			}
			return len(slices.Compact(slices.Clone(said))) == 1, fmt.Sprint(said)
		})
		var blocks []string
		for _, n := range q.nodes {
			blocks = append(blocks, strings.Join(n.list(q.t, "/api/v1/blocks?status=VALID&tx_id="+id), " "))
		}
		if len(slices.Compact(slices.Clone(blocks))) != 1 || (blocks[0] != "") != (said[0] == "valid") || strings.Contains(blocks[0], " ") {
			q.t.Errorf("transaction %s is %s, by the blocks %q", id, said[0], blocks)
		}
	}
}

// sameOutputs wants the owners' unspent outputs to be the same on all nodes.
func (q *quartet) sameOutputs(owners []ledger.KeyPair) {
	q.t.Helper()
	for _, owner := range owners {
		var first []string
		for i, n := range q.nodes {
			outputs := slices.Sorted(slices.Values(n.list(q.t, "/api/v1/outputs?unspent=true&public_key="+owner.Public)))
			if i == 0 {
				first = outputs
			} else if !slices.Equal(outputs, first) {
				q.t.Errorf("unspent outputs of %s: node %d has %v, node 0 %v", owner.Public, i, outputs, first)
			}
		}
	}
}

// inParallel calls do for 0 to n-1, a few at a time.
func inParallel(n int, do func(i int)) {
	var group sync.WaitGroup
	places := make(chan struct{}, 8)
	for i := range n {
		places <- struct{}{}
		group.Go(func() {
			do(i)
			<-places
		})
	}
	group.Wait()
}
