package rethinkdb

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// Kinds of query and of answer on the wire, as ql2.proto numbers them.
const (
	queryStart      = 1
	queryContinue   = 2
	queryStop       = 3
	queryServerInfo = 5

	answerAtom     = 1 // one value
	answerSequence = 2 // the last rows
	answerPartial  = 3 // rows, and more when they are asked for
	answerInfo     = 5
	firstError     = 16 // answers from here on are errors
)

const (
	headerBytes = 12 // the query's token in 8 bytes, the length of what follows in 4
	// maxAnswer bounds an answer; the server makes batches of a megabyte, but
	// one document may be larger.
	maxAnswer = 256 << 20
)

// answer is what the server says to one query, or a part of it.
type answer struct {
	kind  int64
	fault int64    // the class of an error
	rows  [][]byte // JSON texts
}

// conn is one connection. Queries may be under way at the same time, each with
// a token of its own. It is broken for good after the first fault, and says so
// at once, since somebody is always reading.
type conn struct {
	net net.Conn

	mu      sync.Mutex
	token   uint64
	waiting map[uint64]chan answer // of queries sent, buffered for one answer
	fault   error                  // why it is broken

	broken chan struct{} // closed when fault is set
}

func newConn(c net.Conn, r *bufio.Reader) *conn {
	made := &conn{net: c, waiting: map[uint64]chan answer{}, broken: make(chan struct{})}
	go made.read(r)
	return made
}

// fail breaks the connection.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault == nil {
		c.fault = err
		close(c.broken)
		c.net.Close()
	}
}

func (c *conn) isBroken() bool {
	select {
	case <-c.broken:
		return true
	default:
		return false
	}
}

// close is for connections that did their work.
func (c *conn) close() { c.fail(net.ErrClosed) }

// newToken names a query, and makes a place for its answers.
func (c *conn) newToken() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token++
	c.waiting[c.token] = make(chan answer, 1)
	return c.token
}

// forget ends the wait for a query's answers.
func (c *conn) forget(token uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, token)
}

// send writes one query; what is a JSON text such as [1,<term>,{}].
func (c *conn) send(token uint64, what []byte) error {
	message := make([]byte, headerBytes, headerBytes+len(what))
	binary.LittleEndian.PutUint64(message, token)
	binary.LittleEndian.PutUint32(message[8:], uint32(len(what)))
	_, err := c.net.Write(append(message, what...))
	if err != nil {
		c.fail(err)
	}
	return err
}

// ask sends a query and waits for one answer to it. When ctx ends first the
// connection is broken, by which the server knows to drop the query: asking it
// to stop would mean to wait again for a server that does not answer.
func (c *conn) ask(ctx context.Context, token uint64, what []byte) (answer, error) {
	c.mu.Lock()
	answers := c.waiting[token]
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { c.fail(ctx.Err()) })
	defer func() {
		if !stop() {
			c.fail(ctx.Err()) // now, so that nobody uses it for another query
		}
	}()
	if err := c.send(token, what); err != nil {
		return answer{}, c.why(err)
	}
	select {
	case a := <-answers:
		return a, nil
	case <-c.broken:
		// The answer may have come just before the end.
		select {
		case a := <-answers:
			return a, nil
		default:
			return answer{}, c.why(net.ErrClosed)
		}
	}
}

// why prefers the reason for which a connection was broken.
func (c *conn) why(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fault != nil {
		return c.fault
	}
	return err
}

// read hands out answers until the connection ends.
func (c *conn) read(r *bufio.Reader) {
	var header [headerBytes]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			c.fail(err)
			return
		}
		size := binary.LittleEndian.Uint32(header[8:])
		if size > maxAnswer {
			c.fail(fmt.Errorf("the server announced an answer of %d bytes", size))
			return
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(r, body); err != nil {
			c.fail(err)
			return
		}
		a, err := readAnswer(body)
		if err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		place := c.waiting[binary.LittleEndian.Uint64(header[:])]
		c.mu.Unlock()
		if place == nil {
			continue // nobody waits for it any more
		}
		select {
		case place <- a:
		case <-c.broken:
			return
		}
	}
}

// errMalformed is an answer that is not what the protocol has.
var errMalformed = errors.New("malformed answer")

func readAnswer(body []byte) (answer, error) {
	fields, err := splitObject(body)
	if err != nil {
		return answer{}, err
	}
	a := answer{}
	if a.kind, err = strconv.ParseInt(string(fields[`"t"`]), 10, 64); err != nil {
		return answer{}, fmt.Errorf("%w: it has no type", errMalformed)
	}
	if text, ok := fields[`"e"`]; ok {
		if a.fault, err = strconv.ParseInt(string(text), 10, 64); err != nil {
			return answer{}, fmt.Errorf("%w: the class of an error", errMalformed)
		}
	}
	a.rows, err = splitArray(fields[`"r"`])
	return a, err
}
