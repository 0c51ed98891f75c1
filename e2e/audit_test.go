package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
	"github.com/couchledger/couchledger/statedb"
)

// rawJSON is a part of an answer as it came.
type rawJSON = json.RawMessage

// audit is what can be learned of a ledger over HTTP, checked.
type audit struct {
	t       testing.TB
	n       *node
	key     string // the node's
	status  map[string]string
	reasons map[string]string
	blocks  map[string]*ledger.Block
	votes   map[string]*ledger.Vote // by block
	valid   map[string]*ledger.Transaction
	genesis *ledger.Block
}

// auditOptions say what a run may have lost.
type auditOptions struct {
	// noReasons: the journal was deleted, and with it why transactions were
	// refused after a 202.
	noReasons bool
}

// auditLedger waits until all posted transactions are decided, then checks
// everything that the ledger promises about them. It stops the node.
func auditLedger(t testing.TB, n *node, l *load, o auditOptions) *audit {
	t.Helper()
	for _, fault := range l.faults {
		t.Error(fault)
	}
	a := newAudit(t, n)
	a.settle(l, o)
	a.collect(slices.Collect(maps.Keys(a.status)))
	a.checkTransactions(l)
	a.checkBlocks()
	a.checkVotes()
	a.checkSpends(l, o)
	a.checkLists(l)
	eventually(t, "the backlog is empty", func() (bool, string) {
		entries, err := n.metric("couchledger_backlog_entries")
		return err == nil && entries == 0, fmt.Sprint(entries, err)
	})
	if faults, err := n.metric("couchledger_faults_total"); err != nil || faults != 0 {
		t.Errorf("the node saw faults in its own ledger: got %v, %v, want 0", faults, err)
	}
	n.stop()
	n.wantDone(t, []string{"verify"}, "The ledger is sound.")
	a.checkStore()
	return a
}

func newAudit(t testing.TB, n *node) *audit {
	t.Helper()
	a := &audit{
		t: t, n: n, status: map[string]string{}, reasons: map[string]string{},
		blocks: map[string]*ledger.Block{}, votes: map[string]*ledger.Vote{}, valid: map[string]*ledger.Transaction{},
	}
	a.key = n.key(t)
	return a
}

// settle waits for every transaction's fate.
func (a *audit) settle(l *load, o auditOptions) {
	a.t.Helper()
	deadline := time.Now().Add(patience)
	for _, r := range l.order {
		for {
			status, reason, err := a.n.status(r.tx.ID)
			if err != nil {
				a.t.Fatal(err)
			}
			if status != "valid" && status != "" {
				if time.Now().After(deadline) {
					a.t.Fatalf("transaction %s is not decided within %v: %s\n%s", r.tx.ID, patience, status, r.tx.Bytes())
				}
				time.Sleep(3 * time.Millisecond)
				continue
			}
			a.status[r.tx.ID], a.reasons[r.tx.ID] = status, reason
			if status == "valid" {
				a.valid[r.tx.ID] = r.tx
			} else if stated := strings.HasPrefix(reason, "Invalid transaction ("); r.accepted && !stated && !o.noReasons {
				a.t.Errorf("transaction %s was accepted, then lost: 404 %q, want valid or a reason\n%s", r.tx.ID, reason, r.tx.Bytes())
			}
			if r.valid && status != "valid" {
				a.t.Errorf("transaction %s was valid and is not any more: 404 %q", r.tx.ID, reason)
			}
			break
		}
	}
}

// collect fetches the blocks that hold the transactions, and their votes.
func (a *audit) collect(ids []string) {
	a.t.Helper()
	for _, id := range ids {
		live := a.n.list(a.t, "/api/v1/blocks?status=VALID&tx_id="+id)
		all := a.n.list(a.t, "/api/v1/blocks?tx_id="+id)
		want := 0
		if a.status[id] == "valid" {
			want = 1
		}
		if len(live) != want {
			a.t.Errorf("transaction %s, status %q: in %d valid blocks %q, want %d", id, a.status[id], len(live), live, want)
		}
		if len(all) > len(live) {
			a.t.Errorf("transaction %s: in blocks %q, of which valid: %q; this node alone makes and votes valid blocks only", id, all, live)
		}
		for _, block := range all {
			if a.blocks[block] == nil {
				a.fetchBlock(block)
			}
		}
	}
}

