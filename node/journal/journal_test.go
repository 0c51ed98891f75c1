package journal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/mr-tron/base58"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

var node = newKey(1)

func newKey(n byte) ledger.KeyPair {
	k, err := ledger.KeyPairFromPrivate(base58.Encode(bytes.Repeat([]byte{n}, 32)))
	if err != nil {
		panic(err)
	}
	return k
}

// open opens a journal that is closed when the test ends.
func open(tb testing.TB, fs vfs.FS) *Journal {
	tb.Helper()
	j, err := Open("journal", node.Public, fs)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { j.Close() })
	return j
}

// crash returns the file system as a power failure would leave it.
func crash(fs *vfs.MemFS) *vfs.MemFS { return fs.CrashClone(vfs.CrashCloneCfg{}) }

// id makes an id that is the same for the same name.
func id(name string) string { return ledger.Hash([]byte(name)) }

func vote(block string, valid bool) *ledger.Vote {
	reason := ""
	if !valid {
		reason = "DoubleSpend"
	}
	return ledger.NewVote(node, id(block), id("genesis"), valid, reason, 1490777015)
}

func output(name string, index int) ledger.OutputRef {
	return ledger.OutputRef{TxID: id(name), Index: index}
}

func check(tb testing.TB, errs ...error) {
	tb.Helper()
	if err := errors.Join(errs...); err != nil {
		tb.Fatal(err)
	}
}

func wantVote(t *testing.T, j *Journal, want *ledger.Vote) {
	t.Helper()
	got, err := j.Vote(want.BlockID)
	if err != nil || got == nil || string(got.Bytes()) != string(want.Bytes()) {
		t.Errorf("Vote: got %v, %v; want %s", got, err, want.Bytes())
	}
}

func unsent(t *testing.T, j *Journal) []string {
	t.Helper()
	votes, err := j.Unsent()
	check(t, err)
	var blocks []string
	for _, v := range votes {
		blocks = append(blocks, v.BlockID)
	}
	return blocks
}

func sorted(names ...string) []string {
	var ids []string
	for _, name := range names {
		ids = append(ids, id(name))
	}
	slices.Sort(ids)
	return ids
}

// TestRecordSurvivesCrash: what Record returned nil for is durable, all of it.
func TestRecordSurvivesCrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	j := open(t, fs)
	locks := Locks{Transactions: []string{id("t1"), id("t2")}, Outputs: []ledger.OutputRef{output("o", 0), output("o", 7)}}
	yes, no := vote("yes", true), vote("no", false)
	check(t, j.Record(yes, locks), j.Record(no, Locks{Transactions: []string{id("t3")}, Outputs: []ledger.OutputRef{output("p", 0)}}))

	for name, j := range map[string]*Journal{"before": j, "after the crash": open(t, crash(fs))} {
		t.Run(name, func(t *testing.T) {
			wantVote(t, j, yes)
			wantVote(t, j, no)
			if got, want := j.LastVoted(), no.BlockID; got != want {
				t.Errorf("LastVoted: got %s, want %s", got, want)
			}
			if got, want := unsent(t, j), sorted("yes", "no"); !slices.Equal(got, want) {
				t.Errorf("Unsent: got %s, want %s", got, want)
			}
			for tx, want := range map[string]string{"t1": yes.BlockID, "t2": yes.BlockID, "t3": "", "t4": ""} {
				if got := j.LockedTransaction(id(tx)); got != want {
					t.Errorf("LockedTransaction(%s): got %q, want %q", tx, got, want)
				}
			}
			for ref, want := range map[ledger.OutputRef]string{
				output("o", 0): yes.BlockID, output("o", 7): yes.BlockID, output("o", 1): "", output("p", 0): "",
			} {
				if got := j.LockedOutput(ref); got != want {
					t.Errorf("LockedOutput(%v): got %q, want %q", ref, got, want)
				}
			}
			if got, want := j.Held(), []string{yes.BlockID}; !slices.Equal(got, want) {
				t.Errorf("Held: got %s, want %s", got, want)
			}
		})
	}
	if v, err := j.Vote(id("other")); v != nil || err != nil {
		t.Errorf("Vote on another block: got %v, %v; want none", v, err)
	}
}

