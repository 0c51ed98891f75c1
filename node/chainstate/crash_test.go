package chainstate

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/kv"
	"github.com/couchledger/couchledger/node/ledger"
)

// dump writes out all that is in a State.
func dump(s *State) (string, error) {
	it, err := s.current.NewIter(nil)
	if err != nil {
		return "", err
	}
	defer it.Close()
	var out bytes.Buffer
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Fprintf(&out, "%x=%x\n", it.Key(), it.Value())
	}
	return out.String(), it.Error()
}

// TestCrash: after a power failure the state is that after some commit, whole,
// and the checkpoints say after which.
func TestCrash(t *testing.T) {
	lost, kept := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		defer func() { m.state.Close() }()
		want := map[string]string{} // token → state
		note := func(token string) {
			text, err := dump(m.state)
			m.must(err)
			want[token] = text
		}
		type crash struct {
			fs      *vfs.MemFS
			percent int    // of what was not synced that survives
			token   string // of the last commit
		}
		var crashes []crash
		last := 0
		for n := range rapid.IntRange(1, 12).Draw(t, "commits") {
			m.update(func(u *Update) {
				for range rapid.IntRange(1, 3).Draw(t, "steps") {
					m.step(u)
				}
				m.must(u.SetToken("bigchain", fmt.Sprint(n)))
				m.must(u.SetToken("votes", fmt.Sprint(n)))
			})
			note(fmt.Sprint(n))
			last = n
			if rapid.IntRange(0, 4).Draw(t, "flush") == 0 {
				m.must(m.state.current.Flush())
			}
			percent := rapid.SampledFrom([]int{0, 20, 50, 80, 100}).Draw(t, "unsynced percent")
			seed := rapid.Uint64().Draw(t, "seed")
			fs := m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 1))})
			crashes = append(crashes, crash{fs, percent, fmt.Sprint(n)})
		}
		for _, crash := range crashes {
			what := fmt.Sprintf("%d %% survive after commit %s", crash.percent, crash.token)
			after, err := Open("chainstate", crash.fs)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			blocks, err := after.Token("bigchain")
			m.must(err)
			votes, err := after.Token("votes")
			m.must(err)
			if blocks != votes {
				t.Fatalf("%s: checkpoints %q and %q, want one commit's", what, blocks, votes)
			}
			got, err := dump(after)
			m.must(err)
			m.must(after.Close())
			if blocks != crash.token {
				lost++
			}
			if blocks == "" {
				continue // from before the first commit
			}
			kept++
			if got != want[blocks] {
				t.Fatalf("%s: the state is not that after commit %s", what, blocks)
			}
		}

		m.reopen() // what is closed loses nothing
		if got, err := m.state.Token("bigchain"); err != nil || got != fmt.Sprint(last) {
			t.Fatalf("reopened: token %s, %v; want %d", got, err, last)
		}
		m.compare()
	})
	if lost == 0 || kept == 0 {
		t.Errorf("%d crashes lost something, %d kept something; the test shows nothing", lost, kept)
	}
}

// TestDiscard: what is not committed leaves no trace.
func TestDiscard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t)
		defer func() { m.state.Close() }()
		m.update(m.step)
		before, err := dump(m.state)
		m.must(err)
		epochs, genesis := len(m.state.Epochs()), m.state.Genesis()
		b := m.drawBlock(consensus.Valid)
		u := m.state.Begin()
		_, err = u.AddBlock(b, 0, consensus.Valid)
		err = errors.Join(err, u.SetToken("bigchain", "x"), u.SetGenesis(newID("genesis", 0)),
			u.AddEpoch(Epoch{Number: 1, Members: members[:1]}))
		u.Discard()
		m.must(err)
		after, err := dump(m.state)
		m.must(err)
		if after != before || len(m.state.Epochs()) != epochs || m.state.Genesis() != genesis {
			t.Fatalf("got\n%s\n%d epochs, genesis %q; want\n%s\n%d epochs, genesis %q",
				after, len(m.state.Epochs()), m.state.Genesis(), before, epochs, genesis)
		}
		m.compare()
	})
}

// TestEarlierFormat: a folder of an earlier version is made anew, and stays so.
func TestEarlierFormat(t *testing.T) {
	for format, want := range map[string]int{"0": 3, "1": 2, "2": 1} {
		fs := vfs.NewCrashableMem()
		s := openState(t, fs)
		u := s.Begin()
		_, err := u.AddBlock(&ledger.Block{ID: newID("block", 1), Transactions: []*ledger.Transaction{{
			ID: newID("transaction", 1), Operation: ledger.Create, Asset: newID("transaction", 1),
			Outputs: []ledger.Output{{PublicKeys: []string{alice.Public}, Amount: "1"}},
		}}}, 0, consensus.Valid)
		check(t, err, u.SetToken("votes", "7"), u.SetGenesis(newID("block", 1)), u.AddEpoch(Epoch{Members: members}), u.Commit(),
			s.current.Set(metaKey(metaFormat), []byte(format), pebble.Sync), s.Close())

		s = openState(t, fs)
		if got := s.Upgraded(); len(got) != want || !strings.HasPrefix(got[0], "derive the chainstate anew") {
			t.Errorf("format %q: got the steps %q, want %d", format, got, want)
		}
		text, err := dump(s)
		check(t, err)
		if want := fmt.Sprintf("%x=%x\n", metaKey(metaFormat), []byte(strconv.Itoa(len(steps)))); text != want {
			t.Errorf("format %q: got\n%swant\n%s", format, text, want)
		}
		if s.Genesis() != "" || len(s.Epochs()) != 0 || s.arrivals != 0 || s.decisions != 0 {
			t.Errorf("format %q: got genesis %q, %d epochs, %d arrivals; want none", format, s.Genesis(), len(s.Epochs()), s.arrivals)
		}
		u = s.Begin()
		check(t, u.SetToken("votes", "1"), u.Commit(), s.Close())
		s = openState(t, fs)
		if token, err := s.Token("votes"); token != "1" || err != nil {
			t.Errorf("format %q: token after reopening: got %q, %v; want 1", format, token, err)
		}
	}
}

