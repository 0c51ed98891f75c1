package httpapi

import (
	"context"
	"sync"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node"
)

// batch holds the messages of one decision, encoded once for all readers.
type batch [][]byte

// encode gives one message per event.
func encode(events []node.Event) batch {
	const most = 256 // bytes of one message, ids being 64 characters
	slab := make([]byte, 0, most*len(events))
	messages := make(batch, len(events))
	for i, e := range events {
		start := len(slab)
		slab = append(slab, `{"txid":`...)
		slab = canonical.AppendString(slab, e.TxID)
		slab = append(slab, `,"assetid":`...)
		slab = canonical.AppendString(slab, e.AssetID)
		slab = append(slab, `,"blockid":`...)
		slab = canonical.AppendString(slab, e.BlockID)
		slab = append(slab, '}')
		messages[i] = slab[start:len(slab):len(slab)]
	}
	return messages
}

// hub spreads one subscription of the node over all open streams. It never
// waits for a stream: one whose queue is full is dropped.
type hub struct {
	api     node.API
	most    int // streams
	queue   int // messages waiting per stream
	metrics *metrics

	mu      sync.Mutex
	streams map[*stream]struct{}
	source  node.Subscription // nil while nobody listens
	closed  bool
	open    sync.WaitGroup // streams joined and not left
}

func newHub(api node.API, opts Options, m *metrics) *hub {
	return &hub{
		api: api, most: opts.MaxStreams, queue: opts.StreamQueue, metrics: m,
		streams: map[*stream]struct{}{},
	}
}

// join adds a stream that gets every event from now on.
func (h *hub) join() (*stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, unavailable("the node is stopping")
	}
	if len(h.streams) >= h.most {
		return nil, unavailable("the node has as many streams open as it may")
	}
	if h.source == nil {
		h.source = h.api.Subscribe()
		go h.run(h.source)
	}
	st := &stream{most: h.queue, wake: make(chan struct{}, 1), done: make(chan struct{})}
	h.streams[st] = struct{}{}
	h.open.Add(1)
	h.metrics.streams.Inc()
	return st, nil
}

// leave removes a stream. The subscription ends with the last one.
func (h *hub) leave(st *stream) {
	h.mu.Lock()
	delete(h.streams, st)
	source := h.source
	if len(h.streams) == 0 {
		h.source = nil
	} else {
		source = nil
	}
	h.mu.Unlock()
	if source != nil {
		source.Close()
	}
	h.metrics.streams.Dec()
	h.open.Done()
}

func (h *hub) run(source node.Subscription) {
	for events := range source.Events() {
		messages := encode(events)
		for _, st := range h.listeners(source) {
			if !st.push(messages) {
				h.drop(st)
			}
		}
	}
	// The node stops, or this subscription was dropped: whoever still
	// listens has missed events from here on and must know.
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.source == source {
		h.source = nil
		for st := range h.streams {
			st.end(endGoingAway)
		}
	}
}

// drop cuts a stream whose reader is too slow.
func (h *hub) drop(st *stream) {
	if st.end(endCut) {
		h.metrics.streamsDropped.Inc()
	}
}

// listeners returns the streams that source feeds, none once it was replaced.
func (h *hub) listeners(source node.Subscription) []*stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.source != source {
		return nil
	}
	list := make([]*stream, 0, len(h.streams))
	for st := range h.streams {
		list = append(list, st)
	}
	return list
}

// close ends all streams and waits until they have said so to their clients,
// or until ctx ends, when it cuts them.
func (h *hub) close(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	for st := range h.streams {
		st.end(endGoingAway)
	}
	h.mu.Unlock()

	left := make(chan struct{})
	go func() {
		h.open.Wait()
		close(left)
	}()
	select {
	case <-left:
		return
	case <-ctx.Done():
	}
	h.mu.Lock()
	for st := range h.streams {
		st.end(endCut)
	}
	h.mu.Unlock()
	<-left
}

// ending says how a stream is over. A later one outdoes an earlier one.
type ending int

const (
	endNone      ending = iota
	endGoingAway        // tell the client with status 1001
	endCut              // close the connection as it is
)

// stream is one reader's queue of messages.
type stream struct {
	most int
	wake chan struct{} // has a token when there is something to take
	done chan struct{} // closed when the stream must end

	mu      sync.Mutex
	queue   []batch
	waiting int // messages in queue
	ending  ending
	cut     func() // closes the connection, once there is one
}

// push queues messages and reports false when there is no room for them.
func (st *stream) push(messages batch) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ending != endNone {
		return true
	}
	if st.waiting > 0 && st.waiting+len(messages) > st.most {
		return false
	}
	st.queue = append(st.queue, messages)
	st.waiting += len(messages)
	select {
	case st.wake <- struct{}{}:
	default:
	}
	return true
}

// take empties the queue.
func (st *stream) take() []batch {
	st.mu.Lock()
	defer st.mu.Unlock()
	queue := st.queue
	st.queue, st.waiting = nil, 0
	return queue
}

// connected gives the stream its connection.
func (st *stream) connected(cut func()) {
	st.mu.Lock()
	st.cut = cut
	late := st.ending == endCut
	st.mu.Unlock()
	if late {
		cut()
	}
}

// end ends the stream and reports whether it was not ending yet.
func (st *stream) end(how ending) (first bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if how <= st.ending {
		return false
	}
	if first = st.ending == endNone; first {
		close(st.done)
	}
	st.ending = how
	if how == endCut {
		st.queue, st.waiting = nil, 0
		if st.cut != nil {
			st.cut()
		}
	}
	return first
}

func (st *stream) ended() ending {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.ending
}
