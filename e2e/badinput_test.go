package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

const (
	// badInputTime bounds the answer to one bad POST, on a busy machine.
	badInputTime = 5 * time.Second * raceFactor
	// badInputMemory bounds what a node takes that gets nothing but bad input.
	badInputMemory = 500 << 20
)

// badPost is a body that must be refused.
type badPost struct {
	name   string
	body   []byte
	status int
	parts  []string // of the message
}

// TestBadInput posts what must be refused: by a 400, or a 413 when it is too
// large, with the documented body, in bounded time and memory. The node runs on.
func TestBadInput(t *testing.T) { eachBackend(t, testBadInput) }

func testBadInput(t *testing.T, newNode nodeMaker) {
	n := newNode(t)
	n.start()
	alice := ledger.GenerateKeyPair()
	bad := append(badSyntax(t, alice), badTransactions(t, n, alice)...)
	for _, b := range bad {
		a, err := n.do(http.MethodPost, transactionsPath, b.body)
		if err != nil {
			t.Errorf("%s: %v", b.name, err)
			continue
		}
		if a.status != b.status || a.header.Get("Content-Type") != contentJSON || a.took > badInputTime {
			t.Errorf("%s: got %v, %q, after %v, want %d", b.name, a, a.header.Get("Content-Type"), a.took, b.status)
		}
		checkErrorBody(t, b.name, a, b.parts...)
		if len(a.body) > 2000 {
			t.Errorf("%s: the answer has %d bytes, want a short one", b.name, len(a.body))
		}
	}
	t.Logf("%d bad bodies", len(bad))
	if !testing.Short() {
		badInParallel(t, n, bad)
	}
	got := n.peakMemory()
	t.Logf("peak of resident memory: %d MB", got>>20)
	if got > badInputMemory && !raceEnabled {
		t.Errorf("resident memory: got %d MB, want at most %d", got>>20, badInputMemory>>20)
	}
	n.mustBecomeValid(t, create(t, alice))
}

// badInParallel sends the largest bodies over many connections at once, also
// such that do not tell their length.
func badInParallel(t *testing.T, n *node, bad []badPost) {
	var clients sync.WaitGroup
	for _, b := range bad {
		if len(b.body) < 100_000 {
			continue
		}
		for i := range 4 {
			clients.Go(func() {
				var body io.Reader = bytes.NewReader(b.body)
				if i%2 == 0 {
					body = io.MultiReader(body) // net/http does not know its length
				}
				a, err := n.send(http.MethodPost, transactionsPath, body)
				// The node may cut a connection whose body it will not read.
				if err == nil && a.status != b.status && a.status != http.StatusServiceUnavailable {
					t.Errorf("%s, one of many: got %v, want %d", b.name, a, b.status)
				}
			})
		}
	}
	clients.Wait()
}

