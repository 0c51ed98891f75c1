package rethinkdb

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/couchledger/couchledger/statedb"
)

const (
	// protocol is the magic number of version 1.0 of the protocol.
	protocol = 0x34c2bdc3
	// Codes of the handshake's errors from here to there are about the user.
	firstAuthCode, lastAuthCode = 10, 20
	// maxIterations bounds the work that a server can ask of a client for the
	// proof of its password; RethinkDB's own number is 4096 unless it is set.
	maxIterations = 10_000_000
	// maxGreeting is how long a line of the handshake may be.
	maxGreeting = 16 << 10
)

// dial opens a connection and proves who we are, in ConnectTimeout all in all.
func (db *DB) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, db.opts.ConnectTimeout)
	defer cancel()
	plain, err := (&net.Dialer{}).DialContext(ctx, "tcp", db.address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { plain.Close() })
	connection := plain
	if db.opts.TLS != nil {
		config := db.opts.TLS
		if config.ServerName == "" {
			config = config.Clone()
			config.ServerName = db.opts.Host
		}
		secured := tls.Client(plain, config)
		if err = secured.HandshakeContext(ctx); err != nil {
			plain.Close()
			return nil, err
		}
		connection = secured
	}
	r := bufio.NewReaderSize(connection, maxGreeting)
	err = db.greet(connection, r)
	if !stop() && err != nil {
		err = fmt.Errorf("%w in the handshake: %w", context.Cause(ctx), err)
	}
	if err != nil {
		plain.Close()
		return nil, err
	}
	return newConn(connection, r), nil
}

// greeting is any line that the server sends in the handshake.
type greeting struct {
	Success        bool   `json:"success"`
	Version        string `json:"server_version"`
	Authentication string `json:"authentication"`
	Code           int    `json:"error_code"`
	Error          string `json:"error"`
}

// greet runs the handshake of protocol 1.0: SCRAM-SHA-256 of RFC 5802.
func (db *DB) greet(c net.Conn, r *bufio.Reader) error {
	nonce := make([]byte, 18)
	rand.Read(nonce)
	// SCRAM has two characters of its own in a name. RethinkDB 2.4 knows such a
	// name at its beginning only, and refuses others as unknown.
	name := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(db.opts.Login)
	first := "n=" + name + ",r=" + base64.StdEncoding.EncodeToString(nonce)
	opening, err := json.Marshal(map[string]any{
		"protocol_version": 0, "authentication_method": "SCRAM-SHA-256", "authentication": "n,," + first,
	})
	if err != nil {
		return err
	}
	// The first proof needs nothing of the server's version line, so both go
	// out at once.
	if _, err := c.Write(append(binary.LittleEndian.AppendUint32(nil, protocol), append(opening, 0)...)); err != nil {
		return err
	}
	version, err := db.readGreeting(r)
	if err != nil {
		return err
	}
	challenge, err := db.readGreeting(r)
	if err != nil {
		return err
	}
	fields := scramFields(challenge.Authentication)
	salt, errSalt := base64.StdEncoding.DecodeString(fields["s"])
	iterations, errCount := strconv.Atoi(fields["i"])
	if errSalt != nil || errCount != nil || iterations < 1 || iterations > maxIterations ||
		!strings.HasPrefix(fields["r"], base64.StdEncoding.EncodeToString(nonce)) {
		return fmt.Errorf("%w: the server's challenge", errMalformed)
	}
	salted, err := db.salted.of(db.opts.Password, salt, iterations)
	if err != nil {
		return err
	}
	last := "c=biws,r=" + fields["r"]
	signed := first + "," + challenge.Authentication + "," + last
	clientKey := sign(salted, "Client Key")
	storedKey := sha256.Sum256(clientKey)
	proof := sign(storedKey[:], signed)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	closing, err := json.Marshal(map[string]string{"authentication": last + ",p=" + base64.StdEncoding.EncodeToString(proof)})
	if err != nil {
		return err
	}
	if _, err := c.Write(append(closing, 0)); err != nil {
		return err
	}
	verdict, err := db.readGreeting(r)
	if err != nil {
		return err
	}
	theirs, err := base64.StdEncoding.DecodeString(scramFields(verdict.Authentication)["v"])
	if err != nil || !hmac.Equal(theirs, sign(sign(salted, "Server Key"), signed)) {
		return fmt.Errorf("%w: what answers at %s does not know the password of the user %q", statedb.ErrDenied, db.address, db.opts.Login)
	}
	return db.checkVersion(version.Version)
}

func sign(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// scramFields takes k=v,k=v apart.
func scramFields(text string) map[string]string {
	fields := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		if key, value, ok := strings.Cut(part, "="); ok {
			fields[key] = value
		}
	}
	return fields
}

// errNotRethinkDB is what something else than RethinkDB gets.
var errNotRethinkDB = errors.New("what answers is not RethinkDB")

func (db *DB) readGreeting(r *bufio.Reader) (greeting, error) {
	line, err := r.ReadSlice(0)
	if errors.Is(err, bufio.ErrBufferFull) {
		return greeting{}, fmt.Errorf("%w: it sends no line that ends", errNotRethinkDB)
	}
	if err != nil {
		return greeting{}, err
	}
	line = line[:len(line)-1]
	var g greeting
	if err := json.Unmarshal(line, &g); err != nil {
		return greeting{}, fmt.Errorf("%w: it says %.100q", errNotRethinkDB, line)
	}
	switch {
	case g.Success:
		return g, nil
	case g.Code >= firstAuthCode && g.Code <= lastAuthCode:
		return greeting{}, fmt.Errorf("%w: RethinkDB at %s does not let the user %q in: check database.login and database.password (%s)",
			statedb.ErrDenied, db.address, db.opts.Login, g.Error)
	}
	return greeting{}, fmt.Errorf("%w: %s", statedb.ErrUnavailable, g.Error)
}

// saltedPassword remembers the key that a password makes: it takes thousands
// of hashes, and every connection of a user needs the same one.
type saltedPassword struct {
	mu         sync.Mutex
	salt       string
	iterations int
	key        []byte
}

func (s *saltedPassword) of(password string, salt []byte, iterations int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key == nil || s.salt != string(salt) || s.iterations != iterations {
		key, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
		if err != nil {
			return nil, err
		}
		s.salt, s.iterations, s.key = string(salt), iterations, key
	}
	return s.key, nil
}
