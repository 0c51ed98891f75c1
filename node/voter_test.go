package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/cryptoconditions"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// withPeer starts a node whose federation has a second member, which the test
// plays by writing blocks and votes. With two voters one valid vote leaves a
// block undecided.
func withPeer(t *testing.T) (n *testNode, peer ledger.KeyPair, db statedb.DB) {
	t.Helper()
	folder := t.TempDir()
	peer = ledger.GenerateKeyPair()
	db = openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	return startNode(t, folder, ledger.GenerateKeyPair(), sharing(db), among(peer)), peer, db
}

func put(t *testing.T, db statedb.DB, table, id string, body []byte) {
	t.Helper()
	results, err := db.Write(t.Context(), table, []statedb.Write{{ID: id, Body: body}})
	if err != nil || results[0].Err != nil {
		t.Fatalf("write %s: %v, %v", id, err, results)
	}
}

// peerBlock puts a block by the peer into the ledger.
func (n *testNode) peerBlock(t *testing.T, peer ledger.KeyPair, txs ...*ledger.Transaction) *ledger.Block {
	t.Helper()
	b := ledger.NewBlock(peer, time.Now().Unix(), n.members, txs)
	put(t, n.db, statedb.Bigchain, b.ID, b.Bytes())
	return b
}

func (n *testNode) peerVote(t *testing.T, peer ledger.KeyPair, b *ledger.Block, valid bool) {
	t.Helper()
	reason := ""
	if !valid {
		reason = "TEST"
	}
	v := ledger.NewVote(peer, b.ID, n.genesis.ID, valid, reason, time.Now().Unix())
	put(t, n.db, statedb.Votes, ledger.VoteID(b.ID, peer.Public), v.Bytes())
}

// ownVote waits for this node's vote on a block in the database.
func (n *testNode) ownVote(t *testing.T, block string) *ledger.Vote {
	t.Helper()
	var vote *ledger.Vote
	eventually(t, "the node has voted on "+block, func() bool {
		documents, err := n.db.Get(t.Context(), statedb.Votes, []string{ledger.VoteID(block, n.key.Public)})
		if err != nil || documents[0].Rev == "" {
			return false
		}
		vote, err = ledger.ParseVote(documents[0].Body)
		return err == nil && vote.Verify()
	})
	return vote
}

// give makes a valid CREATE of the owner's, by a block of the peer's.
func (n *testNode) give(t *testing.T, peer, owner ledger.KeyPair, serial int) *ledger.Transaction {
	t.Helper()
	tx := newCreate(t, owner, serial)
	b := n.peerBlock(t, peer, tx)
	n.peerVote(t, peer, b, true)
	n.mustBecomeValid(t, tx)
	return tx
}

