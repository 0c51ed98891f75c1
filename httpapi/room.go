package httpapi

import "context"

// answerRoom bounds the bytes of lists that wait for their clients to take them.
// Clients may be any number, and slow.
const answerRoom = 64 << 20

// room is a request's part of a budget.
type room struct {
	of   *budget
	held int64
}

// grow waits until the part is n bytes, at most the total, or fails after
// budgetWait.
func (r *room) grow(ctx context.Context, n int64) error {
	n = min(n, r.of.total)
	if n <= r.held {
		return nil
	}
	if err := r.of.wait(ctx, n-r.held); err != nil {
		return err
	}
	r.held = n
	return nil
}

// fit makes the part n bytes if that can be done at once.
func (r *room) fit(n int64) bool {
	n = min(n, r.of.total)
	switch {
	case n < r.held:
		r.of.give(r.held - n)
	case !r.of.try(n - r.held):
		return false
	}
	r.held = n
	return true
}

// free gives everything back.
func (r *room) free() { r.fit(0) }
