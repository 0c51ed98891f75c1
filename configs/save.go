package configs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"

	"github.com/couchledger/couchledger/canonical"
)

// fileMode is a config file's: it holds the private key.
const fileMode fs.FileMode = 0o600

// Masked is a copy without its secrets, each replaced by Mask.
func (s Settings) Masked() Settings {
	for _, row := range table {
		if row.secret {
			row.mask(&s)
		}
	}
	return s
}

// JSON prints every setting, secrets too: sorted, indented, null for what is
// not set.
func (s Settings) JSON() []byte {
	return indented(s.tree(func(*setting) bool { return true }))
}

// Encode prints the settings as a config file for path: those that mean
// something to the backend, in the format that the path's extension asks for
// (JSON for "-"). Folders that are where they are because the file is there
// are left null, so that all can be moved together.
func (s Settings) Encode(path string) ([]byte, error) {
	elsewhere := Settings{File: path, Database: Database{Backend: s.Database.Backend}}
	if path == "-" {
		elsewhere.File = s.File
	}
	tree := s.tree(func(row *setting) bool {
		if !row.located {
			return row.of(s.Database.Backend)
		}
		row.byDefault(&elsewhere)
		return row.of(s.Database.Backend) && !canonical.Equal(row.value(&elsewhere), row.value(&s))
	})
	f := formatOf(path)
	if f == formatJSON {
		return indented(tree), nil
	}
	var plain map[string]any
	decoder := json.NewDecoder(bytes.NewReader(tree.Bytes()))
	decoder.UseNumber()
	if err := decoder.Decode(&plain); err != nil {
		return nil, err
	}
	numbersOf(plain, f == formatTOML)
	if f == formatTOML {
		return toml.Marshal(plain)
	}
	return yaml.Marshal(plain)
}

// tree gathers settings by section; those that keep refuses are null when they
// mean something to the backend, else absent.
func (s Settings) tree(keep func(*setting) bool) canonical.Value {
	root := canonical.ObjectOf()
	for _, row := range table {
		value := row.value(&s)
		if !keep(row) {
			if !row.of(s.Database.Backend) {
				continue
			}
			value = canonical.Value{}
		}
		root = placed(root, row.path, value)
	}
	return root
}

// placed puts a value under a path of names with dots between them.
func placed(tree canonical.Value, path string, value canonical.Value) canonical.Value {
	section, rest, found := strings.Cut(path, ".")
	if !found {
		return tree.With(path, value)
	}
	members, ok := tree.Get(section)
	if !ok {
		members = canonical.ObjectOf()
	}
	return tree.With(section, placed(members, rest, value))
}

func indented(tree canonical.Value) []byte {
	var out bytes.Buffer
	if err := json.Indent(&out, tree.Bytes(), "", "    "); err != nil { // canonical prints JSON
		panic(err)
	}
	out.WriteByte('\n')
	return out.Bytes()
}

// numbersOf makes integers of JSON's numbers, the only ones settings have, and
// takes null away where the format does not know it.
func numbersOf(section map[string]any, dropNull bool) {
	for key, value := range section {
		switch v := value.(type) {
		case json.Number:
			if n, err := v.Int64(); err == nil {
				section[key] = n
			}
		case map[string]any:
			numbersOf(v, dropNull)
		case nil:
			if dropNull {
				delete(section, key)
			}
		}
	}
}

// Save writes the settings as a config file, whole or not at all, with mode
// 0600. Where there is a file already, Save fails with fs.ErrExist unless
// replace is set; then the old one is kept under the name it returns,
// <path>.bak, and an older .bak as .bak.1 and so on.
func (s Settings) Save(path string, replace bool) (backup string, err error) {
	data, err := s.Encode(path)
	if err != nil {
		return "", err
	}
	// A link's target is what is replaced, so that the link stays one.
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", writeFile(path, data)
	case err != nil:
		return "", fmt.Errorf("config file %s cannot be kept before it is replaced: %w", path, err)
	case !replace:
		return "", fmt.Errorf("config file %s: %w", path, fs.ErrExist)
	}
	backup = path + ".bak"
	if err := moveAside(backup); err != nil {
		return "", fmt.Errorf("%s cannot be kept: %w", backup, err)
	}
	if err := writeFile(backup, old); err != nil {
		return "", err
	}
	return backup, writeFile(path, data)
}

// moveAside gives a file the first free name with a number, if it is there.
func moveAside(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for n := 1; ; n++ {
		free := fmt.Sprintf("%s.%d", path, n)
		if _, err := os.Lstat(free); errors.Is(err, fs.ErrNotExist) {
			return os.Rename(path, free)
		} else if err != nil {
			return err
		}
	}
}

// writeFile puts a file in place with a rename, after it and before its folder
// are synced: after a crash either the old or the new one is there.
func writeFile(path string, data []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("config file %s cannot be written: %w", path, err)
		}
	}()
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // fails once it is renamed
	_, err = file.Write(data)
	if err == nil {
		err = file.Chmod(fileMode)
	}
	if err == nil {
		err = file.Sync()
	}
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// Prompt is a question of configure.
type Prompt struct {
	Path     string // the setting's
	Question string
	Default  string // "" for none
	Env      string // the setting's name in the environment
	Secret   bool   // the answer is not to be seen
}

// Prompts lists what is asked for the backend, with the values at hand.
// Secrets that the environment has are not asked for.
func (s Settings) Prompts(environ []string) []Prompt {
	env := variables(environ)
	var prompts []Prompt
	for _, row := range table {
		if row.prompt == "" || !row.of(s.Database.Backend) || row.secret && env[row.env()] != "" {
			continue
		}
		p := Prompt{Path: row.path, Question: row.prompt, Env: row.env(), Secret: row.secret}
		if value := row.value(&s); value.Kind() == canonical.Bool {
			p.Default = string(value.Bytes())
		} else if !row.secret {
			p.Default = value.Text()
		}
		prompts = append(prompts, p)
	}
	return prompts
}