func TestRecordTwice(t *testing.T) {
	j := open(t, vfs.NewCrashableMem())
	first := vote("b", true)
	check(t, j.Record(first, Locks{}), j.Record(vote("b", true), Locks{}))
	if err := j.Record(vote("b", false), Locks{}); err == nil || !strings.Contains(err.Error(), "other verdict") {
		t.Errorf("the other verdict: got %v, want a refusal", err)
	}
	wantVote(t, j, first)
	check(t, j.Adopt(vote("c", false)))
	if err := j.Record(vote("c", true), Locks{Transactions: []string{id("t")}}); err == nil || j.LockedTransaction(id("t")) != "" {
		t.Errorf("against an adopted vote: got %v, lock %q; want a refusal", err, j.LockedTransaction(id("t")))
	}
}

func TestSent(t *testing.T) {
	fs := vfs.NewCrashableMem()
	j := open(t, fs)
	check(t, j.Record(vote("a", true), Locks{}), j.Record(vote("b", false), Locks{}), j.Sent(id("a")))
	if got, want := unsent(t, j), sorted("b"); !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	check(t, j.Close())
	j = open(t, fs)
	if got, want := unsent(t, j), sorted("b"); !slices.Equal(got, want) {
		t.Errorf("reopened: got %s, want %s", got, want)
	}
	wantVote(t, j, vote("a", true))
}

// TestSharedLocks: an output that two blocks lock stays locked until both are
// decided, whichever comes first.
func TestSharedLocks(t *testing.T) {
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		for _, reopen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s first, reopened %v", order[0], reopen), func(t *testing.T) {
				fs := vfs.NewCrashableMem()
				j := open(t, fs)
				locks := Locks{Transactions: []string{id("t")}, Outputs: []ledger.OutputRef{output("o", 1)}}
				check(t, j.Record(vote("a", true), locks), j.Lock(id("b"), locks), j.Lock(id("b"), locks))
				if reopen {
					fs = crash(fs)
					j = open(t, fs)
				} else if got := j.LockedOutput(output("o", 1)); got != id("a") {
					t.Errorf("locked by %s, want the block that came first", got)
				}
				check(t, j.Release(id(order[0])), j.Release(id("unknown")))
				if got, want := j.LockedOutput(output("o", 1)), id(order[1]); got != want {
					t.Errorf("LockedOutput: got %q, want %q", got, want)
				}
				if got, want := j.LockedTransaction(id("t")), id(order[1]); got != want {
					t.Errorf("LockedTransaction: got %q, want %q", got, want)
				}
				check(t, j.Release(id(order[1])), j.Release(id(order[1])))
				if got := j.LockedOutput(output("o", 1)); got != "" {
					t.Errorf("LockedOutput: got %q, want none", got)
				}
				if got := j.LockedTransaction(id("t")); got != "" {
					t.Errorf("LockedTransaction: got %q, want none", got)
				}
				if n := len(j.locks) + len(j.txLocks) + len(j.held); n != 0 {
					t.Errorf("%d entries stay in memory, want 0", n)
				}
				check(t, j.Close())
				if got := open(t, fs).Held(); len(got) != 0 {
					t.Errorf("Held after reopening: got %s, want none", got)
				}
			})
		}
	}
}

func TestFresh(t *testing.T) {
	fs := vfs.NewCrashableMem()
	fresh := func(fs vfs.FS, want bool) *Journal {
		t.Helper()
		j := open(t, fs)
		if got := j.Fresh(); got != want {
			t.Errorf("Fresh: got %v, want %v", got, want)
		}
		return j
	}
	j := fresh(fs, true)
	check(t, j.Adopt(vote("a", true)), j.Lock(id("a"), Locks{Transactions: []string{id("t")}}))

	// Not all votes were found again when it crashed: it is still fresh, and
	// they are looked for from the start.
	interrupted := crash(fs)
	j = fresh(interrupted, true)
	if v, err := j.Vote(id("a")); v != nil || err != nil {
		t.Errorf("Vote: got %v, %v, want none before it is adopted again", v, err)
	}
	check(t, j.Adopt(vote("a", true)))
	wantVote(t, j, vote("a", true))
	if got := unsent(t, j); len(got) != 0 {
		t.Errorf("Unsent: got %s, want none: an adopted vote is in the database", got)
	}
	check(t, j.Restored())
	fresh(crash(interrupted), false)

	voted := crash(fs)
	check(t, fresh(voted, true).Record(vote("b", false), Locks{}))
	fresh(crash(voted), false)

	continued := crash(fs)
	check(t, fresh(continued, true).SetLastVoted(id("a")))
	if got, want := fresh(crash(continued), false).LastVoted(), id("a"); got != want {
		t.Errorf("LastVoted: got %s, want %s", got, want)
	}
}

