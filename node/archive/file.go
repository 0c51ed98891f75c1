package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"sort"

	"github.com/klauspost/compress/zstd"

	"github.com/couchledger/couchledger/statedb"
)

// File is an open backup file. It is used by one goroutine at a time.
type File struct {
	Path     string
	Identity Identity
	Manifest Manifest

	in     io.ReaderAt
	size   int64
	begin  int64 // of the frames
	end    int64 // and of the manifest's
	close  func() error
	unpack *zstd.Decoder

	cached    int // the frame whose documents these are, -1 for none
	documents []statedb.Document
}

// Open opens a file and reads what it says of itself. Errors that are the
// file's fault wrap ErrDamaged. See Check for the rest of it.
func Open(path string) (*File, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := in.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file, and a backup is read more than once", path)
	}
	var f *File
	if err == nil {
		f, err = open(in, info.Size())
	}
	if err != nil {
		return nil, errors.Join(named(path, err), in.Close())
	}
	f.Path, f.close = path, in.Close
	return f, nil
}

// named says in which file a fault is.
func named(path string, err error) error {
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return err
}

func open(in io.ReaderAt, size int64) (*File, error) {
	f := &File{in: in, size: size, cached: -1}
	start := make([]byte, min(maxHeader, size))
	if err := f.read(start, 0); err != nil {
		return nil, err
	}
	since, length, err := readHeader(start)
	if err != nil {
		return nil, err
	}
	f.begin = int64(length)
	trailer := make([]byte, trailerBytes)
	if size < f.begin+frameHeader+int64(trailerBytes) {
		return nil, damaged("it ends after %d bytes; it was cut off", size)
	}
	if err := f.read(trailer, size-int64(trailerBytes)); err != nil {
		return nil, err
	}
	if string(trailer[8:8+len(trailerMagic)]) != trailerMagic {
		return nil, damaged("its end is missing; it was cut off, or is still being written")
	}
	f.Identity = hex.EncodeToString(trailer[8+len(trailerMagic):])
	at := binary.BigEndian.Uint64(trailer)
	if at < uint64(f.begin) || at > uint64(size-int64(trailerBytes)-frameHeader) {
		return nil, damaged("its end points to offset %d, where no manifest can be", at)
	}
	f.end = int64(at)
	if f.unpack, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxManifest)); err != nil {
		return nil, err
	}
	if err := f.readManifest(since); err != nil {
		f.unpack.Close()
		return nil, err
	}
	return f, nil
}

func (f *File) readManifest(since Identity) error {
	limit := f.size - int64(trailerBytes)
	manifest, _, length, err := f.frame(f.end, limit, maxManifest)
	if err != nil {
		return err
	}
	if f.end+int64(length) != limit {
		return damaged("there is something between its manifest and its end, at offset %d", f.end+int64(length))
	}
	decoder := json.NewDecoder(bytes.NewReader(manifest))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f.Manifest); err != nil {
		return damaged("its manifest is malformed: %v", err)
	}
	if f.Manifest.Since != since {
		return damaged("its first line and its manifest disagree")
	}
	return f.checkIndex()
}

// checkIndex checks what the manifest says of the frames, as far as that can be
// told without them.
func (f *File) checkIndex() error {
	m := f.Manifest
	sums := map[string]int{}
	for _, table := range tables {
		sums[table] = 0
	}
	at, before := f.begin, Frame{}
	for _, frame := range m.Frames {
		order, last := tableOrder(frame.Table), tableOrder(before.Table)
		switch {
		case order < 0 || frame.Documents < 1 || frame.First == "":
			return damaged("its manifest has a frame of table %.20q with %d documents", frame.Table, frame.Documents)
		case order < last || order == last && frame.First <= before.First:
			return damaged("its manifest has frames out of order at %s/%.100s", frame.Table, frame.First)
		case frame.At < at || frame.At > f.end-frameHeader:
			return damaged("its manifest has a frame at offset %d", frame.At)
		}
		sums[frame.Table] += frame.Documents
		at, before = frame.At+frameHeader, frame
	}
	if !maps.Equal(sums, m.Documents) {
		return damaged("its manifest counts %v documents and lists %v", m.Documents, sums)
	}
	return nil
}

func (f *File) read(b []byte, at int64) error {
	n, err := f.in.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return damaged("it ends at offset %d, in the middle", at+int64(n))
	}
	return err
}

// frame reads the frame at an offset, which must end by limit.
func (f *File) frame(at, limit int64, most int) (unpacked []byte, documents, length int, err error) {
	numbers := make([]byte, frameHeader)
	if at+frameHeader > limit {
		return nil, 0, 0, damaged("it has no frame at offset %d", at)
	}
	if err := f.read(numbers, at); err != nil {
		return nil, 0, 0, err
	}
	packed, size := int64(binary.BigEndian.Uint32(numbers)), int64(binary.BigEndian.Uint32(numbers[4:]))
	documents = int(binary.BigEndian.Uint32(numbers[8:]))
	// What cannot be packed grows by less than this.
	if size > int64(most) || packed > size+size/8+1024 || packed > limit-at-frameHeader {
		return nil, 0, 0, damaged("the frame at offset %d claims %d bytes, %d unpacked", at, packed, size)
	}
	body := make([]byte, packed)
	if err := f.read(body, at+frameHeader); err != nil {
		return nil, 0, 0, err
	}
	if frameSum(numbers[:12], body) != binary.BigEndian.Uint32(numbers[12:]) {
		return nil, 0, 0, damaged("the frame at offset %d was changed: its checksum is not right", at)
	}
	var header zstd.Header
	if err := header.Decode(body); err != nil || !header.HasFCS || header.FrameContentSize != uint64(size) {
		return nil, 0, 0, damaged("the frame at offset %d does not hold the %d bytes that it claims", at, size)
	}
	unpacked, err = f.unpack.DecodeAll(body, make([]byte, 0, size))
	if err != nil || int64(len(unpacked)) != size {
		return nil, 0, 0, damaged("the frame at offset %d cannot be unpacked: %v", at, err)
	}
	return unpacked, documents, frameHeader + int(packed), nil
}

