package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/indexes"
)

// guides are the pages about a backend.
var guides = []string{"backends", "couchdb", "mongodb", "rethinkdb"}

func readGuide(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile("../docs/" + name + ".md")
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestGuides: what the guides refer to is there, their pictures are small, and
// the index that each shows can be deployed as it stands.
func TestGuides(t *testing.T) {
	watchSources()
	for _, name := range guides {
		t.Run(name, func(t *testing.T) {
			text := readGuide(t, name)
			pictures := checkLinks(t, text)
			if name == "couchdb" && pictures < 5 {
				t.Errorf("%d pictures were found", pictures)
			}
			if name != "backends" {
				checkExampleIndex(t, text)
			}
		})
	}
}

// checkLinks sees that what a guide links to is there, and counts its pictures.
func checkLinks(t *testing.T, text string) (pictures int) {
	for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
		target, heading, _ := strings.Cut(link[1], "#")
		if strings.HasPrefix(target, "https://") {
			continue
		}
		if target != "" {
			info, err := os.Stat(filepath.Join("../docs", target))
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
		in := text
		if target != "" && heading != "" {
			in = readGuide(t, strings.TrimSuffix(target, ".md"))
		}
		if heading != "" && !strings.Contains(anchors(in), " "+heading+" ") {
			t.Errorf("there is no heading for %s", link[1])
		}
	}
	return pictures
}

// checkExampleIndex deploys the index that a guide shows.
func checkExampleIndex(t *testing.T, text string) {
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

// TestGuidesCommands: commands, options, settings and services that the guides
// name are there.
func TestGuidesCommands(t *testing.T) {
	skipCommands(t)
	n := newNode(t)
	variables := map[string]bool{"BIGCHAINDB_CONFIG_PATH": true}
	for _, backend := range configs.Backends {
		s, _, err := configs.New(backend, "", []string{"HOME=" + n.home})
		if err != nil {
			t.Fatal(err)
		}
		tree, err := canonical.Parse(s.JSON())
		if err != nil {
			t.Fatal(err)
		}
		for i := range tree.Len() {
			section, name := tree.At(i), "BIGCHAINDB_"+strings.ToUpper(tree.Key(i))
			if section.Kind() != canonical.Object {
				variables[name] = true
				continue
			}
			for j := range section.Len() {
				variables[name+"_"+strings.ToUpper(section.Key(j))] = true
			}
		}
	}
	services := readCompose(t).Services
	commands := 0
	for _, name := range append(guides, "federation", "../README") {
		text := readGuide(t, name)
		for _, variable := range regexp.MustCompile(`BIGCHAINDB_[A-Z_]+`).FindAllString(text, -1) {
			if !variables[variable] {
				t.Errorf("%s: there is no setting for %s", name, variable)
			}
		}
		for _, found := range regexp.MustCompile("(?m)(?:^|`|\\$ )bigchaindb ([^`\n]*)").FindAllStringSubmatch(text, -1) {
			var words []string
			for _, word := range strings.Fields(found[1]) {
				if word == "-c" || strings.ContainsAny(word, "'|…") || regexp.MustCompile(`^[^a-z-]`).MatchString(word) {
					break
				}
				words = append(words, word)
			}
			if len(words) == 0 || strings.Contains(found[1], "<backend>") {
				continue
			}
			commands++
			// Asked for help, an unknown command gets that of the program.
			command := slices.IndexFunc(words, func(word string) bool { return word[0] != '-' })
			code, stdout, stderr := n.run(append(words, "--help")...)
			if code != 0 || command >= 0 && !strings.Contains(stdout, "\n  bigchaindb "+words[command]) {
				t.Errorf("%s: bigchaindb %s: %s%s", name, found[1], stdout, stderr)
			}
		}
		for _, found := range regexp.MustCompile(`docker compose (?:up(?: --detach)?|port) (bdb[a-z-]*)`).FindAllStringSubmatch(text, -1) {
			if _, ok := services[found[1]]; !ok {
				t.Errorf("%s: there is no service %s", name, found[1])
			}
		}
	}
	if commands < 20 {
		t.Errorf("%d commands were found", commands)
	}
}
