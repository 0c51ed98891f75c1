package bench

// goals are what the project asks of a node on its backend; 0 asks nothing, and
// the figure is printed alone.
type goals struct {
	load func(connections int) loadGoals

	lastFirst float64 // rate of a load's end in proportion to its begin, at least
	memory    float64 // MB over the loads, at most
	reads     float64 // GET by id per second, at least
	single    float64 // ms from POST to valid, at most
	outputs   float64 // unspent outputs with a history in proportion to those without, at most
	pages     float64 // last page of a list in proportion to its first, at most
	query     float64 // page 1000 of a query in proportion to its first, at most
}

// loadGoals are of one load: final transactions in proportion to the reference
// (Ed25519 verifications, or documents that CouchDB takes alone), and requests
// to CouchDB per transaction, at most.
type loadGoals struct{ create, transfer, requests float64 }

// pageGoal is how much dearer a far page may be than a near one.
const pageGoal = 1.25

func (o Options) goals() goals {
	switch {
	case o.NoGoals:
		return goals{load: func(int) loadGoals { return loadGoals{} }}
	case o.CouchDB != nil:
		return goals{load: couchLoadGoals, single: 250, query: pageGoal}
	}
	return goals{
		load:      func(int) loadGoals { return loadGoals{create: 0.12, transfer: 0.08} },
		lastFirst: 0.8, memory: 400, reads: 5000, single: 100, outputs: 3, pages: pageGoal,
	}
}

func couchLoadGoals(connections int) loadGoals {
	switch connections {
	case manyConnections:
		return loadGoals{create: 0.18, transfer: 0.15, requests: 0.1}
	case someConnections:
		return loadGoals{create: 0.12, transfer: 0.10}
	}
	return loadGoals{}
}
