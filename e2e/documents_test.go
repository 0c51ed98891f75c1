package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/couchledger/couchledger/node/ledger"
)

// documentTransactions are the three that the server documents print.
func documentTransactions(t testing.TB) []*ledger.Transaction {
	t.Helper()
	text, err := os.ReadFile("../testdata/vectors/documents.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Transactions []json.RawMessage }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	list := make([]*ledger.Transaction, len(file.Transactions))
	for i, raw := range file.Transactions {
		list[i] = parse(t, raw)
	}
	if len(list) != 3 {
		t.Fatalf("documents.json: got %d transactions, want 3", len(list))
	}
	return list
}

// listener reads the stream of valid transactions.
type listener struct {
	t    testing.TB
	conn *websocket.Conn
}

func (n *node) listen(t testing.TB) *listener {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+n.addr+"/api/v1/streams/valid_tx", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() }) // the test may have closed it
	return &listener{t, conn}
}

func (l *listener) next() map[string]any {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	kind, text, err := l.conn.Read(ctx)
	if err != nil {
		l.t.Fatalf("stream: %v", err)
	}
	var event map[string]any
	if err := json.Unmarshal(text, &event); err != nil || kind != websocket.MessageText {
		l.t.Fatalf("stream: got %v %s: %v", kind, text, err)
	}
	return event
}

// TestDocuments takes the way of the server documents on a machine where
// nothing is set up: start, POST, and every example request of their HTTP
// chapter.
func TestDocuments(t *testing.T) { eachBackend(t, testDocuments) }

func testDocuments(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.start()
	checkNewConfig(t, n)
	txs := documentTransactions(t)
	asset, owners := txs[0].ID, []string{txs[0].Outputs[0].PublicKeys[0], txs[1].Outputs[0].PublicKeys[0], txs[2].Outputs[0].PublicKeys[0]}
	nobodyKnows := strings.Repeat("0123456789abcdef", 4)

	stream := n.listen(t)
	for i, tx := range txs {
		path := transactionsPath
		if i == 1 {
			path = strings.TrimSuffix(path, "/")
		}
		a := n.want(t, http.MethodPost, path, tx.Bytes(), http.StatusAccepted)
		if string(a.body) != string(tx.Bytes()) {
			t.Errorf("answer to POST %d: got %s, want %s", i, a.body, tx.Bytes())
		}
		n.awaitValid(t, tx.ID)
	}
	blocks := make([]string, len(txs))
	for i, tx := range txs {
		event := stream.next()
		blocks[i], _ = event["blockid"].(string)
		if want := map[string]any{"txid": tx.ID, "assetid": asset, "blockid": blocks[i]}; !reflect.DeepEqual(event, want) || !ledger.IsID(blocks[i]) {
			t.Errorf("stream: got %v, want %v", event, want)
		}
	}

	key := checkRoots(t, n)
	for _, slash := range []string{"", "/"} {
		for _, tx := range txs {
			if a := n.get(t, "/api/v1/transactions/"+tx.ID+slash); string(a.body) != string(tx.Bytes()) {
				t.Errorf("GET transaction: got %s, want %s", a.body, tx.Bytes())
			}
			n.get(t, "/api/v1/transactions/"+strings.ToUpper(tx.ID)+slash) // ids take either letter case
		}
		n.wantError(t, http.MethodGet, "/api/v1/transactions/"+nobodyKnows+slash, nil, http.StatusNotFound)
		n.wantError(t, http.MethodGet, "/api/v1/transactions"+slash, nil, http.StatusBadRequest, "asset_id")

		list := "/api/v1/transactions" + slash + "?asset_id="
		n.wantTransactions(t, list+asset, txs...)
		n.wantTransactions(t, list+asset+"&operation=TRANSFER", txs[1:]...)
		n.wantTransactions(t, list+asset+"&operation=create", txs[0])
		n.wantTransactions(t, list+nobodyKnows)
		n.wantError(t, http.MethodGet, list+asset+"&operation=GENESIS", nil, http.StatusBadRequest, "operation")

		outputs := "/api/v1/outputs" + slash + "?public_key="
		for i, owner := range owners {
			link := outputLink(txs[i].ID, 0)
			n.wantList(t, outputs+owner, link)
			n.wantList(t, outputs+owner+"&unspent=false", link)
			if i < 2 {
				n.wantList(t, outputs+owner+"&unspent=true", []string{}...)
			} else {
				n.wantList(t, outputs+owner+"&unspent=true", link)
			}
		}
		n.wantError(t, http.MethodGet, "/api/v1/outputs"+slash, nil, http.StatusBadRequest, "public_key")

		for i, tx := range txs {
			checkStatus(t, n, slash, "tx", tx.ID, "/transactions/"+tx.ID)
			checkStatus(t, n, slash, "block", blocks[i], "/blocks/"+blocks[i])
			checkBlock(t, n, slash, key, blocks[i], tx)
		}
		n.wantError(t, http.MethodGet, "/api/v1/statuses"+slash+"?tx_id="+nobodyKnows, nil, http.StatusNotFound)
		n.wantError(t, http.MethodGet, "/api/v1/statuses"+slash+"?block_id="+nobodyKnows, nil, http.StatusNotFound)
		n.wantError(t, http.MethodGet, "/api/v1/statuses"+slash, nil, http.StatusBadRequest, "tx_id", "block_id")
		n.wantError(t, http.MethodGet, "/api/v1/blocks"+slash, nil, http.StatusBadRequest, "tx_id")
		n.wantError(t, http.MethodGet, "/api/v1/blocks/"+nobodyKnows+slash, nil, http.StatusNotFound)
		n.wantList(t, "/api/v1/blocks"+slash+"?tx_id="+nobodyKnows, []string{}...)
		n.wantList(t, "/api/v1/votes"+slash+"?block_id="+nobodyKnows, []string{}...)
		n.wantError(t, http.MethodGet, "/api/v1/votes"+slash, nil, http.StatusBadRequest, "block_id")
	}
	checkVoteChain(t, n, key, blocks)

	// What clients that retry do changes nothing.
	for _, tx := range txs {
		n.postAccepted(t, tx)
	}
	n.wantTransactions(t, transactionsPath+"?asset_id="+asset, txs...)
	for i, tx := range txs {
		n.wantList(t, "/api/v1/blocks?tx_id="+tx.ID, blocks[i])
	}
}

