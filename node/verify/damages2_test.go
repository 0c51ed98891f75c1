package verify

import (
	"fmt"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// wrongVotes changes, forges and removes votes.
func (s *sample) wrongVotes() []damage {
	stranger := ledger.GenerateKeyPair()
	v, next := s.votes[s.source], s.votes[s.source+1]
	id, nextID := vote(v).id, vote(next).id
	body := v.Bytes()
	changed := func(name string, rule Rule, alter func(canonical.Value) canonical.Value, path ...any) damage {
		return damage{name: name, changes: []change{{statedb.Votes, id, edit(body, alter, path...)}}, want: ofVote(id, rule)}
	}
	again := func(name string, rule Rule, vote_ *ledger.Vote) damage {
		return damage{name: name, changes: []change{vote(vote_)}, want: ofVote(vote(vote_).id, rule)}
	}
	sign := func(block, previous string, valid bool, reason string) *ledger.Vote {
		return ledger.NewVote(s.key, block, previous, valid, reason, v.Timestamp)
	}
	nothing := ledger.Hash([]byte("nothing"))
	free := s.sign(s.create("voted on"))
	against := sign(v.BlockID, v.PreviousBlock, false, "DoubleSpend")
	odd := sign(free.ID, s.last().ID, true, "")
	// The node's votes on the first block and on the last one that spends
	// change places.
	spending, source := s.blocks[s.spending], s.blocks[s.source]
	var order []change
	previous := s.genesis.ID
	for i, b := range s.swapped() {
		if s.votes[i].BlockID != b || s.votes[i].PreviousBlock != previous {
			order = append(order, vote(sign(b, previous, true, "")))
		}
		previous = b
	}
	return []damage{
		changed("a byte in a vote's signature", VoteSignature, flip, "signature"),
		changed("a decision flipped", VoteSignature, to(canonical.BoolOf(false)), "vote", "is_block_valid"),
		changed("a vote's timestamp as a number", VoteShape, to(canonical.IntOf(1)), "vote", "timestamp"),
		changed("a vote with another voter", VoteID, text(stranger.Public), "node_pubkey"),
		again("a decision flipped by its owner", VoteVerdict, sign(v.BlockID, v.PreviousBlock, false, "")),
		again("a decision flipped for a false reason", VoteVerdict, sign(v.BlockID, v.PreviousBlock, false, "DUPLICATE_TRANSACTION")),
		again("a valid vote with a reason", VoteVerdict, sign(v.BlockID, v.PreviousBlock, true, "DoubleSpend")),
		again("a stranger's vote", VoteVoter, ledger.NewVote(stranger, v.BlockID, v.PreviousBlock, true, "", v.Timestamp)),
		again("a stranger's vote on no block", VoteVoter, ledger.NewVote(stranger, nothing, v.PreviousBlock, true, "", v.Timestamp)),
		again("a vote on the genesis block", VoteGenesis, sign(s.genesis.ID, s.last().ID, true, "")),
		again("a previous block without a vote", VoteChain, sign(v.BlockID, nothing, true, "")),
		{name: "two votes after one block", changes: []change{vote(sign(next.BlockID, v.PreviousBlock, true, ""))}, want: ofVote(max(id, nextID), VoteChain)},
		{name: "votes in a circle", changes: []change{vote(sign(v.BlockID, next.BlockID, true, "")), vote(sign(next.BlockID, v.BlockID, true, ""))},
			want: ofVote(min(id, nextID), VoteChain)},
		{name: "a vote contradicted by its owner", changes: []change{{statedb.Votes, against.ProofID(), against.Bytes()}},
			want: append(ofVote(id, VoteTwice), ofBlock(v.BlockID, BlockDisputed)...)},
		{name: "a vote removed", changes: []change{gone(statedb.Votes, id)},
			want: append(ofVote(nextID, VoteChain), ofDerived(source.Transactions[0].ID, DerivedExtra)...)},
		{name: "the last vote removed", changes: []change{gone(statedb.Votes, vote(s.votes[len(s.votes)-1]).id)},
			want: ofDerived(s.last().Transactions[0].ID, DerivedExtra)},
		{name: "a vote under a wrong id", changes: []change{gone(statedb.Votes, id), {statedb.Votes, ledger.VoteID(v.BlockID, stranger.Public), body}},
			want: ofVote(ledger.VoteID(v.BlockID, stranger.Public), VoteID)},
		{name: "a vote duplicated", changes: []change{{statedb.Votes, id + "2", body}}, want: ofVote(id+"2", VoteID), alone: true},
		{name: "garbage for a vote", changes: []change{{statedb.Votes, id, []byte(`{}`)}}, want: ofVote(id, VoteShape)},
		{name: "a vote on a block that never was", changes: []change{vote(odd)}, want: ofBlock(free.ID, BlockMissing), alone: true},
		{name: "votes in the wrong order", changes: order, want: ofVote(ledger.VoteID(spending.ID, s.key.Public), VoteOrder)},
	}
}

// swapped lists the blocks as the votes would, with the spending block before
// the one that it spends from.
func (s *sample) swapped() (ids []string) {
	for i, b := range s.blocks {
		switch i {
		case s.source:
			ids = append(ids, s.blocks[s.spending].ID)
		case s.spending:
			ids = append(ids, s.blocks[s.source].ID)
		default:
			ids = append(ids, b.ID)
		}
	}
	return ids
}

// wrongHistory damages what tells of the beginning and of the members.
func (s *sample) wrongHistory() []damage {
	stranger := ledger.GenerateKeyPair()
	claim := s.tables[statedb.Bigchain][genesisID]
	statement := func(signer ledger.KeyPair, number int, previous string) *ledger.Statement {
		return ledger.NewStatement(signer, number, s.last().Timestamp+100, []string{s.key.Public}, previous)
	}
	stated := func(name string, rule Rule, st *ledger.Statement, body []byte) damage {
		return damage{name: name, changes: []change{{statedb.Bigchain, st.DocumentID(), body}}, want: ofBlock(st.DocumentID(), rule), alone: true}
	}
	own, foreign, later := statement(s.key, 1, ""), statement(stranger, 1, ""), statement(s.key, 3, ledger.Hash(nil))
	return []damage{
		{name: "no genesis claim", changes: []change{gone(statedb.Bigchain, genesisID)}, want: ofBlock(genesisID, GenesisMissing), alone: true},
		{name: "a garbled genesis claim", changes: []change{{statedb.Bigchain, genesisID, edit(claim, flip, "genesis", "signature")}},
			want: ofBlock(genesisID, GenesisClaim), alone: true},
		{name: "another block claimed as the first", changes: []change{{statedb.Bigchain, genesisID, edit(claim, to(mustParse(s.last().Bytes())), "genesis")}},
			want: ofBlock(genesisID, GenesisClaim), alone: true},
		{name: "no genesis block", changes: []change{gone(statedb.Bigchain, s.genesis.ID)}, want: ofBlock(s.genesis.ID, BlockMissing), alone: true},
		{name: "neither genesis block nor claim", changes: []change{gone(statedb.Bigchain, s.genesis.ID), gone(statedb.Bigchain, genesisID)},
			want: ofBlock(genesisID, GenesisMissing)},
		{name: "a garbled genesis block", changes: []change{{statedb.Bigchain, s.genesis.ID, edit(s.genesis.Bytes(), text("1"), "block", "timestamp")}},
			want: ofBlock(s.genesis.ID, BlockHash), alone: true},
		stated("a garbled statement", StatementShape, own, []byte(`{"federation":null}`)),
		stated("a statement under another id", StatementShape, own, foreign.Bytes()),
		stated("a statement with a byte changed", StatementSignature, own, edit(own.Bytes(), text("99999999999"), "federation", "from")),
		stated("a stranger's statement", StatementHistory, foreign, foreign.Bytes()),
		stated("a statement about an epoch that never began", StatementHistory, later, later.Bytes()),
	}
}

func mustParse(body []byte) canonical.Value {
	tree, err := canonical.Parse(body)
	if err != nil {
		panic(err)
	}
	return tree
}

// wrongDerived damages the table for queries.
func (s *sample) wrongDerived() []damage {
	tx := s.blocks[s.spending].Transactions[0]
	body := s.tables[statedb.Transactions][tx.ID]
	extra := s.create("extra")
	one := func(name string, rule Rule, id string, body []byte) damage {
		return damage{name: name, changes: []change{{statedb.Transactions, id, body}}, want: ofDerived(id, rule), alone: true}
	}
	return []damage{
		one("a derived document removed", DerivedMissing, tx.ID, nil),
		one("the genesis transaction's derived document removed", DerivedMissing, s.genesis.Transactions[0].ID, nil),
		one("a derived document changed", DerivedChanged, tx.ID, edit(body, to(mustParse([]byte(`{"a":1}`))), "metadata")),
		one("a derived document of another block", DerivedBlock, tx.ID, edit(body, text(s.genesis.ID), "block_id")),
		one("a derived document without a block", DerivedBlock, tx.ID, tx.Bytes()),
		one("a derived document of no block", DerivedExtra, extra.ID, extra.BytesWith([]byte(`"block_id":"`+s.genesis.ID+`",`))),
		one("a stranger's document among transactions", Foreign, "readme", []byte(`{}`)),
		{name: "garbage for a derived document", changes: []change{{statedb.Transactions, tx.ID, []byte(`{}`)}},
			want: append(ofDerived(tx.ID, DerivedChanged), ofDerived(tx.ID, DerivedBlock)...), alone: true},
	}
}

// harmless is what happens to sound ledgers.
func (s *sample) harmless() []damage {
	stranger := ledger.GenerateKeyPair()
	create := s.create("in flight")
	tx := s.last().Transactions[0]
	undecided := s.sign(create)
	bad := ledger.NewBlock(stranger, s.last().Timestamp, []string{stranger.Public}, []*ledger.Transaction{create})
	duplicate := s.sign(tx)
	spend := s.transfer(s.unspent[0], []ledger.Source{ledger.SourceOf(s.unspent[0], 0)}, stranger.Public, 3, s.alice)
	late := s.sign(spend)
	rejected := func(name string, b *ledger.Block, reason string) damage {
		return damage{name: name, changes: []change{block(b), vote(ledger.NewVote(s.key, b.ID, s.last().ID, false, reason, b.Timestamp))}}
	}
	st := ledger.NewStatement(s.key, 1, s.last().Timestamp+100, []string{min(s.key.Public, stranger.Public), max(s.key.Public, stranger.Public)}, "")
	spaced := []byte(fmt.Sprintf(" { \"block_id\" : %q , %s ", s.last().ID, tx.Bytes()[1:]))
	return []damage{
		{name: "an undecided block", changes: []change{block(undecided)}},
		{name: "a transaction that waits", changes: []change{{statedb.Backlog, create.ID, create.Bytes()}}},
		{name: "a derived document still to be written", changes: []change{gone(statedb.Transactions, tx.ID), {statedb.Backlog, tx.ID, tx.Bytes()}}},
		{name: "garbage in the backlog", changes: []change{{statedb.Backlog, "x", []byte(`{}`)}}},
		{name: "the federation grows", changes: []change{{statedb.Bigchain, st.DocumentID(), st.Bytes()}}},
		{name: "other spaces and another order of keys", changes: []change{{statedb.Transactions, tx.ID, spaced}}},
		rejected("a stranger's block, voted invalid", bad, "NODES_PUBKEYS_MISMATCH"),
		rejected("a transaction again, voted invalid", duplicate, "DUPLICATE_TRANSACTION"),
		rejected("an input that was undecided too long", late, "UNDECIDED_INPUT"),
	}
}
