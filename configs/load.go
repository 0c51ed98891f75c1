package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

// Names in the environment that are not a setting's own.
const (
	envPrefix = "BIGCHAINDB_"
	// EnvFile tells where the config file is.
	EnvFile = "BIGCHAINDB_CONFIG_PATH"
	// envLog holds the whole log section as JSON; the names of its settings
	// go before it.
	envLog = "BIGCHAINDB_LOG"
	// EnvToken holds the token that commands show to a running node.
	EnvToken = "BIGCHAINDB_API_TOKEN"
)

// defaultFile is the config file's name in the home folder.
const defaultFile = ".bigchaindb"

// FilePath tells where the config file is: path if it is given, else
// BIGCHAINDB_CONFIG_PATH, else .bigchaindb in the home folder, "" when that is
// not known either. chosen is whether somebody chose it: it is not the last.
func FilePath(path string, environ []string) (file string, chosen bool) {
	env := variables(environ)
	if path == "" {
		path = env[EnvFile]
	}
	from := origin{home: env["HOME"]}
	if path != "" {
		expanded, ok := from.expand(path)
		if !ok {
			return path, true
		}
		return expanded, true
	}
	if from.home == "" {
		return "", false
	}
	return filepath.Join(from.home, defaultFile), false
}

// Load reads the settings from the environment, in the form of os.Environ,
// and the config file that FilePath finds. That the file is not there is no
// error; FileExists tells. Warnings are sentences for the operator. The error
// names every setting that is wrong, where it stands and what is expected, and
// shows no secret.
func Load(path string, environ []string) (Settings, []string, error) {
	l := newLoader(path, environ)
	if l.settings.File != "" {
		tree, open, err := readFile(l.settings.File)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return Settings{}, nil, err
		default:
			l.settings.FileExists = true
			l.file(tree)
			if held := l.secrets(); open && len(held) > 0 {
				l.warn(fmt.Sprintf("config file %s holds %s and others may read it: chmod 600 %s", l.settings.File, strings.Join(held, " and "), l.settings.File))
			}
		}
	}
	l.environment()
	return l.finish()
}

// secrets names those that were given so far.
func (l *loader) secrets() []string {
	var held []string
	for _, s := range table {
		if s.secret && l.sources[s.path] != "" {
			held = append(held, s.path)
		}
	}
	return held
}

// New makes the settings of a config file that is about to be written at path:
// the backend's defaults and what the environment sets, without a key pair.
// Keys and passwords of the environment are left there.
func New(backend, path string, environ []string) (Settings, []string, error) {
	l := newLoader(path, environ)
	for _, s := range table {
		if name := s.env(); l.env[name] != "" && (s.secret || strings.HasPrefix(s.path, "keypair.")) {
			l.warn(name + " is not written to the file; as long as it is in the environment it goes before the file")
			l.env[name] = ""
		}
	}
	if other := l.env[EnvName("database.backend")]; other != "" && !strings.EqualFold(other, backend) {
		l.warn(fmt.Sprintf("%s=%s in the environment goes before the file's %s", EnvName("database.backend"), other, backend))
	}
	l.env[EnvName("database.backend")] = backend
	l.environment()
	return l.finish()
}

// loader gathers settings from their sources, the weakest first.
type loader struct {
	settings Settings
	env      map[string]string
	home     string
	sources  map[string]string // where a setting was given, by its path
	warnings []string
	faults   []error
}

func newLoader(path string, environ []string) *loader {
	l := &loader{env: variables(environ), sources: map[string]string{}}
	l.home = l.env["HOME"]
	l.settings.File, _ = FilePath(path, environ)
	return l
}

func variables(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		env[name] = value
	}
	return env
}

func (l *loader) warn(line string) {
	if line != "" && !slices.Contains(l.warnings, line) {
		l.warnings = append(l.warnings, line)
	}
}

func (l *loader) file(tree canonical.Value) {
	from := origin{home: l.home}
	if absolute, err := filepath.Abs(l.settings.File); err == nil {
		from.folder = filepath.Dir(absolute)
	}
	l.section(tree, "", "in "+l.settings.File, from)
}

// section takes the settings of one object; prefix is its path with a dot.
func (l *loader) section(tree canonical.Value, prefix, source string, from origin) {
	for i := range tree.Len() {
		if len(l.faults) >= mostFaults {
			return
		}
		path, value := prefix+tree.Key(i), tree.At(i)
		line, isRetired := retired[path]
		switch s := byPath[path]; {
		case s != nil:
			l.take(s, value, source, from)
		case isRetired:
			l.warn(line)
		case !isSection(path):
			l.fault(path, source, unknownKey(path))
		case value.Kind() == canonical.Object:
			l.section(value, path+".", source, from)
		case !value.IsNull():
			l.fault(path, source, expectation("a section with settings, got "+value.Kind().String()))
		}
	}
}

// take sets one setting. null and the empty text leave it as it is: they are
// how files and environments write that something is not set.
func (l *loader) take(s *setting, value canonical.Value, source string, from origin) {
	if value.IsNull() || value.Kind() == canonical.String && value.Text() == "" {
		return
	}
	if err := s.set(&l.settings, value, from); err != nil {
		l.fault(s.path, source, s.withValue(err, value))
		return
	}
	l.sources[s.path] = source
}