func TestVoteVerdicts(t *testing.T) {
	n, peer, _ := withPeer(t)
	alice, mallory := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	first := n.give(t, peer, alice, 1)
	second := n.give(t, peer, alice, 2)
	third := n.give(t, peer, alice, 9)
	spent := newTransfer(t, alice, second, 0, mallory.Public)
	b := n.peerBlock(t, peer, spent)
	n.peerVote(t, peer, b, true)
	n.mustBecomeValid(t, spent)

	fresh := newCreate(t, alice, 3)
	forged, err := ledger.ParseTransaction([]byte(`{"asset":{"data":null},"id":"` + first.ID + `"` + string(fresh.Bytes()[len(`{"asset":{"data":{"serial":3}},"id":"`)+64+1:])))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		txs    []*ledger.Transaction
		reason string
	}{
		{"a sound CREATE", []*ledger.Transaction{newCreate(t, alice, 10)}, ""},
		{"a sound TRANSFER", []*ledger.Transaction{newTransfer(t, alice, first, 0, mallory.Public)}, ""},
		{"an output that another undecided block spends, which this node voted valid",
			[]*ledger.Transaction{newTransfer(t, alice, first, 0, alice.Public)}, string(ledger.DoubleSpend)},
		{"an output that a valid block spends", []*ledger.Transaction{newTransfer(t, alice, second, 0, alice.Public)}, string(ledger.DoubleSpend)},
		{"a transaction of a valid block", []*ledger.Transaction{newCreate(t, alice, 11), spent}, reasonDuplicate},
		{"somebody else's output", []*ledger.Transaction{signedBy(t, mallory, third)}, string(ledger.InvalidSignature)},
		{"an input in the block itself", []*ledger.Transaction{fresh, newTransfer(t, alice, fresh, 0, alice.Public)}, string(ledger.TransactionNotInValidBlock)},
		{"an input that is nowhere", []*ledger.Transaction{newTransfer(t, alice, newCreate(t, alice, 12), 0, alice.Public)}, string(ledger.InputDoesNotExist)},
		{"another body under a known id", []*ledger.Transaction{forged}, reasonUnsound},
		{"one transaction twice", []*ledger.Transaction{fresh, fresh}, reasonUnsound},
		{"a GENESIS", []*ledger.Transaction{n.genesis.Transactions[0]}, reasonUnsound},
		{"two spends of one output", []*ledger.Transaction{
			newTransfer(t, mallory, spent, 0, alice.Public), newTransfer(t, mallory, spent, 0, peer.Public)}, string(ledger.DoubleSpend)},
	} {
		v := n.ownVote(t, n.peerBlock(t, peer, c.txs...).ID)
		if v.Valid != (c.reason == "") || v.InvalidReason != c.reason {
			t.Errorf("%s: got valid %v, reason %q, want reason %q", c.name, v.Valid, v.InvalidReason, c.reason)
		}
	}
}

