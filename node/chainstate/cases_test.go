package chainstate

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

func openState(tb testing.TB, fs vfs.FS) *State {
	tb.Helper()
	s, err := Open("chainstate", fs)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func check(tb testing.TB, errs ...error) {
	tb.Helper()
	if err := errors.Join(errs...); err != nil {
		tb.Fatal(err)
	}
}

func update(tb testing.TB, s *State, do func(u *Update) error) {
	tb.Helper()
	u := s.Begin()
	check(tb, do(u), u.Commit())
}

// newCreate makes a transaction with one output for each list of owners.
func newCreate(n int, owners ...[]string) *ledger.Transaction {
	t := &ledger.Transaction{ID: newID("transaction", n), Operation: ledger.Create, Inputs: make([]ledger.Input, 1)}
	t.Asset = t.ID
	for _, keys := range owners {
		t.Outputs = append(t.Outputs, ledger.Output{PublicKeys: keys, ConditionURI: "cc:4", Amount: "1"})
	}
	return t
}

// newSpend makes a TRANSFER of output index of a transaction to an owner.
func newSpend(n int, of *ledger.Transaction, index int, owner string) *ledger.Transaction {
	t := newCreate(n, []string{owner})
	t.Operation, t.Asset = ledger.Transfer, of.Asset
	t.Inputs[0].Fulfills = &ledger.OutputRef{TxID: of.ID, Index: index}
	return t
}

func addBlock(tb testing.TB, s *State, n int, status consensus.Status, txs ...*ledger.Transaction) {
	tb.Helper()
	update(tb, s, func(u *Update) error {
		_, err := u.AddBlock(&ledger.Block{ID: newID("block", n), Transactions: txs}, 0, status)
		return err
	})
}

func decide(tb testing.TB, s *State, n int, status consensus.Status) {
	tb.Helper()
	update(tb, s, func(u *Update) error {
		_, err := u.Decide(newID("block", n), status)
		return err
	})
}

func wantOutputs(t *testing.T, s *State, when, key string, unspent bool, want ...ledger.OutputRef) {
	t.Helper()
	got, next, err := s.Outputs(key, unspent, "", 100)
	if err != nil || next != "" || !slices.Equal(got, want) {
		t.Errorf("%s: outputs, unspent %v: got %v, %q, %v; want %v", when, unspent, got, next, err, want)
	}
}

func refTo(t *ledger.Transaction, index int) ledger.OutputRef {
	return ledger.OutputRef{TxID: t.ID, Index: index}
}

// TestFirstOfTwoBlocksInvalid: a transaction in two live blocks stays where it
// stood when the first turns out invalid.
func TestFirstOfTwoBlocksInvalid(t *testing.T) {
	s := openState(t, vfs.NewMem())
	early, late := newCreate(1, []string{alice.Public}), newCreate(2, []string{alice.Public})
	addBlock(t, s, 1, consensus.Undecided, early)
	addBlock(t, s, 2, consensus.Undecided, late)
	addBlock(t, s, 3, consensus.Undecided, early)
	decide(t, s, 1, consensus.Invalid)
	wantOutputs(t, s, "one block is left", alice.Public, false, refTo(early, 0), refTo(late, 0))
	if status, block, err := s.TransactionStatus(early.ID); err != nil || status != consensus.Undecided || block != newID("block", 3) {
		t.Errorf("got %s in %s, %v; want undecided in the third block", status, block, err)
	}
	decide(t, s, 3, consensus.Invalid)
	wantOutputs(t, s, "none is left", alice.Public, false, refTo(late, 0))
	wantOutputs(t, s, "none is left", alice.Public, true, refTo(late, 0))
	addBlock(t, s, 4, consensus.Undecided, early)
	wantOutputs(t, s, "it came again", alice.Public, false, refTo(late, 0), refTo(early, 0))
	decide(t, s, 4, consensus.Valid)
	if status, _, err := s.TransactionStatus(early.ID); err != nil || status != consensus.Valid {
		t.Errorf("got %s, %v; want valid", status, err)
	}
}

// TestUnspentAgain: an output is unspent again when its spender's block is
// invalid, unless another live block spends it too.
func TestUnspentAgain(t *testing.T) {
	s := openState(t, vfs.NewMem())
	create := newCreate(1, []string{alice.Public, bob.Public})
	first, second := newSpend(2, create, 0, bob.Public), newSpend(3, create, 0, bob.Public)
	addBlock(t, s, 1, consensus.Valid, create)
	wantOutputs(t, s, "new", alice.Public, true, refTo(create, 0))
	addBlock(t, s, 2, consensus.Undecided, first)
	wantOutputs(t, s, "spent once", alice.Public, true)
	addBlock(t, s, 3, consensus.Undecided, second)
	decide(t, s, 2, consensus.Invalid)
	wantOutputs(t, s, "spent by the other", alice.Public, true)
	wantOutputs(t, s, "spent by the other", bob.Public, true, refTo(second, 0))
	decide(t, s, 3, consensus.Invalid)
	wantOutputs(t, s, "spent by none", alice.Public, true, refTo(create, 0))
	wantOutputs(t, s, "spent by none", bob.Public, true, refTo(create, 0))
	wantOutputs(t, s, "spent by none", alice.Public, false, refTo(create, 0))
}

// TestSpenderComesFirst: feeds need not be in order.
func TestSpenderComesFirst(t *testing.T) {
	s := openState(t, vfs.NewMem())
	create := newCreate(1, []string{alice.Public}, []string{alice.Public})
	spend := newSpend(2, create, 1, bob.Public)
	addBlock(t, s, 1, consensus.Undecided, spend)
	if o, _, err := s.Output(refTo(create, 1)); err != nil || o.Status != consensus.Unknown {
		t.Errorf("before it came: got %+v, %v; want unknown", o, err)
	}
	addBlock(t, s, 2, consensus.Undecided, create)
	wantOutputs(t, s, "spent before it came", alice.Public, true, refTo(create, 0))
	wantOutputs(t, s, "spent before it came", alice.Public, false, refTo(create, 0), refTo(create, 1))
	decide(t, s, 1, consensus.Invalid)
	wantOutputs(t, s, "the spender is gone", alice.Public, true, refTo(create, 0), refTo(create, 1))
}

func TestSameKeyTwice(t *testing.T) {
	s := openState(t, vfs.NewMem())
	create := newCreate(1, []string{alice.Public, bob.Public, alice.Public})
	addBlock(t, s, 1, consensus.Valid, create)
	for _, unspent := range []bool{false, true} {
		wantOutputs(t, s, "named twice", alice.Public, unspent, refTo(create, 0))
	}
	o, _, err := s.Output(refTo(create, 0))
	if want := create.Outputs[0].PublicKeys; err != nil || !slices.Equal(o.PublicKeys, want) {
		t.Errorf("public keys: got %v, %v; want %v as they were", o.PublicKeys, err, want)
	}
	addBlock(t, s, 2, consensus.Undecided, newSpend(2, create, 0, bob.Public))
	wantOutputs(t, s, "spent", alice.Public, true)
	wantOutputs(t, s, "spent", alice.Public, false, refTo(create, 0))
}

// TestKeyWithinKey: a public key may begin like a longer one.
func TestKeyWithinKey(t *testing.T) {
	s := openState(t, vfs.NewMem())
	long := strings.Repeat("z", 44)
	one, other := newCreate(1, []string{long}), newCreate(2, []string{long[:43]})
	addBlock(t, s, 1, consensus.Valid, one, other)
	for _, unspent := range []bool{false, true} {
		wantOutputs(t, s, "long key", long, unspent, refTo(one, 0))
		wantOutputs(t, s, "short key", long[:43], unspent, refTo(other, 0))
	}
}

// TestInvalidOnArrival: a block that can never be valid shows in the list of a
// transaction's blocks, and nowhere else.
func TestInvalidOnArrival(t *testing.T) {
	s := openState(t, vfs.NewMem())
	create := newCreate(1, []string{alice.Public})
	addBlock(t, s, 1, consensus.Valid, create)
	before, err := dump(s)
	check(t, err)
	// Its transaction pretends to be another, and spends what is not its own.
	liar := newSpend(1, create, 0, bob.Public)
	liar.Asset = newID("transaction", 7)
	addBlock(t, s, 2, consensus.Invalid, liar, liar, newSpend(3, create, 0, bob.Public))
	wantOutputs(t, s, "after a liar's block", alice.Public, true, refTo(create, 0))
	wantOutputs(t, s, "after a liar's block", bob.Public, false)
	if _, spends, err := s.Output(refTo(create, 0)); err != nil || len(spends) != 0 {
		t.Errorf("spends: got %v, %v; want none", spends, err)
	}
	after, err := dump(s)
	check(t, err)
	known := map[string]bool{}
	for line := range strings.Lines(before) {
		known[line] = true
	}
	for line := range strings.Lines(after) {
		switch prefix := line[:2]; prefix {
		case fmt.Sprintf("%x", blockPrefix), fmt.Sprintf("%x", statusPrefix), fmt.Sprintf("%x", blocksOfPrefix), fmt.Sprintf("%x", metaPrefix):
		default:
			if !known[line] {
				t.Errorf("it left %s", line)
			}
		}
	}
}

func TestBadCursors(t *testing.T) {
	s := openState(t, vfs.NewMem())
	var txs []*ledger.Transaction
	create := newCreate(0, []string{alice.Public})
	for n := range 5 {
		txs = append(txs, newSpend(n+1, create, n, alice.Public))
	}
	addBlock(t, s, 1, consensus.Valid, append([]*ledger.Transaction{create}, txs...)...)
	_, good, err := s.Outputs(alice.Public, false, "", 2)
	check(t, err)
	_, asset, err := s.AssetTransactions(create.ID, "", "", 2)
	check(t, err)
	encode := base64.RawURLEncoding.EncodeToString
	for name, cursor := range map[string]string{
		"of another list": asset, "short": good[:len(good)-2], "long": good + "AA", "padded": good + "=",
		"spaces": " " + good, "line feed in it": good[:4] + "\n" + good[4:], "not base64": strings.Repeat("!", len(good)),
		"empty bytes": encode(nil) + "A", "loose bits": good[:len(good)-1] + "B", "endless": strings.Repeat("A", 1<<20),
	} {
		for _, unspent := range []bool{false, true} {
			if refs, next, err := s.Outputs(alice.Public, unspent, cursor, 2); !errors.Is(err, ErrBadCursor) {
				t.Errorf("outputs, %s: got %v, %q, %v; want ErrBadCursor", name, refs, next, err)
			}
		}
	}
	for name, cursor := range map[string]string{"of another list": good, "cut": asset[1:], "not base64": "%%%"} {
		if _, _, err := s.AssetTransactions(create.ID, "", cursor, 2); !errors.Is(err, ErrBadCursor) {
			t.Errorf("asset, %s: got %v, want ErrBadCursor", name, err)
		}
	}
	// A cursor beyond the end, well formed, is the end.
	refs, next, err := s.Outputs(alice.Public, false, encode([]byte(strings.Repeat("\xff", positionSize+4))), 2)
	if err != nil || next != "" || len(refs) != 0 {
		t.Errorf("beyond the end: got %v, %q, %v; want an empty last page", refs, next, err)
	}
}

func TestUnknownIDs(t *testing.T) {
	s := openState(t, vfs.NewMem())
	addBlock(t, s, 1, consensus.Valid, newCreate(1, []string{alice.Public}))
	for _, id := range []string{"", "x", strings.Repeat("g", 64), newID("transaction", 99)} {
		status, block, err := s.TransactionStatus(id)
		blockStatus, err2 := s.BlockStatus(id)
		with, err3 := s.BlocksWith(id)
		o, spends, err4 := s.Output(ledger.OutputRef{TxID: id})
		digest, err5 := s.TransactionDigest(id)
		list, next, err6 := s.AssetTransactions(id, "", "", 10)
		check(t, err, err2, err3, err4, err5, err6)
		if status != consensus.Unknown || block != "" || blockStatus != consensus.Unknown || len(with) != 0 ||
			o.Status != consensus.Unknown || len(spends) != 0 || digest != [32]byte{} || len(list) != 0 || next != "" {
			t.Errorf("%.10q: got %s, %q, %s, %v, %+v, %v, %v", id, status, block, blockStatus, with, o, spends, list)
		}
	}
	for _, index := range []int{-1, 1, 1 << 31} {
		if o, _, err := s.Output(ledger.OutputRef{TxID: newID("transaction", 1), Index: index}); err != nil || o.Status != consensus.Unknown {
			t.Errorf("output %d: got %+v, %v; want unknown", index, o, err)
		}
	}
	u := s.Begin()
	defer u.Discard()
	if _, err := u.AddBlock(&ledger.Block{ID: "x"}, 0, consensus.Undecided); err == nil {
		t.Error("AddBlock with a malformed id: want an error")
	}
	if _, err := u.AddVote(&ledger.Vote{BlockID: "x"}); err == nil {
		t.Error("AddVote with a malformed id: want an error")
	}
	if _, err := u.Decide(newID("block", 99), consensus.Valid); err == nil {
		t.Error("Decide on an unknown block: want an error")
	}
}

func TestTransactionDigest(t *testing.T) {
	s := openState(t, vfs.NewMem())
	tx, err := ledger.NewCreate([]ledger.KeyPair{alice}, canonical.Value{}, canonical.Value{}, ledger.PayTo(alice.Public, 1))
	check(t, err)
	addBlock(t, s, 1, consensus.Undecided, tx)
	if got, err := s.TransactionDigest(tx.ID); err != nil || got != tx.Digest() {
		t.Errorf("got %x, %v; want %x", got, err, tx.Digest())
	}
	decide(t, s, 1, consensus.Invalid)
	if got, err := s.TransactionDigest(tx.ID); err != nil || got != [32]byte{} {
		t.Errorf("once its block is invalid: got %x, %v; want none", got, err)
	}
}

func TestEpochsAndStatements(t *testing.T) {
	fs := vfs.NewMem()
	s := openState(t, fs)
	if e, ok := s.EpochAt(1); ok {
		t.Errorf("before the first: got %+v, want none", e)
	}
	one := ledger.NewStatement(alice, 1, 200, members[:1], "")
	two := ledger.NewStatement(bob, 1, 200, members[:1], "")
	other := ledger.NewStatement(alice, 2, 300, members[:1], one.Hash())
	update(t, s, func(u *Update) error {
		return errors.Join(u.AddEpoch(Epoch{From: 100, Members: members}),
			u.AddEpoch(Epoch{Number: 1, From: 200, Members: members[:1], Hash: one.Hash()}))
	})
	update(t, s, func(u *Update) error {
		for n, st := range []*ledger.Statement{one, two, one} {
			got, err := u.AddStatement(st)
			if want := min(n+1, 2); err != nil || len(got) != want || got[st.NodePubkey].Hash() != st.Hash() {
				t.Errorf("AddStatement %d: got %v, %v; want %d", n, got, err, want)
			}
		}
		_, err := u.AddStatement(other)
		return err
	})
	check(t, s.Close())
	s = openState(t, fs)
	for timestamp, want := range map[int64]int{99: -1, 100: 0, 199: 0, 200: 1, 1 << 40: 1} {
		e, ok := s.EpochAt(timestamp)
		if ok != (want >= 0) || ok && e.Number != want {
			t.Errorf("EpochAt(%d): got %+v, %v; want epoch %d", timestamp, e, ok, want)
		}
	}
	for number, want := range map[int]int{0: 0, 1: 2, 2: 1, 256: 0} {
		if got, err := s.Statements(number); err != nil || len(got) != want {
			t.Errorf("Statements(%d): got %v, %v; want %d", number, got, err, want)
		}
	}
	if e, _ := s.EpochAt(200); !e.Has(alice.Public) || e.Has(bob.Public) {
		t.Errorf("members of epoch 1: got %v, want %v", e.Members, members[:1])
	}
}
