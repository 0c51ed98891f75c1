package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/node/verify"
	"github.com/couchledger/couchledger/statedb"
)

// severed is a database to which one node's machine is connected until its
// power is cut. What it wrote by then is there.
type severed struct {
	statedb.DB
	mu   sync.RWMutex
	gone bool
}

func (d *severed) Write(ctx context.Context, table string, writes []statedb.Write) ([]statedb.Result, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.gone {
		return nil, statedb.ErrUnavailable
	}
	return d.DB.Write(ctx, table, writes)
}

func (d *severed) Remove(ctx context.Context, table string, ids []string) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.gone {
		return statedb.ErrUnavailable
	}
	return d.DB.Remove(ctx, table, ids)
}

// cut ends the connection and takes what is left of the machine's disk.
func (d *severed) cut(random *rand.Rand, disk *vfs.MemFS) *vfs.MemFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = true
	return disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
}

// TestPowerCutInFederation cuts the power of one member of three, again and
// again, while the database and the others go on. It never contradicts a vote
// that it gave, all decide alike, and nothing accepted anywhere is lost.
func TestPowerCutInFederation(t *testing.T) {
	cuts := cutsWanted(t, 3)
	random := rand.New(rand.NewPCG(rand.Uint64(), 1))
	folder := t.TempDir()
	db := openEmbedded(t, folder)
	t.Cleanup(func() { db.Close() })
	keys := []ledger.KeyPair{ledger.GenerateKeyPair(), ledger.GenerateKeyPair(), ledger.GenerateKeyPair()}
	members := func(o *Options) {
		among(keys...)(o)
		o.ReassignDelay = 300 * time.Millisecond
	}
	disk, line := vfs.NewCrashableMem(), &severed{DB: db}
	own := func(o *Options) { o.FS, o.drain = disk, time.Millisecond } // without a database nothing can be finished
	onDisk := func() *testNode {
		return launchNode(t, "home", keys[2], sharing(line), members, own)
	}
	nodes := []*testNode{
		startNode(t, fmt.Sprint(folder, "/0"), keys[0], sharing(db), members),
		startNode(t, fmt.Sprint(folder, "/1"), keys[1], sharing(db), members), nil,
	}
	p := newPromises()
	for range cuts {
		n := onDisk()
		nodes[2] = n
		for random.IntN(3) == 0 { // while it catches up
			time.Sleep(time.Duration(random.Int64N(int64(20 * time.Millisecond))))
			left := line.cut(random, disk)
			if err := n.stop(); err != nil {
				t.Error(err)
			}
			disk, line = left, &severed{DB: db}
			n = onDisk()
			nodes[2] = n
		}
		burdens := []*burden{nodes[0].burden(p, 2), nodes[1].burden(p, 1)}
		before := p.count()
		eventually(t, "the load goes on", func() bool { return p.count() > before+20 && n.isCaughtUp() })
		time.Sleep(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
		left := line.cut(random, disk)
		seen := &promises{votes: allVotes(t, db)}
		if err := n.stop(); err != nil {
			t.Error(err)
		}
		for _, b := range burdens {
			b.stop()
		}
		disk, line = left, &severed{DB: db}
		again := openNode(t, "home", keys[2], sharing(line), members, own)
		again.checkVotes(t, seen)
		again.run()
		if err := again.stop(); err != nil {
			t.Error(err)
		}
	}
	nodes[2] = onDisk()
	eventually(t, "the node is ready", func() bool { return nodes[2].Ready() == nil })
	for id := range p.accepted {
		var status string
		eventually(t, fmt.Sprintf("transaction %s is decided, by all nodes alike", id), func() bool {
			status, _ = nodes[0].TransactionStatus(t.Context(), id)
			alike := status == "valid" || status == ""
			for _, n := range nodes[1:] { // they may know of the decision later
				other, _ := n.TransactionStatus(t.Context(), id)
				alike = alike && other == status
			}
			return alike
		})
		if p.valid[id] && status == "" {
			t.Errorf("transaction %s was told valid, and is lost", id)
		}
	}
	for _, n := range nodes {
		n.checkLedger(t, p.accepted)
	}
	// Also what was decided but never told, as its node's power was cut.
	eventually(t, "all that is valid can be queried", func() bool {
		missing := false
		_, err := verify.Run(t.Context(), db, verify.Options{Derived: true, Finding: func(f verify.Finding) error {
			missing = missing || f.Rule == verify.DerivedMissing
			return nil
		}})
		return err == nil && !missing
	})
	nodes[0].checkVerified(t)
	if len(p.accepted) < 20*cuts {
		t.Error("too little went on to show anything")
	}
	t.Logf("%d cuts: %d transactions accepted, %d told valid", cuts, len(p.accepted), len(p.valid))
}
