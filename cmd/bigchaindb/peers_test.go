package main

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/embedded"
)

func TestPeerUsage(t *testing.T) {
	// The arguments are judged first, and no server is asked.
	u := newUser(t, "BIGCHAINDB_DATABASE_BACKEND=couchdb", "BIGCHAINDB_DATABASE_HOST=nowhere.invalid")
	for _, command := range []string{"add-replicas", "remove-replicas"} {
		for args, part := range map[string]string{
			"a.com":                          "is no address",
			"a.com:5984":                     "is no address",
			"mongodb://a.com":                "is no address",
			"http://":                        "is no address",
			"http://a..com":                  "a name of letters",
			"http://bob@a.com:0":             "from 1 to 65535",
			"http://bob@a.com:70000":         "from 1 to 65535",
			"http://bob@a.com/?x=1":          "is no address",
			"http://bob@a.com/UPPER":         "no name for a CouchDB database",
			"http://bob@a.com/a/b":           "no name for a CouchDB database",
			"http://bob:hush@a.com":          "leave it out",
			"http://a.com http://A.com:5984": "given twice",
			"http://bob:hush@a.com%zz":       "expected an address",
		} {
			if _, _, stderr := u.run(command+" "+args, ""); strings.Contains(stderr, "hush") {
				t.Errorf("%s %s shows the password: %s", command, args, stderr)
			}
			u.must(2, command+" "+args, "", command+":", part)
		}
	}
	for _, command := range []string{"allow-peer", "forbid-peer"} {
		for _, args := range []string{"", "a b", "a:b", "ä", "org.couchdb.user:x"} {
			u.must(2, command+" "+args, "", command, "the name of one user")
		}
	}
	for address, want := range map[string]statedb.Peer{
		"http://bob@a.com":             {URL: "http://a.com:5984", Name: "own", User: "bob"},
		"https://a.com/":               {URL: "https://a.com:6984", Name: "own"},
		"http://x.y@[::1]:1/other_one": {URL: "http://[::1]:1", Name: "other_one", User: "x.y"},
		"http://B.com:80":              {URL: "http://b.com:80", Name: "own"},
	} {
		if got, err := peerAddress(address, "own"); got != want || err != nil {
			t.Errorf("%s: got %+v, %v, want %+v", address, got, err, want)
		}
	}
}

// copying stands for what CouchDB does with its replicator, so that what the
// commands say of it can be seen.
type copying struct {
	statedb.DB
	peers []statedb.Copies
	their []byte // the peer's genesis document
	err   error
	added []statedb.Peer
}

func (c *copying) HasPeers(context.Context) (bool, error)  { return len(c.peers) > 0, nil }
func (c *copying) TendPeers(context.Context) (bool, error) { return len(c.peers) > 0, nil }
func (c *copying) ReadRevisions(context.Context, string, string, []string) ([]statedb.Revision, error) {
	return nil, nil
}
func (c *copying) Peers(context.Context) ([]statedb.Copies, error)    { return c.peers, nil }
func (c *copying) ForbidReader(context.Context, string) (bool, error) { return true, nil }
func (c *copying) AllowReader(context.Context, string, []statedb.CopiedTable) (string, error) {
	return "", errors.New("not asked for")
}

func (c *copying) ReadPeer(context.Context, statedb.Peer, string, string) ([]byte, error) {
	return c.their, c.err
}

func (c *copying) AddPeer(_ context.Context, p statedb.Peer, tables []statedb.CopiedTable) error {
	c.added = append(c.added, p)
	return nil
}

func (c *copying) RemovePeer(_ context.Context, p statedb.Peer) (bool, error) {
	return len(c.peers) > 0 && c.peers[0].Peer.URL == p.URL, nil
}

// genesisOf makes a ledger and returns its database, and the document that claims
// its first block.
func genesisOf(t *testing.T) (statedb.DB, []byte) {
	t.Helper()
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := node.Init(t.Context(), db, ledger.GenerateKeyPair(), nil, nil); err != nil {
		t.Fatal(err)
	}
	documents, err := db.Get(t.Context(), statedb.Bigchain, []string{"genesis"})
	if err != nil {
		t.Fatal(err)
	}
	return db, documents[0].Body
}

