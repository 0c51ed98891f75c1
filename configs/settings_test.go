package configs

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

const (
	// The documents' example pair and keyring.
	publicKey  = "8wHUvvraRo5yEoJAt66UTZaFq9YZ9tFFwcauKPDtjkGw"
	privateKey = "5C5Cknco7YxBRP9AgB1cbUVTL4FAcooxErLygw1DeG2D"
	otherKey   = "BnCsre9MPBeQK8QZBFznU2dJJ2GwtvnSMdemCmod2XPB"
	thirdKey   = "4cYQHoQrvPiut3Sjs8fVR1BMZZpJjMTC4bsMTt9V71aQ"
)

// tokenHash is the hash of some token.
var tokenHash = strings.Repeat("a1", 32)

// home is an environment of a user whose home is a new folder.
func home(t testing.TB, more ...string) []string {
	return append([]string{"HOME=" + t.TempDir(), "PATH=/bin"}, more...)
}

// writeConfig puts a file into the folder of a test.
func writeConfig(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// nested writes one setting as the JSON of a file.
func nested(path, value string) string {
	for _, name := range slices.Backward(strings.Split(path, ".")) {
		value = fmt.Sprintf("{%q: %s}", name, value)
	}
	return value
}

// settingCases has for each setting the JSON of a value in a file, a text in
// the environment, and what both mean as show-config has it; and bad ones.
var settingCases = []struct {
	path        string
	inFile      string
	inEnv       string
	want        string
	bad         []string // JSON in a file
	expectation string   // in the error of each bad one
}{
	{"keypair.public", `"` + publicKey + `"`, publicKey, `"` + publicKey + `"`,
		[]string{`1`, `"abc"`, `"` + strings.Repeat("1", 10000) + `"`, `"0OIl"`, `[]`}, "32 bytes in base58"},
	{"keypair.private", `"` + privateKey + `"`, privateKey, `"` + privateKey + `"`,
		[]string{`1`, `"abc"`, `true`}, "32 bytes in base58"},
	{"keyring", `["` + otherKey + `","` + thirdKey + `"]`, otherKey + ":" + thirdKey, `["` + otherKey + `","` + thirdKey + `"]`,
		[]string{`1`, `["` + otherKey + `", "abc"]`, `["` + otherKey + `", 5]`, `"a:b"`, `{}`, `[null]`, `[[]]`}, "each 32 bytes in base58"},
	{"database.backend", `"CouchDB"`, "couchdb", `"couchdb"`, []string{`"postgres"`, `1`}, "embedded, couchdb, mongodb or rethinkdb"},
	{"database.path", `"/d"`, "/d", `"/d"`, []string{`1`, `[]`, `"a\u0000b"`}, "a path"},
	{"database.host", `"db.example"`, "db.example", `"db.example"`, []string{`1`, `"http://db"`, `"db:5984"`, `"user:pw@db"`, `"a b"`}, "host name or an IP"},
	{"database.port", `5`, "5", `5`, []string{`0`, `65536`, `-1`, `1.5`, `"x"`, `true`, `1e3`, strings.Repeat("9", 400)}, "a whole number from 1 to 65535"},
	{"database.name", `"other"`, "other", `"other"`, []string{`"a/b"`, `1`, `"a b"`, `"a.b"`}, "a name without"},
	{"database.replicaset", `"rs1"`, "rs1", `"rs1"`, []string{`1`, `"a\nb"`}, "a text on one line"},
	{"database.ssl", `true`, "True", `true`, []string{`1`, `"maybe"`, `[]`}, "true or false"},
	{"database.login", `"bob"`, "bob", `"bob"`, []string{`1`}, "a text"},
	{"database.password", `"pw"`, "pw", `"pw"`, []string{`1`, `{}`}, "a text"},
	{"database.ca_cert", `"/ca"`, "/ca", `"/ca"`, []string{`1`}, "a path"},
	{"database.certfile", `"/cert"`, "/cert", `"/cert"`, []string{`1`}, "a path"},
	{"database.keyfile", `"/key"`, "/key", `"/key"`, []string{`1`}, "a path"},
	{"database.keyfile_passphrase", `"pp"`, "pp", `"pp"`, []string{`1`}, "a text"},
	{"database.crlfile", `"/crl"`, "/crl", `"/crl"`, []string{`1`}, "a path"},
	{"database.connection_timeout", `7`, "7", `7`, []string{`0`, `-1`, `"5s"`, `99999999999`}, "milliseconds"},
	{"database.max_tries", `0`, "0", `0`, []string{`-1`, `"many"`}, "a whole number from 0"},
	{"database.max_retries", `0`, "0", `0`, []string{`-1`, `2.0`}, "a whole number from 0"},
	{"database.request_timeout", `"1m30s"`, "90s", `"1m30s"`, []string{`35`, `"35"`, `"-1s"`, `"0s"`, `"soon"`}, "a duration with its unit"},
	{"database.internal_query_limit", `5`, "5", `5`, []string{`0`}, "a whole number from 1"},
	{"database.total_query_limit", `5`, "5", `5`, []string{`0`}, "a whole number from 1"},
	{"database.allow_scans", `false`, "no", `false`, []string{`2`, `"maybe"`}, "true or false"},
	{"database.max_batch_update_size", `5`, "5", `5`, []string{`0`}, "a whole number from 1"},
	{"database.shards", `5`, "5", `5`, []string{`0`, `"x"`}, "a whole number from 1"},
	{"database.replicas", `5`, "5", `5`, []string{`0`}, "a whole number from 1"},
	{"state.path", `"/s"`, "/s", `"/s"`, []string{`1`}, "a path"},
	{"indexes.path", `"/i"`, "/i", `"/i"`, []string{`1`}, "a path"},
	{"server.bind", `"[::1]:80"`, "[::1]:80", `"[::1]:80"`,
		[]string{`"localhost"`, `"localhost:"`, `"localhost:http"`, `"localhost:65536"`, `"http://localhost:9984"`, `"unix:/s"`, `"::1:80"`, `9984`}, "host:port"},
	{"server.loglevel", `"DEBUG"`, "Debug", `"debug"`, []string{`"loud"`, `10`}, "critical, error, warning, info, debug or notset"},
	{"server.workers", `5`, "5", `5`, []string{`0`, `"x"`, `100000`}, "a whole number from 1"},
	{"server.threads", `5`, "5", `5`, []string{`0`}, "a whole number from 1"},
	{"server.trust_forwarded", `true`, "yes", `true`, []string{`2`}, "true or false"},
	{"server.tls.certfile", `"/cert"`, "/cert", `"/cert"`, []string{`1`}, "a path"},
	{"server.tls.keyfile", `"/key"`, "/key", `"/key"`, []string{`1`}, "a path"},
	{"server.tls.keyfile_passphrase", `"pp"`, "pp", `"pp"`, []string{`1`}, "a text"},
	{"server.limits.header_timeout", `"5s"`, "5s", `"5s"`, []string{`5`, `"0s"`}, "a duration with its unit"},
	{"server.limits.read_timeout", `"1m0s"`, "60s", `"1m0s"`, []string{`5`, `"-1s"`}, "a duration with its unit"},
	{"server.limits.write_timeout", `"5s"`, "5s", `"5s"`, []string{`true`}, "a duration with its unit"},
	{"server.limits.idle_timeout", `"5s"`, "5s", `"5s"`, []string{`"5"`}, "a duration with its unit"},
	{"server.limits.body_bytes", `70000`, "70000", `70000`, []string{`0`, `1023`, `"1MB"`}, "a whole number from 1024"},
	{"server.limits.header_bytes", `9000`, "9000", `9000`, []string{`100`, `9000000`}, "a whole number from 4096"},
	{"server.limits.connections", `9`, "9", `9`, []string{`0`, `-1`}, "a whole number from 1"},
	{"server.limits.connections_per_client", `9`, "9", `9`, []string{`0`, `"x"`}, "a whole number from 1"},
	{"server.limits.requests_per_second", `9`, "9", `9`, []string{`0`, `0.5`, `2000000`}, "a whole number from 1"},
	{"server.limits.burst", `9`, "9", `9`, []string{`0`}, "a whole number from 1"},
	{"server.limits.backlog", `9`, "9", `9`, []string{`0`}, "a whole number from 1"},
	{"server.cors.origins", `["https://A.example:443", "http://b.example:81"]`, "https://a.example, http://b.example:81", `["https://a.example","http://b.example:81"]`,
		[]string{`1`, `[1]`, `["a.example"]`, `["https://a.example/"]`, `["https://u@a.example"]`, `["ftp://a"]`, `["https://"]`, `["https://a:"]`, `["https://a?b"]`, `["null"]`, `["https://*.example"]`, `"https://a,"`}, "web origins"},
	{"server.tokens", `[{"name": "alice", "hash": "` + tokenHash + `", "may": ["query", "post"]}, {"name": "bob", "hash": "` + strings.Repeat("0b", 32) + `", "may": "query"}]`,
		"alice=all=" + strings.ToUpper(tokenHash) + ":bob=query=" + strings.Repeat("0b", 32),
		`[{"name":"alice","hash":"` + tokenHash + `","may":["post","query"]},{"name":"bob","hash":"` + strings.Repeat("0b", 32) + `","may":["query"]}]`,
		[]string{`1`, `[1]`, `"x"`, `[{}]`, `[{"name": "a b", "hash": "` + tokenHash + `", "may": "all"}]`, `[{"name": "a", "hash": "1234", "may": "all"}]`,
			`[{"name": "a", "hash": "` + tokenHash + `"}]`, `[{"name": "a", "hash": "` + tokenHash + `", "may": ["admin"]}]`, `[{"name": "a", "hash": "` + tokenHash + `", "may": [1]}]`,
			`[{"name": "a", "hash": "` + tokenHash + `", "may": "all", "token": "x"}]`, `"a=all=` + tokenHash + `:b=all=` + tokenHash + `"`}, "64 hexadecimal digits"},
	{"server.anonymous", `["Query"]`, "query", `["query"]`, []string{`1`, `["all"]`, `"x"`}, "a list of post and query"},
	{"backlog_reassign_delay", `30`, "30", `30`, []string{`0`, `"2m"`, `1.5`}, "seconds"},
	{"consensus_plugin", `"mine"`, "mine", `"mine"`, []string{`1`}, "a text"},
	{"log.file", `"/l"`, "/l", `"/l"`, []string{`1`}, "a path"},
	{"log.error_file", `"/e"`, "/e", `"/e"`, []string{`1`}, "a path"},
	{"log.level_console", `"Warning"`, "WARNING", `"warning"`, []string{`"loud"`, `10`}, "critical, error, warning, info, debug or notset"},
	{"log.level_logfile", `"notset"`, "NOTSET", `"notset"`, []string{`"warn"`}, "critical, error, warning, info, debug or notset"},
	{"log.datefmt_console", `"%c"`, "%c", `"%c"`, []string{`"%Q"`, `"%"`, `1`}, "expected"},
	{"log.datefmt_logfile", `"%x"`, "%x", `"%x"`, []string{`"%Y-%"`}, "expected"},
	{"log.fmt_console", `"%(message)s"`, "%(message)s", `"%(message)s"`, []string{`"%(nope)s"`, `"%(message)d"`, `"%s"`, `"%(message"`, `1`}, "expected"},
	{"log.fmt_logfile", `"%(name)s"`, "%(name)s", `"%(name)s"`, []string{`"%(name)q"`}, "expected"},
	{"log.granular_levels", `{"Node.Vote": "Debug", "http": "error"}`, "Node.Vote=debug:http=ERROR", `{"Node.Vote":"debug","http":"error"}`,
		[]string{`1`, `{"a": "loud"}`, `"a"`, `"=debug"`, `["a"]`, `"{"`}, "expected"},
}

// needsOthers are settings that mean nothing without others, which is said.
var needsOthers = map[string]bool{"server.limits.burst": true, "server.anonymous": true}

func TestCasesCoverEverySetting(t *testing.T) {
	var have, want []string
	for _, c := range settingCases {
		have = append(have, c.path)
	}
	for _, s := range table {
		want = append(want, s.path)
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("cases are of %q\nthe table has %q", have, want)
	}
	seen := map[string]string{}
	for name := range names() {
		if other := seen[EnvName(name)]; other != "" && !strings.EqualFold(other, name) {
			t.Errorf("%s and %s are both %s", other, name, EnvName(name))
		}
		seen[EnvName(name)] = name
	}
}

// load loads with a file of the text, "" for none.
func load(t testing.TB, name, text string, env ...string) (Settings, []string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if text != "" {
		path = writeConfig(t, name, text)
	}
	return Load(path, home(t, env...))
}

func TestEverySettingFromEverySource(t *testing.T) {
	for _, c := range settingCases {
		t.Run(c.path, func(t *testing.T) {
			row := byPath[c.path]
			want, err := canonical.Parse([]byte(c.want))
			if err != nil {
				t.Fatal(err)
			}
			check := func(source string, s Settings, warnings []string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", source, err)
				}
				if len(warnings) > 0 && !needsOthers[c.path] {
					t.Errorf("%s: warnings %q", source, warnings)
				}
				if got := row.value(&s); !canonical.Equal(got, want) {
					t.Errorf("%s: got %s, want %s", source, got.Bytes(), c.want)
				}
			}
			fileText := nested(c.path, c.inFile)
			s, warnings, err := load(t, "c", fileText)
			check("file", s, warnings, err)
			for _, format := range []format{formatYAML, formatTOML} {
				name, text := inFormat(t, format, c.path, c.inFile)
				s, warnings, err = load(t, name, text)
				check(name, s, warnings, err)
			}
			s, warnings, err = load(t, "c", "", row.env()+"="+c.inEnv)
			check("environment", s, warnings, err)

			// The environment goes before the file.
			weaker, _, err := load(t, "c", "")
			if err != nil {
				t.Fatal(err)
			}
			if byDefault := row.value(&weaker); !byDefault.IsNull() {
				fileText = nested(c.path, string(byDefault.Bytes()))
			}
			s, warnings, err = load(t, "c", fileText, row.env()+"="+c.inEnv)
			check("environment over file", s, warnings, err)
			// An empty variable and null are as good as none.
			s, warnings, err = load(t, "c", nested(c.path, c.inFile), row.env()+"=")
			check("empty variable", s, warnings, err)
			s, _, err = load(t, "c", nested(c.path, "null"))
			if err != nil || !reflect.DeepEqual(row.value(&s), row.value(&weaker)) && !row.located {
				t.Errorf("null in the file: got %s, %v, want the default", row.value(&s).Bytes(), err)
			}
		})
	}
}

