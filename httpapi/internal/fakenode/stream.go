package fakenode

import (
	"sync"

	"github.com/couchledger/couchledger/node"
)

// subscription queues without bound, so that tests decide who is slow.
type subscription struct {
	events chan []node.Event
	once   sync.Once
	drop   func()
}

// subscriptionQueue is more batches than any test publishes unread.
const subscriptionQueue = 1 << 17

// Subscribe implements node.API.
func (n *Node) Subscribe() node.Subscription {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := &subscription{events: make(chan []node.Event, subscriptionQueue)}
	s.drop = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.subs, s)
		close(s.events)
	}
	n.subs[s] = struct{}{}
	return s
}

// Events implements node.Subscription.
func (s *subscription) Events() <-chan []node.Event { return s.events }

// Close implements node.Subscription.
func (s *subscription) Close() { s.once.Do(s.drop) }

// Publish sends events to all subscribers.
func (n *Node) Publish(events []node.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.publish(events)
}

func (n *Node) publish(events []node.Event) {
	if len(events) == 0 {
		return
	}
	for s := range n.subs {
		s.events <- events
	}
}

// EndSubscriptions closes all streams, as a stopping node does.
func (n *Node) EndSubscriptions() {
	n.mu.Lock()
	var all []*subscription
	for s := range n.subs {
		all = append(all, s)
	}
	n.mu.Unlock()
	for _, s := range all {
		s.Close()
	}
}

// Subscribers counts open subscriptions.
func (n *Node) Subscribers() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.subs)
}
