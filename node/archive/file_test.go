package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/statedb"
)

// readAll reads a file as restore does: its index, then all of it.
func readAll(content []byte) (*File, error) {
	f, err := open(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return nil, err
	}
	return f, errors.Join(f.Check(context.Background(), nil), f.Close())
}

// TestEveryBit flips bits, and cuts the file off: whatever is changed is found.
func TestEveryBit(t *testing.T) {
	_, path := sampleFile(t, 8)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(whole); err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		if testing.Short() && i%7 > 0 && i > 100 && i < len(whole)-100 {
			continue
		}
		changed := slices.Clone(whole)
		changed[i] ^= 1 << (i % 8)
		if _, err := readAll(changed); !errors.Is(err, ErrDamaged) || strings.Contains(err.Error(), "\n") {
			t.Errorf("bit %d of byte %d of %d flipped: got %v", i%8, i, len(whole), err)
		}
		if _, err := readAll(whole[:i]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut off after %d of %d bytes: got %v", i, len(whole), err)
		}
	}
	for what, content := range map[string][]byte{
		"twice":     append(slices.Clone(whole), whole...),
		"with more": append(slices.Clone(whole), 'x'),
	} {
		if _, err := readAll(content); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// forge makes a file with right checksums of frames and a manifest.
func forge(t testing.TB, manifest Manifest, frames ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, manifest.Since)
	if err != nil {
		t.Fatal(err)
	}
	manifest.Made = w.manifest.Made
	for i, lines := range frames {
		if i < len(manifest.Frames) && manifest.Frames[i].At == 0 {
			manifest.Frames[i].At = w.at
		}
		if err := w.writeFrame(lines, bytes.Count(lines, []byte{'\n'})); err != nil {
			t.Fatal(err)
		}
		manifest.Bytes += int64(len(lines))
	}
	w.manifest = manifest
	if _, err := w.Close(manifest.Genesis, manifest.Backlog); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func line(table, id string) []byte { return appendLine(nil, table, id, []byte(`{"a":1}`)) }

// TestForged: right checksums do not make a file sound.
func TestForged(t *testing.T) {
	counts := func(blocks, votes int) map[string]int {
		return map[string]int{statedb.Backlog: 0, statedb.Bigchain: blocks, statedb.Votes: votes}
	}
	one := func(first string, n int) []Frame {
		return []Frame{{Table: statedb.Bigchain, First: first, Documents: n}}
	}
	ab := slices.Concat(line(statedb.Bigchain, "a"), line(statedb.Bigchain, "b"))
	if _, err := readAll(forge(t, Manifest{Documents: counts(2, 0), Frames: one("a", 2)}, ab)); err != nil {
		t.Fatal(err)
	}
	two := []Frame{{Table: statedb.Bigchain, First: "a", Documents: 2}, {Table: statedb.Bigchain, First: "b", Documents: 1}}
	for what, content := range map[string][]byte{
		"out of order": forge(t, Manifest{Documents: counts(2, 0), Frames: one("b", 2)},
			slices.Concat(line(statedb.Bigchain, "b"), line(statedb.Bigchain, "a"))),
		"repeated": forge(t, Manifest{Documents: counts(2, 0), Frames: one("a", 2)},
			slices.Concat(line(statedb.Bigchain, "a"), line(statedb.Bigchain, "a"))),
		"repeated in frames":  forge(t, Manifest{Documents: counts(3, 0), Frames: two}, ab, line(statedb.Bigchain, "b")),
		"other table":         forge(t, Manifest{Documents: counts(1, 0), Frames: one("a", 1)}, line(statedb.Votes, "a")),
		"other first":         forge(t, Manifest{Documents: counts(2, 0), Frames: one("0", 2)}, ab),
		"other count":         forge(t, Manifest{Documents: counts(1, 0), Frames: one("a", 1)}, ab),
		"counts disagree":     forge(t, Manifest{Documents: counts(3, 0), Frames: one("a", 2)}, ab),
		"no documents":        forge(t, Manifest{Documents: counts(0, 0), Frames: one("a", 0)}, []byte{}),
		"unlisted":            forge(t, Manifest{Documents: counts(0, 0)}, ab),
		"not JSON":            forge(t, Manifest{Documents: counts(1, 0), Frames: one("a", 1)}, []byte("[\"bigchain\",\"a\"]\n")),
		"without a line feed": forge(t, Manifest{Documents: counts(1, 0), Frames: one("a", 1)}, ab[:len(ab)-1]),
		"an unknown table":    forge(t, Manifest{Documents: counts(0, 0), Frames: []Frame{{Table: "x", First: "a", Documents: 1}}}, ab),
	} {
		if _, err := readAll(content); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// TestBomb: a frame that unpacks to more than it claims, or claims too much, is
// refused without the memory for it.
func TestBomb(t *testing.T) {
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := encoder.EncodeAll(make([]byte, maxFrame+1), nil)
	for _, claimed := range []int{100, maxFrame, maxFrame + 1, 1<<32 - 1} {
		frame := append(appendFrame(nil, packed, claimed, 1), packed...)
		f := &File{in: bytes.NewReader(frame)}
		if f.unpack, err = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxManifest)); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := f.frame(0, int64(len(frame)), maxFrame); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes claimed: got %v", claimed, err)
		}
	}
}

