package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/node/archive"
)

// TestBackup backs a ledger up and restores it: files, stdout, what it says.
func TestBackup(t *testing.T) {
	u := newUser(t)
	file, more := u.file("one.backup"), u.file("two.backup")
	u.must(0, "-y configure embedded", "")
	u.must(1, "backup "+file, "", "`bigchain` does not exist", "`bigchaindb init`")
	u.must(0, "init", "")
	u.must(2, "backup", "", "one FILE")
	u.must(2, "backup a b", "", "one FILE")
	out := u.must(0, "backup "+file, "")
	for _, part := range []string{"identity      ", "2 of blocks, 0 votes", "backlog       not in it", "MB unpacked per second"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in %q", part, out)
		}
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	u.must(1, "backup "+file, "", file+" exists already", "--force")
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, first) {
		t.Error("a refused backup changed the file")
	}
	u.must(0, "backup --force --backlog "+file, "")
	var s archive.Summary
	if err := json.Unmarshal([]byte(u.must(0, "backup --json --since "+file+" "+more, "")), &s); err != nil || len(s.Since) != 64 || s.Documents["bigchain"] != 0 {
		t.Errorf("got %+v, %v", s, err)
	}
	if text := u.must(0, "backup -", "", "identity      "); !strings.HasPrefix(text, "couchledger-backup 1 full\n") {
		t.Errorf("stdout begins with %.60q", text)
	}
	if names, err := filepath.Glob(u.file("*.partial-*")); err != nil || len(names) > 0 {
		t.Errorf("there are still %q, %v", names, err)
	}
	db := u.open()
	u.must(1, "backup "+u.file("locked"), "", "open in another process", "backup FILE --url http://localhost:9984")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if exists(u.file("locked")) {
		t.Error("a backup that failed left a file")
	}

	u.must(2, "restore", "", "FILE")
	u.must(1, "restore "+u.file("none"), "", "no such file")
	u.must(1, "restore "+more, "", "the database is not empty", "`bigchaindb drop`")
	u.must(1, "restore "+more+" "+file, "", file+" is a full backup")
	out = u.must(0, "verify "+more, "")
	for _, part := range []string{"ledger        backup " + s.Identity, "The ledger is sound."} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in %q", part, out)
		}
	}
	u.must(0, "-y drop", "")
	out = u.must(0, "restore "+more, "")
	for _, part := range []string{"into          embedded /", "1 valid", "2 of blocks"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in %q", part, out)
		}
	}
	u.must(0, "verify", "", "")
	u.must(0, "-y drop", "")
	if out := u.must(0, "restore --json "+file+" "+more, ""); !strings.Contains(out, `"into":"embedded /`) || !strings.Contains(out, `"valid":1`) {
		t.Errorf("got %q", out)
	}
}

// TestBackupInterrupted leaves nothing.
func TestBackupInterrupted(t *testing.T) {
	u := newUser(t)
	u.must(0, "-y configure embedded", "")
	u.must(0, "init", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs strings.Builder
	code := run(ctx, []string{"backup", u.file("file")}, u.environ, strings.NewReader(""), &out, &errs)
	if code != 1 || !strings.Contains(errs.String(), "interrupted; no file was written") {
		t.Errorf("code %d, stderr %q", code, errs.String())
	}
	if names, err := filepath.Glob(u.file("file*")); err != nil || len(names) > 0 {
		t.Errorf("there are %q, %v", names, err)
	}
}
