package node

import (
	"context"
	"encoding/hex"
	"slices"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// What a database's own dump or snapshot holds of the last minutes may be any
// part of what there was. What stays of it is what hangs together:
//
//   - A member's vote counts if the block is there and previous_block is the
//     genesis block or one on which the same member has a vote that counts.
//   - A block is decided by the votes that count. One decided valid stands if
//     all that it spends is of valid blocks that stand; a vote on one that does
//     not stand does not count.
//   - What is decided and stands is kept, and every block that a member voted
//     on before it: without its vote the chain behind it would hang in the air.
//
// Votes of this node's that the dump lacks and its journal has count like those
// that are there, and are given back to the database.
//
// All other blocks go: they come after the last decided one. So do all other
// members' votes, and the backlog.

type restoreID [32]byte

func toRestoreID(s string) (b restoreID, ok bool) {
	n, err := hex.Decode(b[:], []byte(s))
	return b, err == nil && n == len(b)
}

func (b restoreID) String() string { return hex.EncodeToString(b[:]) }

// memberChain is one member's votes.
type memberChain struct {
	key     string
	after   map[restoreID][]restoreID // what was voted on after a block
	verdict map[restoreID]bool
	counted []restoreID // blocks with votes that count, each behind the one before it
}

// RestorePlan is what has to be done to a database that was restored.
type RestorePlan struct {
	Genesis   string
	Last      string // the decided block that was voted on last
	Valid     int    // blocks that are valid and stay, with the genesis block
	Undecided int    // that stay, as votes on decided ones follow
	Backlog   int    // entries to delete
	Blocks    []string
	Votes     []string       // ids of documents, of members' votes and of those on Blocks
	Return    []*ledger.Vote // of this node's journal, that the database lacks

	tip   string         // the last block with a vote of this node's that stays; "" for none
	adopt []*ledger.Vote // own ones that stay and that the journal lacks
}

// planner makes a plan from a chainstate that was derived of the dump.
type planner struct {
	*rebuild
	s      *stopped
	plan   *RestorePlan
	status map[restoreID]consensus.Status // by all votes there are
	chains map[string]*memberChain
	own    []*ledger.Vote // that the journal lacks
	lost   []*ledger.Vote // own ones that the database lacks
	all    []restoredVote
	latest map[restoreID]int64 // timestamp of the last vote on a block

	fallen  map[restoreID]bool // decided by the votes, but rests on what is missing
	decided map[restoreID]consensus.Status
}

// restoredVote is a vote as it is listed in the database.
type restoredVote struct {
	block  restoreID
	voter  string
	member bool
}

func (s *stopped) planRestore(ctx context.Context, r *rebuild) (*RestorePlan, error) {
	p := &planner{
		rebuild: r, s: s, plan: &RestorePlan{Genesis: s.genesis.ID}, status: map[restoreID]consensus.Status{}, chains: map[string]*memberChain{},
		latest: map[restoreID]int64{}, fallen: map[restoreID]bool{},
	}
	for _, step := range []func(context.Context) error{
		p.readJournal, p.readBlocksAndMembers, p.readVoteTable, p.settleFallen, p.choose, p.countBacklog,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return p.plan, nil
}

// readJournal counts the votes of this node's that the database lacks though it
// has the blocks.
func (p *planner) readJournal(ctx context.Context) error {
	var some []*ledger.Vote
	look := func() error {
		ids := make([]string, len(some))
		for i, v := range some {
			ids[i] = ledger.VoteID(v.BlockID, v.NodePubkey)
		}
		err := p.each(ctx, statedb.Votes, ids, func(i int, d statedb.Document) error {
			if d.Rev != "" {
				return nil
			}
			p.lost = append(p.lost, some[i])
			return p.apply(ctx, event{vote: some[i]})
		})
		some = some[:0]
		return err
	}
	err := p.s.journal.Votes(func(v *ledger.Vote) error {
		if status, err := p.state.BlockStatus(v.BlockID); err != nil || status == consensus.Unknown {
			return err
		}
		if some = append(some, v); len(some) < p.db.Limits().MaxBatch {
			return nil
		}
		return look()
	})
	if err != nil {
		return err
	}
	return look()
}

func (p *planner) readBlocksAndMembers(context.Context) error {
	for _, e := range p.state.Epochs() {
		for _, member := range e.Members {
			p.chains[member] = &memberChain{key: member, after: map[restoreID][]restoreID{}, verdict: map[restoreID]bool{}}
		}
	}
	return p.state.Blocks(func(block string, status consensus.Status) error {
		id, _ := toRestoreID(block)
		p.status[id] = status
		return nil
	})
}

func (p *planner) readVoteTable(ctx context.Context) error {
	for _, v := range p.lost {
		p.link(v)
	}
	return p.eachPage(ctx, restoreTask, statedb.Votes, func(documents []statedb.Document) error {
		votes := make([]*ledger.Vote, len(documents))
		inParallel(len(documents), func(i int) {
			v, err := ledger.ParseVote(documents[i].Body)
			if err == nil && ledger.VoteID(v.BlockID, v.NodePubkey) == documents[i].ID && v.Verify() {
				votes[i] = v
			}
		})
		for _, v := range votes {
			if v == nil {
				continue // no vote; `verify` tells
			}
			if err := p.takeVote(v); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *planner) takeVote(v *ledger.Vote) error {
	block, ok := toRestoreID(v.BlockID)
	if !ok {
		return nil
	}
	p.all = append(p.all, restoredVote{block, v.NodePubkey, p.chains[v.NodePubkey] != nil})
	p.link(v)
	if v.NodePubkey != p.s.o.Key.Public {
		return nil
	}
	known, err := p.s.journal.Vote(v.BlockID)
	if err == nil && known == nil {
		p.own = append(p.own, v)
	}
	return err
}

// link puts a member's vote in its place.
func (p *planner) link(v *ledger.Vote) {
	block, ok := toRestoreID(v.BlockID)
	previous, ok2 := toRestoreID(v.PreviousBlock)
	c := p.chains[v.NodePubkey]
	if !ok || !ok2 || c == nil {
		return
	}
	c.after[previous] = append(c.after[previous], block)
	c.verdict[block] = v.Valid
	p.latest[block] = max(p.latest[block], v.Timestamp)
}

// count walks each member's chain from the genesis block on.
func (p *planner) count() {
	genesis, _ := toRestoreID(p.plan.Genesis)
	for _, c := range p.chains {
		c.counted = c.counted[:0]
		seen := map[restoreID]bool{genesis: true}
		for open := []restoreID{genesis}; len(open) > 0; {
			block := open[len(open)-1]
			open = open[:len(open)-1]
			for _, next := range c.after[block] {
				if _, there := p.status[next]; there && !seen[next] && !p.fallen[next] {
					seen[next] = true
					c.counted = append(c.counted, next)
					open = append(open, next)
				}
			}
		}
	}
}

// decide tallies the votes that count.
func (p *planner) decide() error {
	valid, invalid := map[restoreID][]string{}, map[restoreID][]string{}
	for key, c := range p.chains {
		for _, block := range c.counted {
			if c.verdict[block] {
				valid[block] = append(valid[block], key)
			} else {
				invalid[block] = append(invalid[block], key)
			}
		}
	}
	p.decided = map[restoreID]consensus.Status{}
	epochs := p.state.Epochs()
	for block := range p.status {
		if len(valid[block])+len(invalid[block]) == 0 {
			continue
		}
		number, err := p.state.EpochOf(block.String())
		if err != nil {
			return err
		}
		members := epochs[number].Members
		of := func(voters []string) (n int) {
			for _, voter := range voters {
				if slices.Contains(members, voter) {
					n++
				}
			}
			return n
		}
		if status := p.rules.Tally(len(members), of(valid[block]), of(invalid[block])); status != consensus.Undecided {
			p.decided[block] = status
		}
	}
	genesis, _ := toRestoreID(p.plan.Genesis)
	p.decided[genesis] = consensus.Valid
	return nil
}

// stands reports whether a block is valid and stays so.
func (p *planner) stands(block restoreID) bool {
	return p.status[block] == consensus.Valid && p.decided[block] == consensus.Valid && !p.fallen[block]
}

// settleFallen finds the valid blocks that rest on what is missing, until there
// is no further one.
func (p *planner) settleFallen(ctx context.Context) error {
	u := p.state.Begin()
	defer u.Discard()
	for block, status := range p.status {
		if err := ctx.Err(); err != nil {
			return err
		}
		if status != consensus.Valid {
			continue
		}
		tx, err := u.WaitsFor(block.String())
		if err != nil {
			return err
		}
		if tx != "" {
			p.fallen[block] = true
		}
	}
	left := map[restoreID]bool{} // valid by all votes, and not any more
	for more := true; more; {
		more = false
		p.count()
		if err := p.decide(); err != nil {
			return err
		}
		for block, status := range p.status {
			if status != consensus.Valid || left[block] || p.stands(block) {
				continue
			}
			left[block] = true
			dependents, err := p.state.Dependents(block.String())
			if err != nil {
				return err
			}
			for _, dependent := range dependents {
				id, _ := toRestoreID(dependent)
				if p.status[id] == consensus.Valid && !p.fallen[id] {
					p.fallen[id], more = true, true
				}
			}
		}
	}
	return nil
}

// choose tells what stays, and with it what goes.
func (p *planner) choose(context.Context) error {
	keep := map[restoreID]bool{}
	for block, status := range p.decided {
		keep[block] = p.stands(block) || status == consensus.Invalid
	}
	for block, status := range p.status {
		keep[block] = keep[block] || status == consensus.Disputed
	}
	for more := true; more; {
		more = false
		for _, c := range p.chains {
			for i, behind := len(c.counted)-1, false; i >= 0; i-- {
				if block := c.counted[i]; keep[block] {
					behind = true
				} else if behind {
					keep[block], more = true, true
				}
			}
		}
	}
	last := int64(-1)
	for block := range p.status {
		switch {
		case !keep[block]:
			p.plan.Blocks = append(p.plan.Blocks, block.String())
		case p.stands(block):
			p.plan.Valid++
		case p.status[block] == consensus.Disputed:
		case p.decided[block] != consensus.Invalid:
			p.plan.Undecided++
		}
		if at, voted := p.latest[block]; voted && keep[block] && p.decided[block] != consensus.Undecided && at > last {
			p.plan.Last, last = block.String(), at
		}
	}
	counted := map[string]map[restoreID]bool{}
	for key, c := range p.chains {
		counted[key] = map[restoreID]bool{}
		for _, block := range c.counted {
			counted[key][block] = keep[block]
			if keep[block] && key == p.s.o.Key.Public {
				p.plan.tip = block.String()
			}
		}
	}
	for _, v := range p.all {
		_, known := p.status[v.block]
		if v.member && !counted[v.voter][v.block] || !v.member && known && !keep[v.block] {
			p.plan.Votes = append(p.plan.Votes, ledger.VoteID(v.block.String(), v.voter))
		}
	}
	for _, v := range p.lost {
		if block, _ := toRestoreID(v.BlockID); counted[v.NodePubkey][block] {
			p.plan.Return = append(p.plan.Return, v)
		}
	}
	for _, v := range p.own {
		if block, _ := toRestoreID(v.BlockID); counted[v.NodePubkey][block] {
			p.plan.adopt = append(p.plan.adopt, v)
		}
	}
	slices.Sort(p.plan.Blocks)
	slices.Sort(p.plan.Votes)
	return nil
}

func (p *planner) countBacklog(ctx context.Context) error {
	return p.eachPage(ctx, restoreTask, statedb.Backlog, func(documents []statedb.Document) error {
		p.plan.Backlog += len(documents)
		return nil
	})
}
