package archive

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mr-tron/base58"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
)

// world is a federation that makes a ledger, one document after another, each
// after those that it needs, and else in any order. It is a source of what is
// written so far.
type world struct {
	random  *rand.Rand
	members []ledger.KeyPair
	tables  map[string]map[string][]byte
	steps   int // documents written while a page is read, at most; 0 stops the world
	most    int // and all in all

	genesis   *ledger.Block
	blocks    []*worldBlock
	last      []string          // by member: the block voted on last
	bound     []map[string]bool // by member: what it voted for, as contestedNames
	decided   map[string]bool   // what valid blocks have, as contestedNames
	spendable []coin
	owners    map[string]ledger.KeyPair // of the first output of transactions
	serial    int
}

type worldBlock struct {
	*ledger.Block
	sources []*worldBlock
	votes   map[int]bool // by member: for or against
	skipped map[int]bool // by member: it saw the block decided, and does not vote any more
	status  int          // 1 valid, -1 invalid
}

// coin is an output that a valid block made.
type coin struct {
	in    *worldBlock
	tx    *ledger.Transaction
	owner ledger.KeyPair
}

func newWorld(t testing.TB, seed uint64, members int) *world {
	t.Helper()
	w := &world{random: rand.New(rand.NewPCG(seed, 7)), tables: map[string]map[string][]byte{}, decided: map[string]bool{}, owners: map[string]ledger.KeyPair{}}
	for _, table := range statedb.Tables {
		w.tables[table] = map[string][]byte{}
	}
	for range members {
		w.members = append(w.members, w.key())
		w.last, w.bound = append(w.last, ""), append(w.bound, map[string]bool{})
	}
	first, err := ledger.NewGenesis(w.members[0], "")
	if err != nil {
		t.Fatal(err)
	}
	w.genesis = ledger.NewBlock(w.members[0], 1_500_000_000, w.voters(), []*ledger.Transaction{first})
	w.tables[statedb.Bigchain][genesisID] = slices.Concat([]byte(`{"genesis":`), w.genesis.Bytes(), []byte(`}`))
	w.tables[statedb.Bigchain][w.genesis.ID] = w.genesis.Bytes()
	return w
}

// key makes a key pair that the seed repeats.
func (w *world) key() ledger.KeyPair {
	var private [32]byte
	for i := range private {
		private[i] = byte(w.random.Uint32())
	}
	pair, err := ledger.KeyPairFromPrivate(base58.Encode(private[:]))
	if err != nil {
		panic(err)
	}
	return pair
}

func (w *world) voters() (keys []string) {
	for _, m := range w.members {
		keys = append(keys, m.Public)
	}
	slices.Sort(keys)
	return keys
}

// step writes a document: a block or a vote.
func (w *world) step() {
	var open []*worldBlock
	for _, b := range w.blocks {
		if len(b.votes)+len(b.skipped) < len(w.members) && b.ready() {
			open = append(open, b)
		}
	}
	if len(open) == 0 || len(open) < 5 && w.random.IntN(3) == 0 {
		w.make()
		return
	}
	b := open[w.random.IntN(len(open))]
	member := w.random.IntN(len(w.members))
	for b.done(member) {
		member = (member + 1) % len(w.members)
	}
	for _, source := range b.sources {
		if source.done(member) {
			continue
		}
		if w.random.IntN(3) > 0 {
			source.skipped[member] = true
			continue
		}
		b = source // a member votes on a block before it votes on what spends from it
		break
	}
	w.vote(b, member)
}

func (b *worldBlock) done(member int) bool {
	_, voted := b.votes[member]
	return voted || b.skipped[member]
}

func (b *worldBlock) ready() bool {
	for _, s := range b.sources {
		if s.status != 1 {
			return false
		}
	}
	return true
}