func TestAddAndRemovePeers(t *testing.T) {
	db, own := genesisOf(t)
	_, another := genesisOf(t)
	for name, x := range map[string]struct {
		user   string
		their  []byte
		err    error
		dryRun bool
		want   []string
		added  bool
	}{
		"the same ledger":  {"bob", own, nil, false, []string{"is copied from http://a.com:5984 from now on"}, true},
		"none yet":         {"bob", nil, nil, false, []string{"from now on"}, true},
		"a dry run":        {"bob", own, nil, true, []string{"would be copied", "Nothing was changed"}, false},
		"another ledger":   {"bob", another, nil, false, []string{"several first blocks", "different ledgers"}, false},
		"no user":          {"", own, nil, false, []string{"allow-peer"}, false},
		"a wrong password": {"bob", nil, statedb.ErrDenied, false, []string{"error: http://a.com:5984: "}, false},
	} {
		c := &copying{DB: db, their: x.their, err: x.err}
		peers := []statedb.Peer{{URL: "http://a.com:5984", Name: "own", User: x.user}}
		_, stderr := saying(func(a *app) error {
			a.stdin = bufio.NewReader(strings.NewReader("hush\n"))
			return a.addPeers(t.Context(), c, peers, false, x.dryRun)
		})
		for _, part := range x.want {
			if !strings.Contains(stderr, part) {
				t.Errorf("%s: %q does not have %q", name, stderr, part)
			}
		}
		if strings.Contains(stderr, "hush") || (len(c.added) > 0) != x.added || x.added && c.added[0].Password != "hush" {
			t.Errorf("%s: added %v; said %s", name, c.added, stderr)
		}
	}
	c := &copying{DB: db, peers: []statedb.Copies{{Peer: statedb.Peer{URL: "http://a.com:5984", Name: "own"}}}}
	peers := []statedb.Peer{{URL: "http://a.com:5984", Name: "own"}, {URL: "http://b.com:5984", Name: "own"}}
	for dryRun, want := range map[bool][]string{
		false: {"copied from http://a.com:5984 no more", "not copied from http://b.com:5984"},
		true:  {"from http://a.com:5984 would end", "not copied from http://b.com:5984", "Nothing was changed"},
	} {
		_, stderr := saying(func(a *app) error { return a.removePeers(t.Context(), c, peers, dryRun) })
		for _, part := range want {
			if !strings.Contains(stderr, part) {
				t.Errorf("dry run %t: %q does not have %q", dryRun, stderr, part)
			}
		}
	}
}

func TestShowPeers(t *testing.T) {
	all := []statedb.Copies{{Peer: statedb.Peer{URL: "http://a.com:5984", Name: "own", User: "bob"}, Tables: []statedb.Copy{
		{Table: "backlog", State: "running", Lag: 7, Copied: 12},
		{Table: "votes", State: "crashing", Lag: -1, Refused: 2, Error: "{a,\n   b\x1b[2J}"},
	}}}
	stdout, _ := saying(func(a *app) error { return a.showPeers(all, false) })
	want := `PEER                   TABLE    STATE     LAG  COPIED  REFUSED  LAST ERROR
http://a.com:5984/own  backlog  running   7    12      0        
http://a.com:5984/own  votes    crashing  ?    0       2        {a, b�[2J}
`
	if stdout != want {
		t.Errorf("got\n%s, want\n%s", stdout, want)
	}
	stdout, _ = saying(func(a *app) error { return a.showPeers(all, true) })
	if !strings.HasPrefix(stdout, `{"copied":12,"error":"","lag":7,"ledger":"own","peer":"http://a.com:5984","refused":0,"state":"running","table":"backlog","user":"bob"}`) || strings.Count(stdout, "\n") != 2 {
		t.Errorf("got %s", stdout)
	}
	if _, stderr := saying(func(a *app) error { return a.showPeers(nil, false) }); !strings.Contains(stderr, "copied from nowhere") {
		t.Errorf("got %s", stderr)
	}
}

// leaving is a database that is away for a while.
type leaving struct {
	*copying
	away atomic.Int32 // how many more reads fail
}

func (l *leaving) Get(ctx context.Context, table string, ids []string) ([]statedb.Document, error) {
	if l.away.Add(-1) >= 0 {
		return nil, statedb.ErrUnavailable
	}
	return l.copying.Get(ctx, table, ids)
}

// TestDatabaseAwayWhileJoining: who waits for the genesis block also waits for his
// own database, and says so once.
func TestDatabaseAwayWhileJoining(t *testing.T) {
	db, err := embedded.Open(t.TempDir(), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	var log transcript
	l := &leaving{copying: &copying{DB: db, peers: []statedb.Copies{{}}}}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_, err := initLedger(ctx, l, ledger.GenerateKeyPair(), nil, nil, slog.New(slog.NewTextHandler(&log, nil)))
		ended <- err
	}()
	said := func(what string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); strings.Count(log.String(), what) != 1; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) || len(ended) > 0 {
				t.Fatalf("it said %q %d times, want once: %s", what, strings.Count(log.String(), what), log.String())
			}
		}
	}
	said("waiting for the genesis block")
	l.away.Store(2)
	said("the database fails")
	said("the database works again")
	cancel()
	if err := <-ended; !errors.Is(err, node.ErrAwaitsGenesis) {
		t.Errorf("told to stop: got %v, want ErrAwaitsGenesis", err)
	}
	said("the database fails")
}
