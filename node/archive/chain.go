package archive

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/couchledger/couchledger/statedb"
)

// Chain is a full backup file with those that follow it, as one ledger. It is a
// verify.Source. Its methods may be called from many goroutines.
type Chain struct {
	Files []*File

	mu sync.Mutex
}

// OpenChain opens files, the full one first and each after the one that it
// follows. When the first is not a full one, those before it are looked for in
// its folder. Errors that are the files' fault wrap ErrDamaged.
func OpenChain(paths ...string) (c *Chain, err error) {
	c = &Chain{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
			c = nil
		}
	}()
	for _, path := range paths {
		f, err := Open(path)
		if err != nil {
			return c, err
		}
		c.Files = append(c.Files, f)
	}
	for c.Files[0].Manifest.Since != "" {
		f, err := before(c.Files[0])
		if err != nil {
			return c, err
		}
		c.Files = slices.Insert(c.Files, 0, f)
	}
	for i, f := range c.Files[1:] {
		switch last := c.Files[i]; {
		case f.Manifest.Since == "":
			return c, damaged("%s is a full backup, and does not follow %s: give the files of one chain only", f.Path, last.Path)
		case f.Manifest.Since != last.Identity:
			return c, damaged("%s does not follow %s: it follows the file with the identity %s", f.Path, last.Path, f.Manifest.Since)
		case f.Manifest.Genesis != last.Manifest.Genesis:
			return c, damaged("%s is of another ledger than %s", f.Path, last.Path)
		}
	}
	return c, nil
}

// before finds the file that f follows, in its folder.
func before(f *File) (*File, error) {
	folder := filepath.Dir(f.Path)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		if entry.Type().IsRegular() && identityOf(path) == f.Manifest.Since {
			return Open(path)
		}
	}
	return nil, damaged("%s holds only what came since the file with the identity %s, which is not in %s; give all files of the chain, the full one first",
		f.Path, f.Manifest.Since, folder)
}

// identityOf is what a file's end says, "" when it is no backup file.
func identityOf(path string) Identity {
	in, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer in.Close()
	trailer := make([]byte, trailerBytes)
	if _, err := in.Seek(-int64(trailerBytes), io.SeekEnd); err != nil {
		return ""
	}
	if _, err := io.ReadFull(in, trailer); err != nil || string(trailer[8:8+len(trailerMagic)]) != trailerMagic {
		return ""
	}
	return hex.EncodeToString(trailer[8+len(trailerMagic):])
}

// Close closes the files.
func (c *Chain) Close() error {
	var errs []error
	for _, f := range c.Files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Last is the file that no other follows.
func (c *Chain) Last() *File { return c.Files[len(c.Files)-1] }

// Identity is that of the last file, which covers those of the others.
func (c *Chain) Identity() Identity { return c.Last().Identity }

// Genesis is the id of the ledger's first block.
func (c *Chain) Genesis() string { return c.Last().Manifest.Genesis }

// Summary tells what the files hold together.
func (c *Chain) Summary() Summary {
	s := c.Last().Summary()
	s.Documents = maps.Clone(s.Documents)
	for _, f := range c.Files[:len(c.Files)-1] {
		for table, n := range f.Manifest.Documents {
			if table != statedb.Backlog {
				s.Documents[table] += n
			}
		}
		s.Bytes += f.Manifest.Bytes
		s.FileBytes += f.size
	}
	return s
}

// Check reads all files whole. See File.Check.
func (c *Chain) Check(ctx context.Context, done func(bytes int64)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	read := int64(0)
	for _, f := range c.Files {
		err := f.Check(ctx, func(bytes int64) {
			if done != nil {
				done(read + bytes)
			}
		})
		if err != nil {
			return err
		}
		read += f.size
	}
	return nil
}

// Range reads documents by id, as a statedb.DB does. A table that the files do
// not hold is empty. What waited in the backlog is in the last file only.
func (c *Chain) Range(ctx context.Context, table string, r statedb.Range) (statedb.Page, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := r.Start
	if r.Bookmark != "" {
		from = r.Bookmark + "\x00"
	}
	m, err := c.merge(table, from)
	if err != nil {
		return statedb.Page{}, err
	}
	var page statedb.Page
	for {
		d, err := m.peek()
		switch {
		case err != nil:
			return statedb.Page{}, err
		case ctx.Err() != nil:
			return statedb.Page{}, ctx.Err()
		case d == nil || r.End != "" && d.ID >= r.End:
			return page, nil
		case len(page.Documents) == r.Limit:
			page.Bookmark = page.Documents[r.Limit-1].ID
			return page, nil
		}
		page.Documents = append(page.Documents, *d)
		if err := m.next(); err != nil {
			return statedb.Page{}, err
		}
	}
}

// merge walks over a table of all files, in the order of ids.
type merge struct {
	table   string
	cursors []*cursor
}

func (c *Chain) merge(table, from string) (*merge, error) {
	m := &merge{table: table}
	files := c.Files
	if table == statedb.Backlog {
		files = files[len(files)-1:]
	}
	for _, f := range files {
		if tableOrder(table) < 0 {
			continue
		}
		at, err := f.cursorAt(table, from)
		if err != nil {
			return nil, named(f.Path, err)
		}
		m.cursors = append(m.cursors, at)
	}
	return m, nil
}

// first returns the cursor whose document is next, nil at the end.
func (m *merge) first() (first *cursor, next *statedb.Document, err error) {
	for _, c := range m.cursors {
		d, err := c.peek()
		if err != nil {
			return nil, nil, err
		}
		if d == nil {
			continue
		}
		switch {
		case next == nil || cmp.Less(d.ID, next.ID):
			first, next = c, d
		case d.ID == next.ID:
			return nil, nil, damaged("%s and %s both hold %s/%s", first.f.Path, c.f.Path, m.table, d.ID)
		}
	}
	return first, next, nil
}

// peek returns the next document, nil at the end.
func (m *merge) peek() (*statedb.Document, error) {
	_, d, err := m.first()
	return d, err
}

// next goes on after what peek returned.
func (m *merge) next() error {
	c, _, err := m.first()
	if err == nil && c != nil {
		c.next()
	}
	return err
}

// each calls do with all documents of a table, one after another.
func (c *Chain) each(ctx context.Context, table string, do func(statedb.Document) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, err := c.merge(table, "")
	for err == nil {
		var d *statedb.Document
		if d, err = m.peek(); err != nil || d == nil {
			return err
		}
		if err = ctx.Err(); err == nil {
			err = do(*d)
		}
		if err == nil {
			err = m.next()
		}
	}
	return err
}

// String names the files.
func (c *Chain) String() string {
	if len(c.Files) == 1 {
		return c.Files[0].Path
	}
	return fmt.Sprintf("%s and %d before it", c.Last().Path, len(c.Files)-1)
}
