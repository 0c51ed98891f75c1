package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/url"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/node/ledger"
)

// AssetTransactions iterates over an asset's valid transactions in the order
// they became valid. operation is "" for all. An error ends the iteration.
func (c *Client) AssetTransactions(ctx context.Context, asset string, operation ledger.Operation) iter.Seq2[*ledger.Transaction, error] {
	query := url.Values{"asset_id": {asset}}
	if operation != "" {
		query.Set("operation", string(operation))
	}
	return rows(ctx, c, "transactions", query, func(raw json.RawMessage) (*ledger.Transaction, error) {
		return ledger.ParseTransaction(raw)
	})
}

// Outputs iterates over the outputs that name a public key, those that nobody
// spends when unspent is set. An error ends the iteration.
func (c *Client) Outputs(ctx context.Context, publicKey string, unspent bool) iter.Seq2[ledger.OutputRef, error] {
	query := url.Values{"public_key": {publicKey}, "unspent": {strconv.FormatBool(unspent)}}
	return rows(ctx, c, "outputs", query, parseOutput)
}

// parseOutput reads "../transactions/<txid>/outputs/<n>".
func parseOutput(raw json.RawMessage) (ledger.OutputRef, error) {
	var link string
	if err := json.Unmarshal(raw, &link); err != nil {
		return ledger.OutputRef{}, err
	}
	rest, _ := strings.CutPrefix(link, "../transactions/")
	id, index, ok := strings.Cut(rest, "/outputs/")
	n, err := strconv.Atoi(index)
	if !ok || err != nil || !ledger.IsID(id) {
		return ledger.OutputRef{}, fmt.Errorf("%q is no link to an output", link)
	}
	return ledger.OutputRef{TxID: id, Index: n}, nil
}

// Blocks iterates over the ids of the blocks that hold a transaction. status
// is "" for all. An error ends the iteration.
func (c *Client) Blocks(ctx context.Context, txID, status string) iter.Seq2[string, error] {
	query := url.Values{"tx_id": {txID}}
	if status != "" {
		query.Set("status", status)
	}
	return rows(ctx, c, "blocks", query, func(raw json.RawMessage) (id string, err error) {
		err = json.Unmarshal(raw, &id)
		return id, err
	})
}

// Votes iterates over all votes on a block, sound or not: Vote.Verify checks
// the signature, and the block's voters say who may vote. An error ends the
// iteration.
func (c *Client) Votes(ctx context.Context, blockID string) iter.Seq2[*ledger.Vote, error] {
	return rows(ctx, c, "votes", url.Values{"block_id": {blockID}}, func(raw json.RawMessage) (*ledger.Vote, error) {
		return ledger.ParseVote(raw)
	})
}

// rows walks a list page by page.
func rows[T any](ctx context.Context, c *Client, list string, query url.Values, parse func(json.RawMessage) (T, error)) iter.Seq2[T, error] {
	query.Set("limit", strconv.Itoa(c.page))
	return func(yield func(T, error) bool) {
		var none T
		for next := "/api/v1/" + list + "?" + query.Encode(); next != ""; {
			body, after, err := c.get(ctx, next)
			if err != nil {
				yield(none, err)
				return
			}
			var page []json.RawMessage
			if err := json.Unmarshal(body, &page); err != nil {
				yield(none, fmt.Errorf("client: a page of %s: %w", list, err))
				return
			}
			for _, raw := range page {
				row, err := parse(raw)
				if err != nil {
					yield(none, fmt.Errorf("client: a row of %s: %w", list, err))
					return
				}
				if !yield(row, nil) {
					return
				}
			}
			next = after
		}
	}
}
