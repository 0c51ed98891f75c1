package simulator

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

// A worker is this test's binary once more, with one processor and one kind of
// world, so that goroutines take turns alike in every run of a schedule.

// kinds of worlds, by name.
var kinds = map[string]limits{
	"shared":     {rules: "any", shared: true},
	"replicated": {rules: "any", separate: true},
	// One liar more than the rule withstands.
	"beyond-majority":   {members: 3, rules: "", shared: true, beyond: 1, lying: true},
	"beyond-two-thirds": {members: 4, rules: "two-thirds", shared: true, beyond: 1, lying: true},
}

// What a worker is told in its environment.
const (
	workerKind = "SIM_WORKER" // the kind of worlds; such a process is a worker
	workerFrom = "SIM_FROM"   // the first seed
	workerUpTo = "SIM_COUNT"  // how many
	workerHow  = "SIM_HOW"    // howTrace or howTwice
	enoughOf   = "SIM_ENOUGH" // failures with which it ends early; 0 for never
	// howTrace prints what happens, howTwice compares two runs of each seed.
	howTrace, howTwice = "trace", "twice"
)

// marks of a worker's lines.
const (
	markFailed = "FAILED " // with seed and error
	markSum    = "SUM "    // in the end
)

func TestMain(m *testing.M) {
	if os.Getenv(workerKind) != "" {
		runtime.GOMAXPROCS(1)
		debug.SetGCPercent(-1) // see runSeed
	}
	os.Exit(m.Run())
}

// garbage is how many schedules are run between two collections. One in the
// middle of a schedule would have goroutines take turns otherwise.
const garbage = 8

// runSeed runs one schedule in a bubble of its own.
func runSeed(t *testing.T, p *pool, seed uint64, l limits, tr *trace) (w *world, err error) {
	synctest.Test(t, func(*testing.T) {
		w = newWorld(p, seed, l)
		w.trace = tr
		err = w.run()
	})
	if seed%garbage == 0 {
		runtime.GC()
	}
	return w, err
}

// sums are what schedules came to.
type sums struct {
	schedules, failed, steps, accepted, valid, blocks, validBlocks, runs, held int
}

func (s *sums) add(w *world, err error) {
	s.schedules++
	s.steps += w.steps
	s.accepted += len(w.load.accepted)
	s.valid += len(w.facts.in)
	for _, b := range w.facts.blocks {
		s.blocks++
		if b.valid {
			s.validBlocks++
		}
	}
	for _, m := range w.nodes {
		s.runs += m.runs
	}
	if err != nil {
		s.failed++
	}
	if w.facts.held > 0 {
		s.held++
	}
}

// fields are what is told and read back.
func (s *sums) fields() []any {
	return []any{&s.schedules, &s.failed, &s.steps, &s.accepted, &s.valid, &s.blocks, &s.validBlocks, &s.runs, &s.held}
}

func (s *sums) String() string {
	return fmt.Sprintf("%d schedules of %d steps: %d transactions accepted, %d valid, %d blocks, %d of them valid, nodes started %d times; in %d silent members hold something up",
		s.schedules, s.steps, s.accepted, s.valid, s.blocks, s.validBlocks, s.runs, s.held)
}

