package httpapi

import (
	sequence "container/list"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxClients is how many clients a rates remembers. One that was forgotten
// begins with a full burst again.
const maxClients = 20_000

// rates bounds the requests per second of each client.
type rates struct {
	limit rate.Limit
	burst int

	mu      sync.Mutex
	clients map[netip.Prefix]*sequence.Element
	recent  sequence.List // of *clientRate, the one seen last first
}

type clientRate struct {
	client  netip.Prefix
	limiter *rate.Limiter
}

// newRates gives nil, which refuses nobody, where perSecond is 0.
func newRates(perSecond, burst int) *rates {
	if perSecond <= 0 {
		return nil
	}
	if burst <= 0 {
		burst = 2 * perSecond
	}
	return &rates{limit: rate.Limit(perSecond), burst: burst, clients: map[netip.Prefix]*sequence.Element{}}
}

// take counts a request, or gives the 429 with the time after which the next
// one is taken.
func (l *rates) take(addr netip.Addr, now time.Time) error {
	if l == nil {
		return nil
	}
	limiter := l.of(clientKey(addr))
	reserved := limiter.ReserveN(now, 1)
	wait := reserved.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	reserved.CancelAt(now)
	return &httpError{status: http.StatusTooManyRequests, message: "this client asks more often than it may", retry: wait}
}

func (l *rates) of(client netip.Prefix) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.clients[client]; ok {
		l.recent.MoveToFront(e)
		return e.Value.(*clientRate).limiter
	}
	if l.recent.Len() >= maxClients {
		oldest := l.recent.Back()
		delete(l.clients, oldest.Value.(*clientRate).client)
		l.recent.Remove(oldest)
	}
	c := &clientRate{client: client, limiter: rate.NewLimiter(l.limit, l.burst)}
	l.clients[client] = l.recent.PushFront(c)
	return c.limiter
}
