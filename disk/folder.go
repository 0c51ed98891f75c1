package disk

import (
	"errors"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const folderMode = 0o700

// MakeFolder makes a folder, and those above it that are missing, with mode
// 0700, so that they outlast a power cut: what is synced in a folder is lost
// with one whose own name in the folder above is not.
func MakeFolder(fsys vfs.FS, path string) error {
	var above []string // the folders that get a new name
	for at := path; ; {
		_, err := fsys.Stat(at)
		if err == nil {
			break
		}
		parent := fsys.PathDir(at)
		if !errors.Is(err, fs.ErrNotExist) || parent == at {
			break // MkdirAll says what is wrong
		}
		above = append(above, parent)
		at = parent
	}
	if err := fsys.MkdirAll(path, folderMode); err != nil {
		return err
	}
	for _, folder := range above {
		if _, err := fsys.Stat(folder); err != nil {
			folder = "" // as Pebble's file system in memory calls its root
		}
		if err := syncFolder(fsys, folder); err != nil {
			return err
		}
	}
	return nil
}

func syncFolder(fsys vfs.FS, path string) error {
	folder, err := fsys.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