// inFormat writes the JSON of a file in another format.
func inFormat(t *testing.T, f format, path, value string) (name, out string) {
	t.Helper()
	if f == formatYAML {
		return "c.yaml", nested(path, value) // of which JSON is a part
	}
	value = regexp.MustCompile(`": ?(["\[])`).ReplaceAllString(value, `"=$1`) // inline tables
	if i := strings.LastIndexByte(path, '.'); i > 0 {
		return "c.toml", fmt.Sprintf("[%s]\n%s = %s\n", path[:i], path[i+1:], value)
	}
	return "c.toml", path + " = " + value + "\n"
}

func TestEveryMalformedValueIsNamed(t *testing.T) {
	for _, c := range settingCases {
		for _, bad := range c.bad {
			_, _, err := load(t, "c", nested(c.path, bad))
			mustName(t, c.path+" = "+bad+" in a file", err, c.path, c.expectation)

			var text string
			if json.Unmarshal([]byte(bad), &text) != nil || strings.ContainsRune(text, 0) {
				continue // no text that an environment could hold
			}
			name := EnvName(c.path)
			_, _, err = load(t, "c", "", name+"="+text)
			mustName(t, name+"="+text, err, c.path, name, c.expectation)
		}
	}
}

func mustName(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error %q does not have %q", what, err, part)
		}
	}
	if len(err.Error()) > 1000 {
		t.Errorf("%s: an error of %d bytes", what, len(err.Error()))
	}
}

