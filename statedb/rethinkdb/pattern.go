package rethinkdb

import (
	"regexp"
	"regexp/syntax"
	"strings"

	r "gopkg.in/rethinkdb/rethinkdb-go.v6"
)

// RethinkDB's patterns are RE2's as Go's are. They differ in what they know of
// Unicode and in how large a pattern may be, so only plain ones are sent.

// maxInstructions is of a compiled pattern; the server has 8 MB for one.
const maxInstructions = 1000

// notPlain are classes of characters by name, flags (case folding depends on
// the version of Unicode), and U+0000.
var notPlain = []string{`\p`, `\P`, `(?`, `[[:`, `\Q`, `\C`, "\x00"}

func isPlain(pattern string) bool {
	for _, part := range notPlain {
		if strings.Contains(pattern, part) {
			return false
		}
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return false
	}
	program, err := syntax.Compile(tree.Simplify())
	return err == nil && len(program.Inst) <= maxInstructions
}

func matches(v r.Term, pattern string) verdict {
	text := loosely(isType(v, "STRING"))
	if !isPlain(pattern) {
		return text
	}
	return all(text, loosely(v.Match(pattern).Ne(nil)))
}

func beginsWith(v r.Term, prefix string) verdict {
	return matches(v, "^"+regexp.QuoteMeta(prefix))
}
