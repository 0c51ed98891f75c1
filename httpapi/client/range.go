package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/statedb"
)

// Range reads documents by id as statedb.DB does, of what the node serves: it
// leaves out documents that are not the ledger's. They come in canonical form,
// without revisions. An error that another try may help wraps
// statedb.ErrUnavailable.
func (c *Client) Range(ctx context.Context, table string, r statedb.Range) (statedb.Page, error) {
	q := Query{Table: table, StartKey: &r.Start, Limit: r.Limit, Bookmark: r.Bookmark}
	if r.End != "" {
		q.EndKey = &r.End
	}
	page, err := c.QueryPage(ctx, q)
	if err != nil {
		return statedb.Page{}, unavailable(ctx, err)
	}
	answer := statedb.Page{Documents: make([]statedb.Document, len(page.Docs)), Bookmark: page.Bookmark}
	for i, row := range page.Docs {
		if answer.Documents[i], err = documentOf(row); err != nil {
			return statedb.Page{}, fmt.Errorf("client: a row of %s: %w", table, err)
		}
	}
	return answer, nil
}

// unavailable marks errors of the way to the node, and answers that ask to come
// again.
func unavailable(ctx context.Context, err error) error {
	var answer *Error
	var untrusted *tls.CertificateVerificationError
	if ctx.Err() != nil || errors.As(err, &untrusted) || errors.As(err, &answer) && answer.Status != http.StatusServiceUnavailable && answer.Status != http.StatusTooManyRequests {
		return err
	}
	return fmt.Errorf("%w: %w", statedb.ErrUnavailable, err)
}

// documentOf takes the id out of a row. As nodes write it, it comes first; the
// rest is not parsed then, as blocks are large.
func documentOf(row json.RawMessage) (statedb.Document, error) {
	const before = `{"_id":"`
	if rest, ok := bytes.CutPrefix(row, []byte(before)); ok {
		id, rest, ok := bytes.Cut(rest, []byte(`",`))
		if ok && bytes.IndexByte(id, '"') < 0 && bytes.IndexByte(id, '\\') < 0 {
			body := append(make([]byte, 0, len(rest)+1), '{')
			return statedb.Document{ID: string(id), Body: append(body, rest...)}, nil
		}
	}
	tree, err := canonical.Parse(row)
	if err != nil {
		return statedb.Document{}, err
	}
	id, ok := tree.Get("_id")
	if !ok || id.Kind() != canonical.String {
		return statedb.Document{}, errors.New("it has no _id")
	}
	return statedb.Document{ID: id.Text(), Body: tree.Without("_id").Bytes()}, nil
}
