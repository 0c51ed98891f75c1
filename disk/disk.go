// Package disk guards a Pebble store against a disk that cannot be written.
//
// Pebble's own answer to a log or manifest that cannot be made, written or
// closed is a panic, some of them at a place where unwinding unlocks a mutex
// that is not locked, which ends the process with a stack trace that nothing
// can catch.
//
// Two lacks pass by themselves: space, and file descriptors. What cannot be
// written for want of them waits here until it can, with no byte lost or
// repeated, and Pebble never hears of it. Its tables it makes anew by itself.
// Every other fault, and any of a sync, ends the store: what is on disk then,
// nobody knows.
package disk

import (
	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS returns the guarded file system, for the store's options.
func (g *Guard) FS() vfs.FS { return guarded{g.fs, g} }

type guarded struct {
	vfs.FS
	g *Guard
}

func (d guarded) Unwrap() vfs.FS { return d.FS }

func (d guarded) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.written(name, func() (vfs.File, error) { return d.FS.Create(name, category) })
}

func (d guarded) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	again := false
	return d.written(name, func() (vfs.File, error) {
		if again {
			if _, err := d.FS.Stat(old); err != nil { // it has its new name, and could not be opened
				return d.FS.Create(name, category)
			}
		}
		again = true
		return d.FS.ReuseForWrite(old, name, category)
	})
}

func (d guarded) OpenDir(name string) (vfs.File, error) {
	return d.written(name, func() (vfs.File, error) { return d.FS.OpenDir(name) })
}

func (d guarded) Rename(old, name string) error {
	return d.g.do(name, func() error { return d.FS.Rename(old, name) })
}

// Open opens a file for reading. Want of descriptors it waits out for a while.
func (d guarded) Open(name string, opts ...vfs.OpenOption) (f vfs.File, err error) {
	for wait := d.g.reading(); ; {
		if f, err = d.FS.Open(name, opts...); err == nil || !wait(err) {
			return f, err
		}
	}
}

// written opens a file that is written to.
func (d guarded) written(name string, open func() (vfs.File, error)) (f vfs.File, err error) {
	err = d.g.do(name, func() error {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return file{f, d.g, name}, nil
}

type file struct {
	vfs.File
	g    *Guard
	name string
}

func (f file) Write(p []byte) (done int, err error) {
	err = f.g.do(f.name, func() error {
		n, err := f.File.Write(p[done:])
		done += n
		return err
	})
	return done, err
}

func (f file) WriteAt(p []byte, at int64) (done int, err error) {
	err = f.g.do(f.name, func() error {
		n, err := f.File.WriteAt(p[done:], at+int64(done))
		done += n
		return err
	})
	return done, err
}

func (f file) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.g.stop(f.name, err)
}

func (f file) Sync() error     { return f.g.stop(f.name, f.File.Sync()) }
func (f file) SyncData() error { return f.g.stop(f.name, f.File.SyncData()) }
func (f file) Close() error    { return f.g.stop(f.name, f.File.Close()) }
