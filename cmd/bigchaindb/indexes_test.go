package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/indexes"
	"github.com/couchledger/couchledger/statedb"
)

// open opens the embedded database of the user's settings.
func (u *user) open() statedb.DB {
	u.t.Helper()
	s, _, err := configs.Load("", u.environ)
	if err != nil {
		u.t.Fatal(err)
	}
	db, err := openDatabase(context.Background(), s, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		u.t.Fatal(err)
	}
	return db
}

// ownIndexes makes a folder with the operator's index by_owner over the field.
func (u *user) ownIndexes(field string) (file string) {
	u.t.Helper()
	if err := os.MkdirAll(u.file("own/transactions"), 0o700); err != nil {
		u.t.Fatal(err)
	}
	return u.write("own/transactions/by_owner.json", fmt.Sprintf(`{"index":{"fields":[%q]},"ddoc":"own","name":"by_owner"}`, field))
}

// row finds the line of an index in the list, its columns with one space between.
func (u *user) row(list, table, name string) string {
	u.t.Helper()
	for line := range strings.Lines(list) {
		words := strings.Fields(line)
		if len(words) > 1 && words[0] == table && words[1] == name {
			return strings.Join(words[2:], " ")
		}
	}
	u.t.Errorf("%s/%s is not in the list\n%s", table, name, list)
	return ""
}

