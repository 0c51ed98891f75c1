package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/statedb"
)

// node is the command with a home folder and a port of its own, started and
// ended any number of times.
type node struct {
	t       testing.TB
	home    string
	program string
	addr    string
	scheme  string // http, or https
	environ []string
	http    *http.Client
	backend string
	store   func() (statedb.DB, error) // opens the database beside the node, or after it
	// expected are parts of log lines that are no fault in this test.
	expected []string

	mu      sync.Mutex
	process *process // nil before the first start
}

// process is one run of the command.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	code int           // exit code, -1 for a signal; after done
}

// newNode makes a home folder and finds a port. Nothing runs yet.
func newNode(t testing.TB, environ ...string) *node {
	t.Helper()
	watchSources()
	n := &node{t: t, home: newFolder(t), program: program, addr: freeAddress(t), scheme: "http", environ: environ, backend: configs.Embedded}
	n.store = n.openEmbedded
	n.http = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		n.kill()
		n.http.CloseIdleConnections()
		n.checkLog()
		if t.Failed() {
			t.Logf("the end of the node's log:\n%s", n.tail(60))
		}
	})
	return n
}

func newFolder(t testing.TB) string {
	if os.Getenv("E2E_KEEP") == "" {
		return t.TempDir()
	}
	folder, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("folder %s", folder)
	return folder
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (n *node) file(name string) string { return filepath.Join(n.home, name) }

func (n *node) logFile() string { return n.file("node.log") }

// Where the node keeps its data, by default beside the config file.
func (n *node) data() string       { return n.file(".bigchaindb-data") }
func (n *node) state() string      { return n.file(".bigchaindb-state") }
func (n *node) chainstate() string { return filepath.Join(n.state(), "chainstate") }
func (n *node) journal() string    { return filepath.Join(n.state(), "journal") }

func (n *node) command(args ...string) *exec.Cmd {
	cmd := exec.Command(n.program, args...)
	cmd.Env = append([]string{"HOME=" + n.home, "PATH=" + os.Getenv("PATH"), "BIGCHAINDB_SERVER_BIND=" + n.addr}, n.environ...)
	return cmd
}

// run runs a command to its end.
func (n *node) run(args ...string) (code int, stdout, stderr string) {
	n.t.Helper()
	cmd := n.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	overdue := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer overdue.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		n.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// launch begins a run of `start`.
func (n *node) launch(args ...string) *process {
	n.t.Helper()
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	cmd := n.command(append([]string{"start"}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	fmt.Fprintf(log, "--- process %d\n", cmd.Process.Pid)
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // the exit code says it
		p.code = cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	n.mu.Lock()
	n.process = p
	n.mu.Unlock()
	return p
}

// start runs the node and waits until it is ready.
func (n *node) start(args ...string) *process {
	n.t.Helper()
	p := n.launch(args...)
	n.awaitReady(p)
	return p
}

// awaitReady waits until a run is ready.
func (n *node) awaitReady(p *process) {
	n.t.Helper()
	eventually(n.t, "the node is ready", func() (bool, string) {
		select {
		case <-p.done:
			n.t.Fatalf("start ended with code %d", p.code)
		default:
		}
		a, err := n.do(http.MethodGet, "/readyz", nil)
		return err == nil && a.status == http.StatusOK, fmt.Sprint(a, err)
	})
}

// wait waits for the end of a run and returns its exit code.
func (n *node) wait(p *process, limit time.Duration) int {
	n.t.Helper()
	select {
	case <-p.done:
		return p.code
	case <-time.After(limit):
		n.t.Fatalf("the node still runs %v later", limit)
		return 0
	}
}

// kill ends the run as a power cut does, if there is one.
func (n *node) kill() {
	n.t.Helper()
	n.mu.Lock()
	p := n.process
	n.mu.Unlock()
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
	n.wait(p, patience)
	n.http.CloseIdleConnections()
}

// stop ends the run as an operator does, and wants exit code 0.
func (n *node) stop() {
	n.t.Helper()
	n.signal()
	if code := n.wait(n.process, patience); code != 0 {
		n.t.Fatalf("exit code after SIGTERM: got %d, want 0", code)
	}
	n.http.CloseIdleConnections()
}

func (n *node) signal() {
	n.t.Helper()
	if err := n.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
}

// remove deletes folders between two runs.
func (n *node) remove(folders ...string) {
	n.t.Helper()
	for _, folder := range folders {
		if _, err := os.Stat(folder); err != nil {
			n.t.Errorf("the folder that is to be deleted: %v", err)
		}
		if err := os.RemoveAll(folder); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) tail(lines int) string {
	text, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// badLog finds what no node should ever log that nobody lies to.
var badLog = regexp.MustCompile(`(?m)^.*(\[ERROR\]|\[CRITICAL\]|panic:|fatal error:|WARNING: DATA RACE|voted a block invalid).*$`)

// checkLog fails the test when the node logged an error.
func (n *node) checkLog() {
	text, err := os.ReadFile(n.logFile())
	if err != nil {
		return // it never ran
	}
	lines := slices.DeleteFunc(badLog.FindAllString(string(text), 100), func(line string) bool {
		return slices.ContainsFunc(n.expected, func(part string) bool { return strings.Contains(line, part) })
	})
	if len(lines) > 0 {
		n.t.Errorf("the node's log has errors:\n%s", strings.Join(lines[:min(len(lines), 5)], "\n"))
	}
}

// peakMemory returns the most memory that the process had resident, in bytes.
func (n *node) peakMemory() int64 {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.process.cmd.Process.Pid))
	if err != nil {
		n.t.Skipf("no /proc here: %v", err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		n.t.Fatalf("no VmHWM in %s", text)
	}
	kb, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		n.t.Fatal(err)
	}
	return kb << 10
}

// metric returns a figure that the node publishes, summed over its labels.
func (n *node) metric(name string) (float64, error) {
	a, err := n.do(http.MethodGet, "/metrics", nil)
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(a.body)) {
		if !strings.HasPrefix(line, name+" ") && !strings.HasPrefix(line, name+"{") {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+value, true
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	return sum, nil
}

// expectLog wants one line of the log that checkLog would take for a fault,
// and has it overlooked.
func (n *node) expectLog(part string) {
	n.t.Helper()
	if !strings.Contains(n.tail(10_000), part) {
		n.t.Errorf("the log has no %q", part)
	}
	n.expected = append(n.expected, part)
}