// withValue adds what was got to what was expected, unless it is a secret.
func (s *setting) withValue(err error, value canonical.Value) error {
	if s.secret || s.unquoted {
		return err
	}
	switch value.Kind() {
	case canonical.Array, canonical.Object:
		return fmt.Errorf("%w, got an %s", err, value.Kind())
	case canonical.String:
		text := value.Text()
		if at := strings.LastIndexByte(text, '@'); at >= 0 { // a login may stand before it
			text = "…" + text[at:]
		}
		return fmt.Errorf("%w, got %s", err, quoted(text))
	}
	return fmt.Errorf("%w, got %s", err, strings.Trim(quoted(string(value.Bytes())), `"`))
}

// mostFaults are told at a time; a file with more is not a config file.
const mostFaults = 10

func (l *loader) fault(path, source string, reason error) {
	if shown := quoted(path); shown != `"`+path+`"` { // long, or not of one line
		path = shown
	}
	l.faults = append(l.faults, fmt.Errorf("%s (%s): %w", path, source, reason))
}

// environment takes every setting of the environment, and warns of names with
// the prefix that are none.
func (l *loader) environment() {
	from := origin{home: l.home}
	if text := l.env[envLog]; text != "" {
		tree, err := canonical.ParseWithin([]byte(text), canonical.Limits{Depth: maxDepth})
		if err != nil || tree.Kind() != canonical.Object {
			l.fault("log", envLog, expectation("the section of the log settings as a JSON object"))
		} else {
			l.section(tree, "log.", envLog, from)
		}
	}
	known := map[string]bool{EnvFile: true, envLog: true, EnvToken: true}
	for _, s := range table {
		known[s.env()] = true
		l.take(s, canonical.StringOf(l.env[s.env()]), s.env(), from)
	}
	lines := make(map[string]string, len(retired))
	for path, line := range retired {
		lines[EnvName(path)] = line
	}
	var strangers []string
	for name := range l.env {
		if strings.HasPrefix(name, envPrefix) && !known[name] {
			strangers = append(strangers, name)
		}
	}
	slices.Sort(strangers)
	for _, name := range strangers {
		if line, ok := lines[name]; ok {
			l.warn(line)
			continue
		}
		line := name + " in the environment is not the name of a setting"
		if near := nearest(name, slices.Collect(maps.Keys(known))); near != "" {
			line += "; did you mean " + near + "?"
		}
		l.warn(line)
	}
}

// finish fills in the defaults and checks what depends on several settings.
func (l *loader) finish() (Settings, []string, error) {
	for _, s := range table {
		if l.sources[s.path] == "" {
			s.byDefault(&l.settings)
		}
	}
	l.checkKeys()
	l.checkPaths()
	l.checkServer()
	l.checkAPI()
	if len(l.faults) > 0 {
		return Settings{}, l.warnings, errors.Join(l.faults...)
	}
	return l.settings, l.warnings, nil
}

// checkKeys derives the public key where only the private one is given, sees
// that they belong together, and keeps one's own key and repeats out of the
// keyring.
func (l *loader) checkKeys() {
	keys := &l.settings.KeyPair
	if keys.Private != "" {
		pair, err := ledger.KeyPairFromPrivate(string(keys.Private))
		switch {
		case err != nil:
			l.fault("keypair.private", l.sources["keypair.private"], err)
		case keys.Public == "":
			keys.Public = pair.Public
		case keys.Public != pair.Public:
			l.fault("keypair.public", l.sources["keypair.public"],
				fmt.Errorf("expected the public key of keypair.private (%s), which is %s, got %s", l.sources["keypair.private"], pair.Public, keys.Public))
		}
	}
	var others []string
	for _, key := range l.settings.Keyring {
		if key != keys.Public && !slices.Contains(others, key) {
			others = append(others, key)
		}
	}
	l.settings.Keyring = others
}

// checkPaths sees that the folders of the node's data are known and are not
// one inside the other.
func (l *loader) checkPaths() {
	state, data := l.settings.State.Path, l.settings.Database.Path
	missing := errors.New("there is no config file to put it beside, since HOME is not set: give a folder")
	if state == "" && l.sources["state.path"] == "" {
		l.fault("state.path", EnvName("state.path"), missing)
	}
	if l.settings.Database.Backend != Embedded {
		return
	}
	if data == "" && l.sources["database.path"] == "" {
		l.fault("database.path", EnvName("database.path"), missing)
	}
	if state != "" && data != "" && (within(state, data) || within(data, state)) {
		l.fault("state.path", state, fmt.Errorf("expected a folder apart from database.path, %s", data))
	}
}

// within reports whether path is folder or lies in it.
func within(path, folder string) bool {
	relative, err := filepath.Rel(folder, path)
	return err == nil && relative != ".." && !strings.HasPrefix(relative, ".."+string(filepath.Separator))
}

// Set sets one setting by its path from a text as it would stand in the
// environment; "" leaves it as it is. The error says what is expected.
func (s *Settings) Set(path, text string, environ []string) error {
	row := byPath[path]
	if row == nil {
		return unknownKey(path)
	}
	if text == "" {
		return nil
	}
	value := canonical.StringOf(text)
	if path == "database.name" {
		if err := nameFits(s.Database.Backend, text); err != nil {
			return row.withValue(err, value)
		}
	}
	if err := row.set(s, value, origin{home: variables(environ)["HOME"]}); err != nil {
		return row.withValue(err, value)
	}
	return nil
}