// TestAnotherKey: the votes of another key bind another voter.
func TestAnotherKey(t *testing.T) {
	fs := vfs.NewCrashableMem()
	j := open(t, fs)
	block := newBlock(t, 1)
	check(t, j.Record(vote("a", true), LocksOf(block)), j.PutBlock(block), j.Restored(),
		j.Refuse(time.Unix(1e9, 0), []Refusal{{id("t"), "why"}}), j.Close())
	j, err := Open("journal", newKey(2).Public, fs)
	check(t, err)
	defer j.Close()
	blocks, err := j.Outbox()
	check(t, err)
	reason, err := j.Refusal(time.Unix(1e9, 0), id("t"))
	check(t, err)
	v, err := j.Vote(id("a"))
	check(t, err)
	if !j.Fresh() || j.LastVoted() != "" || v != nil || len(blocks) != 0 || reason != "" || len(j.Held()) != 0 || len(unsent(t, j)) != 0 {
		t.Errorf("got fresh %v, last %q, vote %v, outbox %v, refusal %q, held %v; want an empty journal",
			j.Fresh(), j.LastVoted(), v, blocks, reason, j.Held())
	}
}

func newBlock(tb testing.TB, n int64) *ledger.Block {
	tx, err := ledger.NewCreate([]ledger.KeyPair{node}, canonical.Value{}, canonical.Value{}, ledger.PayTo(node.Public, n))
	check(tb, err)
	return ledger.NewBlock(node, n, []string{node.Public}, []*ledger.Transaction{tx})
}

func TestLocksOf(t *testing.T) {
	create := newBlock(t, 5).Transactions[0]
	transfer, err := ledger.NewTransfer(create.ID, []ledger.Source{ledger.SourceOf(create, 0)}, canonical.Value{},
		[]ledger.Payment{ledger.PayTo(node.Public, 5)}, node)
	check(t, err)
	got := LocksOf(ledger.NewBlock(node, 1, []string{node.Public}, []*ledger.Transaction{create, transfer}))
	if want := []string{create.ID, transfer.ID}; !slices.Equal(got.Transactions, want) {
		t.Errorf("transactions: got %s, want %s", got.Transactions, want)
	}
	if want := []ledger.OutputRef{{TxID: create.ID, Index: 0}}; !slices.Equal(got.Outputs, want) {
		t.Errorf("outputs: got %v, want %v", got.Outputs, want)
	}
}

