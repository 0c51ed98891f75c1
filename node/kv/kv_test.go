package kv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func mustOpen(tb testing.TB, folder string, fs vfs.FS) *Store {
	tb.Helper()
	s, err := Open(folder, Small, fs)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestOpen(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "made", "on", "the", "way")
	s := mustOpen(t, folder, nil)
	if err := s.Set([]byte("k"), []byte("v"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(folder)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: got %v, %v; want mode 0700", info.Mode(), err)
	}
	s = mustOpen(t, folder, nil)
	defer s.Close()
	value, closer, err := s.Get([]byte("k"))
	if err != nil || string(value) != "v" {
		t.Fatalf("got %q, %v; want v", value, err)
	}
	closer.Close()
}

// TestOptions: reads of absent keys are what validation does most.
func TestOptions(t *testing.T) {
	s := mustOpen(t, "db", vfs.NewMem())
	defer s.Close()
	o := s.options(Small)
	for i, level := range o.Levels {
		if level.FilterPolicy == pebble.NoFilterPolicy || level.FilterPolicy == nil {
			t.Errorf("level %d has no Bloom filter", i)
		}
	}
}

// lockedByChild makes this test binary open a folder and wait.
const lockedByChild = "KV_TEST_FOLDER"

func TestMain(m *testing.M) {
	if folder := os.Getenv(lockedByChild); folder != "" {
		if _, err := Open(folder, Small, nil); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("open")
		os.Stdin.Read(make([]byte, 1)) // until the parent closes it
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestLocked(t *testing.T) {
	folder := t.TempDir()
	refused := func(by string) {
		t.Helper()
		_, err := Open(folder, Small, nil)
		if want := "folder " + folder + ": in use by another process"; !errors.Is(err, ErrLocked) || err.Error() != want {
			t.Errorf("locked by %s: got %v, want %s", by, err, want)
		}
	}
	s := mustOpen(t, folder, nil)
	refused("this process")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), lockedByChild+"="+folder)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 200)
	n, _ := out.Read(said)
	if got := string(said[:n]); got != "open\n" {
		t.Fatalf("the child says %q", got)
	}
	refused("another process")
	in.Close()
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, folder, nil).Close()
}

func TestUnusableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(filepath.Join(file, "below"), Small, nil)
	if err == nil || errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want an error that names %s and is not ErrLocked", err, file)
	}
	broken := vfs.NewMem()
	mustOpen(t, "db", broken).Close()
	if err := truncate(broken, "db", "MANIFEST"); err != nil {
		t.Fatal(err)
	}
	if _, err = Open("db", Small, broken); err == nil || !strings.Contains(err.Error(), "db") {
		t.Errorf("no manifest: got %v, want an error that names the folder", err)
	}
}

func truncate(fs vfs.FS, folder, prefix string) error {
	names, err := fs.List(folder)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			f, err := fs.Create(fs.PathJoin(folder, name), vfs.WriteCategoryUnspecified)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	return fmt.Errorf("no %s in %s", prefix, names)
}

// brokenDisk fails what writes to files whose names end in one of its suffixes.
type brokenDisk struct {
	broken atomic.Bool
	suffix string
}

func (d *brokenDisk) String() string { return "broken disk" }

func (d *brokenDisk) MaybeError(op errorfs.Op) error {
	if d.broken.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasSuffix(op.Path, d.suffix) {
		return syscall.EIO
	}
	return nil
}

func TestBrokenDisk(t *testing.T) {
	value := make([]byte, 64<<10)
	tests := []struct {
		name, suffix string
		options      *pebble.WriteOptions
	}{
		{"log, synced", ".log", pebble.Sync},
		{"log, not synced", ".log", pebble.NoSync},
		{"tables, synced", ".sst", pebble.Sync},
		{"tables, not synced", ".sst", pebble.NoSync},
		{"all, not synced", "", pebble.NoSync},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			disk := &brokenDisk{suffix: test.suffix}
			memory := vfs.NewCrashableMem()
			s := mustOpen(t, "db", errorfs.Wrap(memory, disk))
			if err := s.Set([]byte("before"), value, pebble.Sync); err != nil {
				t.Fatal(err)
			}
			disk.broken.Store(true)

			// Several write at once: none may hang, and none may be told that
			// all is well for ever.
			const writers, most = 4, 2000
			var group sync.WaitGroup
			for w := range writers {
				group.Go(func() {
					for i := range most {
						k := fmt.Appendf(nil, "%d/%d", w, i)
						var err error
						if i%2 == 0 {
							err = s.Set(k, value, test.options)
						} else {
							batch := s.NewIndexedBatch()
							batch.Set(k, value, nil)
							err = s.Apply(batch, test.options)
						}
						if err == nil {
							continue
						}
						if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) && !strings.Contains(err.Error(), syscall.EIO.Error()) ||
							!strings.HasPrefix(err.Error(), "folder db failed: ") || strings.Contains(err.Error(), "\n") {
							t.Errorf("got %q, want one sentence that names the folder and the reason", err)
						}
						return
					}
					t.Errorf("%d writes of %d bytes went through on a broken disk", most, len(value))
				})
			}
			group.Wait()
			for name, err := range map[string]error{
				"Set": s.Set(nil, nil, test.options), "Delete": s.Delete(nil, test.options),
				"DeleteRange": s.DeleteRange([]byte("a"), []byte("b"), test.options),
			} {
				if !errors.Is(err, ErrFailed) {
					t.Errorf("%s afterwards: got %v, want ErrFailed", name, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}

			disk.broken.Store(false)
			s = mustOpen(t, "db", memory.CrashClone(vfs.CrashCloneCfg{}))
			defer s.Close()
			if _, closer, err := s.Get([]byte("before")); err != nil {
				t.Errorf("what was synced before: %v", err)
			} else {
				closer.Close()
			}
		})
	}
}