// checkNewConfig looks at the config file that start made.
func checkNewConfig(t *testing.T, n *node) {
	t.Helper()
	info, err := os.Stat(n.file(".bigchaindb"))
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("the config file: got %v, %v, want mode 0600", info, err)
	}
	var file struct {
		Keypair  struct{ Public, Private string }
		Database struct{ Backend string }
	}
	text, err := os.ReadFile(n.file(".bigchaindb"))
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil || file.Database.Backend != n.backend {
		t.Fatalf("the config file: %v, got %s, want the backend %s", err, text, n.backend)
	}
	pair, err := ledger.KeyPairFromPrivate(file.Keypair.Private)
	if err != nil || pair.Public != file.Keypair.Public {
		t.Errorf("the key pair in the config file: %v, got %s, want %s", err, file.Keypair.Public, pair.Public)
	}
	log := n.tail(1000)
	if strings.Contains(log, file.Keypair.Private) {
		t.Error("the log shows the private key")
	}
	if got := strings.Count(log, "No config file found"); got != 1 {
		t.Errorf("start says %d times that it made a config file, want once", got)
	}
}

// checkRoots checks the root and the API root and returns the node's key.
func checkRoots(t *testing.T, n *node) string {
	t.Helper()
	base := "http://" + n.addr
	root := decode[map[string]any](t, n.get(t, "/"))
	key, _ := root["public_key"].(string)
	if _, err := ledger.DecodePublicKey(key); err != nil {
		t.Errorf("public_key: %v", err)
	}
	links, _ := root["_links"].(map[string]any)
	want := map[string]any{"api_v1": base + "/api/v1/", "docs": links["docs"], "streams_v1": "ws://" + n.addr + "/api/v1/streams/"}
	if docs, _ := links["docs"].(string); !reflect.DeepEqual(links, want) || !strings.HasPrefix(docs, "https://docs.bigchaindb.com/") {
		t.Errorf("root: got _links %v, want %v", links, want)
	}
	for name, value := range map[string]any{"software": "BigchainDB", "version": "0.10.0", "keyring": []any{}} {
		if !reflect.DeepEqual(root[name], value) {
			t.Errorf("root: got %s %v, want %v", name, root[name], value)
		}
	}
	if root["couchledger"] == nil {
		t.Errorf("root: got %v, want what the node really is under a key of its own", root)
	}
	for _, path := range []string{"/api/v1", "/api/v1/"} {
		links := decode[map[string]map[string]string](t, n.get(t, path))["_links"]
		for name, want := range map[string]string{
			"self": base + "/api/v1/", "transactions": base + "/api/v1/transactions/", "statuses": base + "/api/v1/statuses/",
			"outputs": base + "/api/v1/outputs/", "blocks": base + "/api/v1/blocks/", "votes": base + "/api/v1/votes/",
			"streams_v1": "ws://" + n.addr + "/api/v1/streams/",
		} {
			if links[name] != want {
				t.Errorf("GET %s: got link %s %q, want %q", path, name, links[name], want)
			}
		}
		if !strings.HasPrefix(links["docs"], "https://docs.bigchaindb.com/") {
			t.Errorf("GET %s: got docs %q", path, links["docs"])
		}
	}
	return key
}

