package chainstate

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/mr-tron/base58"
	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

func newKey(n byte) ledger.KeyPair {
	k, err := ledger.KeyPairFromPrivate(base58.Encode(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		panic(err)
	}
	return k
}

// The members of the federation in these tests, who own outputs as well.
var (
	alice   = newKey(1)
	bob     = newKey(2)
	members = []string{alice.Public, bob.Public}
)

// owners are the lists that an output may name.
var owners = [][]string{
	{alice.Public}, {bob.Public}, {alice.Public, bob.Public}, {bob.Public, alice.Public, bob.Public}, {}, nil,
}

func newID(name string, n int) string { return ledger.Hash(fmt.Appendf(nil, "%s %d", name, n)) }

// drawTransactions makes creates, and transfers of what was made before or is
// never made, many of them in conflict.
func drawTransactions(t *rapid.T) []*ledger.Transaction {
	const creates, transfers = 3, 7
	var list []*ledger.Transaction
	for i := range creates + transfers {
		tx := &ledger.Transaction{ID: newID("transaction", i), Operation: ledger.Create, Inputs: make([]ledger.Input, 1)}
		tx.Asset = tx.ID
		if i >= creates {
			tx.Operation, tx.Asset = ledger.Transfer, list[rapid.IntRange(0, creates-1).Draw(t, "asset")].ID
			refs := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) ledger.OutputRef {
				from := newID("transaction", rapid.IntRange(0, creates+transfers).Draw(t, "spent transaction"))
				return ledger.OutputRef{TxID: from, Index: rapid.IntRange(0, 2).Draw(t, "spent output")}
			}), 1, 2, rapid.ID).Draw(t, "spends")
			tx.Inputs = nil
			for _, ref := range refs {
				tx.Inputs = append(tx.Inputs, ledger.Input{Fulfills: &ref})
			}
		}
		for range rapid.IntRange(1, 3).Draw(t, "outputs") {
			tx.Outputs = append(tx.Outputs, ledger.Output{
				PublicKeys:   rapid.SampledFrom(owners).Draw(t, "owners"),
				ConditionURI: fmt.Sprintf("cc:%d", i),
				Amount:       ledger.Amount(fmt.Sprint(i + 1)),
			})
		}
		list = append(list, tx)
	}
	return list
}

// model is what the chainstate should hold, kept the simple way.
type model struct {
	blocks    []*modelBlock       // in order of arrival
	places    map[string]position // live transaction → where it stands
	byID      map[string]*ledger.Transaction
	decisions uint64
	pending   []Decision
	assets    map[string][]AssetEntry
	votes     map[string]map[string][]*ledger.Vote // block → voter → votes that differ, in order
	liars     bool
}

type modelBlock struct {
	*ledger.Block
	status  consensus.Status
	unsound bool // on arrival
}

func (b *modelBlock) live() bool {
	return b.status == consensus.Undecided || b.status == consensus.Valid || b.status == consensus.Disputed
}

func (b *modelBlock) holds(tx string) bool {
	return slices.ContainsFunc(b.Transactions, func(t *ledger.Transaction) bool { return t.ID == tx })
}

func newModel() *model {
	return &model{
		places: map[string]position{}, byID: map[string]*ledger.Transaction{},
		assets: map[string][]AssetEntry{}, votes: map[string]map[string][]*ledger.Vote{},
	}
}

func (m *model) block(id string) *modelBlock {
	for _, b := range m.blocks {
		if b.ID == id {
			return b
		}
	}
	return nil
}

func (m *model) add(b *ledger.Block, status consensus.Status) bool {
	if m.block(b.ID) != nil {
		return false
	}
	m.blocks = append(m.blocks, &modelBlock{Block: b, status: status, unsound: status == consensus.Invalid})
	if status != consensus.Invalid {
		m.place(b, len(m.blocks))
	}
	if status == consensus.Valid {
		m.settle(b)
	}
	return true
}