// signedBy makes a TRANSFER of somebody's output with a thief's signature.
func signedBy(t *testing.T, thief ledger.KeyPair, from *ledger.Transaction) *ledger.Transaction {
	t.Helper()
	source := ledger.SourceOf(from, 0)
	source.Details = cryptoconditions.Ed25519Details(thief.Public)
	tx, err := ledger.NewTransfer(from.Asset, []ledger.Source{source}, canonical.Value{},
		[]ledger.Payment{ledger.PayTo(thief.Public, 1)}, thief)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// A block by a stranger, or one that names other voters than the federation,
// is invalid whatever the votes, and its maker decides nothing alone (slip 8).
func TestForeignBlocksAreInvalid(t *testing.T) {
	n, peer, db := withPeer(t)
	alice, stranger := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	now := time.Now().Unix()
	for name, b := range map[string]*ledger.Block{
		"a stranger's":          ledger.NewBlock(stranger, now, n.members, []*ledger.Transaction{newCreate(t, alice, 1)}),
		"its maker sole voter":  ledger.NewBlock(peer, now, []string{peer.Public}, []*ledger.Transaction{newCreate(t, alice, 2)}),
		"one voter twice":       ledger.NewBlock(peer, now, []string{peer.Public, peer.Public}, []*ledger.Transaction{newCreate(t, alice, 4)}),
		"a stranger voter more": ledger.NewBlock(peer, now, append([]string{stranger.Public}, n.members...), []*ledger.Transaction{newCreate(t, alice, 5)}),
		"before the genesis":    ledger.NewBlock(peer, n.genesis.Timestamp-1, n.members, []*ledger.Transaction{newCreate(t, alice, 6)}),
	} {
		put(t, db, statedb.Bigchain, b.ID, b.Bytes())
		n.peerVote(t, peer, b, true)
		eventually(t, "the block is invalid: "+name, func() bool {
			status, err := n.BlockStatus(t.Context(), b.ID)
			return err == nil && status == "invalid"
		})
		if status, err := n.TransactionStatus(t.Context(), b.Transactions[0].ID); err == nil {
			t.Errorf("%s: its transaction has status %q, want none", name, status)
		}
	}
}

// A block whose input is in an undecided block is not voted on until that one
// is decided, and then by what was decided. The votes on other blocks go on.
func TestVoteWaitsForUndecidedInput(t *testing.T) {
	n, peer, _ := withPeer(t)
	alice := ledger.GenerateKeyPair()
	for _, valid := range []bool{true, false} {
		create := newCreate(t, alice, int(time.Now().UnixNano()))
		one := n.peerBlock(t, peer, create)
		two := n.peerBlock(t, peer, newTransfer(t, alice, create, 0, alice.Public))
		n.ownVote(t, one.ID)
		other := n.peerBlock(t, peer, newCreate(t, alice, int(time.Now().UnixNano())))
		n.ownVote(t, other.ID)
		if v, err := n.journal.Vote(two.ID); err != nil || v != nil {
			t.Fatalf("the vote on a block with an undecided input: got %+v, %v, want none yet", v, err)
		}
		n.peerVote(t, peer, one, valid)
		if v := n.ownVote(t, two.ID); v.Valid != valid {
			t.Errorf("the input's block decided %v: got vote %v", valid, v.Valid)
		}
	}
}

// Two blocks that come to wait for each other are not waited for.
func TestVoteDoesNotWaitInACircle(t *testing.T) {
	folder := t.TempDir()
	alice, p, q := ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	n := startNode(t, folder, ledger.GenerateKeyPair(), among(p, q))
	a, b := newCreate(t, alice, 1), newCreate(t, alice, 2)
	// A block that this node votes invalid and that stays undecided: the only
	// place where a is at first.
	first := n.peerBlock(t, p, a, signedBy(t, p, a))
	if v := n.ownVote(t, first.ID); v.Valid {
		t.Fatal("a stolen output: got a valid vote")
	}
	two := n.peerBlock(t, p, newTransfer(t, alice, a, 0, alice.Public), b) // waits for first
	one := n.peerBlock(t, p, newTransfer(t, alice, b, 0, alice.Public), a) // waits for two
	n.ownVote(t, n.peerBlock(t, p, newCreate(t, alice, 3)).ID)             // both have been looked at
	for _, block := range []*ledger.Block{one, two} {
		if v, err := n.journal.Vote(block.ID); err != nil || v != nil {
			t.Fatalf("a block with an undecided input: got vote %+v, %v, want none yet", v, err)
		}
	}
	n.peerVote(t, p, first, false) // now two waits for one, the only place where a is
	if v := n.ownVote(t, two.ID); v.Valid {
		t.Error("two blocks that wait for each other: got a valid vote")
	}
}

// Garbage under this node's own vote id does not keep it from voting (slip 9).
func TestGarbageAtOwnVoteID(t *testing.T) {
	n, peer, db := withPeer(t)
	alice := ledger.GenerateKeyPair()
	for i, garbage := range []string{`{}`, `{"node_pubkey":"` + n.key.Public + `","signature":"1","vote":{}}`} {
		b := ledger.NewBlock(peer, time.Now().Unix(), n.members, []*ledger.Transaction{newCreate(t, alice, i)})
		put(t, db, statedb.Votes, ledger.VoteID(b.ID, n.key.Public), []byte(garbage))
		put(t, db, statedb.Bigchain, b.ID, b.Bytes())
		if v := n.ownVote(t, b.ID); !v.Valid {
			t.Errorf("garbage %d: got an invalid vote", i)
		}
	}
	// And garbage written over a vote that is there is written over again.
	b := n.peerBlock(t, peer, newCreate(t, alice, 7))
	n.ownVote(t, b.ID)
	id := ledger.VoteID(b.ID, n.key.Public)
	eventually(t, "the vote is overwritten", func() bool {
		documents, err := db.Get(t.Context(), statedb.Votes, []string{id})
		if err != nil {
			return false
		}
		results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: id, Rev: documents[0].Rev, Body: []byte(`{"a":1}`)}})
		return err == nil && results[0].Err == nil
	})
	n.ownVote(t, b.ID)
}

