package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

// signed is what blocks, votes and statements have in common.
type signed struct {
	name  string
	bytes []byte
	parse func([]byte) (again []byte, verified bool, err error)
}

func parseBlock(data []byte) ([]byte, bool, error) {
	b, err := ledger.ParseBlock(data)
	if err != nil {
		return nil, false, err
	}
	return b.Bytes(), b.Verify() == nil, nil
}

func parseVote(data []byte) ([]byte, bool, error) {
	v, err := ledger.ParseVote(data)
	if err != nil {
		return nil, false, err
	}
	return v.Bytes(), v.Verify(), nil
}

func parseStatement(data []byte) ([]byte, bool, error) {
	s, err := ledger.ParseStatement(data)
	if err != nil {
		return nil, false, err
	}
	return s.Bytes(), s.Verify(), nil
}

func signedObjects(tb testing.TB) []signed {
	maker, other := newKey(2), newKey(3)
	members := []string{maker.Public, other.Public}
	slices.Sort(members)
	id := strings.Repeat("0123456789abcdef", 4)
	txs := []*ledger.Transaction{newCreate(tb, newKey(1), 1), newManyInputs(tb, newKey(1), 2)}
	return []signed{
		{"block", ledger.NewBlock(maker, 1490777015, members, txs).Bytes(), parseBlock},
		{"valid vote", ledger.NewVote(maker, id, id, true, "", 1490777015).Bytes(), parseVote},
		{"invalid vote", ledger.NewVote(maker, id, id, false, "DoubleSpend", 0).Bytes(), parseVote},
		{"statement", ledger.NewStatement(maker, 7, 1490777015, members, id).Bytes(), parseStatement},
		{"first statement", ledger.NewStatement(maker, 1, 0, members[:1], "").Bytes(), parseStatement},
	}
}

func TestSignedRoundTrip(t *testing.T) {
	for _, s := range signedObjects(t) {
		again, verified, err := s.parse(s.bytes)
		if err != nil || !verified || string(again) != string(s.bytes) {
			t.Errorf("%s: got %s, verified %v, %v; want %s", s.name, again, verified, err, s.bytes)
		}
		spaced := strings.ReplaceAll(string(s.bytes), `,"`, ` , "`)
		if again, verified, err = s.parse([]byte(spaced)); err != nil || !verified || string(again) != string(s.bytes) {
			t.Errorf("%s with spaces: got %s, verified %v, %v; want %s", s.name, again, verified, err, s.bytes)
		}
	}
}

// TestSignedTamper: whatever byte is changed, the object no longer parses or
// no longer verifies, unless it says the same in other words.
func TestSignedTamper(t *testing.T) {
	for _, s := range signedObjects(t) {
		t.Run(s.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				data := slices.Clone(s.bytes)
				i := rapid.IntRange(0, len(data)-1).Draw(t, "at")
				data[i] = rapid.OneOf(rapid.ByteRange(' ', '~'), rapid.Byte()).Draw(t, "byte")
				again, verified, err := s.parse(data)
				if err == nil && verified && string(again) != string(s.bytes) {
					t.Fatalf("byte %d: %s verifies", i, data)
				}
			})
		})
	}
}

func TestSignedShape(t *testing.T) {
	samples := []canonical.Value{{}, canonical.BoolOf(true), canonical.IntOf(7), canonical.FloatOf(1),
		canonical.StringOf("x"), canonical.StringOf(strings.Repeat("é", 100_000)), canonical.ArrayOf(), object()}
	// free fields may hold any string: a wrong one does not verify.
	free := map[string]bool{"block id": true, "block signature": true, "block block.node_pubkey": true,
		"vote signature": true, "vote vote.invalid_reason": true,
		"statement node_pubkey": true, "statement signature": true}
	for _, s := range signedObjects(t) {
		kind := s.name[strings.LastIndexByte(s.name, ' ')+1:]
		tree := parse(t, string(s.bytes))
		refuse := func(v canonical.Value, what string) {
			if _, _, err := s.parse(v.Bytes()); !errors.Is(err, ledger.ErrMalformed) || len(err.Error()) > maxMessage {
				t.Errorf("%s, %s: got %.200v, want ErrMalformed", s.name, what, err)
			}
		}
		for _, path := range objectPaths(tree, "") {
			refuse(set(tree, path, nil), path+" missing")
			refuse(set(tree, path+"x", &samples[0]), path+"x added")
			for _, sample := range samples {
				now := get(t, tree, strings.Split(path, ".")...)
				if canonical.Equal(sample, now) {
					continue
				}
				if sample.Kind() == now.Kind() && free[kind+" "+path] {
					if _, verified, err := s.parse(set(tree, path, &sample).Bytes()); err != nil || verified {
						t.Errorf("%s, %s %.20s: got verified %v, %v", s.name, path, sample.Bytes(), verified, err)
					}
				} else if !takes(kind+" "+path, sample) {
					refuse(set(tree, path, &sample), path+" is "+string(sample.Bytes()))
				}
			}
		}
		for _, v := range samples {
			refuse(v, "not an object")
		}
	}
}