// place gives a live block's transactions a place, unless they have one.
func (m *model) place(b *ledger.Block, arrival int) {
	for i, t := range b.Transactions {
		if _, there := m.places[t.ID]; !there {
			m.places[t.ID] = position{arrival: uint64(arrival), place: uint16(i)}
			m.byID[t.ID] = t
		}
	}
}

func (m *model) decide(b *modelBlock, status consensus.Status) {
	b.status = status
	if status == consensus.Valid {
		m.settle(b.Block)
		return
	}
	if status == consensus.Disputed {
		m.place(b.Block, 1+slices.Index(m.blocks, b))
		for i := range m.pending { // what was to be done for a valid block
			if m.pending[i].BlockID == b.ID {
				m.pending[i].Status = status
			}
		}
		m.decisions++
		m.pending = append(m.pending, decisionOn(b.Block, m.decisions, status))
		return
	}
	m.decisions++
	for _, t := range b.Transactions {
		if s, _ := m.transaction(t.ID); s == consensus.Unknown {
			delete(m.places, t.ID)
		}
	}
}

func (m *model) settle(b *ledger.Block) {
	m.decisions++
	for _, t := range b.Transactions {
		m.assets[t.Asset] = append(m.assets[t.Asset], AssetEntry{TxID: t.ID, BlockID: b.ID})
	}
	m.pending = append(m.pending, decisionOn(b, m.decisions, consensus.Valid))
}

func decisionOn(b *ledger.Block, number uint64, status consensus.Status) Decision {
	d := Decision{Number: number, BlockID: b.ID, Maker: b.NodePubkey, Status: status}
	for _, t := range b.Transactions {
		d.Transactions = append(d.Transactions, Listed{TxID: t.ID, Asset: t.Asset, Operation: t.Operation})
	}
	return d
}

// overtaken reports whether a disputed transaction can never become valid.
func (m *model) overtaken(tx string, depth int) bool {
	if depth > len(m.byID) {
		return false // around a circle of transactions, which these tests make
	}
	for _, ref := range m.byID[tx].Spends() {
		for _, s := range m.spends(ref) {
			if s.TxID != tx && m.block(s.BlockID).status == consensus.Valid {
				return true
			}
		}
		if status, _ := m.transaction(ref.TxID); status == consensus.Disputed && m.overtaken(ref.TxID, depth+1) {
			return true
		}
	}
	return false
}

func (m *model) transaction(tx string) (consensus.Status, string) {
	for _, status := range []consensus.Status{consensus.Valid, consensus.Undecided, consensus.Disputed} {
		for _, b := range m.blocks {
			if b.status == status && b.holds(tx) {
				return status, b.ID
			}
		}
	}
	return consensus.Unknown, ""
}

func (m *model) spends(ref ledger.OutputRef) []Spend {
	var list []Spend
	for _, b := range m.blocks {
		for _, t := range b.Transactions {
			if b.live() && slices.Contains(t.Spends(), ref) {
				list = append(list, Spend{BlockID: b.ID, TxID: t.ID})
			}
		}
	}
	return list
}

// outputs lists what names a key, each with its position.
func (m *model) outputs(key string, unspent bool) []placed {
	var list []placed
	for id, at := range m.places {
		for i, o := range m.byID[id].Outputs {
			ref := ledger.OutputRef{TxID: id, Index: i}
			if slices.Contains(o.PublicKeys, key) && (!unspent || len(m.spends(ref)) == 0) {
				list = append(list, placed{at, ref})
			}
		}
	}
	slices.SortFunc(list, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.at.arrival, b.at.arrival), cmp.Compare(a.at.place, b.at.place), cmp.Compare(a.ref.Index, b.ref.Index))
	})
	return list
}

// placed is an output at its position: one that goes and comes back is another.
type placed struct {
	at  position
	ref ledger.OutputRef
}

func refsOf(list []placed) []ledger.OutputRef {
	var refs []ledger.OutputRef
	for _, p := range list {
		refs = append(refs, p.ref)
	}
	return refs
}

func (m *model) undecided() []*modelBlock {
	var list []*modelBlock
	for _, b := range m.blocks {
		if b.status == consensus.Undecided {
			list = append(list, b)
		}
	}
	return list
}
