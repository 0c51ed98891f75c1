package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb/statedbtest/faultproxy"
)

const (
	// lineOfOutage and lineOfRecovery are what the log says of an outage, once.
	lineOfOutage   = "the database fails; trying again until it works"
	lineOfRecovery = "the database works again"
	// noticed is how soon a node must say that its database is away, also
	// when that hangs rather than fails.
	noticed = 20 * time.Second
)

// wantRefusedPost posts until the answer is 503 with Retry-After: never
// anything else but 202.
func (l *load) wantRefusedPost(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(noticed)
	for owner := l.owner(); ; {
		start := time.Now()
		tx := create(t, owner)
		a, err := l.n.do(http.MethodPost, transactionsPath, tx.Bytes())
		l.note(tx, err == nil && a.status == http.StatusAccepted)
		switch {
		case err != nil:
			t.Fatalf("POST while the database is away: %v", err)
		case a.status == http.StatusServiceUnavailable:
			checkErrorBody(t, "POST while the database is away", a)
			if a.header.Get("Retry-After") == "" {
				t.Error("the 503 has no Retry-After")
			}
			if took := time.Since(start); took > noticed {
				t.Errorf("the 503 took %v", took)
			}
			return
		case a.status != http.StatusAccepted:
			t.Fatalf("POST while the database is away: got %v, want 503", a)
		case time.Now().After(deadline):
			t.Fatal("the database is away and posts are still accepted")
		}
	}
}

// wantDegraded wants readyz to say 503, and healthz that the process lives.
func (n *node) wantDegraded(t testing.TB) {
	t.Helper()
	eventually(t, "the node says that it is degraded", func() (bool, string) {
		a, err := n.do(http.MethodGet, "/readyz", nil)
		return err == nil && a.status == http.StatusServiceUnavailable, fmt.Sprint(a, err)
	})
	n.get(t, "/healthz")
}

// wantRecovery waits until the node is ready and takes transactions to the
// end, and logs how long that took.
func (l *load) wantRecovery(t testing.TB, what string) {
	t.Helper()
	n, start := l.n, time.Now()
	tx := create(t, l.owner())
	l.note(tx, true)
	eventually(t, "transactions are accepted again after "+what, func() (bool, string) {
		a, err := n.do(http.MethodPost, transactionsPath, tx.Bytes())
		return err == nil && a.status == http.StatusAccepted, fmt.Sprint(a, err)
	})
	n.awaitValid(t, tx.ID)
	eventually(t, "the node is ready again after "+what, func() (bool, string) {
		a, err := n.do(http.MethodGet, "/readyz", nil)
		return err == nil && a.status == http.StatusOK, fmt.Sprint(a, err)
	})
	t.Logf("%s: back %v after it was over", what, time.Since(start).Round(time.Millisecond))
}

// wantTold counts how often the log told of outages.
func (n *node) wantTold(t testing.TB, most int) {
	t.Helper()
	log := n.tail(1_000_000)
	outages, recoveries := strings.Count(log, lineOfOutage), strings.Count(log, lineOfRecovery)
	if outages < 1 || outages > most || recoveries != outages {
		t.Errorf("the log tells of %d outages and %d recoveries, want as many and 1 to %d", outages, recoveries, most)
	}
}

// wantAll checks the ledger after the faults: nothing acknowledged is lost.
func (l *load) wantAll(t testing.TB) {
	t.Helper()
	l.stop()
	a := auditLedger(t, l.n, l, auditOptions{})
	t.Logf("%d transactions posted, %d accepted, %d valid in %d blocks, %d groups of rivals",
		len(l.order), l.accepted(), len(a.valid), len(a.blocks), l.groups)
	if len(a.valid) < 20 || l.groups < 1 {
		t.Error("too little went on to show anything")
	}
}

// goesOn waits until the load got some more transactions accepted.
func (l *load) goesOn(t testing.TB) {
	t.Helper()
	before := l.accepted()
	eventually(t, "the load goes on", func() (bool, string) { return l.accepted() > before+10, fmt.Sprint(l.accepted() - before) })
}

// A node that starts before its database waits for it.
func TestDatabaseNotThereYet(t *testing.T) {
	eachServerAtOnce(t, func(t *testing.T, b backend) {
		server, address := b.own(t)
		server.Kill()
		n := b.newNode(t, address)
		p := n.launch()
		eventually(t, "the node tells that it waits", func() (bool, string) {
			return strings.Contains(n.tail(100), b.title+" does not answer yet"), n.tail(5)
		})
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		n.awaitReady(p)
		n.mustBecomeValid(t, create(t, ledger.GenerateKeyPair()))
		n.stop()

		server.Kill()
		impatient := b.newNode(t, address, "BIGCHAINDB_DATABASE_MAX_TRIES=2")
		impatient.wantRefusal(t, []string{"start"}, "does not answer", "tried 2 times")
	})
}

// A server is killed under load and comes back.
func TestDatabaseKilled(t *testing.T) {
	eachServerAtOnce(t, func(t *testing.T, b backend) {
		server, address := b.own(t)
		n := b.newNode(t, address)
		n.start()
		l := startLoad(t, n, 2, 4, 2)
		rounds := 3
		if testing.Short() {
			rounds = 1
		}
		for range rounds {
			l.goesOn(t)
			server.Kill()
			n.wantDegraded(t)
			l.wantRefusedPost(t)
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			l.wantRecovery(t, "a kill")
		}
		l.wantAll(t)
		n.wantTold(t, 2*rounds) // it may work for a moment before it is whole
	})
}

// A server accepts connections and never answers.
func TestDatabaseHangs(t *testing.T) {
	eachServerAtOnce(t, func(t *testing.T, b backend) {
		server, address := b.own(t)
		n := b.newNode(t, address)
		n.start()
		l := startLoad(t, n, 2, 2, 2)
		l.goesOn(t)
		if err := server.Suspend(); err != nil {
			t.Fatal(err)
		}
		l.wantRefusedPost(t)
		n.wantDegraded(t)
		if err := server.Resume(); err != nil {
			t.Fatal(err)
		}
		l.wantRecovery(t, "a hang")
		for range 2 {
			l.goesOn(t)
		}
		l.wantAll(t)
	})
}

// Connections are cut under load: all at once, and in the middle of answers
// and feeds.
func TestDatabaseConnectionsCut(t *testing.T) {
	eachServerAtOnce(t, func(t *testing.T, b backend) {
		address := b.shared(t)
		proxy := faultproxy.New(t, address.host, address.port)
		address.host, address.port = proxy.Host, proxy.Port
		n := b.newNode(t, address)
		n.start()
		l := startLoad(t, n, 2, 2, 2)
		rounds := 3
		if testing.Short() {
			rounds = 1
		}
		for range rounds {
			l.goesOn(t)
			proxy.Cut()
			l.goesOn(t)
			proxy.CutAfterRandom(100, 30_000)
			eventually(t, "connections are cut", func() (bool, string) { return proxy.Hits() >= 4, fmt.Sprint(proxy.Hits()) })
			proxy.Clear()
		}
		l.wantRecovery(t, "cut connections")
		l.wantAll(t)
	})
}

// ledger is the name of the node's ledger on its server.
func (n *node) ledger() string {
	for _, line := range n.environ {
		if name, ok := strings.CutPrefix(line, "BIGCHAINDB_DATABASE_NAME="); ok {
			return name
		}
	}
	n.t.Fatal("the node has no ledger on a server")
	return ""
}