// TestNewerFormat: a folder that a newer program wrote is refused, and left.
func TestNewerFormat(t *testing.T) {
	fs := vfs.NewMem()
	s := openState(t, fs)
	check(t, s.current.Set(metaKey(metaFormat), []byte("4"), pebble.Sync), s.Close())
	for range 2 {
		_, err := Open("chainstate", fs)
		if !errors.Is(err, kv.ErrNewer) || !strings.Contains(err.Error(), "(format 4, this program knows 3)") || strings.Contains(err.Error(), "reindex") {
			t.Errorf("got %v, want that it is refused", err)
		}
	}
}

// TestReplace: readers of the former store end in peace, and see what they saw.
func TestReplace(t *testing.T) {
	fs := vfs.NewMem()
	s := openState(t, fs)
	addBlock(t, s, 1, consensus.Valid, newCreate(1, members))
	next, err := Open("next", fs)
	check(t, err)
	addBlock(t, next, 2, consensus.Valid, newCreate(2, members))
	view := s.View()
	retire := s.Replace(next)
	retired := make(chan error)
	go func() { retired <- retire() }()
	for block, want := range map[int]consensus.Status{1: consensus.Unknown, 2: consensus.Valid} {
		if got, err := s.BlockStatus(newID("block", block)); got != want || err != nil {
			t.Errorf("block %d: got %v, %v, want %v", block, got, err, want)
		}
		held, err := view.BlocksWith(newID("transaction", block))
		if (len(held) == 1) != (block == 1) || err != nil {
			t.Errorf("block %d as of before: got %v, %v", block, held, err)
		}
	}
	select {
	case err := <-retired:
		t.Errorf("closed while it is read: %v", err)
	default:
	}
	view.Close()
	check(t, <-retired)
	addBlock(t, s, 3, consensus.Valid, newCreate(3, members))
	if s.arrivals != 2 {
		t.Errorf("got %d arrivals, want 2", s.arrivals)
	}
	check(t, s.Close())
}

// TestBrokenDisk: what cannot be written ends in one sentence, and Close returns.
func TestBrokenDisk(t *testing.T) {
	var broken atomic.Bool
	s := openState(t, errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return syscall.EIO
		}
		return nil
	})))
	broken.Store(true)
	for n := 0; ; n++ {
		u := s.Begin()
		err := errors.Join(u.SetToken("bigchain", strings.Repeat("x", 100_000)), u.Commit())
		if err == nil && n < 1000 {
			continue // it is not synced
		}
		if !errors.Is(err, kv.ErrFailed) || !strings.Contains(err.Error(), "chainstate failed: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one sentence that names the folder", err)
		}
		break
	}
	s.tidier.ask([]byte{metaPrefix})
	check(t, s.Close())
}

// TestDamagedRecords: what is malformed on disk is an error that says what to
// do, not a panic.
func TestDamagedRecords(t *testing.T) {
	block, tx := newID("block", 1), newID("transaction", 1)
	blockID, _ := toID(block)
	txID, _ := toID(tx)
	keys := map[string][]byte{
		"block":       idKey(blockPrefix, blockID),
		"transaction": idKey(txPrefix, txID),
		"output":      outputKey(outputPrefix, txID, 0),
	}
	for name, k := range keys {
		for _, value := range []string{"", "\x01", strings.Repeat("\xff", 11), strings.Repeat("\xff", 60)} {
			t.Run(fmt.Sprintf("%s %x", name, value), func(t *testing.T) {
				s := openState(t, vfs.NewMem())
				addBlock(t, s, 1, consensus.Undecided, newCreate(1, members))
				check(t, s.current.Set(k, []byte(value), pebble.Sync))
				_, _, outputErr := s.Output(ledger.OutputRef{TxID: tx, Index: 0})
				_, digestErr := s.TransactionDigest(tx)
				u := s.Begin()
				_, decideErr := u.Decide(block, consensus.Invalid)
				u.Discard()
				if outputErr == nil && digestErr == nil && decideErr == nil {
					t.Error("no read fails")
				}
				for _, err := range []error{outputErr, digestErr, decideErr} {
					if err != nil && !strings.Contains(err.Error(), "`bigchaindb reindex` makes the chainstate anew") {
						t.Errorf("got %v, want it to say what to do", err)
					}
				}
			})
		}
	}
}
