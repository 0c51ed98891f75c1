package embedded

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/couchledger/couchledger/statedb"
)

// failingRotation is a disk on which logs can be written, but no new ones made.
type failingRotation struct{ on atomic.Bool }

func (f *failingRotation) String() string { return "failing rotation" }

func (f *failingRotation) MaybeError(op errorfs.Op) error {
	if (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite) && f.on.Load() && strings.HasSuffix(op.Path, ".log") {
		return &os.PathError{Op: "create", Path: op.Path, Err: errors.New("no space left on device")}
	}
	return nil
}

// TestLogRotationFails: when a new log cannot be made, which Pebble notices
// with its locks half held, the store stops with an error like any other.
func TestLogRotationFails(t *testing.T) {
	fault := &failingRotation{}
	db := opened(t, "disk", Options{FS: errorfs.Wrap(vfs.NewMem(), fault)})
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	fault.on.Store(true)
	body := []byte(`{"pad":"` + strings.Repeat("x", 1_000_000) + `"}`)
	within(t, "a write that needs a new log", func() {
		for n := range 2 * memTableBytes / len(body) {
			_, err := db.Write(t.Context(), statedb.Votes, []statedb.Write{{ID: fmt.Sprint("id", n), Body: body}})
			if errors.Is(err, statedb.ErrUnavailable) {
				return
			}
			if err != nil {
				t.Errorf("Write: %v, want ErrUnavailable", err)
				return
			}
		}
		t.Error("all writes succeeded: no log was rotated and nothing was tested")
	})
	within(t, "Close", func() { db.Close() })
}
