package disk

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lacking is a file system that takes a part of each write at most, and fails
// what it is told to with an error.
type lacking struct {
	vfs.FS
	err  atomic.Pointer[syscall.Errno]
	free atomic.Int64 // bytes it says it has
}

func (l *lacking) fault() error {
	if err := l.err.Load(); err != nil {
		return *err
	}
	return nil
}

func (l *lacking) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := l.fault(); err != nil {
		return nil, err
	}
	f, err := l.FS.Create(name, category)
	return lackingFile{f, l}, err
}

func (l *lacking) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := l.fault(); err != nil {
		return nil, err
	}
	return l.FS.Open(name, opts...)
}

func (l *lacking) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: uint64(l.free.Load())}, nil
}

type lackingFile struct {
	vfs.File
	l *lacking
}

func (f lackingFile) Write(p []byte) (int, error) {
	if err := f.l.fault(); err != nil {
		n, _ := f.File.Write(p[:rand.IntN(len(p)+1)])
		return n, err
	}
	return f.File.Write(p)
}

func (f lackingFile) Sync() error {
	if err := f.l.fault(); err != nil {
		return err
	}
	return f.File.Sync()
}

func newLacking() *lacking {
	l := &lacking{FS: vfs.NewMem()}
	l.free.Store(1 << 40)
	return l
}

// isHeld reports whether something waits to be written.
func isHeld(g *Guard) bool {
	select {
	case <-g.Held():
		return true
	default:
		return false
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 seconds: %s", what)
		}
	}
}

// TestLacks: a log that lacks space or descriptors is written whole when there
// are some, each byte once, and meanwhile the guard says what is lacking.
func TestLacks(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE} {
		t.Run(errno.Error(), func(t *testing.T) {
			l := newLacking()
			g := NewGuard(l, "", func(name string, err error) bool {
				t.Errorf("%s counts as failed: %v", name, err)
				return false
			})
			g.Arm()
			if err := g.Space(); err != nil || isHeld(g) {
				t.Errorf("at first: %v", err)
			}
			l.err.Store(&errno)
			want := strings.Repeat("0123456789", 100)
			done := make(chan error, 1)
			go func() {
				f, err := g.FS().Create("1.log", vfs.WriteCategoryUnspecified)
				if err != nil {
					done <- err
					return
				}
				l.err.Store(&errno)
				_, err = f.Write([]byte(want))
				done <- errors.Join(err, f.Close())
			}()
			for range 2 { // it is made, then written
				eventually(t, "it waits", func() bool { return isHeld(g) })
				if err := g.Space(); !errors.Is(err, ErrLacks) || !errors.Is(err, errno) {
					t.Errorf("while it waits: %v, want ErrLacks with %v", err, errno)
				}
				l.err.Store(nil)
				eventually(t, "it goes on", func() bool { return !isHeld(g) || l.err.Load() != nil })
			}
			l.err.Store(nil)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			f, err := l.FS.Open("1.log")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(f); err != nil || string(got) != want {
				t.Errorf("written: %d bytes, %v, want the %d in order", len(got), err, len(want))
			}
			if err := g.Space(); err != nil || isHeld(g) {
				t.Errorf("in the end: %v", err)
			}
		})
	}
}

// TestFails: what does not pass by itself is told, and before Arm everything
// goes to Pebble.
func TestFails(t *testing.T) {
	l := newLacking()
	told := ""
	g := NewGuard(l, "", func(name string, err error) bool {
		told += fmt.Sprintf("%s: %v\n", name, err)
		return false
	})
	full, broken := syscall.ENOSPC, syscall.EIO
	l.err.Store(&full)
	if _, err := g.FS().Create("1.log", vfs.WriteCategoryUnspecified); !errors.Is(err, full) || told != "" {
		t.Errorf("before Arm: got %v, told %q", err, told)
	}
	g.Arm()
	if _, err := g.FS().Create("1.sst", vfs.WriteCategoryUnspecified); !errors.Is(err, full) || told != "" {
		t.Errorf("a table: got %v, told %q, want Pebble to have it", err, told)
	}
	if err := g.Space(); !errors.Is(err, ErrLacks) {
		t.Errorf("after a table that has no space: %v", err)
	}
	l.err.Store(nil)
	f, err := g.FS().Create("2.log", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	l.err.Store(&full)
	if err := f.Sync(); !errors.Is(err, full) || told != "2.log: "+full.Error()+"\n" {
		t.Errorf("a sync: got %v, told %q, want it to fail for good", err, told)
	}
	told = ""
	l.err.Store(&broken)
	if _, err := f.Write([]byte("x")); !errors.Is(err, broken) || told != "2.log: "+broken.Error()+"\n" {
		t.Errorf("a broken disk: got %v, told %q", err, told)
	}
	told = ""
	l.err.Store(&full)
	go func() {
		for !isHeld(g) {
			time.Sleep(time.Millisecond)
		}
		g.GiveUp()
	}()
	if _, err := f.Write([]byte("x")); !errors.Is(err, full) || told == "" {
		t.Errorf("after GiveUp: got %v, told %q", err, told)
	}
}

// TestReserve: a disk that is nearly full takes no new work.
func TestReserve(t *testing.T) {
	l := newLacking()
	g := NewGuard(l, "home", nil)
	l.free.Store(Reserve - 1)
	if err := g.Space(); !errors.Is(err, ErrLacks) || !strings.Contains(err.Error(), "in home: the disk has 32.0 MB free, and needs 32") {
		t.Errorf("got %v", err)
	}
	l.free.Store(Reserve)
	eventually(t, "there is space again", func() bool { return g.Space() == nil })
}

// TestMakeFolder: a folder, and those above it, outlast a power cut.
func TestMakeFolder(t *testing.T) {
	fs := vfs.NewCrashableMem()
	for range 2 {
		if err := MakeFolder(fs, "deep/er/folder"); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := fs.CrashClone(vfs.CrashCloneCfg{}).Stat("deep/er/folder"); err != nil || !info.IsDir() {
		t.Errorf("after a power cut: %v", err)
	}
	t.Chdir(t.TempDir())
	if err := MakeFolder(vfs.Default, "here/and/there"); err != nil {
		t.Error(err)
	}
}
