package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/disk"
	"github.com/couchledger/couchledger/node/chainstate"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// Submit validates a posted transaction and puts it into the backlog. It
// returns when that is durable. Errors are *canonical.SyntaxError,
// *ledger.ValidationError, ErrBusy, ErrNotReady, or the database's.
func (n *Node) Submit(ctx context.Context, body []byte) (*ledger.Transaction, error) {
	t, err := ledger.ParseTransaction(body)
	if err != nil {
		return nil, err
	}
	if t.Operation == ledger.Genesis {
		return nil, ledger.Invalid(ledger.SchemaValidationError, "operation: a GENESIS stands only in a ledger's first block")
	}
	if err := n.db.Check(t.Value()); err != nil {
		return nil, ledger.Invalid(ledger.SchemaValidationError, "%v", err)
	}
	proof, err := n.check(t)
	if err != nil {
		return nil, err
	}
	t.Compact()
	if err := n.canPost(); err != nil {
		return nil, err
	}
	if known, err := n.checkAgainstLedger(t, proof); err != nil || known {
		return t, err
	}
	e, known, err := n.backlog.admit(ctx, t)
	if err != nil {
		return nil, err
	}
	if !known {
		if err := n.journal.Unrefuse(t.ID); err != nil {
			return nil, err
		}
		n.posts <- post{e, t} // has room for all that admit lets through
	}
	if e.done == nil {
		return t, nil // the feed brought it, so it is in the database
	}
	select {
	case <-e.done:
		if errors.Is(e.err, disk.ErrLacks) {
			return nil, errFull
		}
		return t, e.err
	case <-n.down():
		// It may be written in the end. To post it again is harmless.
		return nil, n.whyDown()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// checkAgainstLedger checks a posted transaction against the chainstate, and
// reports whether it is valid already. In a block that is not decided it is not
// safe: a liar's block may hold what is in nobody's backlog, and come to nothing.
func (n *Node) checkAgainstLedger(t *ledger.Transaction, proof consensus.Proof) (known bool, err error) {
	view := n.state.View()
	defer view.Close()
	status, _, err := view.TransactionStatus(t.ID)
	if err != nil || status == consensus.Valid {
		return true, err
	}
	return false, n.rules.CheckSpends(t, proof, liveView(view, nil))
}

// liveView is the ledger as a new transaction sees it: every output that a
// transaction in a valid or undecided block spends is spent. extra tells of
// spends that no block which has arrived shows yet; it may be nil.
func liveView(view *chainstate.View, extra func(ledger.OutputRef) []string) consensus.View {
	return viewFunc(func(ref ledger.OutputRef) (consensus.Output, error) {
		output, spends, err := view.Output(ref)
		for _, s := range spends {
			output.SpentBy = append(output.SpentBy, s.TxID)
		}
		if extra != nil {
			output.SpentBy = append(output.SpentBy, extra(ref)...)
		}
		return output, err
	})
}

type viewFunc func(ledger.OutputRef) (consensus.Output, error)

func (f viewFunc) Output(ref ledger.OutputRef) (consensus.Output, error) { return f(ref) }

const (
	// maxPostBatchBytes bounds one write of the backlog writer.
	maxPostBatchBytes = 4 << 20
	// The backlog writer waits for more posts while they come in numbers: a
	// few large writes cost much less than many small ones. It waits a part of
	// the time that the last write took, within these bounds. A post that
	// comes alone is written at once.
	minGather  = 700 * time.Microsecond
	maxGather  = 5 * time.Millisecond
	gatherPart = 3
)

// writePosts is the backlog writer: it writes all posts that wait in one batch.
// Several batches may be under way at once: one is gathered and prepared while
// others wait for the disk.
func (n *Node) writePosts(ctx context.Context) error {
	var writes sync.WaitGroup
	defer writes.Wait()
	slots := make(chan struct{}, max(1, n.db.Limits().Writers))
	many := false
	for {
		var first post
		select {
		case <-ctx.Done():
			return nil
		case first = <-n.posts:
		}
		slots <- struct{}{}
		if many {
			// Those whose posts were written just now are about to post again.
			// Not woken by each post, which would cost as much.
			sleep(ctx, min(max(time.Duration(n.wroteIn.Load())/gatherPart, minGather), maxGather))
		}
		batch := n.takePosts(first)
		many = len(batch) > 1
		writes.Go(func() {
			n.writeBatch(ctx, batch)
			<-slots
		})
	}
}

// post is an entry on its way into the backlog. The transaction stands beside
// it, since an entry lets go of its own as soon as a block has it.
type post struct {
	*entry
	body *ledger.Transaction
}

// takePosts takes what waits behind a first post.
func (n *Node) takePosts(first post) []post {
	batch := []post{first}
	for size := len(first.body.Bytes()); len(batch) < n.db.Limits().MaxBatch && size < maxPostBatchBytes; {
		select {
		case p := <-n.posts:
			batch = append(batch, p)
			size += len(p.body.Bytes())
		default:
			return batch
		}
	}
	return batch
}

func (n *Node) writeBatch(ctx context.Context, batch []post) {
	members := n.federation().Members
	now := n.clock().Unix()
	writes := make([]statedb.Write, len(batch))
	assignees := make([]string, len(batch))
	for i, p := range batch {
		assignees[i] = assigneeOf(members, p.body)
		writes[i] = statedb.Write{ID: p.id, Body: backlogDocument(p.body, assignees[i], now)}
	}
	start := time.Now()
	results, err := n.db.Write(ctx, statedb.Backlog, writes)
	n.wroteIn.Store(int64(time.Since(start)))
	if err != nil {
		n.setTrouble(writerTask, err)
		for _, p := range batch {
			n.backlog.written(p.entry, "", "", err)
		}
		n.unsure.add(writes)
		return
	}
	var conflicts []int
	for i, p := range batch {
		fault := results[i].Err
		switch {
		case errors.Is(fault, statedb.ErrConflict):
			conflicts = append(conflicts, i)
			continue
		case errors.Is(fault, statedb.ErrTooLarge):
			fault = ledger.Invalid(ledger.SchemaValidationError, "the transaction is larger than the database takes")
		case errors.Is(fault, statedb.ErrBadDocument):
			n.log.Error("the database does not take a transaction that its adapter has checked", "transaction", p.id, "error", fault)
			fault = ledger.Invalid(ledger.SchemaValidationError, "the database does not take the transaction")
		}
		n.backlog.written(p.entry, results[i].Rev, assignees[i], fault)
	}
	for len(conflicts) > 0 {
		conflicts = n.takeOver(ctx, batch, writes, assignees, conflicts)
	}
	n.metrics.accepted.Add(float64(len(batch)))
}

// unsureWrites are writes of the backlog writer that failed: the clients were
// told 503, and yet a transaction may be in the database. The feed may have
// shown it already, while it was still being written, and will not again.
type unsureWrites struct {
	mu    sync.Mutex
	ids   []string
	probe statedb.Write // one of them
	wake  chan struct{}
}

func (u *unsureWrites) add(writes []statedb.Write) {
	u.mu.Lock()
	for _, w := range writes {
		u.ids = append(u.ids, w.ID)
	}
	u.probe = writes[0]
	u.mu.Unlock()
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

func (u *unsureWrites) take() (probe statedb.Write, ids []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	probe, ids = u.probe, u.ids
	u.probe, u.ids = statedb.Write{}, nil
	return probe, ids
}

// endOutage ends an outage of the backlog writer, until which posts are
// refused: it tries one of the failed writes until it gets through, and then
// looks which of the others did.
func (n *Node) endOutage(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.unsure.wake:
		}
		probe, ids := n.unsure.take()
		err := n.retry(ctx, writerTask, func() error {
			_, err := n.db.Write(ctx, statedb.Backlog, []statedb.Write{probe})
			return err // it being there already is as good
		})
		if err == nil {
			err = n.trackEntries(ctx, ids)
		}
		if err != nil {
			return err
		}
	}
}

// takeOver resolves conflicts in the backlog, and returns those that are left.
// An entry of the same transaction is as good as ours; garbage under its id is
// overwritten.
func (n *Node) takeOver(ctx context.Context, batch []post, writes []statedb.Write, assignees []string, conflicts []int) (left []int) {
	fail := func(places []int, err error) []int {
		n.setTrouble(writerTask, err)
		failed := make([]statedb.Write, len(places))
		for k, i := range places {
			n.backlog.written(batch[i].entry, "", "", err)
			failed[k] = writes[i]
		}
		n.unsure.add(failed)
		return nil
	}
	ids := make([]string, len(conflicts))
	for k, i := range conflicts {
		ids[k] = writes[i].ID
	}
	var garbage []int
	var again []statedb.Write
	compared := 0
	err := statedb.Each(ctx, n.db, statedb.Backlog, ids, func(k int, d statedb.Document) error {
		i := conflicts[k]
		compared++
		if theirs, ok := n.sameEntry(d); ok {
			n.backlog.written(batch[i].entry, d.Rev, theirs, nil)
			return nil
		}
		writes[i].Rev = d.Rev
		garbage, again = append(garbage, i), append(again, writes[i])
		return nil
	})
	if err != nil {
		return fail(append(garbage, conflicts[compared:]...), err)
	}
	if len(again) == 0 {
		return nil
	}
	results, err := n.db.Write(ctx, statedb.Backlog, again)
	if err != nil {
		return fail(garbage, err)
	}
	for k, i := range garbage {
		if errors.Is(results[k].Err, statedb.ErrConflict) {
			left = append(left, i)
			continue
		}
		n.backlog.written(batch[i].entry, results[k].Rev, assignees[i], results[k].Err)
	}
	return left
}

// sameEntry returns the assignee of a sound entry; its id is its hash.
func (n *Node) sameEntry(d statedb.Document) (assignee string, ok bool) {
	if d.Rev == "" {
		return "", false
	}
	t, assignee, err := readBacklogDocument(d)
	if err == nil {
		_, err = n.check(t)
	}
	return assignee, err == nil
}

// backlogDocument is a transaction's fields with the two of the backlog.
func backlogDocument(t *ledger.Transaction, assignee string, now int64) []byte {
	d := append(make([]byte, 0, 128), `"assignee":`...)
	d = canonical.AppendString(d, assignee)
	d = append(d, `,"assignment_timestamp":`...)
	d = strconv.AppendInt(d, now, 10)
	return t.BytesWith(append(d, ','))
}

func readBacklogDocument(d statedb.Document) (t *ledger.Transaction, assignee string, err error) {
	tree, err := canonical.ParseWithin(d.Body, canonical.Limits{Depth: ledger.MaxDepth})
	if err != nil {
		return nil, "", err
	}
	a, _ := tree.Get("assignee")
	if tree.Kind() != canonical.Object {
		return nil, "", fmt.Errorf("backlog entry %.70q is not an object", d.ID)
	}
	t, err = ledger.TransactionFromValue(tree.Without("assignee", "assignment_timestamp"))
	if err == nil && t.ID != d.ID {
		err = fmt.Errorf("backlog entry %.70q holds transaction %s", d.ID, t.ID)
	}
	if err == nil && t.Operation == ledger.Genesis {
		err = fmt.Errorf("backlog entry %.70q is a GENESIS", d.ID)
	}
	return t, a.Text(), err
}
