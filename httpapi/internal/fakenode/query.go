package fakenode

import (
	"context"
	"maps"
	"slices"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node"
	"github.com/couchledger/couchledger/statedb"
	"github.com/couchledger/couchledger/statedb/mango"
)

// MaxRows is how many rows one Query reads at most.
const MaxRows = 50

// Query implements node.API over the valid transactions, in the order of their
// ids; other tables are empty. It has no indexes: it scans, and refuses a sort.
func (n *Node) Query(_ context.Context, q node.QueryRequest) (node.QueryPage, error) {
	if err := n.hook("Query", q.Table); err != nil {
		return node.QueryPage{}, err
	}
	selector, fields, err := n.prepare(q)
	if err != nil {
		return node.QueryPage{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	documents := [][]byte{}
	for _, id := range slices.Sorted(maps.Keys(n.txs)) {
		document := n.txs[id].Value().With("_id", canonical.StringOf(id))
		if q.Table != statedb.Transactions || q.Range && (id < q.Start || q.End != "" && id >= q.End) ||
			!q.Range && !selector.Match(document) {
			continue
		}
		if len(fields) > 0 {
			document = mango.Project(document, fields)
		}
		documents = append(documents, document.Bytes())
	}
	result := node.QueryPage{Stats: statedb.Stats{Keys: -1, Documents: len(documents)}}
	if !q.Range {
		result.Warning = "everything was read"
	}
	result.Documents, result.Bookmark, err = page(documents, node.Page{Cursor: q.Bookmark, Limit: min(q.Limit, MaxRows)})
	return result, err
}

// Explain implements node.API. A query with use_index uses that index.
func (n *Node) Explain(_ context.Context, q node.QueryRequest) (node.QueryPlan, error) {
	if err := n.hook("Explain", q.Table); err != nil {
		return node.QueryPlan{}, err
	}
	selector, _, err := n.prepare(q)
	if err != nil {
		return node.QueryPlan{}, err
	}
	if q.Range {
		return node.QueryPlan{Plan: statedb.Plan{Fields: []string{"_id"}, Covering: "All."}}, nil
	}
	if q.UseIndex != "" {
		return node.QueryPlan{Plan: statedb.Plan{Index: q.DesignDoc + "/" + q.UseIndex, Fields: []string{"a", "b"}, Covering: "All."}}, nil
	}
	return node.QueryPlan{Plan: statedb.Plan{Covering: "Nothing.", Scan: true}, Advice: mango.Advise(selector)}, nil
}

func (n *Node) prepare(q node.QueryRequest) (*mango.Selector, []mango.Path, error) {
	fields, err := mango.ParseFields(q.Fields)
	if err != nil || q.Range {
		return nil, fields, err
	}
	if len(q.Sort) > 0 {
		return nil, nil, statedb.ErrNoIndex
	}
	selector, err := mango.Parse(q.Selector)
	return selector, fields, err
}
