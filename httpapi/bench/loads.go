package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
)

// loaded is what one load came to: CREATEs, then TRANSFERs of them.
type loaded struct {
	connections        int
	creates, transfers result
	requests           float64       // to CouchDB
	behind             time.Duration // from the last event until all was written for queries
}

func (l loaded) valid() int { return l.creates.valid + l.transfers.valid }

// loads posts the counted load with each number of connections, reads some of
// it back, and puts the rates in proportion. CouchDB's own rate is measured on
// both sides of the loads and the lower one counts: machines have hours.
func (r *run) loads(ctx context.Context, report *Report) error {
	ref := reference{verifications: r.verifications(ctx)}
	report.add(Figure{Name: "Ed25519 verifications, all cores", Value: ref.verifications, Unit: "/s"})
	var before, after footprint
	var rawBefore, rawAfter float64
	if r.couch != nil {
		var err error
		if before, err = r.couch.footprint(ctx); err != nil {
			return err
		}
		if rawBefore, err = r.raw(ctx, "before"); err != nil {
			return err
		}
	}
	var ids []string
	var done []loaded
	transactions := 0
	for _, connections := range r.opts.Connections {
		l, created, err := r.createsAndTransfers(ctx, connections, before.backlog)
		if err != nil {
			return err
		}
		ids, done, transactions = created, append(done, l), transactions+l.valid()
	}
	memory := r.memoryPeak()
	if r.couch != nil {
		var err error
		if after, err = r.couch.footprint(ctx); err != nil {
			return err
		}
		if rawAfter, err = r.raw(ctx, "after"); err != nil {
			return err
		}
		ref.raw = min(rawBefore, rawAfter)
		report.add(Figure{Name: "CouchDB alone, documents, before", Value: rawBefore, Unit: "/s"})
		report.add(Figure{Name: "CouchDB alone, documents, after", Value: rawAfter, Unit: "/s"})
	}
	for _, l := range done {
		r.addLoaded(report, l, ref)
	}
	if r.couch != nil && transactions > 0 {
		report.addFootprint(before, after, transactions)
	}
	report.add(atMost("Node's resident memory over the loads, peak", memory, "MB", r.goals.memory))
	reads, err := r.reads(ctx, ids)
	if err != nil {
		return err
	}
	report.add(atLeast("GET by id", reads, "/s", r.goals.reads))
	return nil
}

func (r *run) raw(ctx context.Context, when string) (float64, error) {
	r.progress.start("CouchDB alone, "+when, r.opts.RawDocuments)
	rate, err := r.couch.rawRate(ctx, r.opts.RawDocuments, r.progress.at)
	if err == nil {
		r.progress.finish(r.opts.RawDocuments)
	}
	return rate, err
}

// settleTime is how long the node may take after a load to write what it has
// decided.
const settleTime = 2 * time.Minute

// createsAndTransfers posts one load and gives its CREATEs' ids. backlog is
// how many entries it had before.
func (r *run) createsAndTransfers(ctx context.Context, connections, backlog int) (l loaded, ids []string, err error) {
	r.connections, l.connections = connections, connections
	count := r.opts.Count
	ids = make([]string, count)
	templates := make([]ledger.Source, len(r.owners))
	for i, k := range r.owners {
		t, err := r.create("template", i, ledger.PayTo(k.Public, 1))
		if err != nil {
			return l, nil, fmt.Errorf("bench: %w", err)
		}
		templates[i] = ledger.SourceOf(t, 0)
	}
	requests, err := r.couchRequests(ctx)
	if err != nil {
		return l, nil, err
	}
	kind := fmt.Sprintf("create %d", connections)
	l.creates, err = r.load(ctx, r.named("CREATE", connections), count, func(i int) (*ledger.Transaction, error) {
		t, err := r.create(kind, i, ledger.PayTo(r.owner(i).Public, 1))
		if err == nil {
			ids[i] = t.ID
		}
		return t, err
	})
	if err != nil {
		return l, nil, err
	}
	l.transfers, err = r.load(ctx, r.named("TRANSFER", connections), count, func(i int) (*ledger.Transaction, error) {
		source := templates[i%len(templates)]
		source.Ref = ledger.OutputRef{TxID: ids[i]}
		return transferOf(ids[i], r.owner(i), r.owner(i+1).Public, 1, source)
	})
	if err != nil || r.couch == nil {
		return l, ids, err
	}
	begin := time.Now()
	settled, err := r.couch.settled(ctx, backlog, settleTime)
	if err != nil {
		return l, nil, err
	}
	if l.behind = time.Since(begin); !settled {
		r.fail(fmt.Sprintf("%v after a load the node has not written everything: what CouchDB did for it is not counted whole", settleTime))
	}
	after, err := r.couchRequests(ctx)
	l.requests = after - requests
	return l, ids, err
}

// named adds the number of connections where a run has several.
func (r *run) named(label string, connections int) string {
	if len(r.opts.Connections) == 1 {
		return label
	}
	return fmt.Sprintf("%s, %d in flight", label, connections)
}

// couchRequests is how many requests the node has sent to CouchDB; 0 without
// one.
func (r *run) couchRequests(ctx context.Context) (float64, error) {
	if r.couch == nil {
		return 0, nil
	}
	w, err := r.dial()
	if err != nil {
		return 0, err
	}
	defer w.close()
	resp, _, err := r.ask(ctx, w, http.MethodGet, "/metrics", nil)
	if err != nil || resp.status != http.StatusOK {
		return 0, errors.New("bench: the node's metrics: " + failure(resp, err))
	}
	total := couchRequests(resp.body)
	if total == 0 {
		return 0, fmt.Errorf("bench: the node at %s counts no requests to CouchDB: the settings are not those it runs with", r.opts.URL)
	}
	return total, nil
}

func (r *run) addLoaded(report *Report, l loaded, ref reference) {
	want := r.goals.load(l.connections)
	report.addLoad(r.named("CREATE", l.connections), l.creates, ref, want.create, r.goals.lastFirst)
	report.addLoad(r.named("TRANSFER", l.connections), l.transfers, ref, want.transfer, r.goals.lastFirst)
	if r.couch != nil && l.valid() > 0 {
		report.add(Figure{Name: r.named("Last event to all written", l.connections), Value: l.behind.Seconds(), Unit: "s"})
		report.add(atMost(r.named("CouchDB requests per transaction", l.connections), l.requests/float64(l.valid()), "", want.requests))
	}
}

// addFootprint adds what a transaction of the loads takes in CouchDB's files,
// before they are compacted and of what is in use.
func (r *Report) addFootprint(before, after footprint, transactions int) {
	const kilobyte = 1e3
	per := func(bytes int64) float64 { return float64(bytes) / kilobyte / float64(transactions) }
	r.add(Figure{Name: "Database files per transaction", Value: per(after.file - before.file), Unit: "kB"})
	r.add(Figure{Name: "Database in use per transaction", Value: per(after.active - before.active), Unit: "kB"})
}
