package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/journal"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
)

// meeting is a database into which replication has brought further revisions of
// documents. Get leaves all out but the first of them.
type meeting struct {
	statedb.DB
	mu     sync.Mutex
	others map[string][]statedb.Revision // by id
	gone   []statedb.Write               // deletions
}

func (m *meeting) HasPeers(context.Context) (bool, error)  { return false, nil }
func (m *meeting) TendPeers(context.Context) (bool, error) { return false, nil }

// ReadRevisions reads two at a time.
func (m *meeting) ReadRevisions(_ context.Context, _, id string, revs []string) (read []statedb.Revision, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rev := range revs[:min(len(revs), 2)] {
		i := slices.IndexFunc(m.others[id], func(r statedb.Revision) bool { return r.Rev == rev })
		if i < 0 {
			read = append(read, statedb.Revision{Rev: rev})
		} else {
			read = append(read, m.others[id][i])
		}
	}
	return read, nil
}

func (m *meeting) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	m.mu.Lock()
	for _, w := range writes {
		if w.Delete {
			m.gone = append(m.gone, w)
		}
	}
	m.mu.Unlock()
	return m.DB.Write(ctx, table, writes)
}

func (m *meeting) Get(ctx context.Context, table string, ids []string) ([]statedb.Document, error) {
	documents, err := m.DB.Get(ctx, table, ids)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range documents {
		for k, r := range m.others[documents[i].ID] {
			if k > 0 {
				r.Body = nil
			}
			documents[i].Others = append(documents[i].Others, r)
		}
	}
	return documents, err
}

// quarrel is a node by the two-thirds rule with three other members, whom the
// test plays: two honest ones that see things differently, and a liar.
type quarrel struct {
	*testNode
	t       *testing.T
	db      *meeting
	folder  string
	key     ledger.KeyPair
	x, y    ledger.KeyPair
	liar    ledger.KeyPair
	alice   ledger.KeyPair
	asset   *ledger.Transaction // alice's
	tx      *ledger.Transaction // spends it
	blockOf *ledger.Block       // with tx, made by x
}

func newQuarrel(t *testing.T) *quarrel {
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	q := &quarrel{
		t: t, db: &meeting{DB: db, others: map[string][]statedb.Revision{}}, folder: folder, key: ledger.GenerateKeyPair(),
		x: ledger.GenerateKeyPair(), y: ledger.GenerateKeyPair(), liar: ledger.GenerateKeyPair(), alice: ledger.GenerateKeyPair(),
	}
	q.start("state")
	q.asset = newCreate(t, q.alice, 1)
	b := q.peerBlock(t, q.x, q.asset)
	q.peerVote(t, q.x, b, true)
	q.peerVote(t, q.y, b, true)
	q.mustBecomeValid(t, q.asset)
	q.tx = newTransfer(t, q.alice, q.asset, 0, ledger.GenerateKeyPair().Public)
	q.blockOf = q.peerBlock(t, q.x, q.tx)
	if !q.ownVote(t, q.blockOf.ID).Valid {
		t.Fatal("the node voted against an honest block")
	}
	return q
}

// start starts the node on a state folder.
func (q *quarrel) start(state string) {
	q.testNode = startNode(q.t, filepath.Join(q.folder, state), q.key, sharing(q.db), among(q.x, q.y, q.liar), func(o *Options) {
		o.Rules, o.ReassignDelay = twoThirds(q.t), 100*time.Millisecond
	})
}

func (q *quarrel) end() {
	q.t.Helper()
	if err := q.stop(); err != nil {
		q.t.Fatal(err)
	}
}

// contradict has the liar's other vote on the block arrive.
func (q *quarrel) contradict(valid bool) {
	id := ledger.VoteID(q.blockOf.ID, q.liar.Public)
	reason := ""
	if !valid {
		reason = "TEST"
	}
	other := ledger.NewVote(q.liar, q.blockOf.ID, q.genesis.ID, valid, reason, time.Now().Unix())
	q.db.mu.Lock()
	q.db.others[id] = []statedb.Revision{{Rev: "1-other", Body: other.Bytes()}}
	q.db.mu.Unlock()
	documents, err := q.db.DB.Get(q.t.Context(), statedb.Votes, []string{id})
	if err != nil {
		q.t.Fatal(err)
	}
	q.forge(q.t, statedb.Votes, id, string(documents[0].Body)) // a row in the feed
}

