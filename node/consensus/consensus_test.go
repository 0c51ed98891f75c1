package consensus_test

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/consensus"
	"github.com/couchledger/couchledger/node/ledger"
)

func mustParse(t *testing.T, text string) canonical.Value {
	t.Helper()
	v, err := canonical.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func secretsOf(k ledger.KeyPair) map[string]ed25519.PrivateKey {
	return map[string]ed25519.PrivateKey{k.Public: k.Secret()}
}

func TestLookup(t *testing.T) {
	for _, name := range []string{"", "default", consensus.Default} {
		r, err := consensus.Lookup(name)
		if err != nil || r.Name() != consensus.Default {
			t.Errorf("Lookup(%q): got %v, %v; want %s", name, r, err, consensus.Default)
		}
	}
	_, err := consensus.Lookup("unanimous")
	const want = `no consensus rules are named "unanimous"; there are: `
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "majority, two-thirds") {
		t.Errorf("got %v, want %smajority, two-thirds", err, want)
	}
}

// renamed are the default rules under another name.
type renamed struct {
	consensus.Rules
	name string
}

func (r renamed) Name() string { return r.name }

func TestRegister(t *testing.T) {
	if _, err := consensus.Lookup("another"); err != nil { // else from -count
		consensus.Register(renamed{rules(t), "another"})
	}
	if r, err := consensus.Lookup("another"); err != nil || r.Name() != "another" {
		t.Errorf("got %v, %v; want the rules registered", r, err)
	}
	_, err := consensus.Lookup("x")
	if want := "there are: another, majority, two-thirds"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want it to end with %s", err, want)
	}
	defer func() {
		if got, want := recover(), "consensus: rules registered twice: another"; got != want {
			t.Errorf("registered twice: got panic %v, want %s", got, want)
		}
	}()
	consensus.Register(renamed{rules(t), "another"})
}

func TestStatusNames(t *testing.T) {
	want := map[consensus.Status]string{
		consensus.Unknown: "unknown", consensus.Undecided: "undecided", consensus.Valid: "valid", consensus.Invalid: "invalid",
	}
	for status, name := range want {
		if status.String() != name {
			t.Errorf("got %s, want %s", status, name)
		}
	}
}
