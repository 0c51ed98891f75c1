package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
)

// smallBody is how many bytes of a body are read without asking the budget;
// ordinary transactions have about a thousand.
const smallBody = 64 << 10

// firstRead is the memory a body gets before anything of it has arrived.
const firstRead = 4 << 10

// readBudgetBodies is how many bodies of the largest size may be held at once
// while they arrive.
const readBudgetBodies = 16

// budgetWait is how long a large body waits for its share of memory.
const budgetWait = 10 * time.Second

var errTooLarge = &httpError{status: http.StatusRequestEntityTooLarge, message: "the body is too large", closes: true}

// readBody returns a request's whole body, of most bytes at most, and how many
// bytes of s.reading it holds, which the caller gives back. Beyond smallBody
// memory grows only with what has arrived and only as far as the budget goes,
// so clients that announce much and send little hold little.
func (s *Server) readBody(c echo.Context, most int64) (body []byte, held int64, err error) {
	r := c.Request()
	if r.ContentLength > most {
		return nil, 0, errTooLarge
	}
	conn := connOf(r)
	conn.waits()
	defer conn.busy()
	size := int64(firstRead)
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength+1) // one more, to see the end
	}
	body = make([]byte, 0, size)
	for {
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > most:
			return nil, held, errTooLarge
		case err == io.EOF:
			return body, held, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, held, err
		case err != nil:
			return nil, held, &httpError{status: http.StatusBadRequest, message: "the body ends early or is not properly framed", closes: true}
		case len(body) < cap(body):
			continue
		}
		grown := min(2*int64(cap(body)), most+1)
		if grown > smallBody {
			conn.busy()
			err := s.reading.wait(r.Context(), grown-held, nil)
			conn.waits()
			if err != nil {
				return nil, held, err
			}
			held = grown
		}
		body = append(make([]byte, 0, grown), body...)
	}
}

// budget shares out a number of bytes. Waiters are served in order, so a
// large one is not starved by small ones.
type budget struct {
	mu      sync.Mutex
	total   int64
	free    int64
	waiters []*share
}

type share struct {
	bytes   int64
	granted chan struct{}
}

func newBudget(total int64) *budget { return &budget{total: total, free: total} }

// pressEvery is how often one who waits presses those who hold what is lacking.
const pressEvery = 500 * time.Millisecond

// wait takes n bytes, at most the total, or fails after budgetWait. Meanwhile
// it calls press, unless nil, every now and then.
func (b *budget) wait(ctx context.Context, n int64, press func()) error {
	n = min(n, b.total)
	b.mu.Lock()
	if len(b.waiters) == 0 && n <= b.free {
		b.free -= n
		b.mu.Unlock()
		return nil
	}
	w := &share{bytes: n, granted: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()

	err := awaitGrant(ctx, w.granted, press)
	if err == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, other := range b.waiters {
		if other == w {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.serve() // the next may need less
			return err
		}
	}
	return nil // granted in the meantime
}

func awaitGrant(ctx context.Context, granted chan struct{}, press func()) error {
	timer, ticker := time.NewTimer(budgetWait), time.NewTicker(pressEvery)
	defer timer.Stop()
	defer ticker.Stop()
	for {
		select {
		case <-granted:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return unavailable("the node handles as many large bodies as it may")
		case <-ticker.C:
			if press != nil {
				press()
			}
		}
	}
}

// try takes n bytes if they are free.
func (b *budget) try(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiters) > 0 && n > 0 || n > b.free {
		return false
	}
	b.free -= n
	return true
}

// give returns n bytes, at most the total, that wait took.
func (b *budget) give(n int64) {
	b.mu.Lock()
	b.free += min(n, b.total)
	b.serve()
	b.mu.Unlock()
}

func (b *budget) serve() {
	for len(b.waiters) > 0 && b.waiters[0].bytes <= b.free {
		b.free -= b.waiters[0].bytes
		close(b.waiters[0].granted)
		b.waiters = b.waiters[1:]
	}
}
