package kv

import "github.com/cockroachdb/pebble/v2/vfs"

// disk is a file system on which nothing fails but once: what fails to be
// written fails the store, and the goroutine that wrote it stops there for
// good. Pebble's own answer would be a panic at a place where unwinding
// unlocks a mutex that is not locked, which ends the process with a stack
// trace. While opening, errors pass.
type disk struct {
	vfs.FS
	s *Store
}

func (d disk) Unwrap() vfs.FS { return d.FS }

func (d disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, category)
	return d.s.file(f, err)
}

func (d disk) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(old, name, category)
	return d.s.file(f, err)
}

func (d disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	return d.s.file(f, err)
}

type file struct {
	vfs.File
	s *Store
}

func (s *Store) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, s.stop(err)
	}
	return file{f, s}, nil
}

func (f file) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.s.stop(err)
}

func (f file) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	return n, f.s.stop(err)
}

func (f file) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.s.stop(err)
}

func (f file) Sync() error     { return f.s.stop(f.File.Sync()) }
func (f file) SyncData() error { return f.s.stop(f.File.SyncData()) }
func (f file) Close() error    { return f.s.stop(f.File.Close()) }

// stop does not return with an error once the store is open.
func (s *Store) stop(err error) error {
	if err != nil && s.opened.Load() {
		s.fail(err)
		select {}
	}
	return err
}
