// Package client is the Go driver of the 0.10 client-server API: it posts
// transactions, reads what a node serves and follows its stream of valid
// transactions. Package ledger builds and signs the transactions.
//
//	c, err := client.New("http://localhost:9984")
//	t, err := ledger.NewCreate([]ledger.KeyPair{alice}, data, canonical.Value{}, ledger.PayTo(alice.Public, 1))
//	valid, err := c.Post(ctx, t, client.Commit)
//
// Answers other than the documented success are an *Error.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/couchledger/couchledger/node/ledger"
)

// Error is an error answer of a node.
type Error struct {
	Status  int // HTTP status
	Message string
	// RetryAfter is how long a 429 or 503 asks to wait, else 0.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.Message) }

// DefaultPageSize is how many rows the iterators ask for at a time.
const DefaultPageSize = 1000

// maxBody bounds an answer, in bytes: the largest is a page of transactions,
// which a node ends soon after 8 MB.
const maxBody = 64 << 20

// Client talks to one node. It is safe for concurrent use.
type Client struct {
	base *url.URL // without a trailing slash
	http *http.Client
	page int

	token    string        // "" for none
	patience time.Duration // with a node that asks to come again
}

// Option changes a Client.
type Option func(*Client)

// WithHTTPClient uses another HTTP client than http.DefaultClient.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithPageSize asks for pages of n rows, 1 to 1000.
func WithPageSize(n int) Option { return func(c *Client) { c.page = n } }

// WithToken shows a token to the node, "" none. It belongs into an https
// address.
func WithToken(token string) Option { return func(c *Client) { c.token = token } }

// WithPatience repeats requests that are answered with 429 or 503 after the time
// that Retry-After names, as long as the waits are no more than d in all.
// Without it such answers are an *Error at once.
func WithPatience(d time.Duration) Option { return func(c *Client) { c.patience = d } }

// New makes a client of the node at baseURL, such as http://localhost:9984.
func New(baseURL string, options ...Option) (*Client, error) {
	if strings.Contains(baseURL, "@") { // and not repeated in the error: it may be a password
		return nil, errors.New("client: the node's address holds a user or a password: a node takes a token (WithToken)")
	}
	base, err := url.Parse(strings.TrimRight(baseURL, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("client: %q is no http or https address", baseURL)
	}
	c := &Client{base: base, http: http.DefaultClient, page: DefaultPageSize}
	for _, option := range options {
		option(c)
	}
	return c, nil
}

// Mode says when the answer to a Post comes.
type Mode string

// The modes.
const (
	Async  Mode = "async"  // once the transaction is durable in the backlog
	Commit Mode = "commit" // once it is valid or refused, for as long as the node waits
)

// Post sends a transaction. It reports true when the transaction is valid
// already, which only Commit waits for; false means accepted, with no verdict
// yet.
func (c *Client) Post(ctx context.Context, t *ledger.Transaction, mode Mode) (valid bool, err error) {
	path := "/api/v1/transactions/"
	if mode != Async {
		path += "?mode=" + url.QueryEscape(string(mode))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+path, bytes.NewReader(t.Bytes()))
	if err != nil {
		return false, fmt.Errorf("client: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.send(req)
	if err != nil {
		return false, fmt.Errorf("client: posting %s: %w", t.ID, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return false, readError(resp)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)); err != nil {
		return false, fmt.Errorf("client: posting %s: %w", t.ID, err)
	}
	return resp.StatusCode == http.StatusOK, nil
}

// Transaction fetches a transaction of a valid block.
func (c *Client) Transaction(ctx context.Context, id string) (*ledger.Transaction, error) {
	body, _, err := c.get(ctx, "/api/v1/transactions/"+url.PathEscape(id))
	if err != nil {
		return nil, err
	}
	return ledger.ParseTransaction(body)
}

// Block fetches a block, whatever its status. Block.Verify checks it.
func (c *Client) Block(ctx context.Context, id string) (*ledger.Block, error) {
	body, _, err := c.get(ctx, "/api/v1/blocks/"+url.PathEscape(id))
	if err != nil {
		return nil, err
	}
	return ledger.ParseBlock(body)
}

// Status gives a transaction's status: "backlog", "undecided" or "valid".
// The *Error of one that was refused, status 404, says why.
func (c *Client) Status(ctx context.Context, id string) (string, error) {
	return c.status(ctx, "tx_id", id)
}

// BlockStatus gives a block's status: "undecided", "valid" or "invalid".
func (c *Client) BlockStatus(ctx context.Context, id string) (string, error) {
	return c.status(ctx, "block_id", id)
}

func (c *Client) status(ctx context.Context, parameter, id string) (string, error) {
	body, _, err := c.get(ctx, "/api/v1/statuses?"+parameter+"="+url.QueryEscape(id))
	if err != nil {
		return "", err
	}
	var answer struct{ Status string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("client: status of %s: %w", id, err)
	}
	return answer.Status, nil
}

// send sends a request with the token, again when the node asks for that. Its
// body must be one that net/http can read again. All requests may be repeated:
// a transaction that is posted twice is in the ledger once.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	c.authorize(req.Header)
	for waited := time.Duration(0); ; {
		resp, err := c.http.Do(req)
		if err != nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
			return resp, err
		}
		wait := max(time.Second, retryAfter(resp))
		if waited += wait; waited > c.patience {
			return resp, nil
		}
		_ = resp.Body.Close() // there is another answer to come
		timer := time.NewTimer(wait)
		select {
		case <-req.Context().Done():
			timer.Stop()
			return nil, req.Context().Err()
		case <-timer.C:
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

func (c *Client) authorize(header http.Header) {
	if c.token != "" {
		header.Set("Authorization", "Bearer "+c.token)
	}
}

// retryAfter is how long an answer asks to wait, 0 where it does not say.
func retryAfter(resp *http.Response) time.Duration {
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds < 0 || seconds > math.MaxInt32 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// get fetches a path with its query, and the path of the next page if the
// answer has one.
func (c *Client) get(ctx context.Context, path string) (body []byte, next string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String()+path, nil)
	if err != nil {
		return nil, "", fmt.Errorf("client: %w", err)
	}
	resp, err := c.send(req)
	if err != nil {
		return nil, "", fmt.Errorf("client: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", readError(resp)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, "", fmt.Errorf("client: reading the answer to %s: %w", path, err)
	}
	if len(body) > maxBody {
		return nil, "", fmt.Errorf("client: the answer to %s has more than %d bytes", path, maxBody)
	}
	next, err = nextPath(resp.Header)
	return body, next, err
}

// nextPath takes path and query of a Link with rel="next". Scheme and host
// stay the client's own: behind a proxy the node may not know them.
func nextPath(header http.Header) (string, error) {
	for part := range strings.SplitSeq(header.Get("Link"), ",") {
		target, rel, ok := strings.Cut(strings.TrimSpace(part), ">")
		if !ok || !strings.Contains(rel, `rel="next"`) {
			continue
		}
		u, err := url.Parse(strings.TrimPrefix(target, "<"))
		if err != nil {
			return "", fmt.Errorf("client: the link to the next page: %w", err)
		}
		return u.RequestURI(), nil
	}
	return "", nil
}

// readError turns an error answer into an *Error.
func readError(resp *http.Response) error {
	e := &Error{Status: resp.StatusCode, Message: http.StatusText(resp.StatusCode), RetryAfter: retryAfter(resp)}
	const most = 64 << 10
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	var answer struct{ Message string }
	if err == nil && json.Unmarshal(body, &answer) == nil && answer.Message != "" {
		e.Message = answer.Message
	}
	return e
}
