package node

import (
	"errors"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
)

// A node whose blocks nobody else votes on takes as many posts as it may.
func TestMaxBacklog(t *testing.T) {
	alice, silent := ledger.GenerateKeyPair(), ledger.GenerateKeyPair()
	n := startNode(t, t.TempDir(), ledger.GenerateKeyPair(), among(silent), func(o *Options) { o.MaxBacklog = 3 })
	first := newCreate(t, alice, 0)
	n.mustPost(t, first)
	n.mustPost(t, newCreate(t, alice, 1))
	n.mustPost(t, newCreate(t, alice, 2))
	if _, err := n.Submit(t.Context(), newCreate(t, alice, 3).Bytes()); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: got %v, want ErrBusy", err)
	}
	n.mustPost(t, first) // it is known, and takes no place
	if got := n.RetryAfter(); got < leastRetry || got > mostRetry {
		t.Errorf("RetryAfter: got %v", got)
	}
}

func TestPace(t *testing.T) {
	var p pace
	if got := p.time(1000); got != leastRetry {
		t.Errorf("before anything is known: got %v", got)
	}
	now := time.Now()
	p.add(5, now) // the first one only begins to measure
	for range 10 {
		now = now.Add(paceSpan / 2)
		p.add(50, now)
	}
	for waiting, want := range map[int]time.Duration{0: leastRetry, 50: leastRetry, 500: 5 * time.Second, 1_000_000: mostRetry} {
		if got := p.time(waiting).Round(100 * time.Millisecond); got != want {
			t.Errorf("%d at 100 a second: got %v, want %v", waiting, got, want)
		}
	}
	p.add(1, now.Add(time.Hour)) // it was idle, not slow
	if got := p.time(500).Round(100 * time.Millisecond); got != 5*time.Second {
		t.Errorf("after an idle hour: got %v", got)
	}
}
