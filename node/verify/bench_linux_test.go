package verify

import (
	"crypto/ed25519"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// cost is what something took: time, and processor time of all cores.
type cost struct{ wall, cpu time.Duration }

func measure(b *testing.B, work func()) cost {
	cpu := func() time.Duration {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			b.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	begin, used := time.Now(), cpu()
	work()
	return cost{time.Since(begin), cpu() - used}
}

// ed25519Cost verifies signatures on all cores.
func ed25519Cost(b *testing.B, count int) cost {
	public, secret, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	message := make([]byte, 800) // as long as most transactions
	signature := ed25519.Sign(secret, message)
	workers := runtime.GOMAXPROCS(0)
	return measure(b, func() {
		var group sync.WaitGroup
		for range workers {
			group.Go(func() {
				for range count / workers {
					if !ed25519.Verify(public, message, signature) {
						b.Error("a good signature does not verify")
					}
				}
			})
		}
		group.Wait()
	})
}

// BenchmarkVerify verifies a ledger of 20,000 CREATEs and TRANSFERs, one
// signature each but for one in twenty, on the embedded store, and compares it
// with as many Ed25519 verifications on all cores, in the same run. The ratio
// of processor times tells the same where other programs are busy.
func BenchmarkVerify(b *testing.B) {
	s := makeSampleOf(b, 22_000, 2)
	var alone, whole cost
	transactions := 0
	b.ResetTimer()
	for b.Loop() {
		c := ed25519Cost(b, 20_000)
		alone.wall, alone.cpu = alone.wall+c.wall, alone.cpu+c.cpu
		c = measure(b, func() {
			found, report := s.check(Options{})
			wantNone(b, found)
			transactions += report.Transactions
		})
		whole.wall, whole.cpu = whole.wall+c.wall, whole.cpu+c.cpu
	}
	each := float64(transactions) / float64(b.N*20_000)
	b.ReportMetric(float64(transactions)/whole.wall.Seconds(), "tx/s")
	b.ReportMetric(float64(b.N*20_000)/alone.wall.Seconds(), "ed25519/s")
	b.ReportMetric(each*alone.wall.Seconds()/whole.wall.Seconds(), "ratio")
	b.ReportMetric(each*alone.cpu.Seconds()/whole.cpu.Seconds(), "cpu-ratio")
}
