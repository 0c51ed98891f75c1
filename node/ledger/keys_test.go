package ledger_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/mr-tron/base58"

	"github.com/couchledger/couchledger/node/ledger"
)

func TestHash(t *testing.T) {
	const want = "644bcc7e564373040999aac89e7622f3ca71fba1d972fd94a31c3bfbf24e3938"
	if got := ledger.Hash([]byte("hello world")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVectorKeys(t *testing.T) {
	for _, v := range items(get(t, vectorFile(t, "transactions.json"), "keys")) {
		private, public := get(t, v, "private").Text(), get(t, v, "public").Text()
		k, err := ledger.KeyPairFromPrivate(private)
		if err != nil || k.Public != public || k.Private() != private {
			t.Errorf("from %s: got %s, %v; want %s", private, k.Public, err, public)
		}
	}
}

func TestBadKeys(t *testing.T) {
	tests := map[string]string{
		"empty":           "",
		"31 bytes":        base58.Encode(bytes.Repeat([]byte{7}, 31)),
		"33 bytes":        base58.Encode(bytes.Repeat([]byte{7}, 33)),
		"not in alphabet": "0" + newKey(1).Public[1:],
		"endless":         strings.Repeat("z", 1<<20),
	}
	for name, key := range tests {
		if _, err := ledger.DecodePublicKey(key); !errors.Is(err, ledger.ErrBadKey) {
			t.Errorf("public, %s: got %v, want ErrBadKey", name, err)
		}
		if _, err := ledger.KeyPairFromPrivate(key); !errors.Is(err, ledger.ErrBadKey) {
			t.Errorf("private, %s: got %v, want ErrBadKey", name, err)
		}
	}
}

// TestGeneratedKeysFitSchema: a voter whose key is too short could never be heard.
func TestGeneratedKeysFitSchema(t *testing.T) {
	for range 200 {
		k := ledger.GenerateKeyPair()
		if n := len(k.Public); n != 43 && n != 44 {
			t.Fatalf("key %s has %d characters, want 43 or 44", k.Public, n)
		}
		if again, err := ledger.KeyPairFromPrivate(k.Private()); err != nil || again.Public != k.Public {
			t.Fatalf("KeyPairFromPrivate(Private()): got %s, %v; want %s", again.Public, err, k.Public)
		}
	}
}

func TestPrivateKeyStaysPrivate(t *testing.T) {
	k := newKey(3)
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%t"} {
		fmt.Fprintf(&out, verb+"\n", k)
		fmt.Fprintf(&out, verb+"\n", struct{ Key ledger.KeyPair }{k})
		fmt.Fprintf(&out, verb+"\n", &k)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("key", "k", k)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "k", k)
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	seed := k.Secret().Seed()
	for _, secret := range []string{k.Private(), fmt.Sprintf("%x", seed), fmt.Sprintf("%X", seed), "3 3 3 3", "0x3, 0x3, 0x3"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s shows in:\n%s", secret, out.String())
		}
	}
	if got := fmt.Sprint(k); got != k.Public {
		t.Errorf("Sprint: got %s, want %s", got, k.Public)
	}
}

// TestShortPublicKey: this seed's public key has 42 characters, which no list
// of keys may hold.
func TestShortPublicKey(t *testing.T) {
	k, err := ledger.KeyPairFromPrivate("12o7PnkKXFRmaLX85zoStc9G2VBDacroVft5gXFeNbq")
	if err == nil || !strings.Contains(err.Error(), "shorter than the 43 characters") {
		t.Errorf("got %s, %v; want an error that tells of the length", k.Public, err)
	}
}