func (a *audit) fetchBlock(id string) {
	a.t.Helper()
	body := a.n.get(a.t, "/api/v1/blocks/"+id).body
	b, err := ledger.ParseBlock(body)
	if err != nil {
		a.t.Fatalf("block %s: %v\n%s", id, err, body)
	}
	a.blocks[id] = b
	if got := b.Bytes(); string(got) != string(body) {
		a.t.Errorf("block %s is not in canonical form", id)
	}
	raw := decode[[]rawJSON](a.t, a.n.get(a.t, "/api/v1/votes?block_id="+id))
	for _, r := range raw {
		v, err := ledger.ParseVote(r)
		if err != nil {
			a.t.Fatalf("vote on %s: %v\n%s", id, err, r)
		}
		if before := a.votes[id]; before != nil {
			a.t.Errorf("block %s has two votes:\n%s\n%s", id, before.Bytes(), r)
		}
		a.votes[id] = v
	}
	if len(raw) == 0 {
		a.t.Errorf("block %s has no vote", id)
	}
}

// checkTransactions compares what is served with what was posted.
func (a *audit) checkTransactions(l *load) {
	a.t.Helper()
	for _, r := range l.order {
		got, err := a.n.do(http.MethodGet, transactionsPath+r.tx.ID, nil)
		switch {
		case err != nil:
			a.t.Fatal(err)
		case a.valid[r.tx.ID] == nil && got.status != http.StatusNotFound:
			a.t.Errorf("transaction %s is not valid: got %v, want 404", r.tx.ID, got)
		case a.valid[r.tx.ID] != nil && (got.status != http.StatusOK || string(got.body) != string(r.tx.Bytes())):
			a.t.Errorf("transaction %s: got %v, want %s", r.tx.ID, got, r.tx.Bytes())
		}
	}
}

// checkBlocks checks hashes, signatures and contents.
func (a *audit) checkBlocks() {
	a.t.Helper()
	rules, err := consensus.Lookup("")
	if err != nil {
		a.t.Fatal(err)
	}
	held := map[string]string{} // transaction → block
	for id, b := range a.blocks {
		if err := b.Verify(); err != nil || b.ID != id {
			a.t.Errorf("block %s: %v, id %s", id, err, b.ID)
		}
		if b.NodePubkey != a.key || !slices.Equal(b.Voters, []string{a.key}) {
			a.t.Errorf("block %s: maker %s, voters %q, want this node's key %s", id, b.NodePubkey, b.Voters, a.key)
		}
		for _, tx := range b.Transactions {
			if other := held[tx.ID]; other != "" {
				a.t.Errorf("transaction %s stands twice: in blocks %s and %s", tx.ID, other, id)
			}
			held[tx.ID] = id
			if tx.ComputeID() != tx.ID {
				a.t.Errorf("transaction %s in block %s: its id should be %s", tx.ID, id, tx.ComputeID())
			}
			if _, err := rules.CheckTransaction(tx); err != nil {
				a.t.Errorf("transaction %s in block %s: %v", tx.ID, id, err)
			}
		}
	}
}

