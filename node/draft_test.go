package node

import (
	"testing"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

// TestFaultsThatPass: while a block is drafted the ledger goes on. What a draft
// finds wrong by its view, and is right by now, is no reason to refuse anything.
func TestFaultsThatPass(t *testing.T) {
	n, peer, _ := withPeer(t)
	alice, bob := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	// judge checks a transaction by a view and tells what becomes of its fault now.
	judge := func(d *draft, kind ledger.Kind, tx *ledger.Transaction) (on string, passes bool) {
		t.Helper()
		proof, err := n.check(tx)
		if err != nil {
			t.Fatal(err)
		}
		fault := n.rules.CheckSpends(tx, proof, liveView(d.view, nil))
		if invalid, ok := asInvalid(fault); !ok || invalid.Kind != kind {
			t.Fatalf("by the view: got %v, want %s", fault, kind)
		}
		if on, passes, err = n.mayPass(tx, fault, noMore); err != nil {
			t.Fatal(err)
		}
		return on, passes
	}
	drafting := func() *draft {
		d := n.maker.newDraft()
		t.Cleanup(d.view.Close)
		return d
	}

	before := drafting()
	coin := newCreate(t, alice, 1)
	spend := newTransfer(t, alice, coin, 0, bob.Public)
	if on, passes := judge(before, ledger.InputDoesNotExist, spend); on != coin.ID || !passes {
		t.Errorf("an input that is not there: got %q, %v, want that it is waited for", on, passes)
	}
	b := n.peerBlock(t, peer, coin)
	eventually(t, "the block is there", func() bool { return n.isLive(coin.ID) })
	if on, passes := judge(drafting(), ledger.TransactionNotInValidBlock, spend); on != coin.ID || !passes {
		t.Errorf("an undecided input: got %q, %v, want that it is waited for", on, passes)
	}
	n.peerVote(t, peer, b, true)
	n.mustBecomeValid(t, coin)
	if on, passes := judge(before, ledger.InputDoesNotExist, spend); on != "" || !passes {
		t.Errorf("an input that came meanwhile: got %q, %v, want that it is looked at again", on, passes)
	}

	rival := newTransfer(t, alice, coin, 0, alice.Public)
	b = n.peerBlock(t, peer, rival)
	eventually(t, "the block is there", func() bool { return n.isLive(rival.ID) })
	between := drafting()
	if on, passes := judge(between, ledger.DoubleSpend, spend); on != rival.ID || !passes {
		t.Errorf("an undecided spend: got %q, %v, want that it is waited for", on, passes)
	}
	n.peerVote(t, peer, b, false)
	eventually(t, "the block is invalid", func() bool {
		status, err := n.state.BlockStatus(b.ID)
		return err == nil && status == consensus.Invalid
	})
	if on, passes := judge(between, ledger.DoubleSpend, spend); on != "" || !passes {
		t.Errorf("a spend that came to nothing meanwhile: got %q, %v, want that it is looked at again", on, passes)
	}

	b = n.peerBlock(t, peer, spend)
	n.peerVote(t, peer, b, true)
	n.mustBecomeValid(t, spend)
	if on, passes := judge(drafting(), ledger.DoubleSpend, rival); on != "" || passes {
		t.Errorf("a spend that is valid: got %q, %v, want that it is for good", on, passes)
	}
	source := ledger.SourceOf(spend, 0)
	source.Ref.Index = 1
	lacks, err := ledger.NewTransfer(spend.Asset, []ledger.Source{source}, noMetadata, []ledger.Payment{ledger.PayTo(bob.Public, 1)}, bob)
	if err != nil {
		t.Fatal(err)
	}
	if on, passes := judge(drafting(), ledger.InputDoesNotExist, lacks); on != "" || passes {
		t.Errorf("an output that a valid transaction does not have: got %q, %v, want that it is for good", on, passes)
	}
}
