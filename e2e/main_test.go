package e2e

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// program is the path of the command, built once for all tests.
var program string

// build makes the command; remove deletes it.
func build() (remove func(), err error) {
	folder, err := os.MkdirTemp("", "bigchaindb-e2e-")
	if err != nil {
		return nil, err
	}
	program = filepath.Join(folder, "bigchaindb")
	args := []string{"build", "-o", program}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../cmd/bigchaindb")...).CombinedOutput(); err != nil {
		os.RemoveAll(folder)
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return func() { os.RemoveAll(folder) }, nil
}

// watchSources looks at the sources of the command, so that `go test` does not
// take a cached result for theirs when they have changed. It is called from
// tests: what TestMain looks at before them go test does not note.
var watchSources = sync.OnceFunc(func() {
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && entry.Name() == ".git" {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "watching the sources:", err)
	}
})

// patience is how long a test waits for what should take a moment.
const patience = 30 * time.Second

// eventually waits for a condition with a deadline. what says in a failure
// what did not come; ok may return a text that says how far it got.
func eventually(t testing.TB, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		done, got := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s; at last: %s", patience, what, got)
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// skipCommands skips a test of commands that run one after the other, which
// the race detector makes slow and has little to say of.
func skipCommands(t *testing.T) {
	t.Helper()
	if raceEnabled && testing.Short() {
		t.Skip("not tested with -race -short: commands, one after the other")
	}
}

// newRand gives random choices that E2E_SEED repeats.
func newRand(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("E2E_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("E2E_SEED: %v", err)
		}
	}
	t.Logf("E2E_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
