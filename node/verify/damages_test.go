package verify

import (
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

func text(s string) func(canonical.Value) canonical.Value { return to(canonical.StringOf(s)) }

// changedBlocks changes bytes of a block that spends of another.
func (s *sample) changedBlocks() []damage {
	b := s.blocks[s.spending]
	at := slices.IndexFunc(b.Transactions, func(tx *ledger.Transaction) bool { return tx.Operation == ledger.Transfer })
	in := func(path ...any) []any { return append([]any{"block", "transactions", at}, path...) }
	stranger := ledger.GenerateKeyPair()
	list := func(alter func([]canonical.Value) []canonical.Value) func(canonical.Value) canonical.Value {
		return func(v canonical.Value) canonical.Value {
			var items []canonical.Value
			for i := range v.Len() {
				items = append(items, v.At(i))
			}
			return canonical.ArrayOf(alter(items)...)
		}
	}
	bump := func(v canonical.Value) canonical.Value {
		n, _ := v.Int64()
		return canonical.IntOf(n + 1)
	}
	var longest *ledger.Block // that has room for one more
	for _, other := range s.blocks {
		if n := len(other.Transactions); n < ledger.MaxBlockTransactions && (longest == nil || n > len(longest.Transactions)) {
			longest = other
		}
	}
	changed := func(name string, rule Rule, b *ledger.Block, alter func(canonical.Value) canonical.Value, path ...any) damage {
		return damage{name: name, want: ofBlock(b.ID, rule), changes: []change{{statedb.Bigchain, b.ID, edit(b.Bytes(), alter, path...)}}}
	}
	return []damage{
		changed("a byte in a fulfillment", BlockHash, b, flip, in("inputs", 0, "fulfillment")...),
		changed("a byte in a block's signature", BlockSignature, b, flip, "signature"),
		changed("an amount", BlockHash, b, bump, in("outputs", 0, "amount")...),
		changed("an output added", BlockHash, b, list(func(l []canonical.Value) []canonical.Value { return append(l, l[0]) }), in("outputs")...),
		changed("a condition uri", BlockHash, b, flip, in("outputs", 0, "condition", "uri")...),
		changed("an owner", BlockHash, b, text(stranger.Public), in("outputs", 0, "public_keys", 0)...),
		changed("a txid in an input", BlockHash, b, text(s.genesis.Transactions[0].ID), in("inputs", 0, "fulfills", "txid")...),
		changed("an output's index in an input", BlockHash, b, bump, in("inputs", 0, "fulfills", "output")...),
		changed("a transaction's id", BlockHash, b, text(s.genesis.Transactions[0].ID), in("id")...),
		changed("an operation", BlockShape, b, text("CREATE"), in("operation")...),
		changed("a voter added", BlockHash, b, to(canonical.StringsOf([]string{s.key.Public, stranger.Public})), "block", "voters"),
		changed("all voters removed", BlockShape, b, to(canonical.ArrayOf()), "block", "voters"),
		changed("another maker", BlockHash, b, text(stranger.Public), "block", "node_pubkey"),
		changed("a timestamp", BlockHash, b, text("1"), "block", "timestamp"),
		changed("a timestamp as a number", BlockShape, b, to(canonical.IntOf(1)), "block", "timestamp"),
		changed("a field more in a block", BlockShape, b, to(canonical.BoolOf(true)), "valid"),
		changed("transactions swapped", BlockHash, longest, list(func(l []canonical.Value) []canonical.Value {
			l[0], l[1] = l[1], l[0]
			return l
		}), "block", "transactions"),
		changed("a transaction duplicated", BlockHash, longest, list(func(l []canonical.Value) []canonical.Value { return append(l, l[0]) }), "block", "transactions"),
		changed("a transaction removed", BlockHash, longest, list(func(l []canonical.Value) []canonical.Value { return l[1:] }), "block", "transactions"),
		{name: "a block removed", changes: []change{gone(statedb.Bigchain, b.ID)}, want: ofBlock(b.ID, BlockMissing)},
		{name: "garbage for a block", changes: []change{{statedb.Bigchain, b.ID, []byte(`{"a":[]}`)}}, want: ofBlock(b.ID, BlockShape)},
		{name: "two blocks' documents swapped", want: append(ofBlock(b.ID, BlockID), ofBlock(s.blocks[0].ID, BlockID)...),
			changes: []change{{statedb.Bigchain, b.ID, s.blocks[0].Bytes()}, {statedb.Bigchain, s.blocks[0].ID, b.Bytes()}}},
		{name: "a stranger's document among blocks", alone: true, want: ofBlock("readme", Foreign),
			changes: []change{{statedb.Bigchain, "readme", []byte(`{"text":"hello"}`)}}},
		{name: "the source's block removed", changes: []change{gone(statedb.Bigchain, s.blocks[s.source].ID)},
			want: ofBlock(s.blocks[s.source].ID, BlockMissing)},
	}
}

// forgedBlocks are well signed and have the federation's votes, but break rules.
func (s *sample) forgedBlocks() []damage {
	stranger := ledger.GenerateKeyPair()
	create := s.create("new")
	forged := func(name string, b *ledger.Block, rules ...Rule) damage {
		return damage{name: name, changes: s.append(b), want: ofBlock(b.ID, rules...)}
	}
	reread := func(tx *ledger.Transaction, alter func(canonical.Value) canonical.Value, path ...any) *ledger.Transaction {
		t, err := ledger.ParseTransaction(edit(tx.Bytes(), alter, path...))
		if err != nil {
			panic(err)
		}
		return t
	}
	// With the id that goes with it the change of a condition shows, not of a hash.
	uri := reread(create, flip, "outputs", 0, "condition", "uri")
	uri = reread(uri, text(uri.ComputeID()), "id")
	genesis, err := ledger.NewGenesis(s.key, "")
	if err != nil {
		panic(err)
	}
	twice := s.transfer(s.unspent[0], []ledger.Source{ledger.SourceOf(s.unspent[0], 0), ledger.SourceOf(s.unspent[0], 0)}, s.alice.Public, 6, s.alice)
	now := s.last().Timestamp + 1
	byStranger := ledger.NewBlock(stranger, now, []string{s.key.Public}, []*ledger.Transaction{create})
	alone := ledger.NewBlock(stranger, now, []string{stranger.Public}, []*ledger.Transaction{create})
	second := s.sign(genesis)
	return []damage{
		forged("a block with a byte of a fulfillment changed", s.sign(reread(create, flip, "inputs", 0, "fulfillment")), Fulfillment),
		forged("a block with an amount changed", s.sign(reread(create, to(canonical.IntOf(9)), "outputs", 0, "amount")), TransactionHash),
		forged("a block with a condition uri changed", s.sign(uri), Condition),
		forged("a block with a transaction twice", s.sign(create, create), TransactionTwice),
		forged("a block with an input twice", s.sign(twice), InputTwice),
		forged("a block with a voter more", ledger.NewBlock(s.key, now, []string{s.key.Public, stranger.Public}, []*ledger.Transaction{create}), BlockVoters),
		forged("a block with another voter", ledger.NewBlock(s.key, now, []string{stranger.Public}, []*ledger.Transaction{create}), BlockVoters),
		forged("a block before the first", ledger.NewBlock(s.key, s.genesis.Timestamp-1, []string{s.key.Public}, []*ledger.Transaction{create}), BlockTimestamp),
		forged("a stranger's block", byStranger, BlockMaker),
		{name: "a stranger's block with the stranger's vote",
			changes: append(derived(alone), block(alone), vote(ledger.NewVote(stranger, alone.ID, s.genesis.ID, true, "", now))),
			want: append(append(ofBlock(alone.ID, BlockMaker, BlockVoters), ofVote(ledger.VoteID(alone.ID, stranger.Public), VoteVoter)...),
				ofDerived(create.ID, DerivedExtra)...)},
		forged("a GENESIS among others", s.sign(create, genesis), BlockGenesis),
		{name: "a second genesis block", changes: []change{block(second)}, want: ofBlock(second.ID, BlockGenesis), alone: true},
		{name: "a valid vote on a wrong block", changes: s.append(byStranger),
			want: ofVote(ledger.VoteID(byStranger.ID, s.key.Public), VoteVerdict)},
	}
}

// create makes a new asset.
func (s *sample) create(name string) *ledger.Transaction {
	data := canonical.ObjectOf(canonical.Member{Key: "name", Value: canonical.StringOf(name)})
	tx, err := ledger.NewCreate([]ledger.KeyPair{s.alice}, data, canonical.Value{}, ledger.PayTo(s.alice.Public, 3))
	if err != nil {
		panic(err)
	}
	return tx
}

// wrongSpends are blocks whose transactions are sound by themselves.
func (s *sample) wrongSpends() []damage {
	bob := ledger.GenerateKeyPair()
	owned, other := s.unspent[0], s.unspent[1]
	from := func(tx *ledger.Transaction, i int) ledger.Source { return ledger.SourceOf(tx, i) }
	wrong := func(name string, rule Rule, txs ...*ledger.Transaction) damage {
		b := s.sign(txs...)
		return damage{name: name, changes: s.append(b), want: ofBlock(b.ID, rule), alone: true}
	}
	spend := func(asset *ledger.Transaction, amount int64, sources ...ledger.Source) *ledger.Transaction {
		return s.transfer(asset, sources, bob.Public, amount, s.alice, bob)
	}
	nowhere, beyond, foreign, owners := from(owned, 0), from(owned, 0), from(owned, 0), from(owned, 0)
	nowhere.Ref.TxID = strings.Repeat("ab", 32)
	beyond.Ref.Index = len(owned.Outputs)
	foreign.Details = from(s.transfer(owned, []ledger.Source{from(owned, 0)}, bob.Public, 3, s.alice), 0).Details
	owners.OwnersBefore = []string{bob.Public}
	fresh := s.create("spent in its block")
	waiting := s.create("in an undecided block")
	undecided := s.sign(waiting)
	early := wrong("a spend of an undecided block", InputNotValid, spend(waiting, 3, from(waiting, 0)))
	early.changes = append(early.changes, block(undecided))
	first, second := s.sign(spend(owned, 3, from(owned, 0))), s.sign(s.transfer(owned, []ledger.Source{from(owned, 0)}, s.alice.Public, 3, s.alice))
	both := append(s.append(first), block(second))
	both = append(both, derived(second)...)
	both = append(both, vote(ledger.NewVote(s.key, second.ID, first.ID, true, "", second.Timestamp)))
	again := s.sign(s.last().Transactions[0])
	return []damage{
		wrong("an input that does not exist", InputMissing, spend(owned, 3, nowhere)),
		wrong("an output's index beyond", InputMissing, spend(owned, 3, beyond)),
		early,
		wrong("a spend of the same block", InputSameBlock, fresh, spend(fresh, 3, from(fresh, 0))),
		wrong("a fulfillment of another condition", InputCondition, spend(owned, 3, foreign)),
		wrong("other owners before", InputOwners, spend(owned, 3, owners)),
		wrong("another asset", InputAsset, spend(other, 3, from(owned, 0))),
		wrong("more than there was", Amounts, spend(owned, 4, from(owned, 0))),
		wrong("more than two inputs held", Amounts, spend(s.unspent[2], 8, from(s.unspent[2], 0), from(s.unspent[2], 1))),
		{name: "an output spent twice", changes: both, want: append(ofBlock(first.ID, DoubleSpend), ofBlock(second.ID, DoubleSpend)...), alone: true},
		{name: "a transaction valid twice", changes: []change{block(again), vote(s.approve(again))},
			want: ofBlock(max(again.ID, s.last().ID), ValidTwice), alone: true},
	}
}
