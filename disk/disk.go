// Package disk guards a Pebble store against a disk that cannot be written.
//
// Pebble's own answer to a log or manifest that cannot be made, written or
// closed is a panic, some of them at a place where unwinding unlocks a mutex
// that is not locked, which ends the process with a stack trace that nothing
// can catch.
package disk

import "github.com/cockroachdb/pebble/v2/vfs"

// Guard returns a file system that reports what cannot be written. failed gets
// the file's name and the error. When it returns true, the goroutine that
// wrote stops there for good; Pebble never hears of the error, and the store
// must not be used any more, nor closed. When it returns false Pebble gets the
// error.
func Guard(fs vfs.FS, failed func(name string, err error) bool) vfs.FS {
	return guarded{fs, failed}
}

type guarded struct {
	vfs.FS
	failed func(name string, err error) bool
}

func (g guarded) Unwrap() vfs.FS { return g.FS }

func (g guarded) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.Create(name, category)
	return g.file(name, f, err)
}

func (g guarded) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.ReuseForWrite(old, name, category)
	return g.file(name, f, err)
}

func (g guarded) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	return g.file(name, f, err)
}

func (g guarded) file(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, g.stop(name, err)
	}
	return file{f, g, name}, nil
}

func (g guarded) stop(name string, err error) error {
	if err != nil && g.failed(name, err) {
		select {}
	}
	return err
}

type file struct {
	vfs.File
	g    guarded
	name string
}

func (f file) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.g.stop(f.name, err)
}

func (f file) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	return n, f.g.stop(f.name, err)
}

func (f file) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.g.stop(f.name, err)
}

func (f file) Sync() error     { return f.g.stop(f.name, f.File.Sync()) }
func (f file) SyncData() error { return f.g.stop(f.name, f.File.SyncData()) }
func (f file) Close() error    { return f.g.stop(f.name, f.File.Close()) }
