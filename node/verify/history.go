package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// history is how the ledger began and who its members were when.
type history struct {
	genesis string  // the first block, "" when it is not known
	epochs  []epoch // oldest first; none without a genesis block
}

// epoch is one stretch of the federation's history.
type epoch struct {
	number  int
	from    int64    // Unix seconds; of blocks
	members []string // sorted
	hash    string   // of the statement that began it
}

// at returns the epoch of a block's timestamp, false before the first.
func (h *history) at(timestamp int64) (epoch, bool) {
	for _, e := range slices.Backward(h.epochs) {
		if e.from <= timestamp {
			return e, true
		}
	}
	return epoch{}, false
}

// readHistory reads the claim on the first block and the statements about the
// federation. It does so after the blocks: what their makers knew is there.
func (v *verifier) readHistory(ctx context.Context) error {
	v.progress.Begin(stepDecisions, "counting votes", "blocks")
	v.history = history{}
	first, err := v.readGenesis(ctx)
	if err != nil {
		return reading(statedb.Bigchain, err)
	}
	if first.id != "" {
		members := append(slices.Clone(first.voters), first.maker)
		slices.Sort(members)
		v.history.genesis = first.id
		v.history.epochs = []epoch{{from: first.timestamp, members: slices.Compact(members)}}
	}
	if err := v.readStatements(ctx); err != nil {
		return reading(statedb.Bigchain, err)
	}
	v.voters, v.names = map[string]uint64{}, nil
	for _, e := range v.history.epochs {
		for _, member := range e.members {
			if _, there := v.voters[member]; !there {
				v.voters[member] = uint64(len(v.names))
				v.names = append(v.names, member)
			}
		}
		v.report.Members = len(e.members)
	}
	v.report.Genesis, v.report.Epochs = v.history.genesis, len(v.history.epochs)
	return nil
}

// firstBlock is what the genesis block says of the federation.
type firstBlock struct {
	id, maker string
	voters    []string
	timestamp int64
}

// note adds a finding about the ledger's history.
func (v *verifier) note(id string, rule Rule, format string, args ...any) error {
	return v.scratch.write(func(b *pebble.Batch) error {
		return find(b, classHistory, Finding{Table: statedb.Bigchain, ID: id, Rule: rule, Seen: fmt.Sprintf(format, args...)})
	})
}

// readGenesis returns the claimed first block. Where the claim is of no use,
// the only block that can be the first is taken for it, so that the rest of the
// ledger can be judged.
func (v *verifier) readGenesis(ctx context.Context) (firstBlock, error) {
	body, err := v.readClaim(ctx)
	if err != nil {
		return firstBlock{}, err
	}
	if body == nil {
		if err := v.note(genesisID, GenesisMissing, "there is no such document"); err != nil {
			return firstBlock{}, err
		}
		return v.guessGenesis(ctx)
	}
	block, why := v.parseClaim(body)
	if why != nil {
		if err := v.note(genesisID, GenesisClaim, "%v", why); err != nil {
			return firstBlock{}, err
		}
		return v.guessGenesis(ctx)
	}
	there, err := v.scratch.bigchainSeen(block.ID)
	if err == nil && !there {
		err = v.note(block.ID, BlockMissing, "it is not there, but the document %q claims it as the first block", genesisID)
	}
	if err == nil {
		// What stands under its own id may be missing or damaged.
		err = v.scratch.write(func(b *pebble.Batch) error { return v.recordBlock(block, b) })
	}
	return firstBlock{id: block.ID, maker: block.NodePubkey, voters: block.Voters, timestamp: block.Timestamp}, err
}

// readClaim returns the document that claims the first block, nil where there is
// none.
func (v *verifier) readClaim(ctx context.Context) ([]byte, error) {
	page, err := v.pages().Page(ctx, statedb.Bigchain, statedb.Range{Start: genesisID, End: genesisID + "0", Limit: 1})
	if err != nil || len(page.Documents) == 0 || page.Documents[0].ID != genesisID {
		return nil, err
	}
	return page.Documents[0].Body, nil
}

// chooseRules returns the rules by which the ledger decides: those that its
// genesis block names. What is wrong with that block is found later.
func (v *verifier) chooseRules(ctx context.Context) (consensus.Rules, error) {
	body, err := v.readClaim(ctx)
	if err != nil {
		return nil, reading(statedb.Bigchain, err)
	}
	if v.rules, err = consensus.Lookup(""); err != nil {
		return nil, err
	}
	block, why := v.parseClaim(body)
	if why != nil {
		return v.rules, nil
	}
	return consensus.Of(block)
}

