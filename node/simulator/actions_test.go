package simulator

import (
	"errors"
	"time"

	"github.com/couchledger/couchledger/statedb"
)

// passes tells a fault of the database from one that a node must not end with.
func passes(err error) bool { return errors.Is(err, statedb.ErrUnavailable) }

// action is one thing that may happen in a step, and how likely it is.
type action struct {
	weight int
	do     func()
}

// act does one thing.
func (w *world) act() {
	ready := w.ready()
	var up, down, open []*member
	for _, m := range w.nodes {
		if m.line == nil {
			down = append(down, m)
		} else {
			up = append(up, m)
		}
		if m.node != nil && (m.node.Ready() == nil || w.random.IntN(20) == 0) {
			open = append(open, m)
		}
	}
	var list []action
	may := func(possible bool, weight int, do func()) {
		if possible && weight > 0 {
			list = append(list, action{weight, do})
		}
	}
	may(len(ready) > 0, w.mood.release, func() { w.release(w.choose(ready)) })
	may(len(ready) > 0, w.mood.fail, func() { w.failCall(w.choose(ready)) })
	may(true, w.mood.clock, w.letTimePass)
	may(len(ready) == 0, w.mood.release, w.letTimePass)
	may(w.posts > 0 && len(open) > 0, w.mood.post, func() { w.post(open[w.random.IntN(len(open))]) })
	may(len(up) > 0, w.mood.crash, func() {
		m := up[w.random.IntN(len(up))]
		w.note("node %d crashes", m.place)
		m.crash()
	})
	may(len(up) > 0, w.mood.arm, func() {
		m, writes := up[w.random.IntN(len(up))], 1+w.random.IntN(12)
		w.note("node %d is to crash before its write number %d from here", m.place, writes)
		m.power.arm(writes)
	})
	may(len(down) > 0, w.mood.restart, func() {
		m := down[w.random.IntN(len(down))]
		w.note("node %d starts", m.place)
		m.start()
	})
	may(len(w.liars) > 0, w.mood.lie, func() { w.liars[w.random.IntN(len(w.liars))].act() })
	may(w.replicates(), w.mood.replicate, w.replicate)
	total := 0
	for _, a := range list {
		total += a.weight
	}
	at := w.random.IntN(total)
	for _, a := range list {
		if at -= a.weight; at < 0 {
			a.do()
			return
		}
	}
}

// choose takes one of the calls; those of slow nodes less often.
func (w *world) choose(ready []*call) *call {
	for {
		c := ready[w.random.IntN(len(ready))]
		if w.random.IntN(100) >= w.mood.slow[c.line.owner.place] {
			return c
		}
	}
}

// failCall lets a call fail, before it had an effect, after, or in between.
func (w *world) failCall(c *call) {
	w.take(c)
	c.line.owner.moved = true
	how := "before"
	switch {
	case c.part != nil && w.random.IntN(3) == 0:
		how = "half way through"
		c.part()
	case c.kind != "next" && w.random.IntN(2) == 0:
		how = "after"
		c.do()
	}
	w.note("%v: fails %s", c, how)
	c.done <- statedb.ErrUnavailable
}

// letTimePass: mostly a moment, at times as long as things are waited for.
func (w *world) letTimePass() {
	choices := []time.Duration{
		time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 60 * time.Millisecond, 300 * time.Millisecond,
		time.Second, 5 * time.Second, 11 * time.Second, reassignDelay,
	}
	at := w.random.IntN(len(choices))
	if w.random.IntN(2) == 0 {
		at = w.random.IntN(5)
	}
	w.advance(choices[at])
}
