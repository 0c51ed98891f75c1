package rethinkdb

import (
	"fmt"
)

// Answers are cut into rows without being parsed: a row that somebody nested a
// million deep must not keep the others from being read.

// scanner walks over a JSON text. It looks at brackets and strings only; who
// reads a value checks it.
type scanner struct {
	text []byte
	at   int
}

// next skips white space and gives the byte that follows, 0 at the end.
func (s *scanner) next() byte {
	for ; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case ' ', '\n', '\r', '\t':
		default:
			return s.text[s.at]
		}
	}
	return 0
}

// take goes over a byte that must be there.
func (s *scanner) take(want byte) error {
	if s.next() != want {
		return fmt.Errorf("%w: no %q at byte %d", errMalformed, want, s.at)
	}
	s.at++
	return nil
}

// value gives the text of the next value.
func (s *scanner) value() ([]byte, error) {
	s.next()
	start, depth := s.at, 0
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case '"':
			if err := s.skipString(); err != nil {
				return nil, err
			}
			if depth == 0 {
				return s.text[start:s.at], nil
			}
			continue
		case '{', '[':
			depth++
		case '}', ']', ',', ' ', '\n', '\r', '\t':
			if depth == 0 && s.at > start {
				return s.text[start:s.at], nil // a number or a word
			}
			if c := s.text[s.at]; c == '}' || c == ']' {
				if depth--; depth == 0 {
					s.at++
					return s.text[start:s.at], nil
				}
			}
			if depth <= 0 {
				return nil, fmt.Errorf("%w: no value at byte %d", errMalformed, s.at)
			}
		}
		s.at++
	}
	if depth > 0 || s.at == start {
		return nil, fmt.Errorf("%w: it ends in the middle", errMalformed)
	}
	return s.text[start:s.at], nil
}

func (s *scanner) skipString() error {
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			return nil
		}
	}
	return fmt.Errorf("%w: a string does not end", errMalformed)
}

// more goes over what stands between two elements, and reports whether another
// follows before the closing bracket.
func (s *scanner) more(closing byte, first bool) (bool, error) {
	if s.next() == closing {
		s.at++
		return false, nil
	}
	if first {
		return true, nil
	}
	return true, s.take(',')
}

// splitArray gives the texts of an array's elements.
func splitArray(text []byte) ([][]byte, error) {
	s := scanner{text: text}
	if err := s.take('['); err != nil {
		return nil, err
	}
	var elements [][]byte
	for {
		again, err := s.more(']', len(elements) == 0)
		if err != nil || !again {
			return elements, err
		}
		element, err := s.value()
		if err != nil {
			return nil, err
		}
		elements = append(elements, element)
	}
}

// splitObject gives the texts of an object's values under the texts of its
// keys, quotation marks included.
func splitObject(text []byte) (map[string][]byte, error) {
	s := scanner{text: text}
	if err := s.take('{'); err != nil {
		return nil, err
	}
	fields := map[string][]byte{}
	for first := true; ; first = false {
		again, err := s.more('}', first)
		if err != nil || !again {
			return fields, err
		}
		key, err := s.value()
		if err != nil {
			return nil, err
		}
		if err := s.take(':'); err != nil {
			return nil, err
		}
		if fields[string(key)], err = s.value(); err != nil {
			return nil, err
		}
	}
}
