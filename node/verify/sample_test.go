package verify

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/embedded"
)

// sample is a ledger that a real node made, in an embedded store, at rest.
type sample struct {
	t        testing.TB
	db       statedb.DB
	key      ledger.KeyPair // the node's
	alice    ledger.KeyPair // owns what is not spent
	genesis  *ledger.Block
	blocks   []*ledger.Block // in the order of the node's votes, without the genesis block
	votes    []*ledger.Vote
	unspent  []*ledger.Transaction // whose output 0 is alice's and unspent
	spending int                   // a block that spends an output of an earlier one
	source   int                   // that one
	tables   map[string]map[string][]byte
}

// makeSample has a node make a ledger of about n transactions.
func makeSample(t testing.TB, n int) *sample {
	t.Helper()
	return makeSampleOf(t, n, 3)
}

// makeSampleOf makes only so many rounds of transactions: CREATEs, TRANSFERs of
// one output, TRANSFERs of two.
func makeSampleOf(t testing.TB, n, rounds int) *sample {
	t.Helper()
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &sample{t: t, db: db, key: ledger.GenerateKeyPair(), alice: ledger.GenerateKeyPair()}
	s.run(s.load(n)[:rounds])
	s.look()
	return s
}

// load makes the transactions in rounds: each spends of the one before.
func (s *sample) load(n int) [][]*ledger.Transaction {
	bob, carol := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	var creates, transfers, merges []*ledger.Transaction
	for i := range n / 2 {
		data := canonical.ObjectOf(canonical.Member{Key: "block_id", Value: canonical.StringOf(fmt.Sprint("é", i))})
		payments := []ledger.Payment{ledger.PayTo(s.alice.Public, 3), ledger.PayTo(s.alice.Public, 4)}
		if i%10 == 0 {
			payments[1].Owners = []string{s.alice.Public, bob.Public}
		}
		create, err := ledger.NewCreate([]ledger.KeyPair{s.alice}, data, canonical.Value{}, payments...)
		if err != nil {
			s.t.Fatal(err)
		}
		creates = append(creates, create)
		if i%5 == 4 {
			s.unspent = append(s.unspent, create)
			continue
		}
		transfers = append(transfers, s.transfer(create, []ledger.Source{ledger.SourceOf(create, 0)}, carol.Public, 3, s.alice))
		if i%2 == 0 {
			merges = append(merges, s.transfer(create,
				[]ledger.Source{ledger.SourceOf(create, 1), ledger.SourceOf(transfers[len(transfers)-1], 0)}, bob.Public, 7, s.alice, bob, carol))
		}
	}
	return [][]*ledger.Transaction{creates, transfers, merges}
}