// badSyntax are bodies that no schema has to look at.
func badSyntax(t *testing.T, owner ledger.KeyPair) []badPost {
	sound := create(t, owner).Bytes()
	insert := func(after, text string) []byte {
		if !bytes.Contains(sound, []byte(after)) {
			t.Fatalf("no %s in %s", after, sound)
		}
		return bytes.Replace(sound, []byte(after), []byte(after+text), 1)
	}
	data := func(value string) []byte { return insert(`"data":{`, `"x":`+value+`,`) }
	amount := func(value string) []byte {
		return bytes.Replace(sound, []byte(`"amount":1,`), []byte(`"amount":`+value+`,`), 1)
	}
	levels := strings.Repeat("[", 100_000)
	const schema = "Invalid transaction (SchemaValidationError): "
	bad := []badPost{
		{"empty", []byte{}, 400, nil},
		{"white space", []byte(" \n"), 400, nil},
		{"not JSON", []byte("hello"), 400, nil},
		{"HTML form", []byte("id=1&operation=CREATE"), 400, nil},
		{"half a byte order mark", []byte("\xef\xbb"), 400, nil},
		{"an array", []byte("[]"), 400, []string{schema}},
		{"an array with a transaction", append(append([]byte("["), sound...), ']'), 400, []string{schema}},
		{"a string", []byte(`"x"`), 400, []string{schema}},
		{"null", []byte("null"), 400, []string{schema}},
		{"a number", []byte("1"), 400, []string{schema}},
		{"an empty object", []byte("{}"), 400, []string{schema}},
		{"two transactions", append(bytes.Clone(sound), sound...), 400, nil},
		{"duplicate key", insert("{", `"version":"0.10",`), 400, []string{"version"}},
		{"duplicate key, escaped", insert("{", `"\u0076ersion":"0.10",`), 400, []string{"version"}},
		{"duplicate key inside", data(`1,"x":1`), 400, nil},
		{"invalid UTF-8", data("\"\xff\""), 400, []string{"UTF-8"}},
		{"invalid UTF-8 in a key", insert(`"data":{`, "\"\xc3\x28\":1,"), 400, []string{"UTF-8"}},
		{"half a surrogate pair", data(`"\ud800"`), 400, nil},
		{"control character", data("\"\x01\""), 400, nil},
		{"NaN", data("NaN"), 400, nil},
		{"Infinity", data("-Infinity"), 400, nil},
		{"a number beyond every float", data("1e999999999"), 400, nil},
		{"amount NaN", amount("NaN"), 400, nil},
		{"amount of 400 digits", amount(strings.Repeat("9", 400)), 400, []string{schema, "amount"}},
		{"amount 0", amount("0"), 400, []string{schema, "amount"}},
		{"amount -1", amount("-1"), 400, []string{schema, "amount"}},
		{"amount 1.0", amount("1.0"), 400, []string{schema, "amount"}},
		{"amount 1e3", amount("1e3"), 400, []string{schema, "amount"}},
		{"amount 01", amount("01"), 400, nil},
		{"amount as text", amount(`"1"`), 400, []string{schema, "amount"}},
		{"100,000 levels", []byte(levels), 400, nil},
		{"100,000 levels, closed", []byte(levels + strings.Repeat("]", 100_000)), 400, nil},
		{"100,000 levels in the asset", data(levels + strings.Repeat("]", 100_000)), 400, nil},
		{"100,000 objects", []byte(strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)), 400, nil},
		{"20 MB of one string", data(`"` + strings.Repeat("a", 20<<20) + `"`), 413, nil},
		{"20 MB of white space", bytes.Repeat([]byte(" "), 20<<20), 413, nil},
		{"3 MB of one string", data(`"` + strings.Repeat("a", 3<<20) + `"`), 400, []string{schema, "bytes"}},
		{"3 MB of small numbers", data("[1" + strings.Repeat(",1", 3<<19) + "]"), 400, nil},
		{"3 MB of empty arrays", data("[[]" + strings.Repeat(",[]", 1<<20) + "]"), 400, nil},
		{"3 MB of keys", data(manyKeys(200_000)), 400, nil},
		{"unknown field", insert("{", `"extra":1,`), 400, []string{schema, "extra"}},
		{"unknown field in an output", insert(`"outputs":[{`, `"extra":1,`), 400, []string{schema, "outputs.0", "extra"}},
		{"missing field", bytes.Replace(sound, []byte(`"metadata":null,`), nil, 1), 400, []string{schema, "metadata"}},
		{"empty metadata", bytes.Replace(sound, []byte(`"metadata":null,`), []byte(`"metadata":{},`), 1), 400, []string{schema, "metadata"}},
		{"GENESIS", bytes.Replace(sound, []byte(`"CREATE"`), []byte(`"GENESIS"`), 1), 400, []string{schema, "GENESIS"}},
		{"unknown operation", bytes.Replace(sound, []byte(`"CREATE"`), []byte(`"DELETE"`), 1), 400, []string{schema, "operation"}},
		{"version 1.0", bytes.Replace(sound, []byte(`"version":"0.10"`), []byte(`"version":"1.0"`), 1), 400, []string{schema, "version"}},
	}
	for _, cut := range []int{1, 2, len(sound) / 3, len(sound) / 2, len(sound) - 1} {
		bad = append(bad, badPost{fmt.Sprintf("truncated after %d bytes", cut), sound[:cut], 400, nil})
	}
	return bad
}

func manyKeys(count int) string {
	var b strings.Builder
	b.WriteString("{")
	for i := range count {
		fmt.Fprintf(&b, `"k%09d":1,`, i)
	}
	return b.String() + `"k":1}`
}

