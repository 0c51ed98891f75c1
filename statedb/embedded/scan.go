package embedded

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb/mango"
)

// A scanner goes once over a body, checks it, and remembers where the fields
// of the table's indexes stand. It is several times faster than a parse into
// a tree and allocates nothing, because it knows only the usual: keys in
// ascending order, which rules out duplicates, no surrogates among escapes, no
// large exponents. Whatever is not usual it leaves to canonical.Parse, whose
// verdict then counts; so the two agree on what is valid.
type scanner struct {
	data  []byte
	pos   int
	found [][]byte // by slot: the field's JSON text, nil when missing
}

// pathNode is one step of the paths that indexes need; their common beginnings
// are shared.
type pathNode struct {
	children []pathChild
	slot     int // of the value here, or -1
}

type pathChild struct {
	key  []byte
	at   int // key as a position in an array, or -1
	node *pathNode
}

// add makes the nodes of a path and returns its slot, next when it is new.
func (n *pathNode) add(path mango.Path, next int) int {
	for _, part := range path {
		var child *pathNode
		for _, c := range n.children {
			if string(c.key) == part {
				child = c.node
			}
		}
		if child == nil {
			child = &pathNode{slot: -1}
			at, ok := mango.ArrayIndex(part)
			if !ok {
				at = -1
			}
			n.children = append(n.children, pathChild{key: []byte(part), at: at, node: child})
		}
		n = child
	}
	if n.slot < 0 {
		n.slot = next
	}
	return n.slot
}

func (n *pathNode) child(key []byte) *pathNode {
	if n == nil {
		return nil
	}
	for i := range n.children {
		if bytes.Equal(n.children[i].key, key) {
			return n.children[i].node
		}
	}
	return nil
}

func (n *pathNode) element(i int) *pathNode {
	if n == nil {
		return nil
	}
	for j := range n.children {
		if n.children[j].at == i {
			return n.children[j].node
		}
	}
	return nil
}

// object scans a body that is one object. False means that it is not valid or
// not usual.
func (s *scanner) object(body []byte, root *pathNode) bool {
	s.data, s.pos = body, 0
	clear(s.found)
	if !utf8.Valid(body) || s.next() != '{' || !s.members(root, 1) {
		return false
	}
	s.space()
	return s.pos == len(s.data)
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// next skips white space and returns the byte that follows, or 0 at the end.
func (s *scanner) next() byte {
	s.space()
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}

func (s *scanner) value(node *pathNode, depth int) bool {
	c := s.next()
	start := s.pos
	ok := false
	switch c {
	case '{':
		ok = s.members(node, depth+1)
	case '[':
		ok = s.elements(node, depth+1)
	case '"':
		ok = s.str()
	case 't':
		ok = s.word("true")
	case 'f':
		ok = s.word("false")
	case 'n':
		ok = s.word("null")
	default:
		ok = s.number()
	}
	if ok && node != nil && node.slot >= 0 {
		s.found[node.slot] = s.data[start:s.pos]
	}
	return ok
}

func (s *scanner) word(w string) bool {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(w)) {
		return false
	}
	s.pos += len(w)
	return true
}

func (s *scanner) members(node *pathNode, depth int) bool {
	if depth > canonical.MaxDepth {
		return false
	}
	s.pos++
	if s.next() == '}' {
		s.pos++
		return true
	}
	var last []byte
	for {
		if s.next() != '"' {
			return false
		}
		start := s.pos + 1
		if !s.str() {
			return false
		}
		key := s.data[start : s.pos-1]
		if bytes.IndexByte(key, '\\') >= 0 || last != nil && bytes.Compare(last, key) >= 0 ||
			depth == 1 && len(key) > 0 && key[0] == '_' {
			return false
		}
		last = key
		if s.next() != ':' {
			return false
		}
		s.pos++
		if !s.value(node.child(key), depth) {
			return false
		}
		switch s.next() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return true
		default:
			return false
		}
	}
}

func (s *scanner) elements(node *pathNode, depth int) bool {
	if depth > canonical.MaxDepth {
		return false
	}
	s.pos++
	if s.next() == ']' {
		s.pos++
		return true
	}
	for i := 0; ; i++ {
		if !s.value(node.element(i), depth) {
			return false
		}
		switch s.next() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return true
		default:
			return false
		}
	}
}

func (s *scanner) str() bool {
	for i := s.pos + 1; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.pos = i + 1
			return true
		case c < 0x20:
			return false
		case c == '\\':
			i++
			if i == len(s.data) {
				return false
			}
			switch s.data[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				// U+0000 to U+0FFF, which cannot be half of a pair
				if i+4 >= len(s.data) || s.data[i+1] != '0' ||
					!isHex(s.data[i+2]) || !isHex(s.data[i+3]) || !isHex(s.data[i+4]) {
					return false
				}
				i += 4
			default:
				return false
			}
		}
	}
	return false
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos] >= '0' && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// usualFloat is the length up to which a number without an exponent cannot
// leave the range of a double.
const usualFloat = 300

func (s *scanner) number() bool {
	start := s.pos
	if s.pos < len(s.data) && s.data[s.pos] == '-' {
		s.pos++
	}
	first := s.pos
	if !s.digits() || s.data[first] == '0' && s.pos > first+1 {
		return false
	}
	if s.pos == len(s.data) {
		return true
	}
	if s.data[s.pos] == '.' {
		s.pos++
		if !s.digits() || s.pos-start > usualFloat {
			return false
		}
	}
	return s.pos == len(s.data) || s.data[s.pos] != 'e' && s.data[s.pos] != 'E'
}

// appendKeyOfText appends the key of a value given as JSON text.
func appendKeyOfText(dst, text []byte) ([]byte, error) {
	if text[0] == '"' && bytes.IndexByte(text, '\\') < 0 {
		return mango.AppendStringKey(dst, text[1:len(text)-1]), nil
	}
	v, err := canonical.Parse(text)
	if err != nil {
		return nil, err
	}
	return mango.AppendKey(dst, v), nil
}

// quoteShort makes an excerpt for error messages.
func quoteShort(data []byte) string {
	const most = 40
	return strconv.Quote(string(data[:min(len(data), most)]))
}
