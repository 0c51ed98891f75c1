package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
	"github.com/couchledger/couchledger/statedb/statedbtest/faultproxy"
)

// TestFourCouchDBs has four operators with a CouchDB each copy from one another, in
// a ring or each from all others. Conflicting spends are posted to two of the nodes
// in the same instant, E2E_PAIRS=500 of them; one node and its CouchDB are killed under
// load; a line between two is cut for some seconds, E2E_CUT=1m for a minute; two
// nodes are killed. All four say the same of everything in the end.
func TestFourCouchDBs(t *testing.T) {
	if testing.Short() {
		t.Skip("not tested with -short: four CouchDBs take a while")
	}
	for name, mesh := range map[string]bool{"ring": false, "mesh": true} {
		t.Run(name, func(t *testing.T) { newOperators(t, mesh).run() })
	}
}

// operators are a federation of four with a database each.
type operators struct {
	quartet
	servers []*couchtest.Server
	lines   map[[2]int]*faultproxy.Proxy // from a node's CouchDB to another's
}

func newOperators(t *testing.T, mesh bool) *operators {
	const count = 4
	o := &operators{quartet: quartet{t: t}, servers: make([]*couchtest.Server, count), lines: map[[2]int]*faultproxy.Proxy{}}
	keys := make([]ledger.KeyPair, count)
	for i := range keys {
		keys[i], o.servers[i] = ledger.GenerateKeyPair(), couchtest.Start(t)
	}
	couch := servers[slices.IndexFunc(servers, func(b backend) bool { return b.name == configs.CouchDB })]
	for i := range keys {
		n := couch.newNode(t, couchAddress(o.servers[i].Address), append(keysOf(keys[i], slices.Concat(keys[:i], keys[i+1:])...),
			"BIGCHAINDB_CONSENSUS_PLUGIN="+consensus.TwoThirds, "BIGCHAINDB_BACKLOG_REASSIGN_DELAY=2")...)
		// Who takes over what another was slow with may come second.
		n.expected = append(n.expected, "voted a block invalid")
		o.nodes = append(o.nodes, n)
	}
	start := time.Now()
	o.nodes[0].wantDone(t, []string{"init"})
	for to := range o.nodes {
		for from := range o.nodes {
			if from == to || !mesh && (from+1)%count != to {
				continue
			}
			o.lines[[2]int{from, to}] = faultproxy.New(t, o.servers[from].Host, o.servers[from].Port)
			o.join(to, from)
		}
	}
	t.Cleanup(func() {
		for i, n := range o.nodes {
			if t.Failed() {
				_, out, stderr := n.run("replicas")
				t.Logf("node %d copies:\n%s%s", i, out, stderr)
			}
		}
	})
	runs := make([]*process, count)
	for i, n := range o.nodes {
		runs[i] = n.launch()
	}
	for i, n := range o.nodes {
		n.awaitReady(runs[i])
	}
	t.Logf("joined: %v", time.Since(start).Round(time.Millisecond))
	return o
}

// join has one node's CouchDB copy from another's, as their operators would.
func (o *operators) join(to, from int) {
	t := o.t
	user := fmt.Sprint("peer", to)
	code, password, stderr := o.nodes[from].run("allow-peer", user)
	if code != 0 {
		t.Fatalf("allow-peer: exit code %d, %s", code, stderr)
	}
	line := o.lines[[2]int{from, to}]
	address := fmt.Sprintf("http://%s@%s:%d/%s", user, line.Host, line.Port, o.nodes[from].ledger())
	cmd := o.nodes[to].command("add-replicas", address)
	cmd.Stdin = strings.NewReader(password)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), strings.TrimSpace(password)) {
		t.Fatalf("add-replicas: %v, %s", err, out)
	}
}

