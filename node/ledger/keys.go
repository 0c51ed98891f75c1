package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/mr-tron/base58"
)

// ErrBadKey is wrapped by every error about a key that is not base58 of 32 bytes.
var ErrBadKey = errors.New("not a base58 encoded Ed25519 key")

// KeyPair is a node's or an owner's Ed25519 identity, both halves in base58:
// the public key's 32 bytes and the private key's 32-byte seed.
type KeyPair struct {
	Public string
	secret ed25519.PrivateKey
}

// GenerateKeyPair makes a new random key pair.
func GenerateKeyPair() KeyPair {
	for {
		public, secret, err := ed25519.GenerateKey(rand.Reader)
		if err != nil { // crypto/rand does not fail on any supported system
			panic(err)
		}
		// One key in about 60,000 is shorter than the schema lets keys be.
		if text := base58.Encode(public); isKeyText(text) {
			return KeyPair{Public: text, secret: secret}
		}
	}
}

// KeyPairFromPrivate derives the pair from a base58 private key.
func KeyPairFromPrivate(private string) (KeyPair, error) {
	seed, err := decodeKey(private)
	if err != nil {
		return KeyPair{}, fmt.Errorf("private key: %w", err)
	}
	secret := ed25519.NewKeyFromSeed(seed)
	public := base58.Encode(secret.Public().(ed25519.PublicKey))
	if !isKeyText(public) {
		return KeyPair{}, fmt.Errorf("private key: its public key %s is shorter than the 43 characters that a ledger takes; make another", public)
	}
	return KeyPair{Public: public, secret: secret}, nil
}

// Private returns the private key in base58.
func (k KeyPair) Private() string { return base58.Encode(k.secret.Seed()) }

// Secret returns the private key for signing.
func (k KeyPair) Secret() ed25519.PrivateKey { return k.secret }

// String hides the private key from logs.
func (k KeyPair) String() string { return k.Public }

// Format hides the private key from every format verb, also %#v and %d.
func (k KeyPair) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), k.Public)
}

// DecodePublicKey reads a base58 public key.
func DecodePublicKey(key string) (ed25519.PublicKey, error) {
	raw, err := decodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return raw, nil
}

func decodeKey(key string) ([]byte, error) {
	if len(key) > maxKeyLength {
		return nil, ErrBadKey
	}
	raw, err := base58.Decode(key)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, ErrBadKey
	}
	return raw, nil
}

// Hash returns the SHA3-256 of data in lower-case hex, the form of every id.
func Hash(data []byte) string {
	sum := sha3.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// sign returns the base58 signature of message, the form on blocks and votes.
func sign(k KeyPair, message []byte) string {
	return base58.Encode(ed25519.Sign(k.secret, message))
}

// verify checks a base58 signature by a base58 public key.
func verify(key string, message []byte, signature string) bool {
	public, err := DecodePublicKey(key)
	if err != nil || len(signature) > maxSignatureLength {
		return false
	}
	raw, err := base58.Decode(signature)
	return err == nil && len(raw) == ed25519.SignatureSize && ed25519.Verify(public, message, raw)
}

// Longest base58 texts of 32 and 64 bytes; base58 takes quadratic time.
const (
	maxKeyLength       = 44
	maxSignatureLength = 88
)