func (q *quarrel) mustBe(block, want string) {
	q.t.Helper()
	got := ""
	eventually(q.t, "a block becomes "+want, func() bool {
		status, err := q.BlockStatus(q.t.Context(), block)
		got = status
		return err == nil && status == want
	})
	if got != want {
		q.t.Fatalf("block %s: got %s, want %s", block, got, want)
	}
}

// heal has the honest members vote for the node's next block with the disputed
// transaction, which is none of those that failed, and returns its id.
func (q *quarrel) heal(failed ...string) string {
	q.t.Helper()
	var next string
	eventually(q.t, "the transaction is in a block again", func() bool {
		refs, err := q.state.BlocksWith(q.tx.ID)
		for _, ref := range refs {
			if ref.ID != q.blockOf.ID && !slices.Contains(failed, ref.ID) {
				next = ref.ID
			}
		}
		return err == nil && next != ""
	})
	for _, honest := range []ledger.KeyPair{q.x, q.y} {
		v := ledger.NewVote(honest, next, q.blockOf.ID, true, "", time.Now().Unix())
		put(q.t, q.db, statedb.Votes, ledger.VoteID(next, honest.Public), v.Bytes())
	}
	q.mustBecomeValid(q.t, q.tx)
	return next
}

func (q *quarrel) faultsOf(kind string) (list []journal.Fault) {
	q.t.Helper()
	all, next, err := q.Faults(q.t.Context(), Page{Limit: 1000})
	if err != nil || next != "" {
		q.t.Fatalf("Faults: got %q, %v", next, err)
	}
	return slices.DeleteFunc(all, func(f journal.Fault) bool { return f.Kind != kind })
}

// A liar shows one vote here and its opposite there. Whatever a node has decided
// by the one, once it meets the other the block is disputed: nothing may rest on
// it, nothing contradict it, and its transactions go into another block.
func TestDisputedBlock(t *testing.T) {
	for name, first := range map[string]bool{"it was valid": true, "it was invalid": false} {
		t.Run(name, func(t *testing.T) {
			q := newQuarrel(t)
			agrees, disagrees := q.x, q.y
			if !first {
				agrees, disagrees = q.y, q.x
			}
			q.peerVote(t, agrees, q.blockOf, first)
			q.peerVote(t, q.liar, q.blockOf, first)
			q.mustBe(q.blockOf.ID, map[bool]string{true: "valid", false: "invalid"}[first])
			if first {
				eventually(t, "it is there for queries", func() bool {
					d, err := q.db.Get(t.Context(), statedb.Transactions, []string{q.tx.ID})
					return err == nil && d[0].Rev != ""
				})
			}
			q.peerVote(t, disagrees, q.blockOf, !first)
			q.contradict(!first)
			q.mustBe(q.blockOf.ID, "disputed")

			rival := newTransfer(t, q.alice, q.asset, 0, ledger.GenerateKeyPair().Public)
			rivals := q.peerBlock(t, q.y, rival)
			if q.ownVote(t, rivals.ID).Valid {
				t.Error("the node voted for what contradicts a disputed transaction")
			}
			q.peerVote(t, q.x, rivals, false) // with the node's that is enough
			next := q.heal()

			lists, _, err := q.AssetTransactions(t.Context(), q.asset.ID, "", Page{Limit: 10})
			if err != nil || len(lists) != 2 {
				t.Errorf("the asset has %d transactions, %v; want 2", len(lists), err)
			}
			eventually(t, "it is there for queries by its new block", func() bool {
				d, err := q.db.Get(t.Context(), statedb.Transactions, []string{q.tx.ID})
				return err == nil && strings.Contains(string(d[0].Body), blockField(next))
			})
			lies := q.faultsOf(faultTwoVerdicts)
			if len(lies) != 1 || lies[0].Node != q.liar.Public || lies[0].Block != q.blockOf.ID || len(lies[0].Evidence) != 2 {
				t.Errorf("two verdicts: got %+v", lies)
			} else {
				for i, text := range lies[0].Evidence {
					v, err := ledger.ParseVote([]byte(text))
					if err != nil || !v.Verify() || v.Valid != (first == (i == 0)) {
						t.Errorf("evidence %d: got %s, %v", i, text, err)
					}
				}
			}
			if told := q.faultsOf(faultDisputed); len(told) != 1 || !slices.Equal(told[0].Evidence, []string{q.liar.Public}) {
				t.Errorf("disputed: got %+v", told)
			}

			// Whoever reads the ledger later meets both votes, though the
			// database shows one: the node has put copies beside it.
			q.end()
			q.db.mu.Lock()
			clear(q.db.others)
			q.db.mu.Unlock()
			found := map[verify.Rule][]string{}
			report, err := verify.Run(t.Context(), q.db, verify.Options{Derived: true, Finding: func(f verify.Finding) error {
				found[f.Rule] = append(found[f.Rule], f.ID)
				return nil
			}})
			if err != nil || report.Blocks.Disputed != 1 ||
				!slices.Equal(found[verify.BlockDisputed], []string{q.blockOf.ID}) ||
				!slices.Equal(found[verify.VoteTwice], []string{ledger.VoteID(q.blockOf.ID, q.liar.Public)}) {
				t.Errorf("verify: got %+v, %v, %v", report, err, found)
			}
			for rule, ids := range found {
				if slices.Contains(ids, q.tx.ID) || strings.HasPrefix(string(rule), "input-") {
					t.Errorf("verify: %s: %v", rule, ids)
				}
			}
			q.start("another")
			q.mustBe(q.blockOf.ID, "disputed")
			q.mustBecomeValid(t, q.tx)
			q.end()
			q.start("state")
			q.mustBe(q.blockOf.ID, "disputed")
			if lies := q.faultsOf(faultTwoVerdicts); len(lies) != 1 {
				t.Errorf("after a restart: got %d", len(lies))
			}
		})
	}
}

