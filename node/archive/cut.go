package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
)

// ErrNoLedger: the source has no claim on a first block.
var ErrNoLedger = errors.New("there is no ledger to back up: the database has no genesis block")

// cut chooses the documents of a backup: see the package's documentation. When
// choose has returned, facts holds the chosen entries, claims, statements and
// votes, and the ids of the chosen blocks.
type cut struct {
	pages    verify.Pages
	facts    *facts
	backlog  bool
	progress *verify.Meter
	left     func(table, id string, why error) // is told of what is not the ledger's

	genesis string          // the first block's id
	rules   consensus.Rules // those that it names
	members int             // at most, of what the federation has been

	// Of the votes that only the second reading found.
	late      map[string]*ledger.Vote   // by id
	after     map[string]string         // id → that of the vote that names it as the one before
	on        map[string][]*ledger.Vote // by block
	contested bool                      // one of them is against its block
}

// steps of a backup, as progress counts them.
const (
	stepVotes = 1 + iota
	stepBlocks
	stepAgain
	stepWriteBlocks
	stepWriteVotes
)

func (c *cut) choose(ctx context.Context) error {
	c.late, c.after, c.on = map[string]*ledger.Vote{}, map[string]string{}, map[string][]*ledger.Vote{}
	if c.backlog { // first: what is decided while it is read is in the rest
		if err := c.readBacklog(ctx); err != nil {
			return reading(statedb.Backlog, err)
		}
	}
	c.progress.Begin(stepVotes, "reading votes", "votes")
	if err := c.readVotes(ctx, func(*ledger.Vote) {}); err != nil {
		return reading(statedb.Votes, err)
	}
	if err := c.readHistory(ctx); err != nil {
		return reading(statedb.Bigchain, err)
	}
	c.progress.Begin(stepBlocks, "reading blocks", "blocks")
	if err := c.readBlocks(ctx); err != nil {
		return reading(statedb.Bigchain, err)
	}
	c.progress.Begin(stepAgain, "reading votes again", "votes")
	err := c.readVotes(ctx, func(v *ledger.Vote) {
		c.late[ledger.VoteID(v.BlockID, v.NodePubkey)] = v
		c.after[ledger.VoteID(v.PreviousBlock, v.NodePubkey)] = ledger.VoteID(v.BlockID, v.NodePubkey)
		c.on[v.BlockID] = append(c.on[v.BlockID], v)
	})
	if err != nil {
		return reading(statedb.Votes, err)
	}
	if err := c.readHistory(ctx); err != nil { // a statement may have come
		return reading(statedb.Bigchain, err)
	}
	if err := c.readLateBlocks(ctx); err != nil {
		return reading(statedb.Bigchain, err)
	}
	return c.prune(ctx)
}

func reading(table string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("reading the table %s: %w", table, err)
}

func (c *cut) readBacklog(ctx context.Context) error {
	return c.pages.Each(ctx, statedb.Backlog, func(documents []statedb.Document) error {
		bodies, faults := make([][]byte, len(documents)), make([]error, len(documents))
		inParallel(len(documents), func(i int) { bodies[i], faults[i] = soundEntry(documents[i]) })
		for i, d := range documents {
			if faults[i] != nil {
				c.left(statedb.Backlog, d.ID, faults[i])
			} else if err := c.facts.set(key(entryPrefix, d.ID), bodies[i]); err != nil {
				return err
			}
		}
		return c.facts.flush()
	})
}

// readVotes keeps the votes that it does not know yet, and calls found with them.
func (c *cut) readVotes(ctx context.Context, found func(*ledger.Vote)) error {
	return c.pages.Each(ctx, statedb.Votes, func(documents []statedb.Document) error {
		votes, faults := make([]*ledger.Vote, len(documents)), make([]error, len(documents))
		inParallel(len(documents), func(i int) {
			known, err := c.facts.has(key(votePrefix, documents[i].ID))
			if faults[i] = err; err == nil && !known {
				votes[i], faults[i] = soundVote(documents[i])
			}
		})
		for i, d := range documents {
			switch {
			case faults[i] != nil:
				c.left(statedb.Votes, d.ID, faults[i])
			case votes[i] != nil:
				if err := c.facts.set(key(votePrefix, d.ID), votes[i].Bytes()); err != nil {
					return err
				}
				if !ledger.IsProofID(d.ID) {
					found(votes[i])
				}
			}
		}
		c.progress.Add(len(documents), lastID(documents))
		return c.facts.flush()
	})
}

func lastID(documents []statedb.Document) string {
	if len(documents) == 0 {
		return ""
	}
	return documents[len(documents)-1].ID
}