// checkVotes checks each vote, and that they form one chain from the genesis
// block on.
func (a *audit) checkVotes() {
	a.t.Helper()
	next := map[string]string{} // previous_block → block
	for id, v := range a.votes {
		if !v.Verify() || v.BlockID != id || v.NodePubkey != a.key || !v.Valid || v.InvalidReason != "" {
			a.t.Errorf("vote on block %s: got %s, want a signed valid vote of this node", id, v.Bytes())
		}
		if other := next[v.PreviousBlock]; other != "" {
			a.t.Errorf("the votes on %s and %s name the same block before: %s", other, id, v.PreviousBlock)
		}
		next[v.PreviousBlock] = id
	}
	for previous := range next {
		if a.votes[previous] != nil {
			continue
		}
		b, err := ledger.ParseBlock(a.n.get(a.t, "/api/v1/blocks/"+previous).body)
		if err != nil || b.Verify() != nil || !b.IsGenesis() || a.genesis != nil {
			a.t.Errorf("the chain of votes is broken: nobody voted on %s, which is not the genesis block (%v)", previous, err)
			continue
		}
		a.genesis = b
	}
	switch {
	case len(a.votes) == 0:
		return
	case a.genesis == nil:
		a.t.Fatalf("no vote names the genesis block as the one before")
	}
	length := 0
	for at := next[a.genesis.ID]; at != ""; at = next[at] {
		if length++; length > len(a.votes) {
			break // a circle, which shows below
		}
	}
	if length != len(a.votes) {
		a.t.Errorf("the chain of votes from the genesis block %s: got %d votes, want all %d", a.genesis.ID, length, len(a.votes))
	}
}

// checkSpends checks that valid transactions hang together: no output spent
// twice, no input out of nowhere, refusals for a true reason, and of rivals
// exactly one valid.
func (a *audit) checkSpends(l *load, o auditOptions) {
	a.t.Helper()
	spentBy := map[ledger.OutputRef]string{}
	for id, tx := range a.valid {
		in, out := []ledger.Amount{}, []ledger.Amount{}
		for _, ref := range tx.Spends() {
			source := a.valid[ref.TxID]
			if source == nil || ref.Index >= len(source.Outputs) || source.Asset != tx.Asset {
				a.t.Errorf("valid transaction %s spends %v, which is no output of a valid transaction of its asset", id, ref)
				continue
			}
			if other := spentBy[ref]; other != "" {
				a.t.Errorf("output %v is spent twice, by %s and %s", ref, other, id)
			}
			spentBy[ref] = id
			in = append(in, source.Outputs[ref.Index].Amount)
		}
		for _, output := range tx.Outputs {
			out = append(out, output.Amount)
		}
		if tx.Operation == ledger.Transfer && ledger.SumAmounts(in) != ledger.SumAmounts(out) {
			a.t.Errorf("valid transaction %s: %v in, %v out", id, in, out)
		}
	}
	type group struct{ accepted, valid int }
	groups := map[int]*group{}
	for _, r := range l.order {
		lost := slices.ContainsFunc(r.tx.Spends(), func(ref ledger.OutputRef) bool { return spentBy[ref] != "" && spentBy[ref] != r.tx.ID })
		reason := a.reasons[r.tx.ID]
		if r.accepted && a.status[r.tx.ID] == "" && !lost {
			a.t.Errorf("transaction %s was accepted and breaks no rule, but is refused: %q\n%s", r.tx.ID, reason, r.tx.Bytes())
		}
		if strings.HasPrefix(reason, "Invalid transaction (") && !strings.Contains(reason, "(DoubleSpend)") {
			a.t.Errorf("transaction %s: refused with %q, want a DoubleSpend", r.tx.ID, reason)
		}
		if r.group == 0 {
			continue
		}
		g := groups[r.group]
		if g == nil {
			g = &group{}
			groups[r.group] = g
		}
		if r.accepted {
			g.accepted++
		}
		if a.valid[r.tx.ID] != nil {
			g.valid++
		}
	}
	for number, g := range groups {
		if g.valid > 1 || g.accepted > 0 && g.valid == 0 {
			a.t.Errorf("rivals %d: %d were accepted, %d are valid, want one", number, g.accepted, g.valid)
		}
	}
}

