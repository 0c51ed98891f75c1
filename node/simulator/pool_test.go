package simulator

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/mr-tron/base58"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// Keys and transactions are the same in all schedules, so they are made once.

var ruleNames = []string{"", consensus.TwoThirds}

const (
	mostNodes = 7
	// The genesis block's time; a bubble's clock begins then.
	beginning = 946684800
)

func keyFor(what string, number int) ledger.KeyPair {
	for try := 0; ; try++ {
		seed := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", what, number, try))
		if k, err := ledger.KeyPairFromPrivate(base58.Encode(seed[:])); err == nil {
			return k // one in 60,000 is too short
		}
	}
}

// pool makes what is made once.
type pool struct {
	members      [mostNodes]ledger.KeyPair
	alice, bob   ledger.KeyPair
	thief        ledger.KeyPair
	transactions map[string]*ledger.Transaction
	proofs       map[string]consensus.Proof // by body
	unsound      map[string]bool            // bodies of what must never be valid
	genesis      map[string]*ledger.Block
	rules        consensus.Rules
}

func newPool() *pool {
	rules, err := consensus.Lookup("")
	must(err)
	p := &pool{
		alice: keyFor("owner", 0), bob: keyFor("owner", 1), thief: keyFor("owner", 2), rules: rules,
		transactions: map[string]*ledger.Transaction{}, proofs: map[string]consensus.Proof{}, unsound: map[string]bool{}, genesis: map[string]*ledger.Block{},
	}
	for i := range p.members {
		p.members[i] = keyFor("member", i)
	}
	// These have a random part, which must not depend on which schedule is first.
	for _, rules := range ruleNames {
		p.firstBlock(1, rules)
	}
	return p
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (p *pool) make(name string, build func() (*ledger.Transaction, error)) *ledger.Transaction {
	t := p.transactions[name]
	if t == nil {
		var err error
		t, err = build()
		must(err)
		t.Compact()
		p.transactions[name] = t
		if proof, err := p.rules.CheckTransaction(t); err == nil {
			p.proofs[string(t.Bytes())] = proof
		}
	}
	return t
}

// makeUnsound makes what breaks a rule. That it does is known here, and not found
// out by the code that is tested.
func (p *pool) makeUnsound(name string, build func() (*ledger.Transaction, error)) *ledger.Transaction {
	t := p.make(name, build)
	p.unsound[string(t.Bytes())] = true
	return t
}

func number(field string, n int) canonical.Value {
	return canonical.ObjectOf(canonical.Member{Key: field, Value: canonical.IntOf(int64(n))})
}

// create makes the CREATE with a number: two outputs, of alice and of bob.
func (p *pool) create(serial int) *ledger.Transaction {
	return p.make(fmt.Sprintf("create %d", serial), func() (*ledger.Transaction, error) {
		return ledger.NewCreate([]ledger.KeyPair{p.alice}, number("serial", serial), canonical.Value{},
			ledger.PayTo(p.alice.Public, 3), ledger.PayTo(p.bob.Public, 4))
	})
}

func sources(of []spendable) (list []ledger.Source, amount int64) {
	for _, s := range of {
		list = append(list, ledger.SourceOf(s.t, s.index))
		var a int64
		fmt.Sscan(string(s.t.Outputs[s.index].Amount), &a)
		amount += a
	}
	return list, amount
}

// spendable is an output.
type spendable struct {
	t     *ledger.Transaction
	index int
}

func (s spendable) ref() ledger.OutputRef { return ledger.OutputRef{TxID: s.t.ID, Index: s.index} }

// transfer spends outputs of one asset; those of different variants conflict.
func (p *pool) transfer(of []spendable, variant int) *ledger.Transaction {
	list, amount := sources(of)
	return p.make(fmt.Sprintf("transfer %v %d", refsOf(of), variant), func() (*ledger.Transaction, error) {
		return ledger.NewTransfer(of[0].t.Asset, list, number("variant", variant),
			[]ledger.Payment{ledger.PayTo(p.bob.Public, amount)}, p.alice, p.bob)
	})
}

// inflated pays more than it spends.
func (p *pool) inflated(of []spendable) *ledger.Transaction {
	list, amount := sources(of)
	return p.makeUnsound(fmt.Sprintf("inflated %v", refsOf(of)), func() (*ledger.Transaction, error) {
		return ledger.NewTransfer(of[0].t.Asset, list, canonical.Value{}, []ledger.Payment{ledger.PayTo(p.bob.Public, amount+1)}, p.alice, p.bob)
	})
}

// stolen spends outputs as if they were a thief's.
func (p *pool) stolen(of []spendable) *ledger.Transaction {
	list, amount := sources(of)
	return p.makeUnsound(fmt.Sprintf("stolen %v", refsOf(of)), func() (*ledger.Transaction, error) {
		own := ledger.SourceOf(p.thiefs(), 0)
		for i := range list {
			list[i].Details, list[i].OwnersBefore = own.Details, own.OwnersBefore
		}
		return ledger.NewTransfer(of[0].t.Asset, list, canonical.Value{}, []ledger.Payment{ledger.PayTo(p.thief.Public, amount)}, p.thief)
	})
}

func (p *pool) thiefs() *ledger.Transaction {
	return p.make("thief's", func() (*ledger.Transaction, error) {
		return ledger.NewCreate([]ledger.KeyPair{p.thief}, canonical.Value{}, canonical.Value{}, ledger.PayTo(p.thief.Public, 1))
	})
}

// unsigned bears the signature of another transaction.
func (p *pool) unsigned(of []spendable) *ledger.Transaction {
	return p.makeUnsound(fmt.Sprintf("unsigned %v", refsOf(of)), func() (*ledger.Transaction, error) {
		right, other := p.transfer(of, 90), p.transfer(of, 91)
		text := string(right.Bytes())
		for i, in := range right.Inputs {
			text = strings.Replace(text, in.Fulfillment, other.Inputs[i].Fulfillment, 1)
		}
		return ledger.ParseTransaction([]byte(text))
	})
}

func refsOf(of []spendable) (refs []ledger.OutputRef) {
	for _, s := range of {
		refs = append(refs, s.ref())
	}
	return refs
}

// firstBlock is the genesis block of so many members.
func (p *pool) firstBlock(members int, rules string) *ledger.Block {
	name := fmt.Sprint(members, rules)
	b := p.genesis[name]
	if b == nil {
		t := p.make("genesis "+rules, func() (*ledger.Transaction, error) { return ledger.NewGenesis(p.members[0], rules) })
		b = ledger.NewBlock(p.members[0], beginning, p.federation(members), []*ledger.Transaction{t})
		p.genesis[name] = b
	}
	return b
}

// begin writes a ledger's first documents.
func (p *pool) begin(s *store, members int, rules string) {
	b := p.firstBlock(members, rules)
	t := s.tables[statedb.Bigchain]
	t.write(statedb.Write{ID: "genesis", Body: fmt.Appendf(nil, `{"genesis":%s}`, b.Bytes())})
	t.write(statedb.Write{ID: b.ID, Body: b.Bytes()})
}

func (p *pool) federation(members int) (keys []string) {
	for _, k := range p.members[:members] {
		keys = append(keys, k.Public)
	}
	slices.Sort(keys)
	return keys
}
