package archive

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// Version is that of the format.
const Version = 1

const (
	magic     = "couchledger-backup "
	maxHeader = 128

	frameHeader = 16
	// frameBytes is from how many bytes on a frame is full.
	frameBytes = 4 << 20
	// maxFrame bounds a frame when it is unpacked: a block has 7,500,000 bytes at most.
	maxFrame = 16 << 20
	// maxManifest bounds the manifest. It has about 150 bytes for each frame.
	maxManifest = 64 << 20

	trailerMagic = "couchledger-end\n"
	trailerBytes = 8 + len(trailerMagic) + 32
)

// tables lists what a file may hold, in its order.
var tables = []string{statedb.Backlog, statedb.Bigchain, statedb.Votes}

// ErrDamaged is wrapped by what is wrong with a file by itself.
var ErrDamaged = errors.New("not a sound backup file")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// Manifest says what a file holds.
type Manifest struct {
	Genesis string `json:"genesis"` // id of the ledger's first block
	Since   string `json:"since"`   // identity of the file before it, "" for a full one
	Made    string `json:"made"`    // when its making began, RFC 3339
	// Backlog: the backlog is in it, too.
	Backlog   bool           `json:"backlog"`
	Documents map[string]int `json:"documents"` // by table
	Bytes     int64          `json:"bytes"`     // of all frames but the manifest's, unpacked
	Frames    []Frame        `json:"frames"`
}

// Frame is one in the manifest.
type Frame struct {
	Table     string `json:"table"`
	First     string `json:"first"` // id of its first document
	At        int64  `json:"at"`    // offset in the file
	Documents int    `json:"documents"`
}

// Identity tells a file from all others: the SHA-256 of all but its own, in hex.
type Identity = string

func headerLine(since Identity) string {
	if since == "" {
		return fmt.Sprintf("%s%d full\n", magic, Version)
	}
	return fmt.Sprintf("%s%d since %s\n", magic, Version, since)
}

// readHeader takes the first bytes of a file.
func readHeader(start []byte) (since Identity, length int, err error) {
	line, _, found := bytes.Cut(start, []byte("\n"))
	rest, isOne := strings.CutPrefix(string(line), magic)
	if !isOne || !found {
		return "", 0, damaged("it does not begin with %q", magic)
	}
	version, rest, _ := strings.Cut(rest, " ")
	if version != fmt.Sprint(Version) {
		return "", 0, damaged("it is of format %.20q, this program reads format %d; another release of couchledger made it", version, Version)
	}
	since, incremental := strings.CutPrefix(rest, "since ")
	switch {
	case rest == "full":
		since = ""
	case !incremental || !isIdentity(since):
		return "", 0, damaged("its first line is malformed")
	}
	return since, len(line) + 1, nil
}

func isIdentity(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendFrame appends a frame's first bytes.
func appendFrame(dst []byte, packed []byte, unpacked, documents int) []byte {
	begin := len(dst)
	for _, n := range []int{len(packed), unpacked, documents} {
		dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	}
	return binary.BigEndian.AppendUint32(dst, frameSum(dst[begin:], packed))
}

func frameSum(numbers, packed []byte) uint32 {
	return crc32.Update(crc32.Checksum(numbers, castagnoli), castagnoli, packed)
}

// appendLine appends a document as a frame holds it.
func appendLine(dst []byte, table, id string, body []byte) []byte {
	dst = append(append(append(dst, `["`...), table...), `",`...)
	dst = append(canonical.AppendString(dst, id), ',')
	return append(append(dst, body...), "]\n"...)
}

// readLine takes a line apart. The body is a part of it.
func readLine(line []byte, table string) (statedb.Document, error) {
	fault := func() (statedb.Document, error) {
		return statedb.Document{}, damaged("a line is malformed: %.60q", line)
	}
	rest, ok := bytes.CutPrefix(line, []byte(`["`+table+`","`))
	if !ok {
		return fault()
	}
	id, rest, ok := bytes.Cut(rest, []byte(`",{`))
	if !ok || !bytes.HasSuffix(rest, []byte("}]")) || !isPlain(id) {
		return fault()
	}
	body := line[len(line)-len(rest)-1 : len(line)-1]
	return statedb.Document{ID: string(id), Body: body}, nil
}

// isPlain reports whether JSON has nothing to escape in an id, as in all ids of
// a ledger.
func isPlain(id []byte) bool {
	return len(id) > 0 && id[0] != '_' && !bytes.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' })
}

// tableOrder tells which table comes first; -1 for none.
func tableOrder(table string) int { return slices.Index(tables, table) }
