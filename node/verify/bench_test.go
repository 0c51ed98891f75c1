package verify

import (
	"crypto/ed25519"
	"runtime"
	"sync"
	"testing"
	"time"
)

// ed25519Rate is how many signatures per second all cores verify.
func ed25519Rate(count int) float64 {
	public, secret, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	message := make([]byte, 800) // as long as most transactions
	signature := ed25519.Sign(secret, message)
	workers := runtime.GOMAXPROCS(0)
	begin := time.Now()
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for range count / workers {
				if !ed25519.Verify(public, message, signature) {
					panic("a good signature does not verify")
				}
			}
		})
	}
	group.Wait()
	return float64(count) / time.Since(begin).Seconds()
}

// BenchmarkVerify verifies a ledger of transactions with one signature each, by
// and large, and compares it with what the same cores do in Ed25519 alone,
// before and after.
func BenchmarkVerify(b *testing.B) {
	s := makeSample(b, 20_000)
	before := ed25519Rate(50_000)
	b.ResetTimer()
	transactions := 0
	for b.Loop() {
		found, report := s.check(Options{})
		wantNone(b, found)
		transactions += report.Transactions
	}
	rate := float64(transactions) / b.Elapsed().Seconds()
	alone := (before + ed25519Rate(50_000)) / 2
	b.ReportMetric(rate, "tx/s")
	b.ReportMetric(alone, "ed25519/s")
	b.ReportMetric(rate/alone, "ratio")
}
