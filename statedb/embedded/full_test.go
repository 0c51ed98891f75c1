package embedded

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/couchledger/couchledger/disk"
	"github.com/couchledger/couchledger/statedb"
)

// TestFullDisk fills the disk again and again under load: writes are refused,
// also those that wait, reads go on, and when there is space the store works
// again. Nothing acknowledged is lost.
func TestFullDisk(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE} {
		t.Run(errno.Error(), func(t *testing.T) {
			var full atomic.Bool
			memory := vfs.NewCrashableMem()
			db, err := Open("disk", Options{MemTableBytes: 256 << 10, FS: errorfs.Wrap(memory, errorfs.InjectorFunc(func(op errorfs.Op) error {
				needs := op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite ||
					op.Kind == errorfs.OpFileWrite && errno != syscall.EMFILE
				if full.Load() && needs {
					return errno
				}
				return nil
			}))})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Create(t.Context()); err != nil {
				t.Fatal(err)
			}
			pad := strings.Repeat("x", 5_000)
			var acknowledged sync.Map
			var count atomic.Int64
			write := func(id string) error {
				results, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: id, Body: fmt.Appendf(nil, `{"pad":%q}`, pad)}})
				if err == nil && !errors.Is(results[0].Err, statedb.ErrConflict) { // else it was written in the end
					err = results[0].Err
				}
				if err == nil {
					acknowledged.Store(id, true)
					count.Add(1)
				}
				return err
			}
			if err := write("before"); err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			var writers sync.WaitGroup
			for w := range 4 {
				writers.Go(func() {
					for i := 0; ; {
						select {
						case <-stop:
							return
						default:
						}
						switch err := write(fmt.Sprintf("%d-%d", w, i)); {
						case err == nil:
							i++
						case !errors.Is(err, statedb.ErrUnavailable):
							t.Errorf("Write: %v, want ErrUnavailable", err)
							return
						}
					}
				})
			}
			for range 3 {
				at := count.Load()
				eventually(t, "writers to go on", func() bool { return count.Load() > at+50 })
				full.Store(true)
				within(t, "what a full disk concerns", func() {
					eventually(t, "the store to refuse", func() bool { return db.Health(t.Context()) != nil })
					if err := db.Health(t.Context()); !errors.Is(err, statedb.ErrUnavailable) || !errors.Is(err, disk.ErrLacks) {
						t.Errorf("Health: %v, want ErrUnavailable and ErrLacks", err)
					}
					if d, err := db.Get(t.Context(), statedb.Votes, []string{"before", "never"}); err != nil || d[0].Rev == "" {
						t.Errorf("Get on a full disk: %v", err)
					}
				})
				full.Store(false)
				eventually(t, "the store to work again", func() bool { return db.Health(t.Context()) == nil })
			}
			close(stop)
			writers.Wait()
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			again := opened(t, "disk", Options{FS: memory.CrashClone(vfs.CrashCloneCfg{})})
			checkStore(t, again)
			acknowledged.Range(func(id, _ any) bool {
				d, err := again.Get(t.Context(), statedb.Votes, []string{id.(string)})
				if err != nil || d[0].Rev == "" {
					t.Errorf("%s was acknowledged and is gone: %v", id, err)
				}
				return true
			})
		})
	}
}