// TestDisputedTransactionWaits: a transaction whose block is disputed is in the
// backlog again, also where its entry was still on its way out, and where another
// block that holds it comes to nothing later.
func TestDisputedTransactionWaits(t *testing.T) {
	for name, twice := range map[string]bool{"its entry is still there": false, "it is in another block": true} {
		t.Run(name, func(t *testing.T) {
			q := newQuarrel(t)
			if !twice {
				put(t, q.db, statedb.Backlog, q.tx.ID, backlogDocument(q.tx, q.x.Public, 1))
				eventually(t, "the entry is tracked", func() bool { return q.backlog.len() == 1 })
			}
			q.peerVote(t, q.x, q.blockOf, true)
			q.peerVote(t, q.liar, q.blockOf, true)
			q.mustBe(q.blockOf.ID, "valid")
			var failed []string
			var other *ledger.Block
			if twice {
				other = q.peerBlock(t, q.y, q.tx)
				if q.ownVote(t, other.ID).Valid {
					t.Fatal("the node voted for a transaction that is valid already")
				}
				failed = []string{other.ID}
			}
			q.peerVote(t, q.y, q.blockOf, false)
			q.contradict(false)
			q.mustBe(q.blockOf.ID, "disputed")
			if twice {
				eventually(t, "what follows is carried out", q.effects.idle)
				q.peerVote(t, q.x, other, false)
				q.mustBe(other.ID, "invalid")
			}
			q.heal(failed...)
		})
	}
}

// Where the others have decided for a rival meanwhile, a disputed transaction is
// refused, and what rests on it as well.
func TestDisputedAndOvertaken(t *testing.T) {
	q := newQuarrel(t)
	q.peerVote(t, q.x, q.blockOf, true)
	q.peerVote(t, q.liar, q.blockOf, true)
	q.mustBe(q.blockOf.ID, "valid")
	rival := newTransfer(t, q.alice, q.asset, 0, ledger.GenerateKeyPair().Public)
	b := q.peerBlock(t, q.y, rival)
	if q.ownVote(t, b.ID).Valid {
		t.Fatal("the node voted for a double spend")
	}
	q.peerVote(t, q.y, q.blockOf, false)
	q.contradict(false)
	q.mustBe(q.blockOf.ID, "disputed")
	for _, voter := range []ledger.KeyPair{q.x, q.y, q.liar} { // x saw the block invalid before
		v := ledger.NewVote(voter, b.ID, q.blockOf.ID, true, "", time.Now().Unix())
		put(t, q.db, statedb.Votes, ledger.VoteID(b.ID, voter.Public), v.Bytes())
	}
	q.mustBecomeValid(t, rival)
	eventually(t, "the disputed one is refused", func() bool {
		_, err := q.TransactionStatus(t.Context(), q.tx.ID)
		var refused *RefusedError
		return errors.As(err, &refused) && strings.Contains(refused.Reason, rival.ID)
	})
}

