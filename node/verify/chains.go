package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// rankVotes follows each node's chain of votes from the genesis block on and
// gives every vote its place in it.
func (v *verifier) rankVotes(ctx context.Context) error {
	it, err := v.scratch.scan([]byte{votePrefix}, []byte{votePrefix + 1})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); {
		voter, _, _ := bytes.Cut(it.Key()[1:], []byte{0})
		c := chain{v: v, voter: string(voter), ranks: v.scratch.bulk()}
		if err := c.rank(ctx); err != nil {
			return err
		}
		it.SeekGE(after(key(votePrefix, voterPart(string(voter)))))
	}
	return it.Error()
}

// chain is the votes of one node.
type chain struct {
	v       *verifier
	voter   string
	next    *pebble.Iterator // over nextPrefix: what was voted on after what
	ranks   *bulk
	part    uint64 // of the chain, if it is broken
	ranked  int    // votes
	circles bool   // what is ranked already may come again
}

// isGenesis tells the block that is not voted on, where chains begin.
func (c *chain) isGenesis(block id) bool {
	return c.v.history.genesis != "" && block == toID(c.v.history.genesis)
}

// note adds a finding about a vote of this node; of strangers' votes no chain
// is asked for.
func (c *chain) note(block id, format string, args ...any) error {
	if _, member := c.v.voters[c.voter]; !member && c.v.history.genesis != "" {
		return nil
	}
	return find(c.ranks, classTogether, Finding{
		Table: statedb.Votes, ID: ledger.VoteID(block.String(), c.voter), Rule: VoteChain, Seen: fmt.Sprintf(format, args...),
	})
}

func (c *chain) rank(ctx context.Context) (err error) {
	defer c.ranks.end(&err)
	prefix := key(nextPrefix, voterPart(c.voter))
	if c.next, err = c.v.scratch.scan(prefix, after(prefix)); err != nil {
		return err
	}
	defer c.next.Close()
	if c.v.history.genesis != "" {
		if err := c.walk(ctx, toID(c.v.history.genesis)); err != nil {
			return err
		}
	}
	total, err := c.walkLoose(ctx)
	if err != nil || total == c.ranked {
		return err
	}
	return c.walkCircles(ctx)
}

// walkLoose walks the parts that begin with a block that the node has no vote
// on, and counts all its votes.
func (c *chain) walkLoose(ctx context.Context) (total int, err error) {
	votes := key(votePrefix, voterPart(c.voter))
	it, err := c.v.scratch.scan(votes, after(votes))
	if err != nil {
		return 0, err
	}
	defer it.Close()
	links := key(nextPrefix, voterPart(c.voter))
	it.First()
	err = c.v.scratch.each(ctx, links, func(k, _ []byte) error {
		previous, block := id(k[len(links):]), id(k[len(links)+idSize:])
		if c.isGenesis(block) {
			return find(c.ranks, classTogether, Finding{
				Table: statedb.Votes, ID: ledger.VoteID(block.String(), c.voter), Rule: VoteGenesis, Seen: "it is a vote on the genesis block",
			})
		}
		total++
		for it.Valid() && bytes.Compare(it.Key()[len(votes):], previous[:]) < 0 {
			it.Next()
		}
		if it.Valid() && bytes.Equal(it.Key()[len(votes):], previous[:]) || c.isGenesis(previous) {
			return nil
		}
		value, err := c.v.scratch.get(key(votePrefix, voterPart(c.voter), block[:]))
		if err != nil {
			return err
		}
		vote, err := readVote(value)
		if err == nil && vote.lap <= c.v.subject && c.v.history.genesis != "" {
			err = c.note(block, "previous_block is %s, on which this node has no vote", previous)
		}
		if err != nil {
			return err
		}
		c.part++
		return c.walkFrom(ctx, block, 1)
	})
	return total, err
}

// walkCircles walks what no beginning leads to.
func (c *chain) walkCircles(ctx context.Context) error {
	c.circles = true
	votes := key(votePrefix, voterPart(c.voter))
	return c.v.scratch.each(ctx, votes, func(k, _ []byte) error {
		block := id(k[len(votes):])
		if c.isGenesis(block) {
			return nil
		}
		ranked, err := c.isRanked(block)
		if err != nil || ranked {
			return err
		}
		if err := c.note(block, "its chain of previous_block is a circle"); err != nil {
			return err
		}
		c.part++
		return c.walkFrom(ctx, block, 1)
	})
}

func (c *chain) isRanked(block id) (bool, error) {
	if err := c.ranks.flush(); err != nil {
		return false, err
	}
	value, err := c.v.scratch.get(key(rankPrefix, block[:], []byte(c.voter)))
	return value != nil, err
}

// walk ranks what follows from a block that has no vote itself.
func (c *chain) walk(ctx context.Context, from id) error {
	first, found, err := c.follow(from, 0)
	if err != nil || !found {
		return err
	}
	return c.walkFrom(ctx, first, 1)
}

// walkFrom ranks a vote and all that follow from it, the branches of a fork one
// after the other.
func (c *chain) walkFrom(ctx context.Context, block id, place uint64) error {
	for {
		for found := true; found; place++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if c.circles {
				if ranked, err := c.isRanked(block); err != nil || ranked {
					return err
				}
			}
			if err := c.set(block, place); err != nil {
				return err
			}
			var err error
			if block, found, err = c.follow(block, place); err != nil {
				return err
			}
		}
		branch, at, found, err := c.takeBranch()
		if err != nil || !found {
			return err
		}
		block, place = branch, at
		c.part++ // places on different branches say nothing of each other
	}
}

// follow returns the vote that names block as the one before. If there are
// several, the others are kept for later.
func (c *chain) follow(block id, place uint64) (first id, found bool, err error) {
	prefix := key(nextPrefix, voterPart(c.voter), block[:])
	for c.next.SeekGE(prefix); c.next.Valid() && bytes.HasPrefix(c.next.Key(), prefix); c.next.Next() {
		next := id(c.next.Key()[len(prefix):])
		if c.isGenesis(next) {
			continue
		}
		if !found {
			first, found = next, true
			continue
		}
		if err := c.note(next, "previous_block is %s, which its vote on %s names, too", block, first); err != nil {
			return first, false, err
		}
		if err := c.v.scratch.Set(key(branchPrefix, next[:]), binary.AppendUvarint(nil, place+1), pebble.NoSync); err != nil {
			return first, false, err
		}
	}
	return first, found, c.next.Error()
}

// takeBranch takes up a branch that was kept.
func (c *chain) takeBranch() (block id, place uint64, found bool, err error) {
	it, err := c.v.scratch.scan([]byte{branchPrefix}, []byte{branchPrefix + 1})
	if err != nil {
		return block, 0, false, err
	}
	defer it.Close()
	if !it.First() {
		return block, 0, false, it.Error()
	}
	k := bytes.Clone(it.Key())
	f := fields{rest: it.Value()}
	block, place = id(k[1:]), f.uint()
	if err := f.err(); err != nil {
		return block, 0, false, err
	}
	return block, place, true, c.v.scratch.Delete(k, pebble.NoSync)
}

// set ranks one vote.
func (c *chain) set(block id, place uint64) error {
	value, err := c.v.scratch.get(key(votePrefix, voterPart(c.voter), block[:]))
	if err != nil {
		return err
	}
	vote, err := readVote(value)
	if err != nil {
		return err
	}
	c.ranked++
	ranked := rankedVote{lap: vote.lap, valid: vote.valid, reason: vote.reason, rank: rank{c.part, place}}
	return c.ranks.Set(key(rankPrefix, block[:], []byte(c.voter)), ranked.append(nil), nil)
}
