package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

const (
	// listRoom and documentRoom bound the bytes of answers that wait for their
	// clients to take them. Clients may be any number, and slow. Single documents
	// have a room of their own: nobody who reads one stands behind a crowd that
	// waits for lists.
	listRoom     = 32 << 20
	documentRoom = 32 << 20
	// answerStall is how long a client may leave an answer lying while others
	// wait for the room that it takes. When there is enough, it has
	// Options.WriteTimeout for each part.
	answerStall = time.Second
	// transactionRoom is what a transaction is thought to take until it is there.
	transactionRoom = 256 << 10
)

// room is a request's part of a budget.
type room struct {
	of   *budget
	held int64
	conn *gatedConn // of the request
}

// roomFor is a request's part of what all answers of its kind may take; nothing
// yet.
func roomFor(c echo.Context, of *budget) room { return room{of: of, conn: connOf(c.Request())} }

// writeDocument answers with one document, which is thought to have guess bytes
// until it is there.
func (s *Server) writeDocument(c echo.Context, guess int64, read func(context.Context) ([]byte, error)) error {
	r := roomFor(c, s.documents)
	defer r.free()
	for need := guess; ; {
		if err := r.grow(c.Request().Context(), need); err != nil {
			return err
		}
		body, err := read(c.Request().Context())
		if err != nil {
			return err
		}
		if need = int64(len(body)); r.fit(need) {
			return writeJSON(c, http.StatusOK, body)
		}
		r.free() // read anew when there is room, as nothing is held while it waits
	}
}

// grow waits until the part is n bytes, at most the total, or fails after
// budgetWait.
func (r *room) grow(ctx context.Context, n int64) error {
	n = min(n, r.of.total)
	if n <= r.held {
		return nil
	}
	press := func() {
		if r.conn != nil {
			r.conn.gate.press(answerStall)
		}
	}
	if err := r.of.wait(ctx, n-r.held, press); err != nil {
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