// TestAccusationIsTakenBack: a member that knows of a dispute before this node
// votes for another block with the same transaction. That looks like a lie only
// until this node knows, too.
func TestAccusationIsTakenBack(t *testing.T) {
	q := newQuarrel(t)
	q.peerVote(t, q.x, q.blockOf, true)
	q.peerVote(t, q.liar, q.blockOf, true)
	q.mustBe(q.blockOf.ID, "valid")
	next := q.peerBlock(t, q.y, q.tx)
	v := ledger.NewVote(q.x, next.ID, q.blockOf.ID, true, "", time.Now().Unix())
	put(t, q.db, statedb.Votes, ledger.VoteID(next.ID, q.x.Public), v.Bytes())
	eventually(t, "the member is accused", func() bool { return len(q.faultsOf(faultRivalVotes)) == 1 })

	q.peerVote(t, q.y, q.blockOf, false)
	q.contradict(false)
	q.mustBe(q.blockOf.ID, "disputed")
	eventually(t, "the accusation is taken back", func() bool { return len(q.faultsOf(faultRivalVotes)) == 0 })
	if lies := q.faultsOf(faultTwoVerdicts); len(lies) != 1 || lies[0].Node != q.liar.Public {
		t.Errorf("two verdicts: got %+v", lies)
	}
}

// TestGarbageBesideSound: what a peer puts beside a block, a vote or an entry of the
// backlog is a fault, and is deleted here.
func TestGarbageBesideSound(t *testing.T) {
	q := newQuarrel(t)
	vote := ledger.NewVote(q.x, q.blockOf.ID, q.asset.ID, true, "", time.Now().Unix())
	voteID := ledger.VoteID(q.blockOf.ID, q.x.Public)
	late := newCreate(t, q.alice, 77)
	for _, x := range []struct {
		table, id, kind string
		sound           []byte
	}{
		{statedb.Votes, voteID, faultNoVote, vote.Bytes()},
		{statedb.Bigchain, q.blockOf.ID, faultNoBlock, q.blockOf.Bytes()},
		{statedb.Backlog, late.ID, faultNoEntry, backlogDocument(late, q.y.Public, 1)},
	} {
		// The database shows garbage, and has the sound one beside it, behind more.
		q.db.mu.Lock()
		garbage := statedb.Revision{Body: []byte(`{"garbage": true}`)}
		all := slices.Repeat([]statedb.Revision{garbage}, 5)
		for i := range all {
			all[i].Rev = fmt.Sprintf("1-garbage%d", i)
		}
		q.db.others[x.id] = append(all, statedb.Revision{Rev: "1-sound", Body: x.sound})
		q.db.gone = nil
		q.db.mu.Unlock()
		q.forge(t, x.table, x.id, `{"garbage": true}`)
		documents, err := q.db.DB.Get(t.Context(), x.table, []string{x.id})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, x.table+": the garbage is deleted", func() bool {
			q.db.mu.Lock()
			defer q.db.mu.Unlock()
			gone := map[string]bool{}
			for _, w := range q.db.gone {
				gone[w.ID+w.Rev] = true
			}
			return gone[x.id+documents[0].Rev] && gone[x.id+"1-garbage0"] && gone[x.id+"1-garbage4"]
		})
		if faults := q.faultsOf(x.kind); len(faults) != 1 || !strings.Contains(faults[0].Evidence[0], "garbage") {
			t.Errorf("%s: got %+v", x.table, faults)
		}
		q.db.mu.Lock()
		if slices.ContainsFunc(q.db.gone, func(w statedb.Write) bool { return w.Rev == "1-sound" }) {
			t.Errorf("%s: the sound one was deleted", x.table)
		}
		delete(q.db.others, x.id)
		q.db.mu.Unlock()
	}
}