func (w *world) make() {
	maker := w.members[w.random.IntN(len(w.members))]
	b := &worldBlock{votes: map[int]bool{}, skipped: map[int]bool{}}
	var txs []*ledger.Transaction
	if len(w.blocks) > 0 && len(w.members) > 1 && w.random.IntN(4) == 0 { // what another block has, too
		other := w.blocks[len(w.blocks)-1]
		txs, b.sources = append(txs, other.Transactions[0]), other.sources
	}
	for range 1 + w.random.IntN(3) {
		owner := w.key()
		if len(w.spendable) > 0 && w.random.IntN(3) > 0 {
			i := w.random.IntN(len(w.spendable))
			c := w.spendable[i]
			if w.random.IntN(5) > 0 || len(w.members) == 1 { // else it may be spent twice
				w.spendable = slices.Delete(w.spendable, i, i+1)
			}
			tx, err := ledger.NewTransfer(c.tx.Asset, []ledger.Source{ledger.SourceOf(c.tx, 0)}, canonical.Value{}, []ledger.Payment{ledger.PayTo(owner.Public, 1)}, c.owner)
			if err != nil {
				panic(err)
			}
			w.owners[tx.ID] = owner
			txs, b.sources = append(txs, tx), append(slices.Clone(b.sources), c.in)
			continue
		}
		w.serial++
		data := canonical.ObjectOf(canonical.Member{Key: "n", Value: canonical.StringOf(fmt.Sprint(maker.Public, w.serial))})
		tx, err := ledger.NewCreate([]ledger.KeyPair{owner}, data, canonical.Value{}, ledger.PayTo(owner.Public, 1))
		if err != nil {
			panic(err)
		}
		w.owners[tx.ID] = owner
		txs = append(txs, tx)
	}
	spent := map[string]bool{}
	txs = slices.DeleteFunc(txs, func(t *ledger.Transaction) bool {
		for _, name := range contestedNames(&ledger.Block{Transactions: []*ledger.Transaction{t}}) {
			if spent[name] {
				return true
			}
			spent[name] = true
		}
		return false
	})
	b.Block = ledger.NewBlock(maker, w.genesis.Timestamp+int64(len(w.blocks)+1), w.voters(), txs)
	w.blocks = append(w.blocks, b)
	w.tables[statedb.Bigchain][b.ID] = b.Bytes()
}

func (w *world) vote(b *worldBlock, member int) {
	reason := ""
	for _, name := range contestedNames(b.Block) {
		if w.bound[member][name] || w.decided[name] && b.status != 1 {
			reason = "DUPLICATE_TRANSACTION"
			if len(name) > 64 {
				reason = string(ledger.DoubleSpend)
			}
			break
		}
	}
	previous := w.last[member]
	if previous == "" {
		previous = w.genesis.ID
	}
	v := ledger.NewVote(w.members[member], b.ID, previous, reason == "", reason, b.Timestamp)
	w.last[member], b.votes[member] = b.ID, v.Valid
	w.tables[statedb.Votes][ledger.VoteID(b.ID, v.NodePubkey)] = v.Bytes()
	if v.Valid {
		for _, name := range contestedNames(b.Block) {
			w.bound[member][name] = true
		}
	}
	count := map[bool]int{}
	for _, verdict := range b.votes {
		count[verdict]++
	}
	switch before := b.status; {
	case before != 0:
	case 2*count[false] >= len(w.members):
		b.status = -1
	case 2*count[true] > len(w.members):
		b.status = 1
		for _, name := range contestedNames(b.Block) {
			w.decided[name] = true
		}
		for _, t := range b.Transactions {
			w.spendable = append(w.spendable, coin{in: b, tx: t, owner: w.owners[t.ID]})
		}
	}
}

// Range lets the world go on, then reads some rows.
func (w *world) Range(_ context.Context, table string, r statedb.Range) (page statedb.Page, _ error) {
	if w.steps > 0 {
		for range min(w.random.IntN(w.steps), w.most) {
			w.step()
			w.most--
		}
	}
	most := min(r.Limit, 1+w.random.IntN(8))
	for _, id := range slices.Sorted(maps.Keys(w.tables[table])) {
		if id < r.Start || id <= r.Bookmark || r.End != "" && id >= r.End {
			continue
		}
		if len(page.Documents) == most {
			page.Bookmark = page.Documents[most-1].ID
			break
		}
		page.Documents = append(page.Documents, statedb.Document{ID: id, Body: w.tables[table][id]})
	}
	return page, nil
}

// copied is what the tables hold now.
func (w *world) copied() map[string]map[string][]byte {
	all := map[string]map[string][]byte{}
	for table, documents := range w.tables {
		all[table] = maps.Clone(documents)
	}
	return all
}

