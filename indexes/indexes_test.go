package indexes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/couchledger/couchledger/statedb"
)

func TestPackaged(t *testing.T) {
	want := map[string]map[string]string{
		statedb.Bigchain: {"by_timestamp": "block.timestamp", "by_node": "block.node_pubkey block.timestamp"},
		statedb.Votes:    {"by_block": "vote.voting_for_block", "by_voter": "node_pubkey"},
		statedb.Transactions: {
			"by_asset": "asset.id operation", "by_operation": "operation", "by_block": "block_id",
		},
	}
	all := Packaged()
	for table, names := range want {
		if len(all[table]) != len(names) {
			t.Errorf("%s has %d indexes, want %d", table, len(all[table]), len(names))
		}
		for _, index := range all[table] {
			var fields []string
			for _, f := range index.Fields {
				fields = append(fields, f.Field)
			}
			if got := strings.Join(fields, " "); got != names[index.Name] || index.DDoc == "" {
				t.Errorf("%s/%s is over %q with ddoc %q, want %q", table, index.Name, got, index.DDoc, names[index.Name])
			}
		}
	}
}

func TestLoadForms(t *testing.T) {
	all, err := Load(fstest.MapFS{
		"README.md":         {Data: []byte("not an index")},
		".git/config":       {Data: []byte("not a table")},
		"votes/.a.json.swp": {Data: []byte("an editor's")},
		"votes/a.json": {Data: []byte(`{"index":{"fields":[{"x":"desc"},{"y":"desc"}],` +
			`"partial_filter_selector":{"x":{"$gt":1}}},"ddoc":"d","name":"a","type":"json"}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	index := all["votes"][0]
	if !index.Fields[1].Descending || index.Fields[1].Field != "y" || string(index.PartialFilter.Bytes()) != `{"x":{"$gt":1}}` {
		t.Errorf("loaded %+v", index)
	}
}

func TestLoadRefuses(t *testing.T) {
	valid := `{"index":{"fields":["x"]},"ddoc":"a","name":"a","type":"json"}`
	for _, test := range []struct{ file, text, reason string }{
		{"nosuchtable/a.json", valid, "no such table"},
		{"a.json", valid, "outside"},
		{"votes/a.txt", valid, "not a .json file"},
		{"votes/b.json", valid, "same name"},
		{"votes/a.json", `{`, "invalid JSON"},
		{"votes/a.json", `[]`, "not an object"},
		{"votes/a.json", valid[:len(valid)-1] + `,"more":1}`, "not known"},
		{"votes/a.json", `{"index":{"fields":["x"]},"ddoc":"a"}`, "name"},
		{"votes/a.json", `{"index":{"fields":["x"]},"name":"a"}`, "ddoc"},
		{"votes/a.json", `{"index":{"fields":["x"]},"ddoc":"a","name":"a","type":"text"}`, "type"},
		{"votes/a.json", `{"ddoc":"a","name":"a"}`, "index"},
		{"votes/a.json", `{"index":{},"ddoc":"a","name":"a"}`, "fields"},
		{"votes/a.json", `{"index":{"fields":[]},"ddoc":"a","name":"a"}`, "fields"},
		{"votes/a.json", `{"index":{"fields":[1]},"ddoc":"a","name":"a"}`, "fields"},
		{"votes/a.json", `{"index":{"fields":["a..b"]},"ddoc":"a","name":"a"}`, "empty part"},
		{"votes/a.json", `{"index":{"fields":["_id"]},"ddoc":"a","name":"a"}`, "cannot be indexed"},
		{"votes/a.json", `{"index":{"fields":["x","x"]},"ddoc":"a","name":"a"}`, "twice"},
		{"votes/a.json", `{"index":{"fields":[{"x":"up"}]},"ddoc":"a","name":"a"}`, "asc"},
		{"votes/a.json", `{"index":{"fields":[{"x":"asc"},{"y":"desc"}]},"ddoc":"a","name":"a"}`, "all"},
		{"votes/a.json", `{"index":{"fields":["x"],"partial_filter_selector":{"$no":1}},"ddoc":"a","name":"a"}`, "$no"},
	} {
		_, err := Load(fstest.MapFS{test.file: {Data: []byte(test.text)}})
		if err == nil || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s %s: %v, want an error about %q", test.file, test.text, err, test.reason)
			continue
		}
		want := test.file
		if test.reason == "no such table" {
			want = "nosuchtable"
		}
		if !strings.HasPrefix(err.Error(), want+": ") {
			t.Errorf("%s: the error %q does not begin with the file", test.file, err)
		}
	}
	_, err := Load(fstest.MapFS{"votes/a.json": {Data: []byte(valid)}, "votes/b.json": {Data: []byte(valid)}})
	if err == nil || !strings.Contains(err.Error(), "votes/b.json") {
		t.Errorf("two files with one name: %v", err)
	}
}

// TestOwn reads an operator's folder, with a table that is a link.
func TestOwn(t *testing.T) {
	folder, elsewhere := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(elsewhere, "by_owner.json"), `{"index":{"fields":["asset.data.owner"]},"ddoc":"own","name":"by_owner"}`)
	if err := os.Symlink(elsewhere, filepath.Join(folder, "transactions")); err != nil {
		t.Fatal(err)
	}
	own, err := Own(folder)
	if err != nil || len(own) != 1 || len(own["transactions"]) != 1 || own["transactions"][0].Name != "by_owner" {
		t.Fatalf("Own = %+v, %v", own, err)
	}
	all, err := All(folder)
	if err != nil || len(all["transactions"]) != len(Packaged()["transactions"])+1 || len(all["votes"]) != len(Packaged()["votes"]) {
		t.Errorf("All = %+v, %v", all, err)
	}
	if all, err := All(""); err != nil || len(all) != len(Packaged()) {
		t.Errorf("All without a folder = %+v, %v", all, err)
	}

	file := filepath.Join(elsewhere, "by_owner.json")
	for path, parts := range map[string][]string{
		filepath.Join(folder, "nosuch"): {"does not exist", "nosuch"},
		file:                            {"not a folder", file},
	} {
		mustSay(t, path, append(parts, "indexes.path: "))
	}
	write(filepath.Join(folder, "votes", "by_block.json"), `{"index":{"fields":["x"]},"ddoc":"x","name":"by_block"}`)
	mustSay(t, folder, []string{"indexes.path: ", folder, "votes/by_block.json", "packaged"})
	write(filepath.Join(folder, "votes", "by_block.json"), `{"index":`)
	mustSay(t, folder, []string{"indexes.path: ", folder, "votes/by_block.json", "JSON"})
}

func mustSay(t *testing.T, folder string, parts []string) {
	t.Helper()
	_, err := All(folder)
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: %v, want an error of one line", folder, err)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: the error %q does not have %q", folder, err, part)
		}
	}
}
