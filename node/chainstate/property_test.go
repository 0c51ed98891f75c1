package chainstate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// machine does the same to a State and to a model.
type machine struct {
	t     *rapid.T
	fs    *vfs.MemFS
	state *State
	model *model
	txs   []*ledger.Transaction
	made  int // blocks
}

func newMachine(t *rapid.T) *machine {
	m := &machine{t: t, fs: vfs.NewCrashableMem(), model: newModel(), txs: drawTransactions(t)}
	m.open()
	m.update(func(u *Update) { m.must(u.AddEpoch(Epoch{Members: members})) })
	return m
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) open() {
	state, err := Open("chainstate", m.fs)
	m.must(err)
	m.state = state
}

func (m *machine) reopen() {
	m.must(m.state.Close())
	m.open()
}

func (m *machine) update(do func(u *Update)) {
	u := m.state.Begin()
	committed := false
	defer func() {
		if !committed { // do failed the test; Close waits for updates to end
			u.Discard()
		}
	}()
	do(u)
	committed = true
	m.must(u.Commit())
}

// drawBlock makes a block; only one that is invalid on arrival may hold a
// transaction twice.
func (m *machine) drawBlock(status consensus.Status) *ledger.Block {
	list := rapid.Permutation(m.txs).Draw(m.t, "order")[:rapid.IntRange(1, 4).Draw(m.t, "size")]
	if status == consensus.Invalid && rapid.Bool().Draw(m.t, "twice") {
		list = append(slices.Clone(list), list[0])
	}
	m.made++
	return &ledger.Block{
		ID: newID("block", m.made), Timestamp: int64(m.made), Voters: members, Transactions: list,
		NodePubkey: rapid.SampledFrom(members).Draw(m.t, "maker"),
	}
}

func (m *machine) addBlock(u *Update, status consensus.Status) {
	b := m.drawBlock(status)
	if len(m.model.blocks) > 0 && rapid.IntRange(0, 9).Draw(m.t, "again") == 0 {
		b = rapid.SampledFrom(m.model.blocks).Draw(m.t, "known").Block
	}
	got, err := u.AddBlock(b, 0, status)
	m.must(err)
	if want := m.model.add(b, status); got != want {
		m.t.Fatalf("AddBlock: got %v, want %v", got, want)
	}
}

func (m *machine) decide(u *Update, b *modelBlock, status consensus.Status) {
	got, err := u.Decide(b.ID, status)
	m.must(err)
	m.model.decide(b, status)
	if got.Number != m.model.decisions || got.BlockID != b.ID || got.Status != status || len(got.Transactions) != len(b.Transactions) {
		m.t.Fatalf("Decide: got %+v, want number %d of block %s, %s", got, m.model.decisions, b.ID, status)
	}
}

func (m *machine) vote(u *Update) {
	block := newID("block", rapid.IntRange(1, m.made+1).Draw(m.t, "voted on"))
	voter := rapid.SampledFrom([]string{alice.Public, bob.Public, newKey(9).Public}).Draw(m.t, "voter")
	vote := &ledger.Vote{
		NodePubkey: voter, BlockID: block, Valid: rapid.Bool().Draw(m.t, "verdict"), PreviousBlock: newID("block", 0),
		Timestamp: rapid.Int64().Draw(m.t, "timestamp"), InvalidReason: rapid.String().Draw(m.t, "reason"), Signature: "signature",
	}
	contradicted, err := u.AddVote(vote)
	m.must(err)
	if m.model.votes[block] == nil {
		m.model.votes[block] = map[string][]*ledger.Vote{}
	}
	known := m.model.votes[block][voter]
	switch {
	case len(known) == 1 && known[0].Valid != vote.Valid:
		if contradicted == nil || *contradicted != *known[0] {
			m.t.Fatalf("AddVote: got the contradicted vote %+v, want %+v", contradicted, known[0])
		}
		m.model.liars = true
		fallthrough
	case len(known) == 0:
		m.model.votes[block][voter] = append(known, vote)
		fallthrough
	default:
		if contradicted != nil && len(known) != 1 {
			m.t.Fatalf("AddVote: got the contradicted vote %+v, want none", contradicted)
		}
	}
}

// dispute makes a block that votes have decided, or have not, a disputed one.
func (m *machine) dispute(u *Update) {
	b := rapid.SampledFrom(m.model.blocks).Draw(m.t, "disputed")
	switch {
	case b.unsound || b.status == consensus.Disputed:
		return
	case b.status == consensus.Invalid:
		m.must(u.Restore(b.Block))
	}
	m.decide(u, b, consensus.Disputed)
}