// TestWorker is what a worker runs.
func TestWorker(t *testing.T) {
	l, ok := kinds[os.Getenv(workerKind)]
	if !ok {
		t.Skip("the other tests run this one in processes of its own")
	}
	cryptotest.SetGlobalRandom(t, 1)
	p := newPool()
	from, err1 := strconv.ParseUint(os.Getenv(workerFrom), 10, 64)
	count, err2 := strconv.ParseUint(os.Getenv(workerUpTo), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	enough := setting(t, enoughOf, 0)
	var s sums
	for seed := from; seed < from+count && (enough == 0 || s.failed < enough); seed++ {
		switch os.Getenv(workerHow) {
		case howTrace:
			_, err := runSeed(t, p, seed, l, newTrace(p, os.Stdout, true))
			fmt.Println("seed", seed, "ends with", err)
			continue
		case howTwice:
			if told := compareRuns(t, p, seed, l); told != "" {
				fmt.Printf("%s%d two runs differ: %s\n", markFailed, seed, strings.ReplaceAll(told, "\n", " | "))
			}
			continue
		}
		w, err := runSeed(t, p, seed, l, nil)
		s.add(w, err)
		if err != nil {
			fmt.Printf("%s%d %v\n", markFailed, seed, err)
		}
	}
	fmt.Print(markSum)
	for _, n := range s.fields() {
		fmt.Print(*n.(*int), " ")
	}
	fmt.Println()
}

// compareRuns runs a schedule twice and tells where the traces differ.
func compareRuns(t *testing.T, p *pool, seed uint64, l limits) string {
	var traces [2][]string
	for i := range traces {
		var text bytes.Buffer
		runSeed(t, p, seed, l, newTrace(p, &text, false))
		traces[i] = strings.Split(text.String(), "\n")
	}
	for i := range min(len(traces[0]), len(traces[1])) {
		if traces[0][i] != traces[1][i] {
			return strings.Join(traces[0][max(0, i-3):i], "\n") + "\n- " + traces[0][i] + "\n+ " + traces[1][i]
		}
	}
	return ""
}

// failure is a seed that a worker reported.
type failure struct {
	seed uint64
	text string
}

// workers run schedules of a kind, one worker for each processor.
type workers struct {
	binary string // "" for this one
	kind   string
	how    string
	from   uint64
	count  int
	enough int // failures after which no more are begun; 0 for all
}

// some is how many schedules a worker runs at a time.
const some = 250

func (ws workers) run(t *testing.T) (total sums, failures []failure) {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	next := uint64(0)
	take := func() (from uint64, count int) {
		mu.Lock()
		defer mu.Unlock()
		if ws.enough > 0 && len(failures) >= ws.enough {
			return 0, 0
		}
		from, count = ws.from+next, min(some, ws.count-int(next))
		next += uint64(count)
		return from, count
	}
	for range runtime.NumCPU() {
		group.Go(func() {
			for from, count := take(); count > 0; from, count = take() {
				s, bad, err := ws.one(t, from, count)
				mu.Lock()
				if err != nil {
					t.Errorf("schedules %d to %d: %v", from, from+uint64(count)-1, err)
				}
				for i, n := range total.fields() {
					*n.(*int) += *s.fields()[i].(*int)
				}
				failures = append(failures, bad...)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return total, failures
}

// one runs one worker.
func (ws workers) one(t *testing.T, from uint64, count int) (s sums, failures []failure, err error) {
	c := ws.command(t, from, count)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	summed := false
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		line := lines.Text()
		if text, ok := strings.CutPrefix(line, markFailed); ok {
			number, text, _ := strings.Cut(text, " ")
			seed, _ := strconv.ParseUint(number, 10, 64)
			failures = append(failures, failure{seed, text})
		} else if text, ok := strings.CutPrefix(line, markSum); ok {
			_, scanErr := fmt.Sscan(text, s.fields()...)
			summed = scanErr == nil
		}
	}
	if err != nil || !summed {
		return s, failures, fmt.Errorf("the worker: %v\n%.4000s\n%.4000s", err, out, stderr.Bytes())
	}
	return s, failures, nil
}

func (ws workers) command(t *testing.T, from uint64, count int) *exec.Cmd {
	binary := ws.binary
	if binary == "" {
		var err error
		if binary, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.CommandContext(t.Context(), binary, "-test.run=^TestWorker$", "-test.timeout=0")
	c.Env = append(os.Environ(), workerKind+"="+ws.kind, workerHow+"="+ws.how, fmt.Sprintf("%s=%d", enoughOf, ws.enough),
		fmt.Sprintf("%s=%d", workerFrom, from), fmt.Sprintf("%s=%d", workerUpTo, count),
		// Goroutines take turns where they wait, not when their time is up.
		"GODEBUG=asyncpreemptoff=1")
	return c
}

// replay prints the trace of a seed.
func (ws workers) replay(t *testing.T, seed uint64) {
	t.Helper()
	ws.how = howTrace
	out, err := ws.command(t, seed, 1).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// setting is one of the environment.
func setting[N int | uint64](t *testing.T, name string, otherwise N) N {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return N(n)
}

// TestSchedules runs many schedules, and none may break what must hold.
func TestSchedules(t *testing.T) {
	for _, kind := range []string{"shared", "replicated"} {
		t.Run(kind, func(t *testing.T) {
			ws := workers{kind: kind, from: 1, count: wanted(t, 1_000), enough: 10}
			if seed := setting[uint64](t, "SIM_SEED", 0); seed > 0 {
				ws.replay(t, seed)
				return
			}
			begun := time.Now()
			total, failures := ws.run(t)
			t.Logf("%v: %v", time.Since(begun).Round(time.Second), &total)
			for i, f := range failures {
				t.Errorf("seed %d: %s; to replay it: SIM_SEED=%d go test -run TestSchedules/%s -v ./node/simulator", f.seed, f.text, f.seed, kind)
				if i == 0 {
					ws.replay(t, f.seed)
				}
			}
			if total.accepted < total.schedules || total.validBlocks < total.schedules {
				t.Error("too little went on to show anything")
			}
			if total.held > total.schedules/20 {
				t.Error("silent members hold up too much")
			}
		})
	}
}

// wanted is how many schedules are run: so many, fewer in a short test, or
// SIM_SCHEDULES.
func wanted(t *testing.T, count int) int {
	if testing.Short() || raceDetector {
		count /= 40
	}
	return setting(t, "SIM_SCHEDULES", count)
}

// TestReplay runs schedules twice: a seed gives the same trace each time. On a busy
// machine a few do not: the runtime takes the processor from a goroutine that has
// had it for ten milliseconds, those included in which the machine did other things.
func TestReplay(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector has goroutines take turns at random")
	}
	for kind := range kinds {
		count := min(wanted(t, 200), 2000) / 2
		_, failures := workers{kind: kind, from: 1, count: count, how: howTwice}.run(t)
		for _, f := range failures {
			t.Logf("%s, seed %d: %s", kind, f.seed, f.text)
		}
		if len(failures) > max(2, count/20) {
			t.Errorf("%s: %d of %d schedules were not replayed exactly", kind, len(failures), count)
		}
	}
}

// TestLiarsBeyondTheRule shows that the schedules find what one liar more than the
// rule withstands can do.
func TestLiarsBeyondTheRule(t *testing.T) {
	for _, kind := range []string{"beyond-majority", "beyond-two-thirds"} {
		t.Run(kind, func(t *testing.T) {
			// The first that shows it ends the search.
			_, failures := workers{kind: kind, from: 1, count: max(wanted(t, 1000), 1000), enough: 1}.run(t)
			for _, f := range failures {
				if strings.Contains(f.text, "and both spend output") {
					t.Logf("seed %d: %s", f.seed, f.text)
					return
				}
			}
			t.Error("no schedule made two conflicting transactions valid")
		})
	}
}
