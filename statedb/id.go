package statedb

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// CheckID refuses ids that one of the databases could not hold: empty ones,
// those beginning with "_" (CouchDB's own), those with U+0000 and those that
// are not UTF-8. The error wraps ErrBadDocument.
func CheckID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: the id is empty", ErrBadDocument)
	case id[0] == '_':
		return fmt.Errorf("%w: the id %q begins with _", ErrBadDocument, id)
	case strings.IndexByte(id, 0) >= 0:
		return fmt.Errorf("%w: the id %q contains U+0000", ErrBadDocument, id)
	case !utf8.ValidString(id):
		return fmt.Errorf("%w: the id %q is not UTF-8", ErrBadDocument, id)
	}
	return nil
}