// readHistory keeps the claim on the first block and the statements.
func (c *cut) readHistory(ctx context.Context) error {
	for _, r := range []statedb.Range{
		{Start: genesisID, End: genesisID + "\x01", Limit: 1},
		{Start: ledger.StatementPrefix, End: ledger.StatementPrefix + "~", Limit: 1000},
	} {
		for {
			page, err := c.pages.Page(ctx, statedb.Bigchain, r)
			if err != nil {
				return err
			}
			for _, d := range page.Documents {
				if !isHistory(d.ID) {
					continue
				}
				body, members, err := soundHistory(d)
				if err != nil {
					c.left(statedb.Bigchain, d.ID, err)
					continue
				}
				c.members = max(c.members, members)
				if d.ID == genesisID {
					b, err := claimedBlock(d)
					if err != nil {
						return err
					}
					c.genesis = b.ID
					if c.rules, err = consensus.Of(b); err != nil {
						return err
					}
				}
				if err := c.facts.set(key(historyPrefix, d.ID), body); err != nil {
					return err
				}
			}
			if r.Bookmark = page.Bookmark; r.Bookmark == "" {
				break
			}
		}
	}
	if c.genesis == "" {
		return ErrNoLedger
	}
	return c.facts.flush()
}

// readBlocks keeps the ids of blocks. A federation of one needs no more: every
// decided block has its member's vote, and its chain of votes is in the order of
// what they need. In others it must be known which transaction is where.
func (c *cut) readBlocks(ctx context.Context) error {
	return c.pages.Each(ctx, statedb.Bigchain, func(documents []statedb.Document) error {
		blocks := make([]*ledger.Block, len(documents))
		if c.members > 1 {
			inParallel(len(documents), func(i int) {
				if b, err := soundBlock(documents[i]); err == nil { // what it is not, the writing tells
					blocks[i] = b
				}
			})
		}
		for i, d := range documents {
			if !ledger.IsID(d.ID) {
				continue
			}
			if err := c.facts.set(key(blockPrefix, d.ID), []byte{foundFirst}); err != nil {
				return err
			}
			if err := c.holds(blocks[i]); err != nil {
				return err
			}
		}
		c.progress.Add(len(documents), lastID(documents))
		return c.facts.flush()
	})
}

func (c *cut) holds(b *ledger.Block) error {
	if b == nil {
		return nil
	}
	if err := c.facts.set(key(votersPrefix, b.ID), []byte(strconv.Itoa(len(b.Voters)))); err != nil {
		return err
	}
	for _, t := range b.Transactions {
		if err := c.facts.set(key(holdsPrefix, t.ID, b.ID), nil); err != nil {
			return err
		}
	}
	return nil
}

