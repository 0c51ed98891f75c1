package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Writer writes one file. Documents must come by table, in the order of tables,
// and by id, in the order of bytes.
type Writer struct {
	out      io.Writer
	sum      hash.Hash
	at       int64
	encoder  *zstd.Encoder
	manifest Manifest

	frame []byte // what the next frame will hold
	next  Frame
	last  string // id, of next.Table
}

// NewWriter begins a file that holds all of a ledger, or with the identity of
// another file what came since that.
func NewWriter(out io.Writer, since Identity) (*Writer, error) {
	// In a single segment zstd says how long the frame is, however short.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(true))
	if err != nil {
		return nil, err
	}
	w := &Writer{out: out, sum: sha256.New(), encoder: encoder}
	w.manifest = Manifest{Since: since, Made: time.Now().UTC().Format(time.RFC3339), Documents: map[string]int{}}
	for _, table := range tables {
		w.manifest.Documents[table] = 0
	}
	return w, w.write([]byte(headerLine(since)))
}

func (w *Writer) write(b []byte) error {
	n, err := w.out.Write(b)
	w.sum.Write(b[:n])
	w.at += int64(n)
	return err
}

// Add adds a document, whose body must be in canonical form.
func (w *Writer) Add(table, id string, body []byte) error {
	switch order := tableOrder(table); {
	case order < 0 || !isPlain([]byte(id)):
		return fmt.Errorf("%s/%.100q cannot be in a backup file", table, id)
	case order < tableOrder(w.next.Table) || table == w.next.Table && id <= w.last:
		return fmt.Errorf("%s/%s comes after %s/%s: the ledger was not read in the order of ids", table, id, w.next.Table, w.last)
	}
	if table != w.next.Table {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.next.Documents == 0 {
		w.next.First = id
	}
	before := len(w.frame)
	w.frame = appendLine(w.frame, table, id, body)
	if len(w.frame)-before > maxFrame-frameBytes {
		return fmt.Errorf("%s/%s has %d bytes, more than a backup file can hold", table, id, len(body))
	}
	w.next.Table, w.last = table, id
	w.next.Documents++
	if len(w.frame) < frameBytes {
		return nil
	}
	return w.flush()
}

// flush writes the frame, if there is anything in it.
func (w *Writer) flush() error {
	if w.next.Documents == 0 {
		return nil
	}
	w.next.At = w.at
	if err := w.writeFrame(w.frame, w.next.Documents); err != nil {
		return err
	}
	w.manifest.Bytes += int64(len(w.frame))
	w.manifest.Documents[w.next.Table] += w.next.Documents
	w.manifest.Frames = append(w.manifest.Frames, w.next)
	w.frame, w.next = w.frame[:0], Frame{Table: w.next.Table}
	return nil
}

func (w *Writer) writeFrame(unpacked []byte, documents int) error {
	packed := w.encoder.EncodeAll(unpacked, make([]byte, 0, len(unpacked)/2))
	if err := w.write(appendFrame(nil, packed, len(unpacked), documents)); err != nil {
		return err
	}
	return w.write(packed)
}

// Close completes the file. Without it there is none.
func (w *Writer) Close(genesis string, backlog bool) (Summary, error) {
	w.manifest.Genesis, w.manifest.Backlog = genesis, backlog
	if err := w.flush(); err != nil {
		return Summary{}, err
	}
	at := w.at
	manifest, err := json.Marshal(w.manifest)
	if err != nil {
		return Summary{}, err
	}
	if len(manifest) > maxManifest {
		return Summary{}, fmt.Errorf("the ledger is too large for one backup file: its manifest would have %d bytes", len(manifest))
	}
	if err := w.writeFrame(manifest, 0); err != nil {
		return Summary{}, err
	}
	if err := w.write(append(binary.BigEndian.AppendUint64(nil, uint64(at)), trailerMagic...)); err != nil {
		return Summary{}, err
	}
	sum := w.sum.Sum(nil)
	if _, err := io.Copy(w.out, bytes.NewReader(sum)); err != nil {
		return Summary{}, err
	}
	return Summary{
		Identity: hex.EncodeToString(sum), Genesis: genesis, Since: w.manifest.Since, Backlog: backlog,
		Documents: w.manifest.Documents, Bytes: w.manifest.Bytes, FileBytes: w.at + int64(len(sum)),
	}, w.encoder.Close()
}

// Summary tells what a file holds.
type Summary struct {
	Identity  Identity       `json:"identity"`
	Genesis   string         `json:"genesis"`         // id of the first block
	Since     Identity       `json:"since,omitempty"` // the file before it
	Backlog   bool           `json:"backlog"`         // it holds the backlog
	Documents map[string]int `json:"documents"`       // by table
	Bytes     int64          `json:"bytes"`           // of the documents
	FileBytes int64          `json:"file_bytes"`
}