func (o *operators) run() {
	t := o.t
	timed := func(what string, do func()) {
		start := time.Now()
		do()
		t.Logf("%s: %v", what, time.Since(start).Round(time.Millisecond))
	}
	var owners []ledger.KeyPair
	timed("conflicting spends", func() { owners = o.quarrel() })
	timed("two of four down", func() { o.halve(owners[0]) })

	n, couch := o.nodes[3], o.servers[3]
	o.load(func() {
		n.kill()
		couch.Kill()
	}, 3)
	timed("after a node and its CouchDB were down", func() {
		if err := couch.Start(); err != nil {
			t.Fatal(err)
		}
		n.start()
		o.agree()
	})

	line := o.lines[[2]int{0, 1}]
	o.load(func() {
		line.Refuse(true)
		line.Cut()
	}, 4)
	cut := 3 * time.Second
	if text := os.Getenv("E2E_CUT"); text != "" {
		var err error
		if cut, err = time.ParseDuration(text); err != nil {
			t.Fatalf("E2E_CUT: %v", err)
		}
	}
	time.Sleep(cut) // the cut is what is tested, however long
	timed("after a line was cut", func() {
		line.Clear()
		o.agree()
	})
	timed("unspent outputs", func() { o.sameOutputs(owners) })
	timed("an entry brought back", o.bringsNothingBack)
	for i, n := range o.nodes {
		for _, kind := range []string{"two-verdicts", "rival-votes", "disputed-block", "not-a-vote", "not-a-block", "not-an-entry"} {
			if strings.Contains(string(n.get(t, "/api/v1/faults").body), kind) {
				t.Errorf("node %d saw a fault in an honest ledger: %s", i, n.get(t, "/api/v1/faults").body)
			}
		}
		timed("all is copied", func() { o.wantCopying(n) })
		n.stop()
		n.wantDone(t, []string{"verify"}, "The ledger is sound.", "members: 4")
	}
}

// load posts to the first nodes until something happens and for a while after.
func (o *operators) load(happens func(), to int) {
	var posts sync.WaitGroup
	alice := ledger.GenerateKeyPair()
	for i := range 60 {
		if i == 30 {
			happens()
		}
		posts.Go(func() { o.post(i%to, create(o.t, alice)) })
		time.Sleep(10 * time.Millisecond) // a load, not a burst
	}
	posts.Wait()
}

// bringsNothingBack puts a decided transaction into one node's backlog again, from
// where it is copied to others: it goes from all of them.
func (o *operators) bringsNothingBack() {
	t := o.t
	tx := create(t, ledger.GenerateKeyPair())
	o.post(0, tx)
	o.awaitValid(tx.ID)
	empty := func(i int) (bool, string) {
		answer := o.servers[i].Do(t, http.MethodGet, "/"+url.PathEscape(o.nodes[i].ledger()+"_backlog")+"/_all_docs", "", http.StatusOK)
		var all struct{ Rows []struct{ ID string } }
		if err := json.Unmarshal([]byte(answer), &all); err != nil {
			t.Fatal(err)
		}
		if len(all.Rows) == 0 {
			return true, ""
		}
		status, _, err := o.nodes[i].status(all.Rows[0].ID)
		return false, fmt.Sprintf("%d are left, one is %s: %q, %v", len(all.Rows), all.Rows[0].ID, status, err)
	}
	wantEmpty := func(when string) {
		for i := range o.nodes {
			eventually(t, fmt.Sprintf("%s, backlog %d is empty", when, i), func() (bool, string) { return empty(i) })
		}
	}
	wantEmpty("after all is decided")
	body := append([]byte(`{"assignee":"`+o.nodes[2].key(t)+`","assignment_timestamp":1,`), tx.Bytes()[1:]...)
	o.servers[1].Do(t, http.MethodPut, "/"+url.PathEscape(o.nodes[1].ledger()+"_backlog")+"/"+tx.ID, string(body), http.StatusCreated)
	wantEmpty("after an entry came back")
	for _, n := range o.nodes {
		if blocks := n.list(t, "/api/v1/blocks?status=VALID&tx_id="+tx.ID); len(blocks) != 1 {
			t.Errorf("the transaction is in the valid blocks %v", blocks)
		}
	}
}

// wantCopying wants a node's copying to run, with nothing left to do.
func (o *operators) wantCopying(n *node) {
	eventually(o.t, "all is copied", func() (bool, string) {
		code, out, stderr := n.run("replicas", "--json")
		ok := code == 0 && strings.Count(out, "\n") >= 3
		for line := range strings.Lines(out) {
			ok = ok && strings.Contains(line, `"state":"running"`) && strings.Contains(line, `"lag":0`)
		}
		return ok, out + stderr
	})
}