// Close closes the file.
func (f *File) Close() error {
	if f.unpack != nil {
		f.unpack.Close()
	}
	if f.close == nil {
		return nil
	}
	return f.close()
}

// load reads the documents of a frame of the manifest, and returns the frame's
// length.
func (f *File) load(i int) (length int, err error) {
	of := f.Manifest.Frames[i]
	unpacked, count, length, err := f.frame(of.At, f.end, maxFrame)
	if err != nil {
		return 0, err
	}
	if count != of.Documents || bytes.Count(unpacked, []byte{'\n'}) != count {
		return 0, damaged("the frame at offset %d does not hold the %d documents that the manifest counts", of.At, of.Documents)
	}
	f.cached, f.documents = -1, make([]statedb.Document, 0, count)
	before := ""
	for len(unpacked) > 0 {
		line, rest, _ := bytes.Cut(unpacked, []byte{'\n'})
		unpacked = rest
		d, err := readLine(line, of.Table)
		if err != nil {
			return 0, err
		}
		if d.ID <= before {
			return 0, damaged("%s/%s stands after %s", of.Table, d.ID, before)
		}
		before = d.ID
		f.documents = append(f.documents, d)
	}
	if len(f.documents) != count || f.documents[0].ID != of.First {
		return 0, damaged("the frame at offset %d does not begin with the document that the manifest names", of.At)
	}
	f.cached = i
	return length, nil
}

// Check reads the whole file: every byte is covered by its identity, the frames
// and documents are complete and in order. An error wraps ErrDamaged when it is
// the file's fault. done is told, unless nil, how many bytes have been read.
func (f *File) Check(ctx context.Context, done func(bytes int64)) error {
	return named(f.Path, f.check(ctx, done))
}

func (f *File) check(ctx context.Context, done func(bytes int64)) error {
	sum := sha256.New()
	covered := int64(0)
	cover := func(to int64) error {
		_, err := io.Copy(sum, io.NewSectionReader(f.in, covered, to-covered))
		covered = to
		if done != nil {
			done(covered)
		}
		return err
	}
	at, last, unpacked := f.begin, statedb.Document{}, int64(0)
	for i, frame := range f.Manifest.Frames {
		if err := ctx.Err(); err != nil {
			return err
		}
		if frame.At != at {
			return damaged("there is something at offset %d that the manifest does not list", at)
		}
		length, err := f.load(i)
		if err != nil {
			return err
		}
		if i > 0 && frame.Table == f.Manifest.Frames[i-1].Table && f.documents[0].ID <= last.ID {
			return damaged("%s/%s stands after %s", frame.Table, f.documents[0].ID, last.ID)
		}
		last = f.documents[len(f.documents)-1]
		for _, d := range f.documents {
			unpacked += int64(len(d.ID) + len(d.Body) + len(frame.Table) + len(`["","",]`) + 1)
		}
		at += int64(length)
		if err := cover(at); err != nil {
			return err
		}
	}
	switch {
	case at != f.end:
		return damaged("there is something at offset %d that the manifest does not list", at)
	case unpacked != f.Manifest.Bytes:
		return damaged("its documents have %d bytes, its manifest counts %d", unpacked, f.Manifest.Bytes)
	}
	if err := cover(f.size - 32); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != f.Identity {
		return damaged("it was changed: its SHA-256 is not what its end says")
	}
	return nil
}

// Summary tells what the file holds.
func (f *File) Summary() Summary {
	m := f.Manifest
	return Summary{
		Identity: f.Identity, Genesis: m.Genesis, Since: m.Since, Backlog: m.Backlog,
		Documents: m.Documents, Bytes: m.Bytes, FileBytes: f.size,
	}
}

// cursor walks over a table of a file.
type cursor struct {
	f     *File
	frame int
	place int // in the frame
	end   int // the first frame of another table
}

// cursorAt is before the first document of a table whose id is from or after.
func (f *File) cursorAt(table, from string) (*cursor, error) {
	frames := f.Manifest.Frames
	order := tableOrder(table)
	begin := sort.Search(len(frames), func(i int) bool { return tableOrder(frames[i].Table) >= order })
	c := &cursor{f: f, end: sort.Search(len(frames), func(i int) bool { return tableOrder(frames[i].Table) > order })}
	// The frame before the first one that begins after it.
	c.frame = max(begin, begin+sort.Search(c.end-begin, func(i int) bool { return frames[begin+i].First > from })-1)
	for {
		d, err := c.peek()
		if err != nil || d == nil || d.ID >= from {
			return c, err
		}
		c.place = sort.Search(len(f.documents), func(i int) bool { return f.documents[i].ID >= from })
		if c.place == len(f.documents) {
			c.frame, c.place = c.frame+1, 0
		}
	}
}

// peek returns the next document, nil at the end.
func (c *cursor) peek() (*statedb.Document, error) {
	if c.frame >= c.end {
		return nil, nil
	}
	if c.f.cached != c.frame {
		if _, err := c.f.load(c.frame); err != nil {
			return nil, named(c.f.Path, err)
		}
	}
	return &c.f.documents[c.place], nil
}

// next goes on after what peek returned.
func (c *cursor) next() {
	if c.place++; c.place == c.f.Manifest.Frames[c.frame].Documents {
		c.frame, c.place = c.frame+1, 0
	}
}
