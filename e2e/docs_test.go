package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/indexes"
)

// TestCouchDBGuide: what docs/couchdb.md refers to is there, its pictures are
// small, and the index that it shows can be deployed as it stands.
func TestCouchDBGuide(t *testing.T) {
	watchSources()
	const guide = "../docs/couchdb.md"
	content, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	pictures := 0
	for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
		target := link[1]
		if heading, ok := strings.CutPrefix(target, "#"); ok {
			if !strings.Contains(anchors(text), " "+heading+" ") {
				t.Errorf("there is no heading for #%s", heading)
			}
			continue
		}
		if strings.HasPrefix(target, "https://") {
			continue
		}
		info, err := os.Stat(filepath.Join(filepath.Dir(guide), target))
		if err != nil {
			t.Error(err)
			continue
		}
		if strings.HasSuffix(target, ".png") {
			const most = 150_000
			if pictures++; info.Size() > most {
				t.Errorf("%s has %d bytes, %d at most", target, info.Size(), most)
			}
		}
	}
	if pictures < 5 {
		t.Errorf("%d pictures were found", pictures)
	}

	example := regexp.MustCompile("(?s)`(transactions/[a-z_]+\\.json)`.*?```json\n(.*?)```").FindStringSubmatch(text)
	if example == nil {
		t.Fatal("no index is shown")
	}
	file := filepath.Join(t.TempDir(), example[1])
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(example[2]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := indexes.All(filepath.Dir(filepath.Dir(file))); err != nil {
		t.Errorf("the index shown as %s: %v", example[1], err)
	}
}

// anchors are the targets that GitHub makes of a text's headings, with a space
// before and after each.
func anchors(text string) string {
	list := " "
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")
		list += regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(name, "") + " "
	}
	return list
}