// TestWriterRefuses: what cannot be read again is not written.
func TestWriterRefuses(t *testing.T) {
	for _, c := range []struct{ table, id, size string }{
		{"transactions", "c", ""}, {statedb.Bigchain, "a", ""}, {statedb.Bigchain, "b", ""}, {statedb.Backlog, "c", ""},
		{statedb.Bigchain, "é", ""}, {statedb.Bigchain, `c"`, ""}, {statedb.Bigchain, "", ""}, {statedb.Bigchain, "_c", ""},
		{statedb.Bigchain, "c", strings.Repeat("x", maxFrame)},
	} {
		w, err := NewWriter(&bytes.Buffer{}, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(statedb.Bigchain, "b", []byte(`{"a":1}`)); err != nil {
			t.Fatal(err)
		}
		if err := w.Add(c.table, c.id, []byte(`{"a":"`+c.size+`"}`)); err == nil {
			t.Errorf("%s/%s was taken", c.table, c.id)
		}
	}
}

// TestRoundTrip writes documents of all sizes into a full file and one that
// follows, and reads them in any pages.
func TestRoundTrip(t *testing.T) {
	folder := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		all := map[string][]statedb.Document{}
		var parts [2]map[string][]statedb.Document
		for i := range parts {
			parts[i] = map[string][]statedb.Document{}
		}
		for _, table := range []string{statedb.Bigchain, statedb.Votes} {
			for i := range rapid.IntRange(0, 40).Draw(t, table) {
				id := fmt.Sprintf("%05d", i*7)
				size := rapid.SampledFrom([]int{0, 10, 1000, 2 << 20}).Draw(t, "size")
				d := statedb.Document{ID: id, Body: fmt.Appendf(nil, `{"%s":"%s"}`, id, strings.Repeat("é", size/2))}
				in := parts[rapid.IntRange(0, 1).Draw(t, "file")]
				all[table], in[table] = append(all[table], d), append(in[table], d)
			}
		}
		since, last := "", ""
		for i, part := range parts {
			var out bytes.Buffer
			w, err := NewWriter(&out, since)
			if err != nil {
				t.Fatal(err)
			}
			for _, table := range []string{statedb.Bigchain, statedb.Votes} {
				for _, d := range part[table] {
					if err := w.Add(table, d.ID, d.Body); err != nil {
						t.Fatal(err)
					}
				}
			}
			s, err := w.Close("first", false)
			if err != nil {
				t.Fatal(err)
			}
			since, last = s.Identity, filepath.Join(folder, fmt.Sprint(i))
			if err := os.WriteFile(last, out.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := OpenChain(last)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Check(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		for _, table := range statedb.Tables {
			start := fmt.Sprintf("%05d", rapid.IntRange(0, 300).Draw(t, "start"))
			end := fmt.Sprintf("%05d", rapid.IntRange(0, 300).Draw(t, "end"))
			var got, want []string
			for r := (statedb.Range{Start: start, End: end}); ; {
				r.Limit = rapid.IntRange(1, 30).Draw(t, "limit")
				page, err := c.Range(context.Background(), table, r)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range page.Documents {
					got = append(got, d.ID+string(d.Body))
				}
				if r.Bookmark = page.Bookmark; r.Bookmark == "" {
					break
				}
			}
			for _, d := range all[table] {
				if d.ID >= start && d.ID < end {
					want = append(want, d.ID+string(d.Body))
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s from %s to %s: got %d documents, want %d", table, start, end, len(got), len(want))
			}
		}
	})
}

// TestChain gives files that are not one chain.
func TestChain(t *testing.T) {
	w, full := sampleFile(t, 10)
	folder := t.TempDir()
	place := func(name string) string { return filepath.Join(folder, name) }
	base := mustOpenChain(t, full)
	w.step()
	w.backup(t, place("1"), BackupOptions{Since: base})
	w.step()
	w.backup(t, place("2"), BackupOptions{Since: mustOpenChain(t, full, place("1"))})
	other := newWorld(t, 2, 1)
	other.backup(t, place("other"), BackupOptions{})
	for _, c := range []struct {
		files []string
		says  []string
	}{
		{[]string{full, place("1"), place("2")}, nil},
		{[]string{full, place("2")}, []string{place("2"), full, base.Identity()[:0]}},
		{[]string{full, place("2"), place("1")}, []string{place("2"), full}},
		{[]string{full, place("1"), place("1")}, []string{place("1")}},
		{[]string{full, full}, []string{"is a full backup", full}},
		{[]string{place("1")}, []string{place("1"), base.Identity(), folder}},
		{[]string{place("other"), place("1")}, []string{place("other"), place("1")}},
	} {
		chain, err := OpenChain(c.files...)
		if c.says == nil {
			if err != nil {
				t.Fatal(err)
			}
			chain.Close()
			continue
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: got %v", c.files, err)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q: got %q, want %q in it", c.files, err, part)
			}
		}
	}
	if _, err := Backup(t.Context(), other, &bytes.Buffer{}, BackupOptions{Since: base}); err == nil || !strings.Contains(err.Error(), "another ledger") {
		t.Errorf("since a file of another ledger: got %v", err)
	}
	page, err := base.Range(t.Context(), statedb.Votes, statedb.Range{Limit: 1})
	if err != nil || len(page.Documents) == 0 {
		t.Fatal(page, err)
	}
	delete(w.tables[statedb.Votes], page.Documents[0].ID)
	if _, err := Backup(t.Context(), w, &bytes.Buffer{}, BackupOptions{Since: base}); err == nil || !strings.Contains(err.Error(), "does not have any more") {
		t.Errorf("of a ledger that lost a vote: got %v", err)
	}
}

// FuzzFile reads anything.
func FuzzFile(f *testing.F) {
	_, path := sampleFile(f, 4)
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(headerLine("")))
	f.Add(append([]byte(headerLine(strings.Repeat("0", 64))), binary.BigEndian.AppendUint64(nil, 99)...))
	manifest, err := json.Marshal(Manifest{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(manifest)
	f.Fuzz(func(t *testing.T, content []byte) {
		_, err := readAll(content)
		if err != nil {
			if !errors.Is(err, ErrDamaged) || len(err.Error()) > 600 {
				t.Errorf("got %v", err)
			}
			return
		}
		file, err := open(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		c := &Chain{Files: []*File{file}}
		defer c.Close()
		for _, table := range tables {
			n := 0
			if err := c.each(t.Context(), table, func(statedb.Document) error { n++; return nil }); err != nil || n != file.Manifest.Documents[table] {
				t.Errorf("table %s: %d documents of %d, %v", table, n, file.Manifest.Documents[table], err)
			}
		}
	})
}

// FuzzLine: what is written is read again, what is read was written so.
func FuzzLine(f *testing.F) {
	f.Add(string(line(statedb.Votes, "a:b")))
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.TrimSuffix(text, "\n")
		d, err := readLine([]byte(text), statedb.Votes)
		if err != nil {
			return
		}
		if again := appendLine(nil, statedb.Votes, d.ID, d.Body); string(again) != text+"\n" {
			t.Errorf("%q is read and written as %q", text, again)
		}
	})
}