func TestErrorsShowNoSecret(t *testing.T) {
	const secret = "hunter2"
	for _, s := range table {
		if !s.secret {
			continue
		}
		_, _, err := load(t, "c", nested(s.path, `["`+secret+`"]`))
		mustName(t, s.path, err, s.path)
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error of %s shows the value: %v", s.path, err)
		}
	}
	_, _, err := load(t, "c", "", "BIGCHAINDB_KEYPAIR_PRIVATE="+secret)
	if mustName(t, "private key", err, "BIGCHAINDB_KEYPAIR_PRIVATE"); strings.Contains(err.Error(), secret) {
		t.Errorf("the error shows the private key: %v", err)
	}
	for _, path := range []string{"database.host", "server.bind", "server.cors.origins"} {
		_, _, err := load(t, "c", nested(path, `"https://bob:`+secret+`@db.example"`))
		if mustName(t, path, err, path); !strings.Contains(err.Error(), "…@db.example") || strings.Contains(err.Error(), secret) {
			t.Errorf("%s with a login: %v", path, err)
		}
	}
	s, _, err := load(t, "c", "", "BIGCHAINDB_KEYPAIR_PRIVATE="+privateKey, "BIGCHAINDB_DATABASE_PASSWORD="+secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprint(s), fmt.Sprintf("%+v %#v", s, s), fmt.Sprint(s.KeyPair.Private.LogValue()), string(s.Masked().JSON())} {
		if strings.Contains(printed, secret) || strings.Contains(printed, privateKey) {
			t.Errorf("a secret is in %s", printed)
		}
	}
	if got := string(s.Masked().JSON()); strings.Count(got, Mask) != 2 {
		t.Errorf("want two masks in %s", got)
	}
	if s.KeyPair.Private != privateKey {
		t.Error("Masked changed the settings themselves")
	}
}

func TestKeyPair(t *testing.T) {
	s, _, err := load(t, "c", "", "BIGCHAINDB_KEYPAIR_PRIVATE="+privateKey)
	pair, _ := ledger.KeyPairFromPrivate(privateKey)
	if err != nil || s.KeyPair.Public != pair.Public {
		t.Errorf("the private key alone: got %v, %v, want the public key %s", s.KeyPair, err, pair.Public)
	}
	_, _, err = load(t, "c", nested("keypair.private", `"`+privateKey+`"`), "BIGCHAINDB_KEYPAIR_PUBLIC="+otherKey)
	mustName(t, "another's public key", err, "keypair.public", "BIGCHAINDB_KEYPAIR_PUBLIC", "keypair.private", "/c", publicKey)

	keyring := strings.Join([]string{otherKey, publicKey, thirdKey, otherKey}, ":")
	s, _, err = load(t, "c", "", "BIGCHAINDB_KEYPAIR_PUBLIC="+publicKey, "BIGCHAINDB_KEYRING="+keyring)
	if want := []string{otherKey, thirdKey}; err != nil || !slices.Equal(s.Keyring, want) {
		t.Errorf("keyring: got %q, %v, want %q", s.Keyring, err, want)
	}
}