// readLateBlocks reads the blocks that late votes are on, and those that the
// reading of the blocks missed although there were votes on them: a node serves
// a vote as soon as it is there, but a block only when it has read it itself.
func (c *cut) readLateBlocks(ctx context.Context) error {
	missed, last := []string{}, ""
	err := c.facts.under(ctx, []byte{votePrefix}, func(id string, _ []byte) error {
		block, _, _ := strings.Cut(id, ":")
		if block == last || c.on[block] != nil {
			return nil
		}
		last = block
		known, err := c.facts.has(key(blockPrefix, block))
		if err == nil && !known {
			missed = append(missed, block)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range missed {
		if err := c.readLateBlock(ctx, id, foundFirst); err != nil {
			return err
		}
	}
	for id := range c.on {
		known, err := c.facts.has(key(blockPrefix, id))
		if err != nil {
			return err
		}
		if known && c.members == 1 {
			continue
		}
		found := byte(foundLater)
		if known {
			found = foundFirst
		}
		if err := c.readLateBlock(ctx, id, found); err != nil {
			return err
		}
	}
	return c.facts.flush()
}

// readLateBlock keeps what votes on a block depend on, if it is there.
func (c *cut) readLateBlock(ctx context.Context, id string, found byte) error {
	page, err := c.pages.Page(ctx, statedb.Bigchain, statedb.Range{Start: id, End: id + "\x01", Limit: 1})
	if err != nil || len(page.Documents) == 0 {
		return err // late votes on it are pruned
	}
	b, err := soundBlock(page.Documents[0])
	if err != nil {
		return nil // the writing tells
	}
	if err := c.facts.set(key(blockPrefix, id), []byte{found}); err != nil || c.members == 1 {
		return err
	}
	if err := c.holds(b); err != nil {
		return err
	}
	made := factsOf(b)
	for _, tx := range made.Inputs {
		if err := c.facts.set(key(spendsPrefix, tx, id), nil); err != nil {
			return err
		}
	}
	value, err := json.Marshal(made)
	if err != nil {
		return err
	}
	if err := c.facts.set(key(madePrefix, id), value); err != nil {
		return err
	}
	for _, v := range c.on[id] {
		if v.Valid {
			continue
		}
		c.contested = true
		for _, name := range contestedNames(b) {
			if err := c.facts.set(key(contestedPrefix, name), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// contestedNames are what another block must have one of to speak against b.
func contestedNames(b *ledger.Block) (names []string) {
	for _, t := range b.Transactions {
		names = append(names, t.ID)
		for _, ref := range t.Spends() {
			names = append(names, ref.TxID+" "+strconv.Itoa(ref.Index))
		}
	}
	return names
}

// speaks reports whether a block may be why a member voted against another. It
// is in the cut then, though nobody whose vote is has voted on it.
func (c *cut) speaks(b *ledger.Block) (bool, error) {
	if !c.contested {
		return false, nil
	}
	for _, name := range contestedNames(b) {
		if is, err := c.facts.has(key(contestedPrefix, name)); err != nil || is {
			return is, err
		}
	}
	return false, nil
}

// prune leaves out late votes that lack what they need, and then those that
// need these.
func (c *cut) prune(ctx context.Context) error {
	work := make([]string, 0, len(c.late))
	for id := range c.late {
		work = append(work, id)
	}
	for len(work) > 0 {
		id := work[len(work)-1]
		work = work[:len(work)-1]
		v := c.late[id]
		if v == nil {
			continue // it is left out already
		}
		met, err := c.met(ctx, v)
		if err != nil {
			return err
		}
		if met {
			continue
		}
		made, err := c.facts.made(v.BlockID)
		if err != nil {
			return err
		}
		delete(c.late, id)
		if err := c.facts.Delete(key(votePrefix, id), nil); err != nil {
			return err
		}
		if next, there := c.after[id]; there {
			work = append(work, next)
		}
		for _, tx := range made.Transactions {
			err := c.facts.under(ctx, key(spendsPrefix, tx), func(block string, _ []byte) error {
				for _, dependent := range c.on[block] {
					work = append(work, ledger.VoteID(block, dependent.NodePubkey))
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return c.dropUnvoted(ctx)
}

// dropUnvoted leaves out late blocks that no vote is on any more.
func (c *cut) dropUnvoted(ctx context.Context) error {
	err := c.facts.under(ctx, []byte{blockPrefix}, func(block string, found []byte) error {
		if found[0] == foundFirst {
			return nil
		}
		for _, v := range c.on[block] {
			if c.late[ledger.VoteID(block, v.NodePubkey)] != nil {
				return nil
			}
		}
		return c.facts.batch.Delete(key(blockPrefix, block), nil)
	})
	return errors.Join(err, c.facts.flush())
}

// met reports whether what a late vote needs is in the cut.
func (c *cut) met(ctx context.Context, v *ledger.Vote) (bool, error) {
	if there, err := c.facts.has(key(blockPrefix, v.BlockID)); err != nil || !there {
		return false, err
	}
	if v.PreviousBlock != c.genesis {
		if there, err := c.facts.has(key(votePrefix, ledger.VoteID(v.PreviousBlock, v.NodePubkey))); err != nil || !there {
			return false, err
		}
	}
	if !v.Valid || c.members == 1 {
		return true, nil
	}
	made, err := c.facts.made(v.BlockID)
	if err != nil {
		return false, err
	}
	for _, tx := range made.Inputs {
		decided := false
		err := c.facts.under(ctx, key(holdsPrefix, tx), func(block string, _ []byte) error {
			if decided = decided || block == c.genesis; decided {
				return nil
			}
			status, err := c.status(ctx, block)
			decided = status == consensus.Valid
			return err
		})
		if err != nil || !decided {
			return false, err
		}
	}
	return true, nil
}

// status is what the votes in the cut make of a block, whose voters are taken to
// be the federation's: verify judges that.
func (c *cut) status(ctx context.Context, block string) (consensus.Status, error) {
	voters, said := 0, map[string]map[bool]bool{}
	err := c.facts.under(ctx, key(votePrefix, block+":"), func(_ string, body []byte) error {
		v, err := ledger.ParseVote(body)
		if err != nil {
			return err
		}
		if said[v.NodePubkey] == nil {
			said[v.NodePubkey] = map[bool]bool{}
		}
		said[v.NodePubkey][v.Valid] = true
		return nil
	})
	if err != nil {
		return 0, err
	}
	value, err := c.facts.Value(key(votersPrefix, block))
	if err == nil && value != nil {
		voters, err = strconv.Atoi(string(value))
	}
	votes := consensus.Votes{Voters: voters}
	for _, verdicts := range said {
		if verdicts[true] {
			votes.Valid++
		}
		if verdicts[false] {
			votes.Invalid++
		}
		if len(verdicts) == 2 {
			votes.Both++
		}
	}
	return consensus.Decide(c.rules, votes), err
}
