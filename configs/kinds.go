package configs

import (
	"fmt"
	"maps"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/logging/layout"
	"github.com/couchledger/couchledger/node/ledger"
)

// Largest numbers taken: a delay of maxNumber seconds still is a
// time.Duration, and maxWorkers² an int on every machine.
const (
	maxNumber  = math.MaxInt32
	maxWorkers = math.MaxInt16
)

// kind is how values of one type are written. Whatever the type, text is read
// as it would be in the environment: BigchainDB wrote values it had from
// there into its files as text ("port": "28015", "keyring": "a:b").
type kind[T any] struct {
	// parse reads a value that is not null and not "". Its error says what
	// is expected and not what was got.
	parse func(canonical.Value, origin) (T, error)
	// print writes it as parse takes it, null when it is not set.
	print func(T) canonical.Value
}

// origin is where a value comes from, as far as paths depend on it.
type origin struct {
	folder string // that relative paths start from; "" for the working directory
	home   string // that ~ stands for; "" when not known
}

// expectation is an error that says what a value should be.
type expectation string

func (e expectation) Error() string { return "expected " + string(e) }

// texts makes a kind from one that reads and prints text.
func texts[T ~string](expects string, ok func(string) bool) kind[T] {
	return kind[T]{
		parse: func(v canonical.Value, _ origin) (T, error) {
			if v.Kind() != canonical.String || !ok(v.Text()) {
				return "", expectation(expects)
			}
			return T(v.Text()), nil
		},
		print: printText[T],
	}
}

func printText[T ~string](text T) canonical.Value {
	if text == "" {
		return canonical.Value{}
	}
	return canonical.StringOf(string(text))
}

var (
	textKind       = texts[string]("a text on one line", oneLine)
	secretTextKind = texts[Secret]("a text on one line", oneLine)
	publicKeyKind  = texts[string]("a public key: 32 bytes in base58", isKey)
	secretKind     = texts[Secret]("a private key: 32 bytes in base58", isKey)
	hostKind       = texts[string]("a host name or an IP address, without a scheme, a user or a port", isHost)
	nameKind       = texts[string]("a name without spaces and without any of "+notInNames, isName)
	bindKind       = texts[string]("host:port, such as localhost:9984 or [::1]:9984", isBind)
)

func oneLine(text string) bool { return !strings.ContainsFunc(text, unicode.IsControl) }

// isKey tells keys from other text. Both halves of a pair have the same form.
func isKey(text string) bool {
	_, err := ledger.DecodePublicKey(text)
	return err == nil
}

func isHost(text string) bool {
	if net.ParseIP(text) != nil {
		return true
	}
	return !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("/@:?#[],", r)
	})
}

// notInNames are the characters that one of the databases refuses in names.
const notInNames = `/\."$*<>:|?`

func isName(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(notInNames, r)
	})
}