// badTransactions are well formed and break a rule. Their histories are posted.
func badTransactions(t *testing.T, n *node, alice ledger.KeyPair) []badPost {
	t.Helper()
	bob := ledger.GenerateKeyPair()
	asset := create(t, alice, 3, 4, 5)
	other := create(t, alice, 9)
	for _, tx := range []*ledger.Transaction{asset, other} {
		n.mustBecomeValid(t, tx)
	}
	spentCoin := create(t, alice)
	n.mustBecomeValid(t, spentCoin)
	n.mustBecomeValid(t, mustSpend(t, alice, bob.Public, coinsOf(spentCoin)...))

	all := mustSpend(t, alice, bob.Public, coinsOf(asset)...)
	tree := all.Value()
	text := canonical.StringOf
	refuse := func(name string, kind ledger.Kind, tree canonical.Value, parts ...string) badPost {
		return badPost{name, tree.Bytes(), 400, append(parts, "Invalid transaction ("+string(kind)+"): ")}
	}
	single := func(name string, kind ledger.Kind, tx *ledger.Transaction) badPost {
		return refuse(name, kind, tx.Value())
	}

	bad := []badPost{
		refuse("wrong id", ledger.InvalidHash, tree.With("id", text(strings.Repeat("ab", 32)))),
		refuse("id in upper case", ledger.SchemaValidationError, tree.With("id", text(strings.ToUpper(all.ID))), "id"),
		refuse("body changed", ledger.InvalidHash, tree.With("metadata", canonical.ObjectOf(canonical.Member{Key: "a", Value: text("b")}))),
		refuse("body changed, id too", ledger.InvalidSignature,
			rehash(tree.With("metadata", canonical.ObjectOf(canonical.Member{Key: "a", Value: text("b")})))),
	}
	for i := range all.Inputs {
		uri := []byte(all.Inputs[i].Fulfillment)
		uri[len(uri)-10] ^= 1
		if uri[len(uri)-10] == '^' || uri[len(uri)-10] == '@' {
			uri[len(uri)-10] = 'a'
		}
		bad = append(bad,
			refuse(fmt.Sprintf("wrong signature in input %d", i), ledger.InvalidSignature,
				at(tree, text(string(uri)), "inputs", i, "fulfillment"), fmt.Sprintf("input %d", i)),
			refuse(fmt.Sprintf("input %d has another's fulfillment", i), ledger.InvalidSignature,
				at(tree, text(all.Inputs[(i+1)%3].Fulfillment), "inputs", i, "fulfillment"), fmt.Sprintf("input %d", i)),
			refuse(fmt.Sprintf("input %d is an unsigned template", i), ledger.InvalidSignature,
				at(tree, all.Details(0), "inputs", i, "fulfillment")),
			refuse(fmt.Sprintf("input %d has a fulfillment of another type", i), ledger.InvalidSignature,
				at(tree, text("cf:0:"+base64.RawURLEncoding.EncodeToString([]byte("open sesame"))), "inputs", i, "fulfillment")),
			refuse(fmt.Sprintf("input %d has a fulfillment of no type", i), ledger.InvalidSignature,
				at(tree, text("cf:77:AAAA"), "inputs", i, "fulfillment")),
			refuse(fmt.Sprintf("input %d has a threshold of a million children", i), ledger.InvalidSignature,
				at(tree, text(millionFulfilled(1_000_000, false)), "inputs", i, "fulfillment")),
			refuse(fmt.Sprintf("input %d says it has a million children", i), ledger.InvalidSignature,
				at(tree, text(millionFulfilled(1_000_000, true)), "inputs", i, "fulfillment")))
	}
	details := all.Details(0).With("public_key", text(alice.Public))
	million := millionDetails()
	bad = append(bad,
		refuse("details that do not make the URI", ledger.SchemaValidationError,
			rehash(at(tree, details, "outputs", 0, "condition", "details")), "outputs.0.condition"),
		refuse("a URI that its details do not make", ledger.SchemaValidationError,
			rehash(at(tree, text("cc:4:20:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:96"), "outputs", 0, "condition", "uri")), "outputs.0.condition"),
		badPost{"an output with a threshold of a million children",
			rehash(at(tree, million, "outputs", 0, "condition", "details")).Bytes(), 400, nil},
		single("signed by someone else", ledger.InvalidSignature, thief(t, asset, bob)),
		single("unknown input", ledger.InputDoesNotExist, mustSpend(t, alice, bob.Public, coinsOf(create(t, alice))...)),
		single("an output that is not there", ledger.InputDoesNotExist, beyond(t, asset, alice)),
		single("spent input", ledger.DoubleSpend, mustSpend(t, alice, alice.Public, coinsOf(spentCoin)...)),
		single("one input twice", ledger.DoubleSpend, mustSpend(t, alice, bob.Public, coinsOf(asset)[0], coinsOf(asset)[0])),
		single("mixed assets", ledger.AssetIDMismatch, mustSpend(t, alice, bob.Public, coinsOf(asset)[0], coinsOf(other)[0])),
		single("of another asset", ledger.AssetIDMismatch, transfer(t, other.ID, alice, 3, coinsOf(asset)[0])),
		single("more out than in", ledger.AmountError, transfer(t, asset.ID, alice, 4, coinsOf(asset)[0])),
		single("less out than in", ledger.AmountError, transfer(t, asset.ID, alice, 6, coinsOf(asset)[:2]...)),
		single("other owners before", ledger.InvalidSignature, otherOwners(t, asset, alice, bob)),
	)
	// Nothing of all this spends anything.
	unspent := "/api/v1/outputs?unspent=true&public_key=" + alice.Public
	n.wantList(t, unspent, outputLink(asset.ID, 0), outputLink(asset.ID, 1), outputLink(asset.ID, 2), outputLink(other.ID, 0))
	return bad
}

