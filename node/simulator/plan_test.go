package simulator

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/couchledger/couchledger/node/consensus"
)

const (
	reassignDelay = 20 * time.Second
	// Without faults all must be decided within these.
	mostCalmSteps = 20_000
	mostCalmTime  = 30 * time.Minute
)

// plan is what a schedule is to be.
type plan struct {
	members    int
	rules      consensus.Rules
	lying      int  // members that lie
	dying      int  // honest ones that stay down once the faults stop
	beyond     bool // more members lie than the rule withstands
	replicated bool
	length     int // steps with faults
	posts      int
	assets     int
	wrong      []time.Duration // by how much each member's clock is
	mood       mood
}

func (p plan) String() string {
	return fmt.Sprintf("%d members by the rule %s, %d lie, %d stay down, replicated: %t, %d steps, %d posts of %d assets, clocks wrong by %v; %+v",
		p.members, p.rules.Name(), p.lying, p.dying, p.replicated, p.length, p.posts, p.assets, p.wrong, p.mood)
}

// limits of plans that a test wants.
type limits struct {
	members  int    // 0 for any
	rules    string // "any"
	beyond   int    // liars more than the rule withstands
	shared   bool
	separate bool
	lying    bool // as many liars as there may be
}

// mood is how likely things are, in parts of all that is done in a step.
type mood struct {
	release, fail, clock, post, crash, arm, restart, lie, replicate int
	lose                                                            int   // a node's chainstate or journal, of 100 crashes
	reorder                                                         int   // of 100 batches of a feed
	slow                                                            []int // of 100 times a node is chosen, how often it is left
}

var calm = mood{}

// withstands tells how many members may lie, and how many of those that do not
// may be down beside them.
func withstands(rules consensus.Rules, members int) (lying, down int) {
	q := 1
	for rules.Tally(members, q, 0) != consensus.Valid {
		q++
	}
	for members+lying+1 < 2*q && lying+1 <= members-q {
		lying++
	}
	return lying, members - q
}

// wrong is by how much a clock is wrong: not at all, or up to an hour either way.
func wrong(random *rand.Rand) time.Duration {
	return time.Duration(random.IntN(3)-1) * time.Duration(random.Int64N(int64(time.Hour)))
}

func newPlan(random *rand.Rand, l limits) plan {
	p := plan{members: 3 + random.IntN(mostNodes-2)}
	if random.IntN(2) == 0 { // most can be learnt from few
		p.members = 3 + random.IntN(2)
	}
	if l.members > 0 {
		p.members = l.members
	}
	rules := ruleNames[random.IntN(len(ruleNames))]
	if l.rules != "any" {
		rules = l.rules
	}
	p.rules = rulesOf(rules)
	lying, down := withstands(p.rules, p.members)
	p.lying = random.IntN(lying + 1)
	if l.lying || random.IntN(2) == 0 {
		p.lying = lying
	}
	p.lying += l.beyond
	p.beyond = l.beyond > 0
	if down > p.lying && random.IntN(3) == 0 {
		p.dying = random.IntN(down - p.lying + 1)
	}
	p.replicated = l.separate || !l.shared && random.IntN(2) == 0
	p.length = (40 + random.IntN(80)) * p.members
	p.posts = 2 + random.IntN(9)
	p.assets = 1 + random.IntN(3)
	some := func(most int) int { return random.IntN(2) * random.IntN(most+1) } // often none
	p.mood = mood{
		release: 200, fail: some(20), clock: 2 + some(20), post: 5 + random.IntN(20), crash: some(6), arm: some(6), restart: 2 + random.IntN(10),
		lie: 5 + random.IntN(20), replicate: 50 + random.IntN(200), reorder: some(100), slow: make([]int, p.members), lose: some(30),
	}
	p.wrong = make([]time.Duration, p.members)
	for i := range p.mood.slow {
		p.mood.slow[i] = some(95)
		p.wrong[i] = wrong(random)
	}
	return p
}
