package cryptoconditions

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// weighted is a threshold's child, reduced to what the threshold's condition
// is made of.
type weighted struct {
	weight    int
	condition Condition
}

// thresholdFault says why threshold does not go with the children's weights,
// which add up to sum; "" if it does.
func thresholdFault(threshold, sum uint64) string {
	switch {
	case threshold < 1:
		return "threshold below 1"
	case threshold > MaxWeight:
		return "threshold too large"
	case threshold > sum:
		return "threshold above the sum of weights"
	}
	return ""
}

// thresholdCondition derives the condition of a threshold whose numbers are
// within their limits. It fails with ErrTooComplex when the budget or
// MaxFulfillmentLength is exceeded.
func thresholdCondition(threshold int, children []weighted, budget *Budget) (Condition, error) {
	c := Condition{Type: TypeThreshold, Bits: bitsThreshold}
	length := 4 + varUintSize(uint64(len(children)))
	parts := make([]part, len(children))
	arena := make([]byte, 0, 48*len(children)) // of one child: weight and condition binary
	entries := make([][]byte, len(children))
	for i := range children {
		child := &children[i]
		c.Bits |= child.condition.Bits
		size := child.condition.binarySize()
		length += 1 + size
		if child.weight != 1 {
			length += varUintSize(uint64(child.weight))
		}
		parts[i] = part{weight: child.weight, gain: 2 + varBytesSize(child.condition.MaxLength) - size}

		start := len(arena)
		arena = child.condition.AppendBinary(appendVarUint(arena, uint64(child.weight)))
		entries[i] = arena[start:len(arena):len(arena)]
	}
	gain, err := maxGain(threshold, parts, budget)
	if err != nil {
		return Condition{}, err
	}
	c.MaxLength = length + gain
	if c.MaxLength > MaxFulfillmentLength {
		return Condition{}, fmt.Errorf("%w: fulfillments may be too long", ErrTooComplex)
	}
	slices.SortFunc(entries, byLength)
	payload := binary.BigEndian.AppendUint32(make([]byte, 0, len(arena)+9), uint32(threshold))
	payload = appendVarUint(payload, uint64(len(entries)))
	for _, e := range entries {
		payload = append(payload, e...)
	}
	c.Hash = sha256.Sum256(payload)
	return c, nil
}

// part is a child as the max length sees it.
type part struct {
	weight int
	gain   int // bytes by which its longest fulfillment exceeds its condition; may be negative
}

// maxGain returns the largest sum of gains over the sets of children that the
// draft's recursion reaches: go through the children in ascending weight, take
// or skip each, stop when the weights taken meet the threshold. The weights of
// all parts together do meet it. It sorts parts.
//
// The recursion as written takes exponential time. When all gains or all
// weights are alike the answer is known at once and costs no budget; that is
// every threshold over plain owners. Otherwise all paths on which the same
// threshold remains are followed as one. Each child costs one step of the
// budget per distinct remaining threshold that is open before it: not yet met,
// and not above the weights still to come. Those are sums of weights alone, so
// the cost does not depend on the order of the children.
func maxGain(threshold int, parts []part, budget *Budget) (int, error) {
	slices.SortFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.weight, b.weight), cmp.Compare(b.gain, a.gain))
	})
	sameGain, left := true, 0
	for _, p := range parts {
		sameGain = sameGain && p.gain == parts[0].gain
		left += p.weight
	}
	switch {
	case sameGain && parts[0].gain >= 0:
		// The most children: the lightest, until they suffice.
		return sumUntil(threshold, parts), nil
	case sameGain:
		// The fewest children: the heaviest.
		slices.Reverse(parts)
		return sumUntil(threshold, parts), nil
	case parts[0].weight == parts[len(parts)-1].weight:
		// The number of children is fixed; the sort put the largest gains first.
		return sumUntil(threshold, parts), nil
	}

	best := minInt
	open, next := []path{{remaining: threshold}}, []path(nil)
	for _, p := range parts {
		if err := budget.spend(len(open)); err != nil {
			return 0, err
		}
		left -= p.weight
		next, best = advance(next[:0], open, p, left, best)
		open, next = next, open
	}
	return best, nil
}

const minInt = -1 << 62

// sumUntil adds up the gains of the parts from the first on until their
// weights meet the threshold.
func sumUntil(threshold int, parts []part) int {
	sum := 0
	for _, p := range parts {
		sum += p.gain
		if threshold -= p.weight; threshold <= 0 {
			break
		}
	}
	return sum
}

// path stands for all choices so far that leave the same remaining threshold.
type path struct {
	remaining int
	gain      int // the largest of those choices
}

// advance appends to dst the paths that are open after p was taken or skipped,
// and returns with them the best gain of those that met the threshold so far.
// open and the result are in ascending order of remaining, without repeats;
// left is the weight of the parts after p.
func advance(dst, open []path, p part, left, best int) ([]path, int) {
	dst = slices.Grow(dst, 2*len(open))
	taken := 0 // open[:taken] have been continued with p taken
	for taken < len(open) && open[taken].remaining <= p.weight {
		best = max(best, open[taken].gain+p.gain)
		taken++
	}
	skipped := 0 // open[:skipped] have been continued with p skipped
	for skipped < len(open) || taken < len(open) {
		// Taken paths run ahead of skipped ones, by p.weight less.
		var with, without path
		hasWith, hasWithout := taken < len(open), skipped < len(open)
		if hasWith {
			with = path{open[taken].remaining - p.weight, open[taken].gain + p.gain}
		}
		if hasWithout {
			without = open[skipped]
		}
		var q path
		switch {
		case hasWith && hasWithout && with.remaining == without.remaining:
			q = path{with.remaining, max(with.gain, without.gain)}
			taken++
			skipped++
		case hasWith && (!hasWithout || with.remaining < without.remaining):
			q = with
			taken++
		default:
			q = without
			skipped++
		}
		if q.remaining > left {
			break // so are all that follow
		}
		dst = append(dst, q)
	}
	return dst, best
}
