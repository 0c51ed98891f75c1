package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/couchledger/couchledger/canonical"
	"github.com/couchledger/couchledger/node/ledger"
)

// verifications counts the Ed25519 verifications per second of all cores, on
// messages of a transaction's length, while the node has nothing to do.
func (r *run) verifications(ctx context.Context) float64 {
	const messageBytes = 600
	message := make([]byte, messageBytes)
	_, _ = rand.Read(message) // never fails
	key := r.owners[0].Secret()
	public, signature := key.Public().(ed25519.PublicKey), ed25519.Sign(key, message)

	const batch = 100
	var total atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	r.progress.start("Ed25519 verifications", 0)
	for range cores() {
		wg.Go(func() {
			for time.Since(begin) < r.opts.Steady && ctx.Err() == nil {
				for range batch {
					if !ed25519.Verify(public, message, signature) {
						panic("bench: a sound signature does not verify")
					}
				}
				r.progress.at(int(total.Add(batch)))
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	r.progress.finish(int(total.Load()))
	return perSecond(int(total.Load()), took)
}

// assetBytes is the length of the load's assets, as canonical JSON.
const assetBytes = 100

// asset gives data of assetBytes that no other transaction has.
func (r *run) asset(kind string, i int) canonical.Value {
	text := fmt.Sprintf("%s %s %d ", r.id, kind, i)
	text += strings.Repeat(".", max(0, assetBytes-len(`{"bench":""}`)-len(text)))
	return canonical.ObjectOf(canonical.Member{Key: "bench", Value: canonical.StringOf(text)})
}

func (r *run) owner(i int) ledger.KeyPair { return r.owners[i%len(r.owners)] }

// create makes a CREATE with one output for each payment, by the i-th owner.
func (r *run) create(kind string, i int, payments ...ledger.Payment) (*ledger.Transaction, error) {
	return ledger.NewCreate([]ledger.KeyPair{r.owner(i)}, r.asset(kind, i), canonical.Value{}, payments...)
}

// transferOf makes a TRANSFER of sources of one asset, all owned by from.
func transferOf(asset string, from ledger.KeyPair, to string, amount int64, sources ...ledger.Source) (*ledger.Transaction, error) {
	return ledger.NewTransfer(asset, sources, canonical.Value{}, []ledger.Payment{ledger.PayTo(to, amount)}, from)
}

// reads gets transactions by id over all connections for Options.Steady.
func (r *run) reads(ctx context.Context, ids []string) (float64, error) {
	r.progress.start("GET by id", 0)
	var next, done atomic.Int64
	begin := time.Now()
	r.each(ctx, func(w *wire) {
		for time.Since(begin) < r.opts.Steady && ctx.Err() == nil {
			// A stride that shares no factor with the usual counts visits
			// the ids out of order.
			const stride = 7919
			id := ids[int(next.Add(stride))%len(ids)]
			resp, _, err := r.ask(ctx, w, http.MethodGet, "/api/v1/transactions/"+id, nil)
			if err != nil || resp.status != http.StatusOK {
				r.fail("GET: " + failure(resp, err))
				continue
			}
			r.progress.at(int(done.Add(1)))
		}
	})
	took := time.Since(begin)
	r.progress.finish(int(done.Load()))
	return perSecond(int(done.Load()), took), ctx.Err()
}

// singles posts one transaction at a time, each when the one before is valid.
func (r *run) singles(ctx context.Context, report *Report) error {
	r.progress.start("one at a time", r.opts.Singles)
	r.tracker.begin()
	w, err := r.dial()
	if err != nil {
		return err
	}
	defer w.close()
	var took []time.Duration
	for i := range r.opts.Singles {
		t, err := r.create("single", i, ledger.PayTo(r.owner(i).Public, 1))
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		told := make(chan time.Time, 1)
		begin := time.Now()
		if _, ok := r.post(ctx, w, t, told); !ok {
			continue
		}
		select {
		case at := <-told:
			took = append(took, at.Sub(begin))
		case <-time.After(quiet):
			r.drain(ctx) // its event was lost, or it is slow indeed
			select {
			case at := <-told:
				took = append(took, at.Sub(begin))
			default: // counted as lost or refused
			}
		case <-ctx.Done():
			return fmt.Errorf("bench: %w", ctx.Err())
		}
		r.progress.at(i + 1)
	}
	r.progress.finish(len(took))
	report.add(atMost("One at a time, POST to valid, median", milliseconds(percentile(took, .5)), "ms", r.goals.single))
	report.add(Figure{Name: "One at a time, POST to valid, p95", Value: milliseconds(percentile(took, .95)), Unit: "ms"})
	return nil
}
