package canonical

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how many arrays and objects Parse lets stand inside each other.
const MaxDepth = 1000

// SyntaxError says what is wrong with a JSON text and where.
type SyntaxError struct {
	Offset int // bytes before the fault
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("invalid JSON at byte %d: %s", e.Offset, e.Reason)
}

// Parse reads one JSON value. Beyond the grammar it refuses, each with a
// *SyntaxError: duplicate keys, invalid UTF-8, escaped surrogates without
// their partner, floats beyond a double's range, nesting beyond MaxDepth and
// anything after the value. Time and memory are linear in the input.
func Parse(data []byte) (Value, error) { return ParseWithin(data, Limits{Depth: MaxDepth}) }

// Limits bound what ParseWithin reads.
type Limits struct {
	Depth  int // arrays and objects inside each other
	Values int // values of every kind at every level; 0 for any number
}

// ParseWithin is Parse with limits of the caller's.
func ParseWithin(data []byte, limits Limits) (Value, error) {
	p := parser{text: string(data), maxDepth: limits.Depth, values: limits.Values}
	if p.values == 0 {
		p.values = len(data) + 1 // a value takes a byte at least
	}
	if !utf8.ValidString(p.text) {
		return Value{}, &SyntaxError{Offset: firstInvalid(p.text), Reason: "invalid UTF-8"}
	}
	v, err := p.value(0)
	if err != nil {
		return Value{}, err
	}
	p.space()
	if p.pos < len(p.text) {
		return Value{}, p.fault("unexpected data after the value")
	}
	return v, nil
}

func firstInvalid(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return len(s)
}

// parser reads text once from left to right. Open arrays and objects collect
// their parts on the two shared stacks and take an exact copy when they close.
type parser struct {
	text     string
	pos      int
	maxDepth int
	values   int // how many more may come
	items    []Value
	keys     []string
}

func (p *parser) fault(reason string) error { return &SyntaxError{Offset: p.pos, Reason: reason} }