// takes says which of the samples is right where it stands.
func takes(field string, v canonical.Value) bool {
	switch field {
	case "vote vote.is_block_valid":
		return v.Kind() == canonical.Bool
	case "vote vote.invalid_reason":
		return v.IsNull() || v.Kind() == canonical.String && v.Text() != ""
	case "statement federation.number":
		return v.Kind() == canonical.Int
	case "statement federation.previous":
		return v.IsNull()
	}
	return false
}

// objectPaths lists the fields of an object and of objects directly in it.
func objectPaths(v canonical.Value, prefix string) []string {
	var paths []string
	for i := range v.Len() {
		path := prefix + v.Key(i)
		paths = append(paths, path)
		if v.At(i).Kind() == canonical.Object {
			paths = append(paths, objectPaths(v.At(i), path+".")...)
		}
	}
	return paths
}

func TestSignedLimits(t *testing.T) {
	list := signedObjects(t)
	block, vote, statement := list[0], list[1], list[3]
	key, other := newKey(1).Public, newKey(2).Public
	if other < key {
		key, other = other, key
	}
	tests := []struct {
		of                signed
		path, value, want string
	}{
		{block, "block.transactions", `[]`, "block.transactions: must be an array of 1 to 1000 transactions"},
		{block, "block.transactions.1.outputs.0.amount", `0`, "block.transactions.1.outputs.0.amount: must be an integer"},
		{block, "block.voters", `null`, "block.voters: must be a list of at least one key"},
		{block, "block.voters", `[]`, "block.voters: must be a list of at least one key"},
		{block, "block.voters", `["x"]`, "block.voters.0: must be a base58 key"},
		{block, "block.timestamp", `"-1"`, "block.timestamp: must be Unix seconds"},
		{block, "block.timestamp", `"01"`, "block.timestamp: must be Unix seconds"},
		{block, "block.timestamp", `"+1"`, "block.timestamp: must be Unix seconds"},
		{block, "block.timestamp", `""`, "block.timestamp: must be Unix seconds"},
		{block, "block.timestamp", `1`, "block.timestamp: must be Unix seconds"},
		{block, "block.timestamp", `"1234567890123456789"`, "block.timestamp: must be Unix seconds"},
		{vote, "vote.timestamp", `"1.5"`, "vote.timestamp: must be Unix seconds"},
		{vote, "vote.invalid_reason", `""`, "vote.invalid_reason: must be null or a short word"},
		{vote, "vote.voting_for_block", `"ABC"`, "node_pubkey must be a key"},
		{vote, "node_pubkey", `"ABC"`, "node_pubkey must be a key"},
		{statement, "federation.members", `null`, "federation.members: must be sorted"},
		{statement, "federation.members", `["` + other + `","` + key + `"]`, "federation.members: must be sorted"},
		{statement, "federation.members", `["` + key + `","` + key + `"]`, "federation.members: must be sorted"},
		{statement, "federation.number", `0`, "federation.number: must be an integer"},
		{statement, "federation.number", `1.0`, "federation.number: must be an integer"},
		{statement, "federation.number", `100000000`, "federation.number: must be an integer"},
		{statement, "federation.previous", `""`, "federation.previous: must be null or a hash"},
	}
	for _, test := range tests {
		value := parse(t, test.value)
		_, _, err := test.of.parse(set(parse(t, string(test.of.bytes)), test.path, &value).Bytes())
		if !errors.Is(err, ledger.ErrMalformed) || !strings.Contains(fmt.Sprint(err), test.want) {
			t.Errorf("%s %s = %s: got %v, want %s", test.of.name, test.path, test.value, err, test.want)
		}
	}
}

