package logging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

const (
	// maxFileBytes is a log file's size, 200 MB as the documents count them.
	maxFileBytes = 200 << 20
	// keptFiles is how many full log files are kept beside the open one.
	keptFiles = 5
	// fileMode lets the operator's group read the log.
	fileMode fs.FileMode = 0o640
)

// rotated is a log file that becomes <path>.1 when it is full, while .1
// becomes .2 and so on, the last one kept being overwritten. These names are
// the documents'; lumberjack, which would do the rest, has its own.
type rotated struct {
	path string
	most int64
	kept int

	mu   sync.Mutex
	file *os.File
	size int64
}

func openRotated(path string, most int64, kept int) (*rotated, error) {
	r := &rotated{path: path, most: most, kept: kept}
	return r, r.open()
}

func (r *rotated) open() error {
	file, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r.file, r.size = file, info.Size()
	return nil
}

// Write writes one line whole into one file. Where the files cannot be
// rotated the line goes into the full one: a log that is too long is better
// than none.
func (r *rotated) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return 0, fs.ErrClosed
	}
	var rotating error
	if r.size > 0 && r.size+int64(len(line)) > r.most {
		rotating = r.rotate()
	}
	n, err := r.file.Write(line)
	r.size += int64(n)
	return n, errors.Join(rotating, err)
}

func (r *rotated) rotate() error {
	for n := r.kept; n > 0; n-- {
		from := r.path
		if n > 1 {
			from = fmt.Sprintf("%s.%d", r.path, n-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", r.path, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	full := r.file
	if err := r.open(); err != nil {
		return err // the full one is still open, under its new name
	}
	return full.Close()
}

// Close closes the file; lines written later fail.
func (r *rotated) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}
