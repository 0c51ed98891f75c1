package node

import (
	"context"
	"sync"

	"github.com/couchledger/couchledger/node/consensus"
)

// subscriptionQueue is how many decisions a subscriber may lag behind before
// it is dropped.
const subscriptionQueue = 256

// hub hands decisions to subscribers. A slow one never holds up the node.
type hub struct {
	mu     sync.Mutex
	all    map[*subscription]bool
	closed bool
}

type subscription struct {
	hub    *hub
	events chan []Event
}

func newHub() *hub { return &hub{all: map[*subscription]bool{}} }

func (h *hub) publish(events []Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.all {
		select {
		case s.events <- events:
		default:
			h.remove(s)
		}
	}
}

func (h *hub) remove(s *subscription) {
	if h.all[s] {
		delete(h.all, s)
		close(s.events)
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.all {
		h.remove(s)
	}
}

// Events is closed when the subscription ends.
func (s *subscription) Events() <-chan []Event { return s.events }

// Close ends the subscription.
func (s *subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.remove(s)
}

// Subscribe opens a stream of transactions that become valid from now on.
func (n *Node) Subscribe() Subscription {
	s := &subscription{hub: n.hub, events: make(chan []Event, subscriptionQueue)}
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	if n.hub.closed {
		close(s.events)
		return s
	}
	n.hub.all[s] = true
	return s
}

// waiters are the callers that wait for one transaction's fate.
type waiters struct {
	mu  sync.Mutex
	all map[string][]chan error
}

func (w *waiters) add(tx string) chan error {
	c := make(chan error, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[string][]chan error{}
	}
	w.all[tx] = append(w.all[tx], c)
	return c
}

func (w *waiters) remove(tx string, c chan error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.all[tx]
	for i := range list {
		if list[i] == c {
			list[i] = list[len(list)-1]
			w.all[tx] = list[:len(list)-1]
			break
		}
	}
	if len(w.all[tx]) == 0 {
		delete(w.all, tx)
	}
}

// settle tells those who wait that a transaction is valid, or why it is not.
func (w *waiters) settle(tx string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.all[tx] {
		c <- err
	}
	delete(w.all, tx)
}

// Await returns when a transaction is in a valid block, with a *RefusedError
// when it was refused, or with the context's error.
func (n *Node) Await(ctx context.Context, txID string) error {
	c := n.waiters.add(txID)
	defer n.waiters.remove(txID, c)
	status, _, err := n.state.TransactionStatus(txID)
	if err != nil || status == consensus.Valid {
		return err
	}
	if _, err := n.refusal(txID); err != nil {
		return err
	}
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