// checkStatus checks the status of something valid.
func checkStatus(t *testing.T, n *node, slash, kind, id, link string) {
	t.Helper()
	a := n.get(t, "/api/v1/statuses"+slash+"?"+kind+"_id="+id)
	got := decode[map[string]any](t, a)
	if want := map[string]any{"status": "valid", "_links": map[string]any{kind: link}}; !reflect.DeepEqual(got, want) {
		t.Errorf("status of %s: got %v, want %v", kind, got, want)
	}
	location := a.header.Get("Location")
	if !strings.HasSuffix(location, link) {
		t.Fatalf("status of %s: got Location %q, want one to %s", kind, location, link)
	}
	n.get(t, strings.TrimPrefix(location, "http://"+n.addr)) // it leads there
}

// checkBlock checks a block that holds one transaction, and its vote.
func checkBlock(t *testing.T, n *node, slash, key, id string, tx *ledger.Transaction) {
	t.Helper()
	a := n.get(t, "/api/v1/blocks/"+id+slash)
	b, err := ledger.ParseBlock(a.body) // which checks the documented fields, and that there are no others
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(); err != nil || b.ID != id || b.NodePubkey != key || len(b.Voters) != 1 || b.Voters[0] != key {
		t.Errorf("block %s: %v, got %s", id, err, a.body)
	}
	if age := time.Since(time.Unix(b.Timestamp, 0)); age < -time.Second || age > 10*time.Minute {
		t.Errorf("block %s: timestamp %d is %v old", id, b.Timestamp, age)
	}
	if len(b.Transactions) != 1 || !b.Transactions[0].SameBody(tx) {
		t.Errorf("block %s: got %s, want transaction %s alone", id, a.body, tx.ID)
	}
	path := "/api/v1/blocks" + slash + "?tx_id=" + tx.ID
	n.wantList(t, path, id)
	for _, status := range []string{"VALID", "valid"} {
		n.wantList(t, path+"&status="+status, id)
	}
	for _, status := range []string{"UNDECIDED", "INVALID"} {
		n.wantList(t, path+"&status="+status, []string{}...)
	}
	n.wantError(t, http.MethodGet, path+"&status=backlog", nil, http.StatusBadRequest, "status")
	if votes := n.votes(t, slash, id); len(votes) != 1 || !votes[0].Verify() || votes[0].NodePubkey != key || votes[0].BlockID != id || !votes[0].Valid {
		t.Errorf("votes on %s: got %+v, want one valid vote by %s", id, votes, key)
	}
}

func (n *node) votes(t testing.TB, slash, block string) []*ledger.Vote {
	t.Helper()
	var votes []*ledger.Vote
	for _, raw := range decode[[]json.RawMessage](t, n.get(t, "/api/v1/votes"+slash+"?block_id="+block)) {
		v, err := ledger.ParseVote(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		votes = append(votes, v)
	}
	return votes
}

// checkVoteChain follows previous_block to the genesis block.
func checkVoteChain(t *testing.T, n *node, key string, blocks []string) {
	t.Helper()
	genesis := n.votes(t, "", blocks[0])[0].PreviousBlock
	for i := 1; i < len(blocks); i++ {
		if got := n.votes(t, "", blocks[i])[0].PreviousBlock; got != blocks[i-1] {
			t.Errorf("vote %d: got previous_block %s, want %s", i, got, blocks[i-1])
		}
	}
	b, err := ledger.ParseBlock(n.get(t, "/api/v1/blocks/"+genesis).body)
	if err != nil || b.Verify() != nil || !b.IsGenesis() || b.NodePubkey != key {
		t.Fatalf("the block before the first vote: %v, got %+v, want the genesis block", err, b)
	}
	if status := decode[map[string]any](t, n.get(t, "/api/v1/statuses?block_id="+genesis)); status["status"] != "valid" {
		t.Errorf("status of the genesis block: got %v, want valid", status)
	}
	n.wantList(t, "/api/v1/votes?block_id="+genesis, []string{}...)
	n.wantError(t, http.MethodPost, transactionsPath, b.Transactions[0].Bytes(), http.StatusBadRequest, "GENESIS")
	if got := fmt.Sprint(len(b.Transactions[0].Outputs)); got != "1" {
		t.Errorf("the GENESIS has %s outputs, want 1", got)
	}
}
