package node

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/couchledger/couchledger/node/ledger"
)

// Assignment is by rendezvous hashing: each member's weight for a subject is a
// hash of both, and the heaviest gets it. All nodes compute the same order,
// and a change of the federation moves only the subjects of those concerned.

// assigneeOf returns the member that puts a transaction into a block. TRANSFERs
// go by asset, so that conflicting spends meet at one maker.
func assigneeOf(members []string, t *ledger.Transaction) string {
	return ranking(members, t.Asset)[0]
}

// nextAssignee returns the member whose turn it is after another was too slow.
func nextAssignee(members []string, t *ledger.Transaction, after string) string {
	order := ranking(members, t.Asset)
	return order[(slices.Index(order, after)+1)%len(order)]
}

func ranking(members []string, subject string) []string {
	if len(members) == 1 {
		return members
	}
	weights := make(map[string]uint64, len(members))
	for _, m := range members {
		sum := sha256.Sum256([]byte(m + "\x00" + subject))
		weights[m] = binary.BigEndian.Uint64(sum[:])
	}
	order := slices.Clone(members)
	slices.SortFunc(order, func(a, b string) int {
		if weights[a] != weights[b] {
			if weights[a] > weights[b] {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return order
}