// checkLists compares the lists by owner and by asset with the valid
// transactions.
func (a *audit) checkLists(l *load) {
	a.t.Helper()
	all, unspent := map[string]map[string]bool{}, map[string]map[string]bool{}
	for _, owner := range l.owners {
		all[owner.Public], unspent[owner.Public] = map[string]bool{}, map[string]bool{}
	}
	spent := map[ledger.OutputRef]bool{}
	assets := map[string]map[string]bool{}
	for id, tx := range a.valid {
		for _, ref := range tx.Spends() {
			spent[ref] = true
		}
		if assets[tx.Asset] == nil {
			assets[tx.Asset] = map[string]bool{}
		}
		assets[tx.Asset][id] = true
	}
	for id, tx := range a.valid {
		for i, output := range tx.Outputs {
			link := outputLink(id, i)
			all[output.PublicKeys[0]][link] = true
			if !spent[ledger.OutputRef{TxID: id, Index: i}] {
				unspent[output.PublicKeys[0]][link] = true
			}
		}
	}
	for _, owner := range l.owners {
		path := "/api/v1/outputs?public_key=" + owner.Public
		a.wantSet(path, a.n.list(a.t, path), all[owner.Public])
		path += "&unspent=true"
		a.wantSet(path, a.n.list(a.t, path), unspent[owner.Public])
	}
	for asset, want := range assets {
		if len(want) < 2 {
			continue // most are; the others show whether lists are right
		}
		path := transactionsPath + "?asset_id=" + asset
		list := a.n.transactions(a.t, path)
		a.wantSet(path, idsOf(list), want)
		seen := map[string]bool{}
		for i, tx := range list {
			if i == 0 && tx.ID != asset {
				a.t.Errorf("GET %s: begins with %s, want the CREATE", path, tx.ID)
			}
			for _, ref := range tx.Spends() {
				if !seen[ref.TxID] {
					a.t.Errorf("GET %s: %s comes before %s, which it spends", path, tx.ID, ref.TxID)
				}
			}
			seen[tx.ID] = true
		}
	}
}

func (a *audit) wantSet(path string, got []string, want map[string]bool) {
	a.t.Helper()
	seen := map[string]bool{}
	for _, row := range got {
		if !want[row] || seen[row] {
			a.t.Errorf("GET %s: has %s, wanted: %v, repeated: %v", path, row, want[row], seen[row])
		}
		seen[row] = true
	}
	if len(seen) != len(want) {
		a.t.Errorf("GET %s: got %d rows, want %d", path, len(seen), len(want))
	}
}

// checkStore looks into the database of a stopped node: it must hold what HTTP
// showed and nothing more.
func (a *audit) checkStore() {
	a.t.Helper()
	db, err := a.n.store()
	if err != nil {
		a.t.Fatal(err)
	}
	defer db.Close()
	ids := func(table string) map[string]bool {
		all := map[string]bool{}
		for page := (statedb.Page{}); ; {
			page, err = db.Range(a.t.Context(), table, statedb.Range{Limit: 1000, Bookmark: page.Bookmark})
			if err != nil {
				a.t.Fatal(err)
			}
			for _, d := range page.Documents {
				all[d.ID] = true
			}
			if page.Bookmark == "" {
				return all
			}
		}
	}
	if left := ids(statedb.Backlog); len(left) > 0 {
		a.t.Errorf("the backlog holds %d entries though everything is decided: %.300v", len(left), left)
	}
	bigchain, votes := map[string]bool{"genesis": true, a.genesis.ID: true}, map[string]bool{}
	transactions := map[string]bool{a.genesis.Transactions[0].ID: true}
	for id := range a.blocks {
		bigchain[id] = true
		votes[ledger.VoteID(id, a.key)] = true
	}
	for id := range a.valid {
		transactions[id] = true
	}
	for table, want := range map[string]map[string]bool{statedb.Bigchain: bigchain, statedb.Votes: votes, statedb.Transactions: transactions} {
		if got := ids(table); !maps.Equal(got, want) {
			a.t.Errorf("table %s: got %d documents, want the %d that HTTP tells of", table, len(got), len(want))
		}
	}
}