// step does one thing within an update.
func (m *machine) step(u *Update) {
	undecided := m.model.undecided()
	switch n := rapid.IntRange(0, 10).Draw(m.t, "step"); {
	case n == 10 && len(m.model.blocks) > 0:
		m.dispute(u)
	case n < 3 || len(undecided) == 0:
		m.addBlock(u, rapid.SampledFrom([]consensus.Status{
			consensus.Undecided, consensus.Undecided, consensus.Undecided, consensus.Invalid, consensus.Valid,
		}).Draw(m.t, "status"))
	case n < 7:
		m.decide(u, rapid.SampledFrom(undecided).Draw(m.t, "decided"),
			rapid.SampledFrom([]consensus.Status{consensus.Valid, consensus.Invalid}).Draw(m.t, "verdict"))
	case n < 9:
		m.vote(u)
	case len(m.model.pending) > 0:
		i := rapid.IntRange(0, len(m.model.pending)-1).Draw(m.t, "done")
		m.must(u.EffectDone(m.model.pending[i].Number, m.model.pending[i].BlockID))
		m.model.pending = slices.Delete(m.model.pending, i, i+1)
	}
}

// compare asks the State all it can answer.
func (m *machine) compare() {
	m.t.Helper()
	check := func(what string, got, want any, err error) {
		m.t.Helper()
		if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); err != nil || g != w {
			m.t.Fatalf("%s: got %s, %v\nwant %s", what, g, err, w)
		}
	}
	for i := range len(m.txs) + 1 {
		m.compareTransaction(newID("transaction", i), check)
	}
	for _, b := range m.model.blocks {
		status, err := m.state.BlockStatus(b.ID)
		check("BlockStatus", status, b.status, err)
	}
	for _, key := range []string{alice.Public, bob.Public, newKey(9).Public} {
		for _, unspent := range []bool{false, true} {
			limit := rapid.IntRange(1, 5).Draw(m.t, "limit")
			got, err := pages(func(cursor string) ([]ledger.OutputRef, string, error) {
				return m.state.Outputs(key, unspent, cursor, limit)
			})
			check(fmt.Sprintf("Outputs of %.4s, unspent %v, by %d", key, unspent, limit), got, refsOf(m.model.outputs(key, unspent)), err)
		}
	}
	var undecided []string
	for _, b := range m.model.undecided() {
		undecided = append(undecided, b.ID)
	}
	got, err := m.state.Undecided()
	check("Undecided", got, undecided, err)
	m.comparePending(check)
	m.compareCounts(check)
}

type checkFunc func(what string, got, want any, err error)

func (m *machine) compareTransaction(id string, check checkFunc) {
	type statusOf struct {
		status consensus.Status
		block  string
	}
	status, block, err := m.state.TransactionStatus(id)
	wantStatus, wantBlock := m.model.transaction(id)
	check("TransactionStatus", statusOf{status, block}, statusOf{wantStatus, wantBlock}, err)

	var with []BlockRef
	for _, b := range m.model.blocks {
		if b.holds(id) {
			with = append(with, BlockRef{b.ID, b.status})
		}
	}
	blocks, err := m.state.BlocksWith(id)
	check("BlocksWith", blocks, with, err)

	for index := range 4 {
		ref := ledger.OutputRef{TxID: id, Index: index}
		var want consensus.Output
		var wantSpends []Spend
		if t := m.model.byID[id]; wantStatus != consensus.Unknown && index < len(t.Outputs) {
			o := t.Outputs[index]
			want = consensus.Output{Status: wantStatus, Asset: t.Asset, ConditionURI: o.ConditionURI, PublicKeys: o.PublicKeys, Amount: o.Amount}
			wantSpends = m.model.spends(ref)
		}
		if wantStatus == consensus.Disputed && m.model.overtaken(id, 0) {
			want, wantSpends = consensus.Output{}, nil
		}
		got, spends, err := m.state.Output(ref)
		check(fmt.Sprintf("Output %d", index), got, want, err)
		check(fmt.Sprintf("owners of output %d are null", index), got.PublicKeys == nil, want.PublicKeys == nil, nil)
		for _, list := range [][]Spend{spends, wantSpends} { // a restored block's come last
			slices.SortFunc(list, func(a, b Spend) int { return cmp.Or(cmp.Compare(a.BlockID, b.BlockID), cmp.Compare(a.TxID, b.TxID)) })
		}
		check(fmt.Sprintf("spends of output %d", index), spends, wantSpends, nil)
	}
	for _, operation := range []ledger.Operation{"", ledger.Create, ledger.Transfer} {
		var want []AssetEntry
		for _, e := range m.model.assets[id] {
			if m.model.block(e.BlockID).status != consensus.Valid {
				continue
			}
			if operation == "" || m.model.byID[e.TxID].Operation == operation {
				want = append(want, e)
			}
		}
		limit := rapid.IntRange(1, 4).Draw(m.t, "limit")
		got, err := pages(func(cursor string) ([]AssetEntry, string, error) {
			return m.state.AssetTransactions(id, operation, cursor, limit)
		})
		check("AssetTransactions", got, want, err)
	}
}

