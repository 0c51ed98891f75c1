package mango

import "github.com/couchledger/couchledger/canonical"

// Node is a part of a parsed selector, for adapters that translate it into the
// language of their database. Negations are moved down to the conditions as
// far as they can be.
type Node struct {
	Op Op
	// List has the parts of OpAnd and OpOr, and one for OpNot, OpField,
	// OpElemMatch, OpAllMatch and OpKeyMapMatch.
	List []Node
	Path Path // OpField; the condition on it is List[0]

	Arg  canonical.Value   // of a comparison, the name of OpType, OpBeginsWith
	Args []canonical.Value // OpIn, OpNin, OpAll
	Flag bool              // OpExists
	// Size is of OpSize; Divisor and Remainder are of OpMod.
	Size, Divisor, Remainder int64
	Pattern                  string // OpRegex, in the syntax of package regexp
}

// Tree gives the whole selector.
func (s *Selector) Tree() Node { return s.root.node() }

func (e *expr) node() Node {
	n := Node{
		Op: e.op, Path: e.path, Arg: e.arg, Args: e.args, Flag: e.flag,
		Size: e.size, Divisor: e.divisor, Remainder: e.remainder,
	}
	if e.regex != nil {
		n.Pattern = e.regex.String()
	}
	for _, part := range e.list {
		n.List = append(n.List, part.node())
	}
	return n
}