// Restarting at any moment, or losing chainstate, journal or both, never makes
// a node vote twice with different verdicts, nor valid for two blocks in
// conflict, and its votes stay one chain.
func TestVotesBindAfterLoss(t *testing.T) {
	for name, lost := range map[string][]string{
		"nothing": nil, "chainstate": {chainstateFolder}, "journal": {journalFolder}, "both": {chainstateFolder, journalFolder},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			key, peer, alice := ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
			db := openEmbedded(t, folder)
			t.Cleanup(func() { db.Close() })
			n := startNode(t, folder, key, sharing(db), among(peer))
			asset := n.give(t, peer, alice, 1)
			open := n.peerBlock(t, peer, newTransfer(t, alice, asset, 0, peer.Public), newCreate(t, alice, 2))
			vote := n.ownVote(t, open.ID)
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
			for _, part := range lost {
				if err := os.RemoveAll(filepath.Join(folder, "state", part)); err != nil {
					t.Fatal(err)
				}
			}
			conflict := n.peerBlock(t, peer, newTransfer(t, alice, asset, 0, alice.Public))
			same := n.peerBlock(t, peer, open.Transactions[1])
			n = startNode(t, folder, key, sharing(db), among(peer))
			for _, b := range []*ledger.Block{conflict, same} {
				v := n.ownVote(t, b.ID)
				if v.Valid {
					t.Errorf("a second block in conflict with a vote given before: got a valid vote")
				}
			}
			again := n.ownVote(t, open.ID)
			if string(again.Bytes()) != string(vote.Bytes()) {
				t.Errorf("the vote given before: got %s, want it unchanged: %s", again.Bytes(), vote.Bytes())
			}
			next := n.ownVote(t, n.peerBlock(t, peer, newCreate(t, alice, 3)).ID)
			n.checkVoteChain(t, next.BlockID)
		})
	}
}

// checkVoteChain follows this node's votes from the last one back to the
// genesis block, and checks that it meets all of them.
func (n *testNode) checkVoteChain(t *testing.T, last string) {
	t.Helper()
	eventually(t, "its votes are written", n.voter.idle)
	previous := map[string]string{}
	for _, body := range allVotes(t, n.db) {
		if v, err := ledger.ParseVote([]byte(body)); err == nil && v.NodePubkey == n.key.Public {
			previous[v.BlockID] = v.PreviousBlock
		}
	}
	met := 0
	for block := last; block != n.genesis.ID; block = previous[block] {
		if met++; met > len(previous) || previous[block] == "" {
			t.Fatalf("the chain of votes breaks at block %q: %v", block, previous)
		}
	}
	if met != len(previous) {
		t.Errorf("the chain of votes meets %d votes, the node gave %d", met, len(previous))
	}
}

// allVotes reads the votes that a database has, by id.
func allVotes(t *testing.T, db statedb.DB) map[string]string {
	t.Helper()
	votes := map[string]string{}
	for r := (statedb.Range{Limit: 1000}); ; {
		page, err := db.Range(t.Context(), statedb.Votes, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Documents {
			votes[d.ID] = string(d.Body)
		}
		if r.Bookmark = page.Bookmark; r.Bookmark == "" {
			return votes
		}
	}
}

// A vote read back after a lost journal is the one that was given, also where
// the same block would get another verdict now.
func TestLostJournalIsReadBack(t *testing.T) {
	folder := t.TempDir()
	key, alice, p, q := ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	n := startNode(t, folder, key, among(p, q))
	create := newCreate(t, alice, 1)
	first := n.peerBlock(t, p, create)
	n.peerVote(t, p, first, true)
	n.mustBecomeValid(t, create)
	held := n.peerBlock(t, p, newTransfer(t, alice, create, 0, p.Public))
	n.ownVote(t, held.ID)
	refused := n.peerBlock(t, p, newTransfer(t, alice, create, 0, q.Public))
	if v := n.ownVote(t, refused.ID); v.Valid {
		t.Fatal("a conflict with an undecided block voted valid: got a valid vote")
	}
	n.peerVote(t, p, held, false)
	n.peerVote(t, q, held, false) // now nothing stands in the way any more
	eventually(t, "the first spend is invalid", func() bool {
		status, _ := n.BlockStatus(t.Context(), held.ID)
		return status == "invalid"
	})
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(folder, "state", journalFolder)); err != nil {
		t.Fatal(err)
	}
	n = startNode(t, folder, key, among(p, q))
	if v, err := n.journal.Vote(refused.ID); err != nil || v == nil || v.Valid {
		t.Errorf("the vote read back: got %+v, %v, want the invalid one that was given", v, err)
	}
	n.checkVoteChain(t, n.journal.LastVoted())
}

