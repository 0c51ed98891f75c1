package simulator

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// power is a machine's disk. Set to, it calls cut before one of the coming
// writes, from within the node.
type power struct {
	vfs.FS
	mu   sync.Mutex
	left int // writes until the cut; 0 for none
	cut  func()
}

// Tune makes stores cheap to open and idle ones idle: the scheduler of compactions
// would look every tenth of a second whether there are any.
func (p *power) Tune(o *pebble.Options) {
	o.CacheSize, o.MemTableSize = 64<<10, 128<<10
	o.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
}

func (p *power) arm(writes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = writes
}

func (p *power) count() {
	p.mu.Lock()
	due := p.left == 1
	p.left = max(p.left-1, 0)
	p.mu.Unlock()
	if due {
		p.cut()
	}
}

func (p *power) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &poweredFile{f, p}, nil
}

func (p *power) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	p.count()
	return p.wrap(p.FS.Create(name, category))
}

func (p *power) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return p.wrap(p.FS.OpenReadWrite(name, category, opts...))
}

func (p *power) OpenDir(name string) (vfs.File, error) { return p.wrap(p.FS.OpenDir(name)) }

func (p *power) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	p.count()
	return p.wrap(p.FS.ReuseForWrite(old, name, category))
}

func (p *power) Link(old, name string) error {
	p.count()
	return p.FS.Link(old, name)
}

func (p *power) Remove(name string) error {
	p.count()
	return p.FS.Remove(name)
}

func (p *power) RemoveAll(name string) error {
	p.count()
	return p.FS.RemoveAll(name)
}

func (p *power) Rename(old, name string) error {
	p.count()
	return p.FS.Rename(old, name)
}

type poweredFile struct {
	vfs.File
	p *power
}

func (f *poweredFile) Write(b []byte) (int, error) {
	f.p.count()
	return f.File.Write(b)
}

func (f *poweredFile) WriteAt(b []byte, at int64) (int, error) {
	f.p.count()
	return f.File.WriteAt(b, at)
}

func (f *poweredFile) Sync() error {
	f.p.count()
	return f.File.Sync()
}

func (f *poweredFile) SyncData() error {
	f.p.count()
	return f.File.SyncData()
}

func (f *poweredFile) SyncTo(length int64) (bool, error) {
	f.p.count()
	return f.File.SyncTo(length)
}