func (s *sample) transfer(asset *ledger.Transaction, sources []ledger.Source, to string, amount int64, signers ...ledger.KeyPair) *ledger.Transaction {
	s.t.Helper()
	tx, err := ledger.NewTransfer(asset.Asset, sources, canonical.Value{}, []ledger.Payment{ledger.PayTo(to, amount)}, signers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return tx
}

// run runs a node until everything is valid.
func (s *sample) run(rounds [][]*ledger.Transaction) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := node.Init(ctx, s.db, s.key, nil, nil); err != nil {
		s.t.Fatal(err)
	}
	n, err := node.Open(ctx, node.Options{DB: s.db, StatePath: s.t.TempDir(), Key: s.key})
	if err != nil {
		s.t.Fatal(err)
	}
	work, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- n.Run(work) }()
	for n.Ready() != nil {
		if ctx.Err() != nil {
			s.t.Fatal(n.Ready())
		}
		time.Sleep(2 * time.Millisecond)
	}
	for _, round := range rounds {
		var group sync.WaitGroup
		next := make(chan *ledger.Transaction)
		for range 32 {
			group.Go(func() {
				for tx := range next {
					if _, err := n.Submit(ctx, tx.Bytes()); err != nil {
						s.t.Error(err)
					}
				}
			})
		}
		for _, tx := range round {
			next <- tx
		}
		close(next)
		group.Wait()
		for _, tx := range round {
			if err := n.Await(ctx, tx.ID); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	stop()
	if err := <-done; err != nil {
		s.t.Fatal(err)
	}
}

// look reads all that the node made.
func (s *sample) look() {
	s.t.Helper()
	s.tables = map[string]map[string][]byte{}
	for _, table := range statedb.Tables {
		s.tables[table] = map[string][]byte{}
		for r := (statedb.Range{Limit: 100}); ; {
			page, err := s.db.Range(s.t.Context(), table, r)
			if err != nil {
				s.t.Fatal(err)
			}
			for _, d := range page.Documents {
				s.tables[table][d.ID] = d.Body
			}
			if r.Bookmark = page.Bookmark; r.Bookmark == "" {
				break
			}
		}
	}
	after := map[string]*ledger.Vote{}
	for _, body := range s.tables[statedb.Votes] {
		vote, err := ledger.ParseVote(body)
		if err != nil {
			s.t.Fatal(err)
		}
		after[vote.PreviousBlock] = vote
	}
	for id, body := range s.tables[statedb.Bigchain] {
		if b, err := ledger.ParseBlock(body); err == nil && b.IsGenesis() {
			s.genesis = b
			_ = id
		}
	}
	in := map[string]int{}
	for vote := after[s.genesis.ID]; vote != nil; vote = after[vote.BlockID] {
		b, err := ledger.ParseBlock(s.tables[statedb.Bigchain][vote.BlockID])
		if err != nil {
			s.t.Fatal(err)
		}
		for _, tx := range b.Transactions {
			in[tx.ID] = len(s.blocks)
			for _, ref := range tx.Spends() {
				s.spending, s.source = len(s.blocks), in[ref.TxID]
			}
		}
		s.blocks, s.votes = append(s.blocks, b), append(s.votes, vote)
	}
	if len(s.blocks) < 4 || s.spending == s.source {
		s.t.Fatalf("the ledger has %d blocks, and block %d spends of block %d", len(s.blocks), s.spending, s.source)
	}
}

// change is a document to write, or to delete where the body is nil.
type change struct {
	table, id string
	body      []byte
}

// apply makes changes, and gives those that take them back.
func (s *sample) apply(changes []change) {
	s.t.Helper()
	for _, c := range changes {
		there, err := s.db.Get(s.t.Context(), c.table, []string{c.id})
		if err != nil {
			s.t.Fatal(err)
		}
		w := statedb.Write{ID: c.id, Rev: there[0].Rev, Body: c.body, Delete: c.body == nil}
		if w.Delete && w.Rev == "" {
			continue
		}
		results, err := s.db.Write(s.t.Context(), c.table, []statedb.Write{w})
		if err != nil || results[0].Err != nil {
			s.t.Fatalf("%s %s: %v, %v", c.table, c.id, err, results)
		}
	}
}

// back gives the changes that take others back.
func (s *sample) back(changes []change) []change {
	var list []change
	for _, c := range slices.Backward(changes) {
		list = append(list, change{c.table, c.id, s.tables[c.table][c.id]})
	}
	return list
}

// block is the document of a block.
func block(b *ledger.Block) change { return change{statedb.Bigchain, b.ID, b.Bytes()} }

// vote is the document of a vote.
func vote(v *ledger.Vote) change {
	return change{statedb.Votes, ledger.VoteID(v.BlockID, v.NodePubkey), v.Bytes()}
}

// gone deletes a document.
func gone(table, id string) change { return change{table, id, nil} }

// derived are the documents for queries of a block's transactions.
func derived(b *ledger.Block) (list []change) {
	for _, tx := range b.Transactions {
		list = append(list, change{statedb.Transactions, tx.ID, tx.BytesWith([]byte(`"block_id":"` + b.ID + `",`))})
	}
	return list
}

// last is the block that the node voted on last.
func (s *sample) last() *ledger.Block { return s.blocks[len(s.blocks)-1] }

// sign makes a block of the node's.
func (s *sample) sign(txs ...*ledger.Transaction) *ledger.Block {
	return ledger.NewBlock(s.key, s.last().Timestamp+1, []string{s.key.Public}, txs)
}

// approve is the node's vote for a block, after its last one.
func (s *sample) approve(b *ledger.Block) *ledger.Vote {
	return ledger.NewVote(s.key, b.ID, s.last().ID, true, "", b.Timestamp)
}

// append adds a block that is valid by the node's vote, with its consequences.
func (s *sample) append(b *ledger.Block) []change {
	return slices.Concat([]change{block(b), vote(s.approve(b))}, derived(b))
}

// edit changes one value in a document; path has keys and indexes.
func edit(body []byte, change func(canonical.Value) canonical.Value, path ...any) []byte {
	tree, err := canonical.Parse(body)
	if err != nil {
		panic(err)
	}
	return editValue(tree, change, path).Bytes()
}

func editValue(v canonical.Value, change func(canonical.Value) canonical.Value, path []any) canonical.Value {
	if len(path) == 0 {
		return change(v)
	}
	if name, ok := path[0].(string); ok {
		inner, _ := v.Get(name)
		return v.With(name, editValue(inner, change, path[1:]))
	}
	items := make([]canonical.Value, v.Len())
	for i := range items {
		if items[i] = v.At(i); i == path[0].(int) {
			items[i] = editValue(items[i], change, path[1:])
		}
	}
	return canonical.ArrayOf(items...)
}

// to replaces a value.
func to(v canonical.Value) func(canonical.Value) canonical.Value {
	return func(canonical.Value) canonical.Value { return v }
}

// flip changes one character in the middle of a text into another one of its
// alphabet.
func flip(v canonical.Value) canonical.Value {
	text := []byte(v.Text())
	at := len(text) / 2
	for text[at] == '_' || text[at] == '-' {
		at++
	}
	if text[at] == '2' {
		text[at] = '3'
	} else {
		text[at] = '2'
	}
	return canonical.StringOf(string(text))
}

// check verifies and returns the findings.
func (s *sample) check(o Options) ([]Finding, *Report) {
	s.t.Helper()
	return check(s.t, s.db, o)
}

func check(t testing.TB, source Source, o Options) (found []Finding, report *Report) {
	t.Helper()
	o.Derived = true
	o.Finding = func(f Finding) error {
		found = append(found, f)
		return nil
	}
	report, err := Run(t.Context(), source, o)
	if err != nil {
		t.Fatal(err)
	}
	if report.Findings != len(found) {
		t.Errorf("the report counts %d findings, there are %d", report.Findings, len(found))
	}
	return found, report
}
