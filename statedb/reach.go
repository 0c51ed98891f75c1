package statedb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Server is a database server as an operator knows it, for an adapter that
// connects to it.
type Server struct {
	Product  string // such as CouchDB
	Address  string // such as localhost:5984
	MaxTries int    // attempts to reach it; 0 for ever
	Log      *slog.Logger
}

// Pauses between attempts to reach a server.
const (
	firstWait = 250 * time.Millisecond
	lastWait  = 8 * time.Second
)

// Reach tries until there is an answer, with growing pauses. An error of try's
// that is not ErrUnavailable is final, and so is a certificate that is not
// trusted.
func (s Server) Reach(ctx context.Context, try func(context.Context) error) error {
	wait := firstWait
	for n := 1; ; n++ {
		err := try(ctx)
		if err == nil || !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		var untrusted *tls.CertificateVerificationError
		if errors.As(err, &untrusted) {
			return fmt.Errorf("the certificate of %s at %s is not trusted; database.ca_cert names the file of its authority: %w", s.Product, s.Address, err)
		}
		if n == s.MaxTries {
			return fmt.Errorf("%s at %s does not answer, tried %d times: %w", s.Product, s.Address, n, err)
		}
		s.Log.Warn(s.Product+" does not answer yet; trying again", "address", s.Address, "try", n, "of", s.MaxTries, "after", wait, "error", err)
		if err := Sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, lastWait)
	}
}

// Sleep lets time pass; the error is ctx's when that ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
