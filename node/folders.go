package node

import (
	"errors"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/couchledger/couchledger/node/chainstate"
)

// Names under the state path.
const (
	chainstateFolder = "chainstate"
	journalFolder    = "journal"
	// nextFolder is where a chainstate is built anew. switchedFile, an empty
	// file, says that this one counts and not the other.
	nextFolder   = "chainstate.next"
	switchedFile = "chainstate.switched"
)

// chainFolders are the two places of a chainstate: a running node cannot rename
// the folder that it has open. Whoever changes anything there holds the
// journal's lock.
type chainFolders struct {
	path string
	fs   vfs.FS // nil: the machine's own, which makes folders on the way
	disk vfs.FS
}

func foldersIn(path string, on vfs.FS) chainFolders {
	c := chainFolders{path: path, fs: on, disk: on}
	if on == nil {
		c.disk = vfs.Default
	}
	return c
}

func (c chainFolders) in(name string) string { return c.disk.PathJoin(c.path, name) }

func (c chainFolders) exists(name string) (bool, error) {
	_, err := c.disk.Stat(c.in(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// settle brings the chainstate that counts under its usual name, and deletes
// what a rebuild left. None of the folders is open. After a crash it goes on.
func (c chainFolders) settle() error {
	switched, err := c.exists(switchedFile)
	if err != nil {
		return err
	}
	next, err := c.exists(nextFolder)
	if err != nil {
		return err
	}
	if switched && next {
		err = errors.Join(c.disk.RemoveAll(c.in(chainstateFolder)), c.sync())
		if err == nil {
			err = errors.Join(c.disk.Rename(c.in(nextFolder), c.in(chainstateFolder)), c.sync())
		}
		next = false
	}
	if err == nil && next {
		err = c.disk.RemoveAll(c.in(nextFolder))
	}
	if err == nil && switched {
		err = errors.Join(c.disk.Remove(c.in(switchedFile)), c.sync())
	}
	return err
}

// sync makes what was renamed, made and removed durable.
func (c chainFolders) sync() error {
	folder, err := c.disk.OpenDir(c.path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// open opens the chainstate that counts.
func (c chainFolders) open() (*chainstate.State, error) {
	if err := c.settle(); err != nil {
		return nil, err
	}
	return chainstate.Open(c.in(chainstateFolder), c.fs)
}

// counting returns the place that counts, changing nothing: a node may be running on
// it. The folder need not be there.
func (c chainFolders) counting() (name string, err error) {
	switched, err := c.exists(switchedFile)
	if err != nil || !switched {
		return chainstateFolder, err
	}
	if next, err := c.exists(nextFolder); err != nil || !next { // a crash in settle
		return chainstateFolder, err
	}
	return nextFolder, nil
}

// genesis returns the first block of the ledger that the state is of, "" when it
// is of none.
func (c chainFolders) genesis() (string, error) {
	name, err := c.counting()
	if err != nil {
		return "", err
	}
	if there, err := c.exists(name); err != nil || !there {
		return "", err
	}
	state, err := chainstate.Open(c.in(name), c.fs)
	if err != nil {
		return "", err
	}
	return state.Genesis(), state.Close()
}

// spare returns the place that does not count, emptied.
func (c chainFolders) spare() (name string, err error) {
	switched, err := c.exists(switchedFile)
	if err != nil {
		return "", err
	}
	name = nextFolder
	if switched {
		name = chainstateFolder
	}
	return name, c.disk.RemoveAll(c.in(name))
}

// use makes the chainstate at a place count from now on.
func (c chainFolders) use(name string) error {
	if name == chainstateFolder {
		return errors.Join(c.disk.Remove(c.in(switchedFile)), c.sync())
	}
	file, err := c.disk.Create(c.in(switchedFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close(), c.sync())
}