// millionFulfilled is a fulfillment with that many children, or one that only
// says so.
func millionFulfilled(count int, onlySays bool) string {
	child := []byte{1, 1, 5, 0, 0, 2, 'a', 'b', 0} // weight 1, preimage "ab", no condition
	payload := []byte{1, 1}                        // threshold 1
	payload = binary.BigEndian.AppendUint32(append(payload, 4), uint32(count))
	if !onlySays {
		payload = append(payload, bytes.Repeat(child, count/10)...) // as many as fit a body
	}
	return "cf:2:" + base64.RawURLEncoding.EncodeToString(payload)
}

// millionDetails are a threshold's details with a million children.
func millionDetails() canonical.Value {
	children := make([]canonical.Value, 1_000_000)
	for i := range children {
		children[i] = canonical.ObjectOf()
	}
	return canonical.ObjectOf(
		canonical.Member{Key: "bitmask", Value: canonical.IntOf(41)},
		canonical.Member{Key: "subfulfillments", Value: canonical.ArrayOf(children...)},
		canonical.Member{Key: "threshold", Value: canonical.IntOf(1)},
		canonical.Member{Key: "type", Value: canonical.StringOf("fulfillment")},
		canonical.Member{Key: "type_id", Value: canonical.IntOf(2)},
	)
}

func transfer(t *testing.T, asset string, owner ledger.KeyPair, amount int64, coins ...coin) *ledger.Transaction {
	t.Helper()
	sources := make([]ledger.Source, len(coins))
	for i, c := range coins {
		sources[i] = ledger.SourceOf(c.tx, c.index)
	}
	return sign(t, asset, sources, amount, owner)
}

func sign(t *testing.T, asset string, sources []ledger.Source, amount int64, owner ledger.KeyPair) *ledger.Transaction {
	t.Helper()
	tx, err := ledger.NewTransfer(asset, sources, none, []ledger.Payment{ledger.PayTo(owner.Public, amount)}, owner)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// thief spends somebody else's output with a key of his own.
func thief(t *testing.T, asset *ledger.Transaction, who ledger.KeyPair) *ledger.Transaction {
	source := ledger.SourceOf(asset, 0)
	source.Details = source.Details.With("public_key", canonical.StringOf(who.Public))
	return sign(t, asset.ID, []ledger.Source{source}, 3, who)
}

// beyond spends an output with an index too high.
func beyond(t *testing.T, asset *ledger.Transaction, owner ledger.KeyPair) *ledger.Transaction {
	source := ledger.SourceOf(asset, 0)
	source.Ref.Index = len(asset.Outputs)
	return sign(t, asset.ID, []ledger.Source{source}, 3, owner)
}

// otherOwners names others than the output does.
func otherOwners(t *testing.T, asset *ledger.Transaction, owner, other ledger.KeyPair) *ledger.Transaction {
	source := ledger.SourceOf(asset, 0)
	source.OwnersBefore = []string{other.Public}
	return sign(t, asset.ID, []ledger.Source{source}, 3, owner)
}
