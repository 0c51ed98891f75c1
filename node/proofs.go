package node

import (
	"crypto/sha256"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// proofsPerGeneration bounds the proof cache: it holds at most twice as many.
const proofsPerGeneration = 20_000

// proofCache remembers, by the digest of the whole body, which transactions
// were checked, so that one node verifies a signature once however often it
// meets the transaction. It has two generations; the older one is dropped
// when the younger is full.
type proofCache struct {
	mu           sync.Mutex
	young, older map[[sha256.Size]byte]consensus.Proof
}

func (c *proofCache) get(digest [sha256.Size]byte) (consensus.Proof, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.young[digest]; ok {
		return p, true
	}
	p, ok := c.older[digest]
	return p, ok
}

func (c *proofCache) put(digest [sha256.Size]byte, p consensus.Proof) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.young) >= proofsPerGeneration {
		c.young, c.older = nil, c.young
	}
	if c.young == nil {
		c.young = map[[sha256.Size]byte]consensus.Proof{}
	}
	c.young[digest] = p
}

// check checks all that a transaction shows by itself, once.
func (f *follower) check(t *ledger.Transaction) (consensus.Proof, error) {
	digest := t.Digest()
	if p, ok := f.proofs.get(digest); ok {
		return p, nil
	}
	p, err := f.rules.CheckTransaction(t)
	if err == nil {
		f.proofs.put(digest, p)
	}
	return p, err
}

// inParallel calls do for 0 to count-1 on all cores.
func inParallel(count int, do func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), count)
	if workers <= 1 {
		for i := range count {
			do(i)
		}
		return
	}
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	group.Wait()
}
