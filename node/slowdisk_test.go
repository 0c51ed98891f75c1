package node

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb/embedded"
)

// TestSlowDisk runs a node on a disk that takes long for every sync. Posts wait
// for it together, and all that is accepted is decided.
func TestSlowDisk(t *testing.T) {
	const oneSync = 50 * time.Millisecond
	slow := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind >= errorfs.OpFileSync && op.Kind <= errorfs.OpFileFlush && strings.HasSuffix(op.Path, ".log") {
			time.Sleep(oneSync)
		}
		return nil
	}))
	db, err := embedded.Open("data", embedded.Options{FS: slow})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	n := startNode(t, "home", ledger.GenerateKeyPair(), sharing(db), func(o *Options) { o.FS = slow })
	const posters, each = 25, 4
	begin := time.Now()
	var group sync.WaitGroup
	for p := range posters {
		group.Go(func() {
			for i := range each {
				tx := newCreate(t, n.key, p*each+i)
				if err := n.insist(t, tx); err != nil {
					t.Error(err)
				}
				n.mustBecomeValid(t, tx)
			}
		})
	}
	group.Wait()
	t.Logf("%d transactions in %v, one sync taking %v", posters*each, time.Since(begin).Round(time.Millisecond), oneSync)
}