func TestIndexesListAndDeploy(t *testing.T) {
	u := newUser(t, "BIGCHAINDB_INDEXES_PATH=~/own")
	u.ownIndexes("asset.data.owner")
	u.must(0, "-y configure embedded", "")
	for _, command := range []string{"indexes list", "indexes deploy", "indexes explain votes {}"} {
		u.must(1, command, "", "`bigchain` does not exist", "`bigchaindb init`")
	}
	if exists(u.file(".bigchaindb-data")) {
		t.Error("a folder was made for a database that is not there")
	}

	db := u.open()
	if _, err := db.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	field := func(name string) []statedb.SortField { return []statedb.SortField{{Field: name, Descending: true}} }
	if err := db.DeployIndexes(t.Context(), statedb.Votes, []statedb.Index{
		{Name: "by_voter", DDoc: "by_voter", Fields: field("x")},
		{Name: "mine", DDoc: "mine", Fields: field("y")},
	}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Write(t.Context(), statedb.Transactions, []statedb.Write{{ID: "a", Body: []byte(`{}`)}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := db.DeployIndexes(ctx, statedb.Transactions, indexes.Packaged()[statedb.Transactions], func([]statedb.IndexState) { cancel() }); err == nil {
		t.Fatal("a deployment that is broken off succeeded")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	list := u.must(0, "indexes list", "")
	for index, want := range map[string]string{
		"votes by_voter":        "node_pubkey packaged definition differs",
		"votes by_block":        "vote.voting_for_block packaged not deployed",
		"votes mine":            "-y other ready",
		"transactions by_owner": "asset.data.owner operator's not deployed",
		"transactions by_block": "block_id packaged building 0 of 1",
	} {
		table, name, _ := strings.Cut(index, " ")
		if got := u.row(list, table, name); got != want {
			t.Errorf("%s: got %q, want %q", index, got, want)
		}
	}

	u.must(0, "indexes deploy", "", "Deployed votes/by_voter (before: definition differs)", "Deployed transactions/by_owner", "All 9 indexes are ready.")
	list = u.must(0, "indexes list", "")
	for _, index := range []string{"votes by_voter", "votes by_block", "votes mine", "transactions by_owner", "transactions by_asset"} {
		table, name, _ := strings.Cut(index, " ")
		if got := u.row(list, table, name); !strings.HasSuffix(got, " ready") {
			t.Errorf("%s after deploy: %q", index, got)
		}
	}
	if _, _, stderr := u.run("indexes deploy", ""); stderr != "All 9 indexes are ready.\n" {
		t.Errorf("a second deploy says %q", stderr)
	}

	// A changed definition goes out with init too, though the database is there.
	u.ownIndexes("asset.data.holder")
	if got := u.row(u.must(0, "indexes list", ""), "transactions", "by_owner"); got != "asset.data.holder operator's definition differs" {
		t.Errorf("a changed file: %q", got)
	}
	u.must(0, "init", "", "already exists")
	if got := u.row(u.must(0, "indexes list", ""), "transactions", "by_owner"); got != "asset.data.holder operator's ready" {
		t.Errorf("a changed file after init: %q", got)
	}
}

func TestIndexesExplain(t *testing.T) {
	u := newUser(t)
	u.must(0, "-y configure embedded", "")
	u.must(0, "init", "")
	for line, parts := range map[string][]string{
		`transactions {"asset.id":"x","operation":"TRANSFER"}`:                                    {"index: by_asset (asset.id, operation)\n", "which is the whole selector"},
		`bigchain {"block.timestamp":{"$gt":1}} --sort -block.timestamp`:                          {"index: by_timestamp (block.timestamp)\n"},
		`bigchain {"block.timestamp":{"$gt":1},"block.node_pubkey":"x"} --use-index by_timestamp`: {"index: by_timestamp", "matched against the rest"},
		`votes {"nosuch":1}`: {"index: none\nreads: every document of votes\n"},
		`votes {"_id":"x"}`:  {"index: none\nreads: documents by id\n"},
	} {
		out := u.must(0, "indexes explain "+line, "")
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("%s: %q does not have %q", line, out, part)
			}
		}
	}
	for line, parts := range map[string][]string{
		`votes {"x":1} --sort x`:           {"no usable index"},
		`votes {"x":1} --use-index nosuch`: {`"nosuch"`},
		`votes {"$no":1}`:                  {"$no"},
		`votes {"x":1,"y":2} --sort x,-y`:  {"all fields must ascend"},
	} {
		u.must(1, "indexes explain "+line, "", parts...)
	}
	for line, parts := range map[string][]string{
		"indexes explain votes":     {"a table and a selector", "explain TABLE SELECTOR"},
		"indexes explain nosuch {}": {`"nosuch"`, "backlog, bigchain, votes, transactions"},
		"indexes explain votes {":   {"the selector", "JSON"},
		"indexes nosuch":            {`no command "nosuch"`},
		"indexes list more":         {`"more"`},
	} {
		u.must(2, line, "", parts...)
	}

	db := u.open() // as a running node does
	defer db.Close()
	for _, line := range []string{"list", "deploy", "explain votes {}"} {
		u.must(1, "indexes "+line, "", "open in another process", "POST http://localhost:9984/api/v1/query/explain")
	}
}

// TestOwnIndexesThatAreWrong: one sentence with the setting and the file, and
// nothing is made.
func TestOwnIndexesThatAreWrong(t *testing.T) {
	u := newUser(t, "BIGCHAINDB_INDEXES_PATH=~/own")
	commands := func(parts ...string) {
		t.Helper()
		for _, command := range []string{"init", "indexes list", "indexes deploy"} {
			u.must(1, "-c "+u.file("c.json")+" "+command, "", parts...)
		}
		if _, _, _, err := u.starts(""); err == nil || !strings.Contains(err.Error(), parts[0]) {
			t.Errorf("start: %v", err)
		}
		for _, name := range []string{".bigchaindb", ".bigchaindb-data", "c.json-data"} {
			if exists(u.file(name)) {
				t.Errorf("%s was made", name)
			}
		}
	}
	u.must(0, "-y configure embedded -c "+u.file("c.json"), "")
	commands("indexes.path: the folder " + u.file("own") + " does not exist")
	file := u.ownIndexes("x..y")
	commands("indexes.path: in "+u.file("own")+": transactions/by_owner.json: ", "empty part")
	if err := os.Rename(file, filepath.Join(filepath.Dir(file), "by_asset.json")); err != nil {
		t.Fatal(err)
	}
	u.write("own/transactions/by_asset.json", `{"index":{"fields":["x"]},"ddoc":"own","name":"by_asset"}`)
	commands("indexes.path: in "+u.file("own")+": transactions/by_asset.json: ", "packaged")
}

// told runs a progress over half a minute of building, a word every tenth of a
// second, and gives what it wrote.
func told(width int) string {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	p := &buildProgress{progressLine: progressLine{out: &out, width: width, now: func() time.Time { return now }}}
	p.tell("backlog", []statedb.IndexState{{Index: statedb.Index{Name: "quick"}, Pending: 1, Total: 1}})
	for tenth := range 300 {
		now = now.Add(time.Second / 10)
		p.tell("votes", []statedb.IndexState{{Index: statedb.Index{Name: "a"}, Pending: 3000 - 10*tenth, Total: 3000}, {Index: statedb.Index{Name: "b"}}})
	}
	p.tell("transactions", nil) // nothing to do
	p.end()
	return out.String()
}

func TestBuildProgressOnATerminal(t *testing.T) {
	got := told(200)
	if n := strings.Count(got, "\r"); n < 100 || n > 160 {
		t.Errorf("the line was written %d times in 29 seconds", n)
	}
	if strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\rBuilt votes a: 3000 documents in 30s\x1b[K\n") {
		t.Errorf("it ends with %q", got[max(0, len(got)-80):])
	}
	if want := "\rBuilding votes a: 2000 of 3000 documents, 100/s, 10s to go\x1b[K"; !strings.Contains(got, want) {
		t.Errorf("no %q in %q", want, got)
	}
	for line := range strings.SplitSeq(told(30), "\r") {
		if line = strings.TrimSuffix(strings.TrimSpace(line), "\x1b[K"); len(line) > 29 {
			t.Errorf("%q does not fit a terminal of 30", line)
		}
	}
}

func TestBuildProgressInAFile(t *testing.T) {
	want := "Building votes a: 100 of 3000 documents, 100/s, 29s to go\n" +
		"Building votes a: 1100 of 3000 documents, 100/s, 19s to go\n" +
		"Building votes a: 2100 of 3000 documents, 100/s, 9s to go\n" +
		"Built votes a: 3000 documents in 30s\n"
	if got := told(0); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