func TestOutbox(t *testing.T) {
	fs := vfs.NewCrashableMem()
	j := open(t, fs)
	one, two := newBlock(t, 1), newBlock(t, 2)
	check(t, j.PutBlock(one), j.PutBlock(two), j.PutBlock(two))
	outbox := func(j *Journal) []string {
		t.Helper()
		blocks, err := j.Outbox()
		check(t, err)
		var texts []string
		for _, b := range blocks {
			check(t, b.Verify())
			texts = append(texts, string(b.Bytes()))
		}
		slices.Sort(texts)
		return texts
	}
	both := []string{string(one.Bytes()), string(two.Bytes())}
	slices.Sort(both)
	if got := outbox(open(t, crash(fs))); !slices.Equal(got, both) {
		t.Errorf("after a crash: got %s, want %s", got, both)
	}
	check(t, j.DropBlock(one.ID), j.DropBlock(id("unknown")), j.Close())
	if got, want := outbox(open(t, fs)), []string{string(two.Bytes())}; !slices.Equal(got, want) {
		t.Errorf("after DropBlock: got %s, want %s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	fs := vfs.NewCrashableMem()
	j := open(t, fs)
	start := time.Unix(1e9, 0)
	want := func(j *Journal, now time.Time, tx, want string) {
		t.Helper()
		if got, err := j.Refusal(now, id(tx)); err != nil || got != want {
			t.Errorf("%s after %s: got %q, %v; want %q", tx, now.Sub(start), got, err, want)
		}
	}
	check(t, j.Refuse(start, []Refusal{{id("a"), "spent"}, {id("b"), ""}, {id("twice"), "first"}}))
	after := open(t, crash(fs))
	want(after, start, "a", "spent")
	want(after, start, "b", "")
	want(after, start.Add(RefusalAge), "a", "spent")
	want(after, start.Add(RefusalAge+time.Second), "a", "")
	want(after, start.Add(-time.Hour), "a", "spent") // the clock went back
	want(after, start, "c", "")

	// A transaction refused again keeps the younger reason, for its own day.
	later := start.Add(RefusalAge - time.Hour)
	check(t, j.Refuse(later, []Refusal{{id("twice"), "second"}}))
	want(j, later, "twice", "second")
	tomorrow := start.Add(RefusalAge + time.Hour)
	check(t, j.Refuse(tomorrow, []Refusal{{id("c"), "new"}, {id("a"), "again"}}))
	want(j, tomorrow, "twice", "second")
	want(j, tomorrow, "a", "again")
	want(j, tomorrow, "c", "new")
	want(j, start, "b", "")

	// What is too old is gone from the disk too.
	check(t, j.Refuse(tomorrow.Add(2*RefusalAge), nil))
	for _, prefix := range []byte{refusalPrefix, refusedAt} {
		check(t, j.each(prefix, func(name string, value []byte) error {
			t.Errorf("%c%q = %q is still there", prefix, name, value)
			return nil
		}))
	}
}

func TestMalformedRecords(t *testing.T) {
	name := id("x")
	tests := []struct {
		record string
		value  string
		read   func(j *Journal) error
	}{
		{"v" + name, "", voteOn}, {"v" + name, "{}", voteOn}, {"v" + name, "\x00", voteOn},
		{"v" + name, "not json", func(j *Journal) error {
			_, err := j.Unsent()
			return err
		}},
		{"v" + name, "[]", func(j *Journal) error { return j.Record(vote("x", true), Locks{}) }},
		{"o" + name, "", outboxOf}, {"o" + name, "{}", outboxOf}, {"o" + name, "{", outboxOf},
	}
	for _, test := range tests {
		j := open(t, vfs.NewMem())
		check(t, j.db.Set([]byte(test.record), []byte(test.value), pebble.Sync),
			j.db.Set(key(unsentPrefix, name), nil, pebble.Sync))
		if err := test.read(j); !errors.Is(err, ledger.ErrMalformed) || !strings.Contains(err.Error(), name) {
			t.Errorf("%.1s = %q: got %v, want ErrMalformed with the block's id", test.record, test.value, err)
		}
	}
	for _, value := range []string{"x\n", "\n", name + " \n", name + " x\n", name + " 1 2\n", name + " -1\n", name + " 99999999999999999999\n", "\xff"} {
		fs := vfs.NewMem()
		j := open(t, fs)
		check(t, j.db.Set(key(lockPrefix, name), []byte(value), pebble.Sync), j.Restored(), j.Close())
		if j, err := Open("journal", node.Public, fs); err == nil || !strings.Contains(err.Error(), "a lock is malformed") {
			t.Errorf("lock %q: got %v, %v; want an error", value, j, err)
		}
	}
	for _, value := range []string{"", "short"} {
		j := open(t, vfs.NewMem())
		check(t, j.db.Set(key(refusalPrefix, name), []byte(value), pebble.Sync),
			j.db.Set(key(refusedAt, value), nil, pebble.Sync))
		if got, err := j.Refusal(time.Unix(0, 0), name); got != "" || err != nil {
			t.Errorf("refusal %q: got %q, %v; want none", value, got, err)
		}
		check(t, j.Refuse(time.Unix(1e9, 0), nil))
	}
}

func voteOn(j *Journal) error {
	_, err := j.Vote(id("x"))
	return err
}

func outboxOf(j *Journal) error {
	_, err := j.Outbox()
	return err
}

// TestUnrefuse: a transaction that is accepted anew has no reason any more,
// also when the journal was opened since.
func TestUnrefuse(t *testing.T) {
	fs := vfs.NewCrashableMem()
	j := open(t, fs)
	now := time.Unix(1_500_000_000, 0)
	check(t, j.Unrefuse(id("never")), j.Refuse(now, []Refusal{{TxID: id("t"), Reason: "because"}}))
	j = open(t, crash(fs))
	if reason, err := j.Refusal(now, id("t")); err != nil || reason != "because" {
		t.Fatalf("Refusal: got %q, %v, want the reason", reason, err)
	}
	check(t, j.Unrefuse(id("t")))
	if reason, err := j.Refusal(now, id("t")); err != nil || reason != "" {
		t.Errorf("Refusal after Unrefuse: got %q, %v, want none", reason, err)
	}
}