// parseClaim reads the claim on the first block; why tells what is wrong.
func (v *verifier) parseClaim(body []byte) (block *ledger.Block, why error) {
	tree, err := canonical.Parse(body)
	if err != nil {
		return nil, err
	}
	inner, _ := tree.Get(genesisID)
	if tree.Len() != 1 || inner.IsNull() {
		return nil, errors.New("it does not have the one field that holds a block")
	}
	if block, err = ledger.ParseBlock(inner.Bytes()); err != nil {
		return nil, err
	}
	if err := block.Verify(); err != nil {
		return nil, err
	}
	if !block.IsGenesis() {
		return nil, fmt.Errorf("block %s does not consist of one GENESIS", block.ID)
	}
	_, err = v.rules.CheckTransaction(block.Transactions[0])
	return block, err
}

func (v *verifier) guessGenesis(ctx context.Context) (firstBlock, error) {
	var found []firstBlock
	err := v.scratch.each(ctx, []byte{genesisPrefix}, func(k, _ []byte) error {
		block := id(k[1:])
		value, err := v.scratch.get(key(blockPrefix, block[:]))
		if err != nil {
			return err
		}
		facts, err := readBlock(value)
		if err == nil && facts.genesis && len(facts.faults) == 0 && len(found) < 2 {
			found = append(found, firstBlock{block.String(), facts.maker, facts.voters, facts.timestamp})
		}
		return err
	})
	if err != nil || len(found) != 1 {
		return firstBlock{}, err
	}
	return found[0], v.guessRules(ctx, found[0].id)
}

// guessRules takes the rules from a block that is taken for the first.
func (v *verifier) guessRules(ctx context.Context, id string) error {
	page, err := v.pages().Page(ctx, statedb.Bigchain, statedb.Range{Start: id, End: id + "0", Limit: 1})
	if err != nil || len(page.Documents) == 0 || page.Documents[0].ID != id {
		return err
	}
	block, why := ledger.ParseBlock(page.Documents[0].Body)
	if why != nil {
		return nil // it was changed since, which is found
	}
	if v.rules, err = consensus.Of(block); err == nil {
		v.report.Rules = v.rules.Name()
	}
	return err
}

// agreement counts who made the same statement.
type agreement struct {
	statement *ledger.Statement
	signers   int
}

// readStatements follows the federation's history. Statements come by their
// numbers, as their ids begin with them.
func (v *verifier) readStatements(ctx context.Context) error {
	number, agreements := 0, map[string]*agreement{}
	settle := func() {
		for hash, a := range agreements {
			if last := v.history.epochs[len(v.history.epochs)-1]; v.rules.Tally(len(last.members), a.signers, 0) == consensus.Valid {
				v.history.epochs = append(v.history.epochs, epoch{
					number: a.statement.Number, from: a.statement.From, members: a.statement.Members, hash: hash,
				})
				break // of one number only one can have the members' majority
			}
		}
		clear(agreements)
	}
	r := statedb.Range{Start: ledger.StatementPrefix, End: ledger.StatementPrefix[:len(ledger.StatementPrefix)-1] + ";", Limit: pageRows}
	for {
		page, err := v.pages().Page(ctx, statedb.Bigchain, r)
		if err != nil {
			return err
		}
		for _, d := range page.Documents {
			st, err := v.checkStatement(d)
			if err != nil {
				return err
			}
			if st == nil || v.history.genesis == "" {
				continue
			}
			if st.Number != number {
				settle()
				number = st.Number
			}
			last := v.history.epochs[len(v.history.epochs)-1]
			if st.Number != last.number+1 || st.Previous != last.hash || st.From < last.from || !slices.Contains(last.members, st.NodePubkey) {
				err := v.note(d.ID, StatementHistory, "it does not follow from epoch %d, or its signer was no member then", last.number)
				if err != nil {
					return err
				}
				continue
			}
			if agreements[st.Hash()] == nil {
				agreements[st.Hash()] = &agreement{statement: st}
			}
			agreements[st.Hash()].signers++
		}
		if r.Bookmark = page.Bookmark; r.Bookmark == "" {
			settle()
			return nil
		}
	}
}

// checkStatement checks a statement by itself; nil when it is none.
func (v *verifier) checkStatement(d statedb.Document) (*ledger.Statement, error) {
	st, err := ledger.ParseStatement(d.Body)
	switch {
	case err != nil:
		return nil, v.note(d.ID, StatementShape, "%v", err)
	case st.DocumentID() != d.ID:
		return nil, v.note(d.ID, StatementShape, "it is the statement %s", shorten(st.DocumentID()))
	case !st.Verify():
		return nil, v.note(d.ID, StatementSignature, "the signature is not its member's")
	}
	return st, nil
}