// backup writes a file of the world.
func (w *world) backup(t testing.TB, path string, o BackupOptions) Summary {
	t.Helper()
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Backup(t.Context(), w, out, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

func mustOpenChain(t testing.TB, paths ...string) *Chain {
	t.Helper()
	c, err := OpenChain(paths...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return c
}

// wantSound verifies files, too.
func wantSound(t testing.TB, what string, w *world, c *Chain, least map[string]map[string][]byte) *verify.Report {
	t.Helper()
	wantClosed(t, what, w, c, least)
	shown := 0
	report, err := verify.Run(t.Context(), c, verify.Options{Finding: func(f verify.Finding) error {
		if shown++; shown < 4 {
			t.Errorf("%s: %+v", what, f)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// wantAll looks for what must be in files.
func wantAll(t testing.TB, what string, c *Chain, least map[string]map[string][]byte) {
	t.Helper()
	for _, table := range []string{statedb.Bigchain, statedb.Votes} {
		held := map[string]bool{}
		if err := c.each(t.Context(), table, func(d statedb.Document) error {
			if want, there := least[table][d.ID]; there && string(want) != string(d.Body) {
				t.Errorf("%s: %s/%s was changed", what, table, d.ID)
			}
			held[d.ID] = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for id := range least[table] {
			if !held[id] {
				t.Errorf("%s: %s/%s was there before and is not in the file", what, table, id)
			}
		}
	}
}

// wantClosed looks, in memory, for what the documents of files lack: the blocks
// of votes, votes before, decided inputs, and what speaks against a block.
func wantClosed(t testing.TB, what string, w *world, c *Chain, least map[string]map[string][]byte) *verify.Report {
	t.Helper()
	wantAll(t, what, c, least)
	blocks, votes, with := map[string]*ledger.Block{}, map[string]*ledger.Vote{}, map[string]int{}
	count := map[string]map[bool]int{}
	if err := c.each(t.Context(), statedb.Bigchain, func(d statedb.Document) error {
		if b, err := soundBlock(d); err == nil {
			blocks[b.ID] = b
			for _, name := range contestedNames(b) {
				with[name]++
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.each(t.Context(), statedb.Votes, func(d statedb.Document) error {
		v, err := soundVote(d)
		if err != nil {
			return err
		}
		votes[d.ID] = v
		if count[v.BlockID] == nil {
			count[v.BlockID] = map[bool]int{}
		}
		count[v.BlockID][v.Valid]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	valid := map[string]bool{}
	for id, b := range blocks {
		for _, tx := range b.Transactions {
			valid[tx.ID] = valid[tx.ID] || 2*count[id][true] > len(w.members)
		}
	}
	for id, b := range blocks {
		needed := len(count[id]) == 0
		for _, name := range contestedNames(b) {
			needed = needed && with[name] == 1 // else it is there to speak against another
		}
		for _, tx := range b.Transactions {
			for _, ref := range tx.Spends() {
				if needed && !valid[ref.TxID] {
					t.Errorf("%s: block %s, which nobody voted on, spends of %s, which is not valid", what, id, ref.TxID)
				}
			}
		}
	}
	for id, v := range votes {
		b := blocks[v.BlockID]
		if b == nil {
			t.Errorf("%s: there is no block for vote %s", what, id)
			continue
		}
		if v.PreviousBlock != w.genesis.ID && votes[ledger.VoteID(v.PreviousBlock, v.NodePubkey)] == nil {
			t.Errorf("%s: vote %s is after one that is not there", what, id)
		}
		against := v.Valid
		for _, name := range contestedNames(b) {
			against = against || with[name] > 1
		}
		if !against {
			t.Errorf("%s: nothing speaks for vote %s, %s", what, id, v.InvalidReason)
		}
		for _, tx := range b.Transactions {
			for _, ref := range tx.Spends() {
				if v.Valid && !valid[ref.TxID] {
					t.Errorf("%s: vote %s is for a block that spends of %s, which is not valid", what, id, ref.TxID)
				}
			}
		}
	}
	return nil
}

func sampleFile(t testing.TB, steps int) (*world, string) {
	t.Helper()
	w := newWorld(t, 1, 1)
	for range steps {
		w.step()
	}
	path := filepath.Join(t.TempDir(), "full")
	w.backup(t, path, BackupOptions{})
	return w, path
}