// holding is a database whose writes to the backlog wait.
type holding struct {
	statedb.DB
	reached, release chan struct{}
}

func (d *holding) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	if table == statedb.Backlog {
		d.reached <- struct{}{}
		<-d.release
	}
	return d.DB.Write(ctx, table, writes)
}

// A block of another node's may hold a transaction, and be decided, while this
// node is still writing it to the backlog.
func TestDecidedWhileBeingWritten(t *testing.T) {
	folder := t.TempDir()
	alice, peer := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	slow := &holding{DB: db, reached: make(chan struct{}), release: make(chan struct{})}
	n := startNode(t, folder, ledger.GenerateKeyPair(), sharing(slow), among(peer))
	tx := newCreate(t, alice, 1)
	posted := make(chan error, 1)
	go func() {
		_, err := n.Submit(t.Context(), tx.Bytes())
		posted <- err
	}()
	<-slow.reached
	n.peerVote(t, peer, n.peerBlock(t, peer, tx), true)
	n.mustBecomeValid(t, tx)
	close(slow.release)
	if err := <-posted; err != nil {
		t.Errorf("post: got %v, want success", err)
	}
	eventually(t, "the entry that came too late is removed", func() bool {
		page, err := db.Range(t.Context(), statedb.Backlog, statedb.Range{Limit: 1})
		return err == nil && len(page.Documents) == 0
	})
	if refs, err := n.state.BlocksWith(tx.ID); err != nil || len(refs) != 1 {
		t.Errorf("blocks with it: got %v, %v, want one", refs, err)
	}
}

// A block whose votes come before it, as feeds may bring them after a restart, is
// decided as it arrives. It leaves no locks, which nobody would release.
func TestNoLocksOfABlockDecidedAsItArrives(t *testing.T) {
	n, peer, db := withPeer(t)
	b := n.peerBlock(t, peer, newCreate(t, ledger.GenerateKeyPair(), 1))
	own := n.ownVote(t, b.ID)
	n.peerVote(t, peer, b, false)
	eventually(t, "the block is invalid", func() bool {
		status, _ := n.BlockStatus(t.Context(), b.ID)
		return status == "invalid"
	})
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(n.folder, "state", chainstateFolder)); err != nil {
		t.Fatal(err)
	}
	again := openNode(t, n.folder, n.key, sharing(db), among(peer))
	for _, v := range []*ledger.Vote{own, ledger.NewVote(peer, b.ID, again.genesis.ID, false, "TEST", 1)} {
		if err := again.applyVote(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	if err := again.applyBlock(t.Context(), b, nil); err != nil {
		t.Fatal(err)
	}
	if held := again.journal.Held(); len(held) > 0 {
		t.Errorf("got locks of %v, want none", held)
	}
}

// A maker whose blocks are voted invalid, one after another, makes fewer and fewer.
func TestMakerRestsAfterFailedBlocks(t *testing.T) {
	n, peer, db := withPeer(t)
	alice := ledger.GenerateKeyPair()
	tx := newCreate(t, alice, 1)
	for i := 2; assigneeOf(n.members, tx) != n.key.Public; i++ {
		tx = newCreate(t, alice, i)
	}
	n.mustPost(t, tx)
	seen := map[string]bool{n.genesis.ID: true}
	begun := time.Now()
	for len(seen) < 5 {
		page, err := db.Range(t.Context(), statedb.Bigchain, statedb.Range{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Documents {
			if ledger.IsID(d.ID) && !seen[d.ID] {
				seen[d.ID] = true
				b, err := ledger.ParseBlock(d.Body)
				if err != nil {
					t.Fatal(err)
				}
				n.peerVote(t, peer, b, false)
			}
		}
		time.Sleep(time.Millisecond)
	}
	if took := time.Since(begun); took < (1+2+4)*firstRetry {
		t.Errorf("four blocks were made within %v", took)
	}
}
