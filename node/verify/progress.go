package verify

import (
	"strconv"
	"sync"
)

// Progress tells how far a run is.
type Progress struct {
	Step, Steps int
	Name        string  // of the step
	Unit        string  // what Count counts
	Count       int     // of this step so far
	Fraction    float64 // of this step, from 0 to 1
}

// Meter counts within a step. Ids are hashes, so the id that was reached tells
// what fraction is done.
type Meter struct {
	tell func(Progress)

	mu  sync.Mutex // held while tell runs
	now Progress
}

// NewMeter tells, unless tell is nil, how far each of so many steps is.
func NewMeter(tell func(Progress), steps int) *Meter {
	return &Meter{tell: tell, now: Progress{Steps: steps}}
}

// Begin begins a step.
func (m *Meter) Begin(step int, name, unit string) {
	m.mu.Lock()
	m.now.Step, m.now.Name, m.now.Unit, m.now.Fraction, m.now.Count = step, name, unit, 0, 0
	m.mu.Unlock()
	m.Add(0, "")
}

// Add counts n more, up to an id.
func (m *Meter) Add(n int, id string) {
	const digits = 8
	fraction := 0.0
	if len(id) >= digits {
		if at, err := strconv.ParseUint(id[:digits], 16, 64); err == nil {
			fraction = float64(at) / (1 << (4 * digits))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Count += n
	m.now.Fraction = max(m.now.Fraction, fraction) // what is checked side by side ends in any order
	if m.tell != nil {
		m.tell(m.now)
	}
}
