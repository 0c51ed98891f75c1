package simulator

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bugs are slips that a node could have. Each is one change of its sources.
var bugs = []struct {
	name, file string
	from, to   string // what stands there once, and what instead
	found      string // what the schedules say then; any of these, between bars
}{
	{
		"votes before it checks what is spent", "node/voter.go",
		"err = n.rules.CheckSpends(t, proof, view)\n", "_, _, err = proof, view, error(nil)\n",
		"and both spend output|is valid in block|is in two valid blocks",
	},
	{
		"skips the signatures of transactions", "node/consensus/transactions.go",
		"if !fulfillment.Valid(t.SigningMessage(i)) {", "if fulfillment.Valid(t.SigningMessage(i)); false {",
		"was made unsound",
	},
	{
		"skips the signatures of votes", "node/ledger/vote.go",
		"{ return verify(v.NodePubkey, v.appendInner(nil), v.Signature) }", "{ return true }",
		"and both spend output|was made unsound|is in two valid blocks|is valid in block|each time after",
	},
	{
		"forgets the undecided", "node/voter.go",
		"undecided, err := n.state.Undecided()", "undecided, err := []string(nil), error(nil)",
		"is not decided at node",
	},
	{
		"does not read its own votes back", "node/node.go",
		"n.allVotes = n.journal.Fresh()", "n.allVotes = false",
		"each time after",
	},
}

// TestSeededBugs builds the simulator with one bug at a time, which must be found.
func TestSeededBugs(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("builds the nodes anew for each bug")
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go tool: ", err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, bug := range bugs {
		t.Run(strings.ReplaceAll(bug.name, " ", "-"), func(t *testing.T) {
			folder := t.TempDir()
			path := filepath.Join(root, filepath.FromSlash(bug.file))
			source, err := os.ReadFile(path)
			if err != nil {
				t.Skip("the sources are not here: ", err)
			}
			if n := strings.Count(string(source), bug.from); n != 1 {
				t.Fatalf("%s has %q %d times, want once", bug.file, bug.from, n)
			}
			changed := filepath.Join(folder, "changed.go")
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
			must(err)
			must(os.WriteFile(changed, []byte(strings.Replace(string(source), bug.from, bug.to, 1)), 0o600))
			must(os.WriteFile(filepath.Join(folder, "overlay.json"), overlay, 0o600))
			binary := filepath.Join(folder, "simulator.test")
			build := exec.CommandContext(t.Context(), tool, "test", "-c", "-overlay", filepath.Join(folder, "overlay.json"), "-o", binary, ".")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
			_, failures := workers{binary: binary, kind: "shared", from: 1, count: wanted(t, 4000), enough: 1}.run(t)
			for _, f := range failures {
				for _, found := range strings.Split(bug.found, "|") {
					if strings.Contains(f.text, found) {
						t.Logf("seed %d: %s", f.seed, f.text)
						return
					}
				}
			}
			t.Errorf("no schedule found it: %v", failures)
		})
	}
}
