// Package bench measures a running node over HTTP, from outside: how many
// transactions per second become valid, how long one takes, what reads cost,
// and whether the cost of an answer follows the answer or the history.
//
// It signs as a client does, so on one machine load and node share the cores;
// the figures are put in proportion to the Ed25519 verifications per second
// that the same cores manage alone, and those of a node on CouchDB to the
// documents per second that the same CouchDB takes alone.
package bench

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/couchledger/couchledger/httpapi/client"
	"github.com/couchledger/couchledger/node/ledger"
)

// Options say what to measure and how much of it. The zero value is the quick
// run against http://localhost:9984.
type Options struct {
	// URL is the node's address, http or https. "" is http://localhost:9984.
	URL string
	// TLS is for https; nil trusts what the system does.
	TLS *tls.Config `json:"-"`
	// Token is shown to the node; "" for none.
	Token string `json:"-"`
	// AllowRemote permits nodes that are not on this machine: the load writes
	// to the ledger for good.
	AllowRemote bool
	// CouchDB is where the node keeps its ledger; nil for another backend.
	CouchDB *CouchDB `json:"-"` // it holds a password
	// NoGoals asks nothing of the figures: the node is on a backend without
	// goals of its own.
	NoGoals bool
	// Connections post at once, in one load after the other; the last number
	// reads, too. None is 32, and 256 before it with CouchDB.
	Connections []int
	// Count is how many CREATEs a load posts, then as many TRANSFERs. 0 is 20,000.
	Count int
	// Singles is how many transactions are posted one at a time. 0 is 100.
	Singles int
	// Outputs is how many the owner with a history has. 0 is 10,000.
	Outputs int
	// Transfers is how many the asset with a history has. 0 is 2,000.
	Transfers int
	// Full raises Count, Outputs and Transfers to the 100,000, 100,000
	// and 20,000 where they are 0, and compares pages of a query.
	Full bool
	// RawDocuments is how many each measurement of CouchDB alone writes. 0 is
	// 20,000.
	RawDocuments int
	// PreSign signs everything before the clock starts.
	PreSign bool
	// Steady is how long the measurements without a count last: verifications
	// and reads. 0 is 2 s.
	Steady time.Duration
	// Patience is how long nothing may become valid before the rest counts as
	// lost. 0 is 60 s.
	Patience time.Duration
}

// The numbers of connections that goals are set for.
const (
	manyConnections = 256
	someConnections = 32
)

// DefaultURL is where a node listens unless told otherwise.
const DefaultURL = "http://localhost:9984"

func (o *Options) setDefaults() {
	or := func(v *int, quick, full int) {
		if *v <= 0 && o.Full {
			*v = full
		} else if *v <= 0 {
			*v = quick
		}
	}
	if len(o.Connections) == 0 && o.CouchDB != nil {
		o.Connections = []int{manyConnections, someConnections}
	} else if len(o.Connections) == 0 {
		o.Connections = []int{someConnections}
	}
	or(&o.Count, 20_000, 100_000)
	or(&o.RawDocuments, 20_000, 20_000)
	or(&o.Singles, 100, 100)
	or(&o.Outputs, 10_000, 100_000)
	or(&o.Transfers, 2_000, 20_000)
	if o.URL == "" {
		o.URL = DefaultURL
	}
	if o.Steady <= 0 {
		o.Steady = 2 * time.Second
	}
	if o.Patience <= 0 {
		o.Patience = time.Minute
	}
}

// checkLoopback refuses addresses beyond this machine.
func checkLoopback(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, u.Hostname())
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	for _, ip := range ips {
		if !ip.IP.IsLoopback() {
			return fmt.Errorf("bench: %s is not on this machine, and the load stays in its ledger for good: allow remote nodes if that is meant", u.Host)
		}
	}
	return nil
}

// run is one measurement under way.
type run struct {
	opts     Options
	goals    goals
	client   *client.Client
	couch    *couch // nil without CouchDB
	progress *progress
	tracker  *tracker
	owners   []ledger.KeyPair
	id       string // makes the run's assets its own

	connections int // of the load under way

	mu      sync.Mutex
	errors  map[string]int
	retries int
	memory  float64 // bytes, the node's highest so far
}

// ownerCount is how many different keys the load is spread over.
const ownerCount = 64

// Run measures and reports. Progress goes to w: a bar with the rate on a
// terminal, a line now and then otherwise. Failed requests are counted in the
// report; an error means that nothing could be measured.
func Run(ctx context.Context, opts Options, w io.Writer) (Report, error) {
	opts.setDefaults()
	if slices.Min(opts.Connections) < 1 {
		return Report{}, errors.New("bench: a load needs one connection at least")
	}
	if !opts.AllowRemote {
		if err := checkLoopback(ctx, opts.URL); err != nil {
			return Report{}, err
		}
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 4, Proxy: nil, TLSClientConfig: opts.TLS}
	defer transport.CloseIdleConnections()
	c, err := client.New(opts.URL, client.WithHTTPClient(&http.Client{Transport: transport}), client.WithToken(opts.Token))
	if err != nil {
		return Report{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run{
		opts: opts, goals: opts.goals(), client: c, connections: slices.Min(opts.Connections), progress: newProgress(w), tracker: newTracker(),
		id: rand.Text(), errors: map[string]int{},
	}
	if opts.CouchDB != nil {
		r.couch = newCouch(*opts.CouchDB)
		defer r.couch.close()
	}
	for range ownerCount {
		r.owners = append(r.owners, ledger.GenerateKeyPair())
	}
	report := Report{Started: time.Now().UTC(), URL: opts.URL, Cores: cores(), Go: runtime.Version(), Options: opts}
	err = r.measure(ctx, &report)
	r.mu.Lock()
	report.Errors, report.Retries = r.errors, r.retries
	r.mu.Unlock()
	report.Took = time.Since(report.Started).Seconds()
	return report, err
}

func (r *run) measure(ctx context.Context, report *Report) error {
	ready, err := r.dial()
	if err != nil {
		return err
	}
	defer ready.close()
	if resp, err := ready.do(http.MethodGet, "/readyz", nil); err != nil || resp.status != http.StatusOK {
		return fmt.Errorf("bench: the node at %s is not ready: %s", r.opts.URL, failure(resp, err))
	}
	first, err := r.client.Stream(ctx)
	if err != nil {
		return err
	}
	followed := make(chan struct{})
	following, stop := context.WithCancel(ctx)
	go func() {
		defer close(followed)
		r.follow(following, first)
	}()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		r.watchMemory(following)
	}()
	defer func() {
		stop()
		<-followed
		<-watched
	}()

	phases := []func(context.Context, *Report) error{r.loads, r.singles}
	if r.opts.Full {
		phases = append(phases, r.query) // before there are CREATEs of other sizes
	}
	for _, phase := range append(phases, r.outputs, r.pages) {
		if err := phase(ctx, report); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
	}
	report.add(Figure{Name: "Node's resident memory, whole run, peak", Value: r.memoryPeak(), Unit: "MB"})
	return nil
}

// fail counts an error by its kind.
func (r *run) fail(kind string) {
	r.mu.Lock()
	r.errors[kind]++
	r.mu.Unlock()
}
