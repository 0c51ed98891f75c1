package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/node/verify"
)

// TestOperationsGuide: the rules in docs/operations.md are those of the
// program, and what it refers to is there.
func TestOperationsGuide(t *testing.T) {
	watchSources()
	const guide = "../docs/operations.md"
	content, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	var rows []string
	for _, r := range verify.Rules {
		rows = append(rows, "| `"+string(r.Rule)+"` | "+r.Text+" |")
	}
	if table := strings.Join(rows, "\n"); !strings.Contains(text, table) {
		t.Errorf("the table of rules should be\n%s", table)
	}
	for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
		if heading, ok := strings.CutPrefix(link[1], "#"); ok {
			if !strings.Contains(anchors(text), " "+heading+" ") {
				t.Errorf("there is no heading for #%s", heading)
			}
		} else if _, err := os.Stat(filepath.Join(filepath.Dir(guide), link[1])); err != nil {
			t.Error(err)
		}
	}
}
