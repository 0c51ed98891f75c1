package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrLacks is wrapped by what Space returns: the disk is full, or nearly, or
// there are no file descriptors.
var ErrLacks = errors.New("nothing can be written for now")

// Reserve is how many bytes a disk must have free for a store to take new
// work. What is under way fits in it, mostly.
const Reserve = 32 << 20

const (
	// tryAgain is the time between two attempts at what lacks something.
	tryAgain = 100 * time.Millisecond
	// readWait is how long opening a file for reading waits for a descriptor.
	readWait = 20 * time.Second
	// lately is how long a table that could not be written counts as a lack:
	// Pebble tries again and again.
	lately = 10 * tryAgain
	// askEvery is how often at most the disk is asked for its free space.
	askEvery = 250 * time.Millisecond
)

// Guard watches over the writes of one store. Its methods may be called from
// any goroutine.
type Guard struct {
	fs     vfs.FS
	folder string
	failed func(name string, err error) bool
	armed  atomic.Bool
	given  chan struct{} // closed by GiveUp
	giveUp sync.Once

	mu      sync.Mutex
	waiting int           // writes that lack something now
	held    chan struct{} // closed while there are any
	lack    error         // what was lacking last
	at      time.Time     // when
	asked   time.Time     // for free space
	low     error         // what came of it
}

// NewGuard makes a guard of a store in a folder. failed gets the name and the
// error of what can never be written. When it returns true, the goroutine that
// wrote stops there for good; Pebble never hears of the error, and the store
// must not be used any more, nor closed. When it returns false Pebble gets the
// error. Until Arm all errors pass.
func NewGuard(fs vfs.FS, folder string, failed func(name string, err error) bool) *Guard {
	return &Guard{fs: fs, folder: folder, failed: failed, given: make(chan struct{}), held: make(chan struct{})}
}

// Arm begins the watch: the store is open.
func (g *Guard) Arm() { g.armed.Store(true) }

// GiveUp ends the wait for space and descriptors, for good: what lacks them
// fails from now on. For a store that is about to be closed.
func (g *Guard) GiveUp() { g.giveUp.Do(func() { close(g.given) }) }

// Held returns a channel that is closed while something waits to be written,
// and with it all that is to be durable.
func (g *Guard) Held() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

// Space returns nil when the store can take new work, else an error that wraps
// ErrLacks and says in one sentence why not. It is cheap.
func (g *Guard) Space() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting > 0 || g.lack != nil && time.Since(g.at) < lately {
		return fmt.Errorf("%w in %s: %w", ErrLacks, g.folder, g.lack)
	}
	if g.asked.IsZero() || time.Since(g.asked) > askEvery {
		g.asked, g.low = time.Now(), nil
		// A disk that does not tell is used until it is full.
		if usage, err := g.fs.GetDiskUsage(g.folder); err == nil && usage.AvailBytes < Reserve {
			g.low = fmt.Errorf("%w in %s: the disk has %.1f MB free, and needs %d", ErrLacks, g.folder, float64(usage.AvailBytes)/(1<<20), Reserve>>20)
		}
	}
	return g.low
}

// do writes something until it is done, or fails for more than a lack.
func (g *Guard) do(name string, write func() error) error {
	err := write()
	if err == nil {
		return nil
	}
	if Lacks(err) && g.armed.Load() {
		if isTable(name) {
			g.note(err)
			g.pause()
			return err // Pebble makes the table anew
		}
		if err = g.again(err, write); err == nil {
			return nil
		}
	}
	return g.stop(name, err)
}

// again repeats what lacks something.
func (g *Guard) again(err error, write func() error) error {
	g.mu.Lock()
	if g.waiting++; g.waiting == 1 {
		close(g.held)
	}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.waiting--; g.waiting == 0 {
			g.held = make(chan struct{})
			g.lack = nil
		}
	}()
	for Lacks(err) {
		g.note(err)
		if !g.pause() {
			return err
		}
		err = write()
	}
	return err
}

func (g *Guard) note(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lack, g.at = err, time.Now()
}

// pause waits until it is time to try again; false after GiveUp.
func (g *Guard) pause() bool {
	timer := time.NewTimer(tryAgain)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-g.given:
		return false
	}
}

// reading gives a function that reports whether opening a file, which failed,
// is to be tried again, after a pause.
func (g *Guard) reading() (wait func(error) bool) {
	var since time.Time
	return func(err error) bool {
		if !lacksDescriptors(err) || !g.armed.Load() {
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) < readWait && g.pause()
	}
}

// stop reports an error that does not pass by itself.
func (g *Guard) stop(name string, err error) error {
	if err != nil && g.armed.Load() && g.failed(name, err) {
		select {}
	}
	return err
}

// Lacks reports whether an error is one of those that pass by themselves: no
// space, or no file descriptors.
func Lacks(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || lacksDescriptors(err)
}

func lacksDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

func isTable(name string) bool { return strings.HasSuffix(filepath.Base(name), ".sst") }