func (p *parser) space() {
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// next skips white space and returns the byte that follows, or 0 at the end.
func (p *parser) next() byte {
	p.space()
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

func (p *parser) value(depth int) (Value, error) {
	if p.values--; p.values < 0 {
		return Value{}, p.fault("too many values")
	}
	switch c := p.next(); {
	case c == '{':
		return p.object(depth + 1)
	case c == '[':
		return p.array(depth + 1)
	case c == '"':
		s, err := p.str()
		return Value{kind: String, text: s}, err
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	case c == 0 && p.pos == len(p.text):
		return Value{}, p.fault("unexpected end")
	}
	for _, l := range literals {
		if strings.HasPrefix(p.text[p.pos:], l.word) {
			p.pos += len(l.word)
			return l.value, nil
		}
	}
	return Value{}, p.fault("unexpected character")
}

var literals = [...]struct {
	word  string
	value Value
}{{"null", Value{}}, {"true", BoolOf(true)}, {"false", BoolOf(false)}}

func (p *parser) array(depth int) (Value, error) {
	if depth > p.maxDepth {
		return Value{}, p.fault("nested too deep")
	}
	p.pos++
	base := len(p.items)
	if p.next() == ']' {
		p.pos++
		return Value{kind: Array}, nil
	}
	for {
		v, err := p.value(depth)
		if err != nil {
			return Value{}, err
		}
		p.items = append(p.items, v)
		switch p.next() {
		case ',':
			p.pos++
		case ']':
			p.pos++
			v := arrayOf(slices.Clone(p.items[base:]))
			p.items = p.items[:base]
			return v, nil
		default:
			return Value{}, p.fault("expected ',' or ']'")
		}
	}
}

func (p *parser) object(depth int) (Value, error) {
	if depth > p.maxDepth {
		return Value{}, p.fault("nested too deep")
	}
	p.pos++
	base, keyBase := len(p.items), len(p.keys)
	if p.next() == '}' {
		p.pos++
		return Value{kind: Object}, nil
	}
	for {
		if p.next() != '"' {
			return Value{}, p.fault("expected a key")
		}
		key, err := p.str()
		if err != nil {
			return Value{}, err
		}
		if p.next() != ':' {
			return Value{}, p.fault("expected ':'")
		}
		p.pos++
		v, err := p.value(depth)
		if err != nil {
			return Value{}, err
		}
		p.keys = append(p.keys, key)
		p.items = append(p.items, v)
		switch p.next() {
		case ',':
			p.pos++
			continue
		case '}':
			p.pos++
		default:
			return Value{}, p.fault("expected ',' or '}'")
		}
		o := members{keys: slices.Clone(p.keys[keyBase:]), items: slices.Clone(p.items[base:])}
		p.keys, p.items = p.keys[:keyBase], p.items[:base]
		if !slices.IsSorted(o.keys) {
			sort.Sort(o)
		}
		for i := 1; i < len(o.keys); i++ {
			if o.keys[i] == o.keys[i-1] {
				return Value{}, p.fault("duplicate key " + strconv.Quote(abbreviate(o.keys[i])))
			}
		}
		return objectOf(o.keys, o.items), nil
	}
}

// abbreviate keeps an error message short whatever the key's length.
func abbreviate(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

type members parts

func (m members) Len() int           { return len(m.keys) }
func (m members) Less(i, j int) bool { return m.keys[i] < m.keys[j] }
func (m members) Swap(i, j int) {
	m.keys[i], m.keys[j] = m.keys[j], m.keys[i]
	m.items[i], m.items[j] = m.items[j], m.items[i]
}

func (p *parser) digits() bool {
	start := p.pos
	for p.pos < len(p.text) && p.text[p.pos] >= '0' && p.text[p.pos] <= '9' {
		p.pos++
	}
	return p.pos > start
}

func (p *parser) accept(set string) bool {
	if p.pos < len(p.text) && strings.IndexByte(set, p.text[p.pos]) >= 0 {
		p.pos++
		return true
	}
	return false
}

func (p *parser) number() (Value, error) {
	start := p.pos
	p.accept("-")
	if p.accept("0") {
		if p.pos < len(p.text) && p.text[p.pos] >= '0' && p.text[p.pos] <= '9' {
			return Value{}, p.fault("a number has a leading zero")
		}
	} else if !p.digits() {
		return Value{}, p.fault("expected a digit")
	}
	kind := Int
	if p.accept(".") {
		kind = Float
		if !p.digits() {
			return Value{}, p.fault("expected a digit after the point")
		}
	}
	if p.accept("eE") {
		kind = Float
		p.accept("+-")
		if !p.digits() {
			return Value{}, p.fault("expected a digit in the exponent")
		}
	}
	text := p.text[start:p.pos]
	if kind == Int {
		return Value{kind: Int, text: text}, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if errors.Is(err, strconv.ErrRange) {
		return Value{}, &SyntaxError{Offset: start, Reason: "a number is beyond the range of a double"}
	}
	text, _ = formatFloat(f) // finite, as ParseFloat did not fail
	return Value{kind: Float, text: text}, nil
}

// str reads the string that starts at pos. Without escapes it is a slice of
// the text, not a copy.
func (p *parser) str() (string, error) {
	p.pos++
	start := p.pos
	for ; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; {
		case c == '"':
			s := p.text[start:p.pos]
			p.pos++
			return s, nil
		case c == '\\':
			return p.escaped(start)
		case c < 0x20:
			return "", p.fault("a control character stands unescaped in a string")
		}
	}
	return "", p.fault("unexpected end inside a string")
}

var shortEscapes = map[byte]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

func (p *parser) escaped(start int) (string, error) {
	out := []byte(p.text[start:p.pos])
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		switch {
		case c == '"':
			p.pos++
			return string(out), nil
		case c < 0x20:
			return "", p.fault("a control character stands unescaped in a string")
		case c != '\\':
			out = append(out, c)
			p.pos++
			continue
		}
		p.pos++
		if p.pos == len(p.text) {
			break
		}
		c = p.text[p.pos]
		if c == 'u' {
			r, err := p.escapedRune()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
			continue
		}
		short, ok := shortEscapes[c]
		if !ok {
			return "", p.fault("unknown escape in a string")
		}
		out = append(out, short)
		p.pos++
	}
	return "", p.fault("unexpected end inside a string")
}

// escapedRune reads uXXXX, and the second half of a surrogate pair with it.
func (p *parser) escapedRune() (rune, error) {
	unit, err := p.hex4()
	if err != nil || !utf16.IsSurrogate(unit) {
		return unit, err
	}
	if strings.HasPrefix(p.text[p.pos:], `\u`) {
		p.pos++
		second, err := p.hex4()
		if err != nil {
			return 0, err
		}
		if r := utf16.DecodeRune(unit, second); r != utf8.RuneError {
			return r, nil
		}
	}
	return 0, p.fault("an escaped surrogate has no partner")
}

func (p *parser) hex4() (rune, error) {
	end := p.pos + 5
	if end > len(p.text) {
		return 0, p.fault("unexpected end inside a string")
	}
	var r rune
	for _, c := range []byte(p.text[p.pos+1 : end]) {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, p.fault("expected four hexadecimal digits")
		}
	}
	p.pos = end
	return r, nil
}
