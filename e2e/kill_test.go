package e2e

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestKill kills the node at random moments under load and restarts it, also
// with parts of its state deleted in between. What was accepted must not be
// lost, and the ledger must stay sound.
func TestKill(t *testing.T) { eachBackend(t, testKill) }

func testKill(t *testing.T, newNode nodeMaker) {
	for _, part := range []struct {
		name           string
		short, rounds  int
		wiped          func(*node) []string
		withoutReasons bool
	}{
		{"nothing deleted", 2, 5, func(*node) []string { return nil }, false},
		{"chainstate deleted", 1, 2, func(n *node) []string { return []string{n.chainstate()} }, false},
		{"journal deleted", 1, 2, func(n *node) []string { return []string{n.journal()} }, true},
		{"state deleted", 1, 2, func(n *node) []string { return []string{n.state()} }, true},
	} {
		t.Run(part.name, func(t *testing.T) {
			rounds := part.rounds
			if testing.Short() {
				rounds = part.short
			}
			if text := os.Getenv("E2E_KILLS"); text != "" {
				var err error
				if rounds, err = strconv.Atoi(text); err != nil {
					t.Fatalf("E2E_KILLS: %v", err)
				}
			}
			n := newNode(t)
			n.start()
			l := startLoad(t, n, 2, 4, 3)
			random := newRand(t)
			for round := range rounds {
				before := l.accepted()
				eventually(t, "the load goes on", func() (bool, string) {
					return l.accepted() > before+20 && l.rivalries() > round, ""
				})
				anyMoment(random, 300*time.Millisecond)
				n.kill()
				// What was under way is no finding.
				n.wantDone(t, []string{"verify"}, "The ledger is sound.")
				n.remove(part.wiped(n)...)
				if random.IntN(3) == 0 { // the restart itself does not get through
					n.launch()
					anyMoment(random, 150*time.Millisecond)
					n.kill()
				}
				n.start()
			}
			l.stop()
			a := auditLedger(t, n, l, auditOptions{noReasons: part.withoutReasons})
			t.Logf("%d kills: %d transactions posted, %d accepted, %d valid in %d blocks, %d groups of rivals, %d requests without answer",
				rounds, len(l.order), l.accepted(), len(a.valid), len(a.blocks), l.groups, l.lost)
			if len(a.valid) < 20*rounds || l.groups < rounds {
				t.Errorf("too little went on to show anything")
			}
		})
	}
}

// anyMoment lets a random time pass, so that a kill hits any stage.
func anyMoment(random *rand.Rand, most time.Duration) {
	time.Sleep(time.Duration(random.Int64N(int64(most))))
}