func (m *machine) comparePending(check checkFunc) {
	var got []Decision
	for last := uint64(0); ; {
		d, ok, err := m.state.Pending(last)
		m.must(err)
		if !ok {
			break
		}
		got, last = append(got, d), d.Number
	}
	check("Pending", got, append([]Decision(nil), m.model.pending...), nil)
}

func (m *machine) compareCounts(check checkFunc) {
	type count struct {
		votes  consensus.Votes
		status consensus.Status
		open   bool
	}
	u := m.state.Begin()
	defer u.Discard()
	for n := range m.made + 2 {
		var got, want count
		var err error
		id := newID("block", n)
		got.votes, got.status, got.open, err = u.Count(id)
		if b := m.model.block(id); b != nil {
			want.status = b.status
			undecided := b.status == consensus.Undecided
			if undecided || m.model.liars && !b.unsound && b.status != consensus.Disputed {
				want.votes.Voters = len(members)
				for _, member := range members {
					said := m.model.votes[id][member]
					for _, v := range said {
						if v.Valid {
							want.votes.Valid++
						} else {
							want.votes.Invalid++
						}
					}
					if len(said) == 2 {
						want.votes.Both++
					}
				}
				want.open = undecided || want.votes.Both > 0
			}
		}
		check("Count", got, want, err)
	}
}

// pages collects a whole list. A page may be short though another follows.
func pages[T any](page func(cursor string) ([]T, string, error)) ([]T, error) {
	var all []T
	for cursor := ""; ; {
		part, next, err := page(cursor)
		if all = append(all, part...); err != nil || next == "" {
			return all, err
		}
		if len(all) > 1000 {
			return all, errors.New("the pages do not end")
		}
		cursor = next
	}
}

func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		defer func() { m.state.Close() }()
		for range rapid.IntRange(1, 12).Draw(t, "updates") {
			switch rapid.IntRange(0, 9).Draw(t, "between") {
			case 0:
				m.reopen()
			case 1:
				b := m.drawBlock(consensus.Undecided)
				u := m.state.Begin()
				_, err := u.AddBlock(b, 0, consensus.Undecided)
				u.Discard()
				m.must(err)
			}
			m.update(func(u *Update) {
				for range rapid.IntRange(1, 3).Draw(t, "steps") {
					m.step(u)
				}
			})
			m.compare()
		}
		m.reopen()
		m.compare()
	})
}

// TestPagesWhileChanging: what stays in a list while it is read page by page
// comes once, in order, whatever comes and goes.
func TestPagesWhileChanging(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		defer func() { m.state.Close() }()
		change := func() {
			m.update(func(u *Update) {
				for range rapid.IntRange(0, 3).Draw(t, "steps") {
					m.step(u)
				}
			})
		}
		for range 5 {
			change()
		}
		unspent, limit := rapid.Bool().Draw(t, "unspent"), rapid.IntRange(1, 3).Draw(t, "limit")
		stays := m.model.outputs(alice.Public, unspent)
		var got []ledger.OutputRef
		for cursor := ""; ; {
			refs, next, err := m.state.Outputs(alice.Public, unspent, cursor, limit)
			m.must(err)
			if got = append(got, refs...); next == "" {
				break
			}
			cursor = next
			change()
			now := m.model.outputs(alice.Public, unspent)
			stays = slices.DeleteFunc(stays, func(p placed) bool { return !slices.Contains(now, p) })
		}
		rest := got
		for _, p := range stays {
			i := slices.Index(rest, p.ref)
			if i < 0 {
				t.Fatalf("%v is missing, repeated before it or out of order; got %v, what stayed is %v", p.ref, got, refsOf(stays))
			}
			if slices.Contains(rest[i+1:], p.ref) {
				t.Fatalf("%v comes twice in %v", p.ref, got)
			}
			rest = rest[i+1:]
		}
	})
}