func TestBlockSize(t *testing.T) {
	maker, tx := newKey(2), newCreate(t, newKey(1), 1)
	make1 := func(n int) *ledger.Block {
		return ledger.NewBlock(maker, 1, []string{maker.Public}, slices.Repeat([]*ledger.Transaction{tx}, n))
	}
	if _, err := ledger.ParseBlock(make1(ledger.MaxBlockTransactions).Bytes()); err != nil {
		t.Errorf("%d transactions: %v", ledger.MaxBlockTransactions, err)
	}
	if _, err := ledger.ParseBlock(make1(ledger.MaxBlockTransactions + 1).Bytes()); !errors.Is(err, ledger.ErrMalformed) {
		t.Errorf("one more: got %v, want ErrMalformed", err)
	}
	big, err := ledger.ParseTransaction(padded(t, ledger.MaxTransactionBytes))
	if err != nil {
		t.Fatal(err)
	}
	for n, ok := range map[int]bool{3: true, 4: false} {
		b := ledger.NewBlock(maker, 1, []string{maker.Public}, slices.Repeat([]*ledger.Transaction{big}, n))
		if _, err := ledger.ParseBlock(b.Bytes()); (err == nil) != ok {
			t.Errorf("%d transactions of 2 MB: got %v, want accepted %v", n, err, ok)
		}
	}
}

// TestBlockOverhead: the maker counts on it to keep its blocks within bounds.
func TestBlockOverhead(t *testing.T) {
	maker, tx := newKey(2), newCreate(t, newKey(1), 1)
	for _, n := range []int{1, 1000} {
		voters := slices.Repeat([]string{maker.Public}, 100)
		b := ledger.NewBlock(maker, 1<<59, voters, slices.Repeat([]*ledger.Transaction{tx}, n))
		transactions, keys := n*(len(tx.Bytes())+1), len(voters)*(44+3)
		if got, most := len(b.Bytes()), transactions+keys+ledger.BlockOverhead; got > most {
			t.Errorf("%d transactions: %d bytes, want at most %d", n, got, most)
		}
	}
}

func TestIsGenesis(t *testing.T) {
	node := newKey(2)
	genesis, err := ledger.NewGenesis(node, "")
	if err != nil {
		t.Fatal(err)
	}
	create := newCreate(t, node, 1)
	for _, test := range []struct {
		txs  []*ledger.Transaction
		want bool
	}{{[]*ledger.Transaction{genesis}, true}, {[]*ledger.Transaction{create}, false}, {[]*ledger.Transaction{genesis, create}, false}} {
		b := ledger.NewBlock(node, 1, []string{node.Public}, test.txs)
		if got := b.IsGenesis(); got != test.want {
			t.Errorf("%d transactions: got %v, want %v", len(test.txs), got, test.want)
		}
	}
}

func TestStatementHash(t *testing.T) {
	a, b := newKey(1), newKey(2)
	members := []string{a.Public, b.Public}
	slices.Sort(members)
	one, two := ledger.NewStatement(a, 3, 10, members, ""), ledger.NewStatement(b, 3, 10, members, "")
	if one.Hash() != two.Hash() {
		t.Errorf("equal statements of two members: hashes %s and %s, want one", one.Hash(), two.Hash())
	}
	if got, want := one.DocumentID(), "federation:00000003:"+a.Public; got != want {
		t.Errorf("DocumentID: got %s, want %s", got, want)
	}
	for _, other := range []*ledger.Statement{
		ledger.NewStatement(a, 4, 10, members, ""), ledger.NewStatement(a, 3, 11, members, ""),
		ledger.NewStatement(a, 3, 10, members[:1], ""), ledger.NewStatement(a, 3, 10, members, one.Hash()),
	} {
		if other.Hash() == one.Hash() {
			t.Errorf("%s has the hash of %s", other.Bytes(), one.Bytes())
		}
	}
}
