package node

import (
	"fmt"
	"sync/atomic"
	"time"
)

// CatchUp tells how far a node has read a ledger that went on without it. How much
// there is nobody can say before it is read; the newest block's time tells.
type CatchUp struct {
	Blocks, Votes int       // read since the start
	Newest        time.Time // when the newest of the blocks was made, as it says; zero without any
}

func (c CatchUp) String() string {
	text := fmt.Sprintf("%d blocks and %d votes read", c.Blocks, c.Votes)
	if !c.Newest.IsZero() {
		text += ", the newest block of " + c.Newest.UTC().Format(time.RFC3339)
	}
	return text
}

// tellEvery is how often the log tells how far a node is.
const tellEvery = 10 * time.Second

// catchingUp counts what the ledger loop reads until the node has caught up.
type catchingUp struct {
	blocks, votes, newest atomic.Int64
	told                  time.Time // of the ledger loop alone
}

// noteRead counts an event, and has the log tell of it now and then.
func (n *Node) noteRead(e event) {
	switch c := &n.behind; {
	case e.block != nil:
		c.blocks.Add(1)
		c.newest.Store(max(c.newest.Load(), e.block.Timestamp))
	case e.vote != nil:
		c.votes.Add(1)
	}
	if time.Since(n.behind.told) >= tellEvery {
		n.behind.told = time.Now()
		if up := n.behind.sum(); up.Blocks > 0 {
			n.log.Info("catching up with the ledger", "component", "ledger", "blocks", up.Blocks, "votes", up.Votes, "newest", up.Newest.UTC())
		}
	}
}

func (c *catchingUp) sum() CatchUp {
	up := CatchUp{Blocks: int(c.blocks.Load()), Votes: int(c.votes.Load())}
	if newest := c.newest.Load(); newest > 0 {
		up.Newest = time.Unix(newest, 0)
	}
	return up
}

// CatchingUp implements API.
func (n *Node) CatchingUp() (up CatchUp, behind bool) {
	if n.isCaughtUp() {
		return CatchUp{}, false
	}
	return n.behind.sum(), true
}