func isBind(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil || !isHost(host) {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// oneOf takes one of the values in any case.
func oneOf(values []string) kind[string] {
	expects := strings.Join(values[:len(values)-1], ", ") + " or " + values[len(values)-1]
	k := texts[string](expects, nil)
	k.parse = func(v canonical.Value, _ origin) (string, error) {
		text := strings.ToLower(v.Text())
		if v.Kind() != canonical.String || !slices.Contains(values, text) {
			return "", expectation(expects)
		}
		return text, nil
	}
	return k
}

var levelKind = oneOf(Levels)

// fmtKind and datefmtKind take what package layout can follow.
var (
	fmtKind     = compiled(func(text string) error { _, err := layout.Compile(text); return err })
	datefmtKind = compiled(func(text string) error { _, err := layout.CompileDate(text); return err })
)

func compiled(check func(string) error) kind[string] {
	return kind[string]{
		parse: func(v canonical.Value, _ origin) (string, error) {
			if v.Kind() != canonical.String {
				return "", expectation("a format as a text")
			}
			return v.Text(), check(v.Text())
		},
		print: printText[string],
	}
}

var pathKind = kind[string]{
	parse: func(v canonical.Value, from origin) (string, error) {
		if v.Kind() != canonical.String || strings.ContainsRune(v.Text(), 0) {
			return "", expectation("a path")
		}
		path, ok := from.expand(v.Text())
		if !ok {
			return "", expectation("a path without ~, since HOME is not set")
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(from.folder, path)
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			return "", fmt.Errorf("cannot tell where this is: %w", err)
		}
		return absolute, nil
	},
	print: printText[string],
}

// expand puts the home folder in place of a leading ~.
func (o origin) expand(path string) (string, bool) {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, true
	}
	return filepath.Join(o.home, path[1:]), o.home != ""
}

// numberKind takes whole numbers between two bounds.
func numberKind(least, most int) kind[int] {
	expects := fmt.Sprintf("a whole number from %d to %d", least, most)
	return kind[int]{
		parse: func(v canonical.Value, _ origin) (int, error) {
			if v.Kind() != canonical.Int && v.Kind() != canonical.String {
				return 0, expectation(expects)
			}
			n, err := strconv.Atoi(v.Text())
			if err != nil || n < least || n > most {
				return 0, expectation(expects)
			}
			return n, nil
		},
		print: func(n int) canonical.Value { return canonical.IntOf(int64(n)) },
	}
}

// optionalKind takes whole numbers from 1; 0 stands for none.
func optionalKind(most int) kind[int] {
	k := numberKind(1, most)
	number := k.print
	k.print = func(n int) canonical.Value {
		if n == 0 {
			return canonical.Value{}
		}
		return number(n)
	}
	return k
}

// unitKind takes a duration as a whole number of a unit.
func unitKind(unit time.Duration) kind[time.Duration] {
	number := numberKind(1, maxNumber)
	return kind[time.Duration]{
		parse: func(v canonical.Value, from origin) (time.Duration, error) {
			n, err := number.parse(v, from)
			if err != nil {
				name := map[time.Duration]string{time.Second: "seconds", time.Millisecond: "milliseconds"}[unit]
				return 0, expectation(fmt.Sprintf("a whole number of %s from 1 to %d", name, maxNumber))
			}
			return time.Duration(n) * unit, nil
		},
		print: func(d time.Duration) canonical.Value { return canonical.IntOf(int64(d / unit)) },
	}
}

// durationKind takes a duration with its unit.
var durationKind = kind[time.Duration]{
	parse: func(v canonical.Value, _ origin) (time.Duration, error) {
		d, err := time.ParseDuration(v.Text())
		if v.Kind() != canonical.String || err != nil || d <= 0 {
			return 0, expectation("a duration with its unit, such as 35s or 1m30s")
		}
		return d, nil
	},
	print: func(d time.Duration) canonical.Value { return canonical.StringOf(d.String()) },
}

var boolKind = kind[bool]{
	parse: func(v canonical.Value, _ origin) (bool, error) {
		if v.Kind() == canonical.Bool {
			return v.Bool(), nil
		}
		if v.Kind() == canonical.String {
			switch strings.ToLower(v.Text()) {
			case "true", "t", "yes", "y", "1":
				return true, nil
			case "false", "f", "no", "n", "0":
				return false, nil
			}
		}
		return false, expectation("true or false")
	},
	print: canonical.BoolOf,
}

// keyringKind takes public keys, separated by colons where they are one text.
var keyringKind = kind[[]string]{
	parse: func(v canonical.Value, _ origin) ([]string, error) {
		const expects = "a list of public keys, each 32 bytes in base58"
		var keys []string
		switch v.Kind() {
		case canonical.String:
			keys = strings.Split(v.Text(), ":")
		case canonical.Array:
			for i := range v.Len() {
				if v.At(i).Kind() != canonical.String {
					return nil, expectation(fmt.Sprintf("%s; number %d is not a text", expects, i+1))
				}
				keys = append(keys, v.At(i).Text())
			}
		default:
			return nil, expectation(expects)
		}
		for i, key := range keys {
			if !isKey(key) {
				return nil, expectation(fmt.Sprintf("%s; number %d, %s, is none", expects, i+1, quoted(key)))
			}
		}
		return keys, nil
	},
	print: canonical.StringsOf,
}

// levelsKind takes levels by component: an object, or component=level pairs
// separated by colons, or such an object as a text.
var levelsKind = kind[map[string]string]{
	parse: func(v canonical.Value, from origin) (map[string]string, error) {
		const expects = "levels by component, such as {\"chainstate\": \"debug\"} or chainstate=debug:http=error"
		if v.Kind() == canonical.String {
			object, ok := levelPairs(v.Text())
			if !ok {
				return nil, expectation(expects)
			}
			v = object
		}
		if v.Kind() != canonical.Object {
			return nil, expectation(expects)
		}
		var levels map[string]string
		for i := range v.Len() {
			level, err := levelKind.parse(v.At(i), from)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", quoted(v.Key(i)), err)
			}
			if levels == nil {
				levels = map[string]string{}
			}
			levels[v.Key(i)] = level
		}
		return levels, nil
	},
	print: func(levels map[string]string) canonical.Value {
		members := make([]canonical.Member, 0, len(levels))
		for _, name := range slices.Sorted(maps.Keys(levels)) {
			members = append(members, canonical.Member{Key: name, Value: canonical.StringOf(levels[name])})
		}
		return canonical.ObjectOf(members...)
	},
}

func levelPairs(text string) (canonical.Value, bool) {
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		object, err := canonical.ParseWithin([]byte(text), canonical.Limits{Depth: maxDepth})
		return object, err == nil
	}
	var members []canonical.Member
	for pair := range strings.SplitSeq(text, ":") {
		name, level, found := strings.Cut(pair, "=")
		if !found || name == "" {
			return canonical.Value{}, false
		}
		members = append(members, canonical.Member{Key: name, Value: canonical.StringOf(level)})
	}
	return canonical.ObjectOf(members...), true
}

// quoted shows a value in a message, on one line and not at any length.
func quoted(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return strconv.Quote(text)
}
