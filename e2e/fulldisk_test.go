package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
	"github.com/couchledger/couchledger/statedb/embedded"
)

// What the log says of a full disk, once each time.
const (
	lineOfFullDisk = "the disk is full; trying again until it has room"
	lineOfRoom     = "the disk has room again"
)

// smallDisk is a file system of a size in memory, which can be filled.
type smallDisk struct {
	t      testing.TB
	folder string
}

// newSmallDisk mounts one until the test ends, or skips the test.
func newSmallDisk(t testing.TB, options string) smallDisk {
	t.Helper()
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, options); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return smallDisk{t, folder}
}

func (d smallDisk) filler() string { return filepath.Join(d.folder, "filler") }

// fill leaves not one byte.
func (d smallDisk) fill() {
	d.t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for part := make([]byte, 1<<20); len(part) > 0; part = part[:len(part)/2] {
		for err = nil; err == nil; {
			_, err = f.Write(part)
		}
	}
}

func (d smallDisk) empty() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

// newNodeOn makes a node with its data and state on a disk, and its log beside it.
func newNodeOn(t testing.TB, d smallDisk) *node {
	data := filepath.Join(d.folder, "data")
	n := newNode(t, "BIGCHAINDB_DATABASE_PATH="+data, "BIGCHAINDB_STATE_PATH="+filepath.Join(d.folder, "state"))
	n.store = func() (statedb.DB, error) { return embedded.Open(data, embedded.Options{}) }
	return n
}

// wantReads reads in several ways what was valid before.
func (n *node) wantReads(t testing.TB, tx *ledger.Transaction) {
	t.Helper()
	if a := n.get(t, transactionsPath+tx.ID); string(a.body) != string(tx.Bytes()) {
		t.Errorf("got %s, want %s", a.body, tx.Bytes())
	}
	for _, path := range []string{
		"/api/v1/statuses?tx_id=" + tx.ID, "/api/v1/blocks?tx_id=" + tx.ID,
		"/api/v1/outputs?public_key=" + tx.Outputs[0].PublicKeys[0], transactionsPath + "?asset_id=" + tx.ID, "/healthz",
	} {
		n.get(t, path)
	}
}

// TestFullDisk fills the disk under a node under load. Posts are refused, reads
// go on, and when there is room the node does, too, by itself.
func TestFullDisk(t *testing.T) {
	d := newSmallDisk(t, "size=400m")
	n := newNodeOn(t, d)
	n.start()
	l := startLoad(t, n, 2, 3, 2)
	first := create(t, l.owner())
	n.mustBecomeValid(t, first)
	l.note(first, true)
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		l.goesOn(t)
		d.fill()
		l.wantRefusedPost(t)
		eventually(t, "posts are refused for the right reason", func() (bool, string) {
			a, err := n.do(http.MethodPost, transactionsPath, create(t, l.owner()).Bytes())
			return err == nil && a.status == http.StatusServiceUnavailable && strings.Contains(string(a.body), "its disk is full"), fmt.Sprint(a, err)
		})
		n.wantDegraded(t)
		n.wantReads(t, first)
		d.empty()
		l.wantRecovery(t, "a full disk")
	}
	log := n.tail(1_000_000)
	if full, room := strings.Count(log, lineOfFullDisk), strings.Count(log, lineOfRoom); full != rounds || room != rounds {
		t.Errorf("the log tells %d times of a full disk and %d times of room, want %d", full, room, rounds)
	}
	if strings.Count(log, "[WARNING]") > rounds {
		t.Errorf("the log has more to say of %d full disks than a line each", rounds)
	}
	t.Logf("most memory: %d MB", n.peakMemory()>>20)
	l.wantAll(t)

	// Started on a full disk it says so, and hurts nothing.
	d.fill()
	n.wantRefusal(t, []string{"start"}, "no space left on device", d.folder)
	d.empty()
	n.start()
	n.wantReads(t, first)
	d.fill()
	n.wantDegraded(t)
	n.stop()
	d.empty()
	n.wantDone(t, []string{"verify"}, "The ledger is sound.")
}

// TestNoInodes runs a node on a disk that has space and no names left.
func TestNoInodes(t *testing.T) {
	d := newSmallDisk(t, "size=400m,nr_inodes=200")
	n := newNodeOn(t, d)
	n.start()
	l := startLoad(t, n, 2, 2, 1)
	l.goesOn(t)
	folder := filepath.Join(d.folder, "names")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, err := 0, error(nil); err == nil; i++ {
		err = os.WriteFile(filepath.Join(folder, fmt.Sprint(i)), nil, 0o600)
	}
	l.goesOn(t) // until a file is needed
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	l.wantRecovery(t, "a lack of inodes")
	l.wantAll(t)
}

// TestCouchDBFullDisk fills the disk of the node's CouchDB: that is an outage
// like any other, which ends when there is room. CouchDB itself may end of it,
// and is then started again.
func TestCouchDBFullDisk(t *testing.T) {
	if os.Getenv("PRESSURE") == "" {
		t.Skip("only tested with PRESSURE=1: it takes long for CouchDB to come to its end")
	}
	d := newSmallDisk(t, "size=100m")
	t.Run("it", func(onDisk *testing.T) {
		onDisk.Setenv("TMPDIR", d.folder) // of this subtest alone, so the node is elsewhere
		server := couchtest.Start(onDisk)
		testCouchDBFullDisk(t, d, server, newCouchNode(t, server.Address))
	})
}

func testCouchDBFullDisk(t *testing.T, d smallDisk, server server, n *node) {
	n.start()
	l := startLoad(t, n, 2, 2, 1)
	first := create(t, l.owner())
	n.mustBecomeValid(t, first)
	l.note(first, true)
	for range 2 {
		l.goesOn(t)
		d.fill()
		l.wantRefusedPost(t)
		n.wantDegraded(t)
		n.get(t, "/api/v1/statuses?tx_id="+first.ID) // of the node's own knowledge
		d.empty()
		server.Kill()
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		l.wantRecovery(t, "CouchDB's full disk")
	}
	n.wantReads(t, first)
	l.wantAll(t)
}
