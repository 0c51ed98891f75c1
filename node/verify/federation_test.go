package verify

import (
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// federation is a ledger of three members, made by hand.
type federation struct {
	*memory
	t       *testing.T
	members []ledger.KeyPair
	keys    []string
	genesis *ledger.Block
	now     int64
	tips    []string // what each member voted on last
}

func newFederation(t *testing.T) *federation { return federationBy(t, "") }

// federationBy makes one that decides by the rules of that name.
func federationBy(t *testing.T, rules string) *federation {
	f := &federation{memory: memoryOf(), t: t, now: 1000}
	for range 3 {
		f.members = append(f.members, ledger.GenerateKeyPair())
	}
	slices.SortFunc(f.members, func(a, b ledger.KeyPair) int {
		if a.Public < b.Public {
			return -1
		}
		return 1
	})
	f.keys = keysOf(f.members)
	tx, err := ledger.NewGenesis(f.members[0], rules)
	if err != nil {
		t.Fatal(err)
	}
	f.genesis = ledger.NewBlock(f.members[0], f.now, f.keys, []*ledger.Transaction{tx})
	f.tips = []string{f.genesis.ID, f.genesis.ID, f.genesis.ID, f.genesis.ID}
	f.apply(block(f.genesis), change{statedb.Bigchain, genesisID, []byte(`{"genesis":` + string(f.genesis.Bytes()) + `}`)})
	return f
}

func keysOf(members []ledger.KeyPair) (keys []string) {
	for _, m := range members {
		keys = append(keys, m.Public)
	}
	return keys
}

// create makes an asset of the first member's.
func (f *federation) create(serial int64) *ledger.Transaction {
	data := canonical.ObjectOf(canonical.Member{Key: "serial", Value: canonical.IntOf(serial)})
	tx, err := ledger.NewCreate(f.members[:1], data, canonical.Value{}, ledger.PayTo(f.keys[0], 5))
	if err != nil {
		f.t.Fatal(err)
	}
	return tx
}

// spend transfers output 0 of a transaction of the first member's.
func (f *federation) spend(from *ledger.Transaction, to int, amount int64) *ledger.Transaction {
	tx, err := ledger.NewTransfer(from.Asset, []ledger.Source{ledger.SourceOf(from, 0)}, canonical.Value{},
		[]ledger.Payment{ledger.PayTo(f.keys[to], amount)}, f.members...)
	if err != nil {
		f.t.Fatal(err)
	}
	return tx
}

// block makes a member's block, which nobody has voted on.
func (f *federation) block(maker int, txs ...*ledger.Transaction) *ledger.Block {
	f.now++
	b := ledger.NewBlock(f.members[maker], f.now, f.keys, txs)
	f.apply(block(b))
	return b
}

// vote gives a member's vote; reason is "" for a valid one.
func (f *federation) vote(voter int, b *ledger.Block, reason string) want {
	v := ledger.NewVote(f.members[voter], b.ID, f.tips[voter], reason == "", reason, f.now)
	f.tips[voter] = b.ID
	f.apply(vote(v))
	return want{statedb.Votes, vote(v).id, VoteVerdict}
}

// valid has all members vote for a block.
func (f *federation) valid(b *ledger.Block) *ledger.Block {
	for i := range f.members {
		f.vote(i, b, "")
	}
	return b
}

// check wants exactly these findings. There are no derived documents.
func (f *federation) check(wanted ...want) *Report {
	f.t.Helper()
	var found []Finding
	report, err := Run(f.t.Context(), f, Options{Finding: func(finding Finding) error {
		found = append(found, finding)
		return nil
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, w := range wanted {
		if !w.in(found) {
			f.t.Errorf("want %+v", w)
		}
	}
	if len(found) != len(wanted) {
		f.t.Errorf("want %+v; got %s", wanted, few(found))
	}
	return report
}

func TestMembersDiffer(t *testing.T) {
	f := newFederation(t)
	first, second := f.create(1), f.create(2)
	a, b := f.block(0, first), f.block(1, second)
	f.vote(0, a, "")
	f.vote(0, b, "")
	f.vote(1, b, "")
	f.vote(1, a, "") // the other way round
	f.valid(f.block(2, f.spend(first, 1, 5)))
	open := f.block(2, f.create(3))
	f.vote(2, open, "")
	if got, want := f.check().Blocks, (Blocks{Valid: 4, Undecided: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestVoteOrder(t *testing.T) {
	f := newFederation(t)
	create := f.create(1)
	a := f.block(0, create)
	b := f.block(0, f.spend(create, 1, 5))
	f.vote(0, a, "")
	f.vote(0, b, "")
	f.vote(1, a, "")
	f.vote(1, b, "")
	wrong := f.vote(2, b, "")
	f.vote(2, a, "")
	wrong.rule = VoteOrder
	f.check(wrong)
}

// TestBlocksInACircle: two blocks that spend of each other cannot both have
// been voted on after what they spend.
func TestBlocksInACircle(t *testing.T) {
	f := newFederation(t)
	one, two := f.create(1), f.create(2)
	a := f.valid(f.block(0, one, f.spend(two, 1, 5)))
	f.valid(f.block(0, two, f.spend(one, 1, 5)))
	var wanted []want
	for _, key := range f.keys {
		wanted = append(wanted, want{statedb.Votes, ledger.VoteID(a.ID, key), VoteOrder})
	}
	f.check(wanted...)
}

// TestVotesAgainst: a reason counts when something in the ledger speaks for it.
func TestVotesAgainst(t *testing.T) {
	f := newFederation(t)
	source, other := f.create(1), f.create(2)
	f.valid(f.block(0, source, other))
	spent := f.block(0, f.spend(source, 1, 5))
	rival := f.block(1, f.spend(source, 2, 5))
	again := f.block(2, other)
	less := f.block(0, f.spend(other, 1, 4))
	plain := f.block(1, f.create(3))
	f.valid(spent)
	for _, c := range []struct {
		b        *ledger.Block
		reason   string
		excusing bool
	}{
		{rival, "DoubleSpend", true}, {again, "DUPLICATE_TRANSACTION", true}, {less, "AmountError", true},
		{rival, "DUPLICATE_TRANSACTION", false}, {again, "DoubleSpend", false}, {less, "AssetIdMismatch", false},
		{less, "UNDECIDED_INPUT", true}, {plain, "UNDECIDED_INPUT", false}, {plain, "AmountError", false},
		{plain, "UNSOUND_TRANSACTION", false}, {plain, "?", false}, {rival, "?", true},
		{rival, "InvalidSignature", false},
	} {
		before := slices.Clone(f.tips)
		w := f.vote(2, c.b, c.reason)
		if c.excusing {
			f.check()
		} else {
			f.check(w)
		}
		f.apply(gone(w.table, w.id))
		f.tips = before
	}
	f.check()
}

// TestOutvoted: what spends of a block that the majority refused is not valid.
func TestOutvoted(t *testing.T) {
	f := newFederation(t)
	source := f.create(1)
	f.valid(f.block(0, source))
	spent, rival := f.spend(source, 0, 5), f.spend(source, 2, 5)
	refused := f.block(0, spent)
	f.valid(f.block(1, rival))
	f.vote(0, refused, "DoubleSpend")
	f.vote(1, refused, "DoubleSpend")
	f.vote(2, refused, "DoubleSpend")
	next := f.valid(f.block(0, f.spend(spent, 1, 5)))
	report := f.check(want{statedb.Bigchain, next.ID, InputNotValid})
	if report.Blocks != (Blocks{Valid: 4, Invalid: 1}) {
		t.Errorf("got %+v", report.Blocks)
	}
}

// TestEpochs: blocks are judged by the members of their time.
func TestEpochs(t *testing.T) {
	f := newFederation(t)
	f.valid(f.block(0, f.create(1)))
	joins := ledger.GenerateKeyPair()
	grown := slices.Sorted(slices.Values(append(slices.Clone(f.keys), joins.Public)))
	from := f.now + 10
	state := func(signer ledger.KeyPair) {
		st := ledger.NewStatement(signer, 1, from, grown, "")
		f.apply(change{statedb.Bigchain, st.DocumentID(), st.Bytes()})
	}
	state(f.members[0])
	f.valid(f.block(1, f.create(2)))
	if report := f.check(); report.Epochs != 1 {
		t.Errorf("one of three began an epoch: %+v", report)
	}
	state(f.members[1]) // the majority
	f.now = from
	late := f.valid(f.block(1, f.create(3)))
	f.check(want{statedb.Bigchain, late.ID, BlockVoters},
		want{statedb.Votes, ledger.VoteID(late.ID, f.keys[0]), VoteVerdict},
		want{statedb.Votes, ledger.VoteID(late.ID, f.keys[1]), VoteVerdict},
		want{statedb.Votes, ledger.VoteID(late.ID, f.keys[2]), VoteVerdict})
	f.apply(gone(statedb.Bigchain, late.ID))
	for i, key := range f.keys {
		f.apply(gone(statedb.Votes, ledger.VoteID(late.ID, key)))
		vote, err := ledger.ParseVote(f.tables[statedb.Votes][ledger.VoteID(f.tips[i], key)])
		if err == nil {
			t.Fatalf("%+v is still there", vote)
		}
	}
	// By the new members it is right.
	f.members, f.keys = append(f.members, joins), grown
	f.relink()
	fresh := f.block(1, f.create(4))
	for i := range f.members {
		f.vote(i, fresh, "")
	}
	if report := f.check(); report.Epochs != 2 || report.Members != 4 || report.Blocks.Valid != 4 {
		t.Errorf("got %+v", report)
	}
}

// relink finds what each member voted on last.
func (f *federation) relink() {
	for i, m := range f.members {
		last := map[string]string{}
		for _, body := range f.tables[statedb.Votes] {
			if v, err := ledger.ParseVote(body); err == nil && v.NodePubkey == m.Public {
				last[v.PreviousBlock] = v.BlockID
			}
		}
		f.tips[i] = f.genesis.ID
		for last[f.tips[i]] != "" {
			f.tips[i] = last[f.tips[i]]
		}
	}
}

// TestTwoThirds: votes are counted by the rules that the genesis block names. Of
// three members all must vote, and all must state a change of members.
func TestTwoThirds(t *testing.T) {
	for rules, want := range map[string]Blocks{
		consensus.Default:   {Valid: 3},
		consensus.TwoThirds: {Valid: 2, Undecided: 1},
	} {
		f := federationBy(t, rules)
		f.valid(f.block(0, f.create(1)))
		two := f.block(1, f.create(2))
		f.vote(0, two, "")
		f.vote(1, two, "")
		if report := f.check(); report.Blocks != want || report.Rules != rules {
			t.Errorf("rules %q: got %+v by %q, want %+v", rules, report.Blocks, report.Rules, want)
		}
		claim := f.tables[statedb.Bigchain][genesisID]
		f.apply(gone(statedb.Bigchain, genesisID))
		if report := f.check(ofBlock(genesisID, GenesisMissing)...); report.Blocks != want || report.Rules != rules {
			t.Errorf("rules %q, no claim: got %+v by %q, want %+v", rules, report.Blocks, report.Rules, want)
		}
		f.apply(change{statedb.Bigchain, genesisID, claim})
		members := f.keys[:2]
		for i, epochs := range map[string][]int{consensus.Default: {1, 2, 2}, consensus.TwoThirds: {1, 1, 2}}[rules] {
			st := ledger.NewStatement(f.members[i], 1, f.now+1, members, "")
			f.apply(change{statedb.Bigchain, st.DocumentID(), st.Bytes()})
			if report := f.check(); report.Epochs != epochs {
				t.Errorf("rules %q, %d statements: got %d epochs, want %d", rules, i+1, report.Epochs, epochs)
			}
		}
	}
}

// TestUnknownRules: what nobody here can count is no ledger to judge.
func TestUnknownRules(t *testing.T) {
	f := federationBy(t, "unanimous")
	if _, err := Run(t.Context(), f, Options{}); err == nil || !strings.Contains(err.Error(), `"unanimous"`) {
		t.Errorf("got %v, want an error that names the rules", err)
	}
}
