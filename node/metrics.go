package node

import "github.com/prometheus/client_golang/prometheus"

// metrics are what a node counts of itself.
type metrics struct {
	accepted, refused, blocks, votes, valid, reassigned, conflicts, withheld prometheus.Counter
	faults                                                                   *prometheus.CounterVec // by kind
}

func newMetrics(n *Node, registry prometheus.Registerer) *metrics {
	var all []prometheus.Collector
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "couchledger", Name: name, Help: help})
		all = append(all, c)
		return c
	}
	m := &metrics{
		accepted:   counter("transactions_accepted_total", "Transactions that this node put into the backlog."),
		refused:    counter("transactions_refused_total", "Transactions refused after they had been accepted."),
		blocks:     counter("blocks_made_total", "Blocks that this node made."),
		votes:      counter("votes_given_total", "Votes that this node gave."),
		valid:      counter("transactions_valid_total", "Transactions that became valid while this node ran."),
		reassigned: counter("backlog_reassigned_total", "Backlog entries that this node took from an assignee that was too slow."),
		conflicts:  counter("backlog_conflicts_total", "Revisions of backlog entries that replication brought and that were removed for another of the same entry."),
		withheld:   counter("query_documents_withheld_total", "Documents left out of queries: not the ledger's, or not decided here yet."),
	}
	m.faults = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "couchledger", Name: "faults_total", Help: "What strangers, liars or broken nodes wrote, by kind; GET /api/v1/faults has the evidence.",
	}, []string{"kind"})
	for _, kind := range faultKinds {
		m.faults.WithLabelValues(kind)
	}
	all = append(all, m.faults, prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Namespace: "couchledger", Name: "backlog_entries", Help: "Undecided transactions that this node tracks."},
		func() float64 { return float64(n.backlog.len()) },
	))
	all = append(all, prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Namespace: "couchledger", Name: "down", Help: "1 while no transactions are accepted: the database is away, or the disk is full."},
		func() float64 {
			select {
			case <-n.down():
				return 1
			default:
				return 0
			}
		},
	))
	if registry != nil {
		registry.MustRegister(all...)
	}
	return m
}
