package configs

import (
	"errors"
	"iter"
	"slices"
	"strings"
)

// isSection reports whether settings stand under the path.
func isSection(path string) bool {
	for name := range names() {
		if strings.HasPrefix(name, path+".") {
			return true
		}
	}
	return false
}

// names are the paths of all settings, the retired ones too.
func names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, s := range table {
			if !yield(s.path) {
				return
			}
		}
		for name := range retired {
			if !yield(name) {
				return
			}
		}
	}
}

// unknownKey says that nobody documented a path, and which one is near it.
func unknownKey(path string) error {
	// Sections are candidates for sections: "databse" is near "database".
	candidates := []string{}
	for _, s := range table {
		candidates = append(candidates, s.path)
		for i, c := range s.path {
			if section := s.path[:i]; c == '.' && !slices.Contains(candidates, section) {
				candidates = append(candidates, section)
			}
		}
	}
	if near := nearest(path, candidates); near != "" {
		return errors.New("there is no such setting; did you mean " + near + "?")
	}
	return errors.New("there is no such setting")
}

// nearest is the candidate that takes the fewest edits to reach, "" when even
// that is more than a slip.
func nearest(name string, candidates []string) string {
	const (
		mostEdits   = 3
		longestName = 80 // edit distance takes quadratic time
	)
	if len(name) > longestName {
		return ""
	}
	best, fewest := "", mostEdits+1
	slices.Sort(candidates)
	for _, candidate := range candidates {
		edits := distance(strings.ToLower(name), strings.ToLower(candidate))
		if edits < fewest && edits*3 < len(candidate) {
			best, fewest = candidate, edits
		}
	}
	return best
}

// distance is Levenshtein's: insertions, deletions and replacements of bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
