package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/couchledger/couchledger/configs"
)

const (
	devRethinkDBFlag = "dev-start-rethinkdb"
	// rethinkDBProgram is looked for on PATH.
	rethinkDBProgram = "rethinkdb"
	// rethinkDBSuffix follows the config file's name, as those of the node's
	// other folders do.
	rethinkDBSuffix = "-rethinkdb"
	// consolePort is where the documents have RethinkDB's web console; another
	// one is taken when it is in use.
	consolePort = 8080
	// devStartTime is how long RethinkDB may take until it answers; opening a
	// large folder after a crash takes a while.
	devStartTime = 60 * time.Second
	// devStopTime is how long it may take to write what it has in memory.
	devStopTime = 60 * time.Second
	// devPoll is how often it is asked whether it answers.
	devPoll = 50 * time.Millisecond
	// greetingTime is how long whatever listens may take to say what it is.
	greetingTime = 5 * time.Second
)

// checkDevRethinkDB says why the settings are not for a RethinkDB that start
// starts.
func checkDevRethinkDB(settings configs.Settings) error {
	db := settings.Database
	switch {
	case db.Backend != configs.RethinkDB:
		return fmt.Errorf("--%s is for the backend rethinkdb alone, and database.backend is %s; `bigchaindb configure rethinkdb` makes a config file for it", devRethinkDBFlag, db.Backend)
	case db.SSL:
		return fmt.Errorf("--%s: database.ssl is set, and the RethinkDB that it starts has no TLS", devRethinkDBFlag)
	case !isLoopback(db.Host):
		return fmt.Errorf("--%s starts RethinkDB on this machine, for this machine alone, and database.host is %s; set it to localhost", devRethinkDBFlag, db.Host)
	case settings.File == "":
		return fmt.Errorf("--%s: there is no place for RethinkDB's data, since HOME is not set: give a config file with -c", devRethinkDBFlag)
	}
	return nil
}

// isLoopback reports whether a host is an address that RethinkDB listens on
// when it is not told to listen on more.
func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip == netip.IPv6Loopback() || ip == netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return strings.EqualFold(host, configs.DefaultHost)
}

// devRethinkDB is a RethinkDB that runs beside the node. terminate may be called
// at any time, the others by one goroutine.
type devRethinkDB struct {
	log *slog.Logger

	mu       sync.Mutex
	cmd      *exec.Cmd     // nil while none was started
	output   *output       // what it says
	ended    chan struct{} // closed when it has ended
	answered bool          // it is up: its end would be a surprise
	stopping bool          // it was asked to end, or has ended
}

// start starts RethinkDB where the settings have the database, and returns when
// it answers. One that answers there already is used, and left alone by stop.
// The data are in a folder beside the config file.
func (d *devRethinkDB) start(ctx context.Context, settings configs.Settings) error {
	folder, err := filepath.Abs(settings.File + rethinkDBSuffix)
	if err != nil {
		return fmt.Errorf("--%s: it cannot be told where %s is: %w", devRethinkDBFlag, settings.File, err)
	}
	address := net.JoinHostPort(settings.Database.Host, strconv.Itoa(settings.Database.Port))
	version, err := greet(ctx, address)
	if err == nil {
		d.log.Info("RethinkDB runs already: it is used, and is not stopped with the node", "address", address, "version", version)
		return nil
	}
	if errors.Is(err, errNotRethinkDB) {
		return fmt.Errorf("--%s: what listens on %s is not RethinkDB; set database.port to a free port", devRethinkDBFlag, address)
	}
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) && settings.Database.Password != "" {
		return fmt.Errorf("--%s: database.password is set, and a RethinkDB that is made now has none; leave database.login and database.password unset", devRethinkDBFlag)
	}
	program, err := exec.LookPath(rethinkDBProgram)
	if err != nil {
		return fmt.Errorf("--%s: there is no program %s on PATH; install RethinkDB, or start it elsewhere and set database.host", devRethinkDBFlag, rethinkDBProgram)
	}
	cmd := exec.Command(program, "--directory", folder, "--driver-port", strconv.Itoa(settings.Database.Port),
		"--cluster-port", "0", "--http-port", strconv.Itoa(freeOr(consolePort)))
	// An interrupt at the terminal is for the node, which ends first.
	ownProcessGroup(cmd)
	if err := d.launch(cmd); err != nil {
		return fmt.Errorf("--%s: %s cannot be started: %w", devRethinkDBFlag, program, err)
	}
	if err := d.awaitAnswer(ctx, address); err != nil {
		d.stop()
		return fmt.Errorf("--%s: %w", devRethinkDBFlag, err)
	}
	d.log.Info("started RethinkDB, which ends with the node", "program", program, "port", settings.Database.Port,
		"console", d.output.console(), "folder", folder)
	return nil
}

// launch starts the process, and sees to its end.
func (d *devRethinkDB) launch(cmd *exec.Cmd) error {
	out, err := newOutput()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = out.file, out.file
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := cmd.Start(); err != nil {
		out.close()
		return err
	}
	d.cmd, d.output, d.ended = cmd, out, make(chan struct{})
	d.answered, d.stopping = false, false
	go d.watch()
	return nil
}

// freeOr is a port of this machine when nobody listens there, else 0, with
// which RethinkDB takes any.
func freeOr(port int) int {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0
	}
	listener.Close()
	return port
}

// awaitAnswer waits until RethinkDB answers.
func (d *devRethinkDB) awaitAnswer(ctx context.Context, address string) error {
	deadline := time.NewTimer(devStartTime)
	defer deadline.Stop()
	tick := time.NewTicker(devPoll)
	defer tick.Stop()
	for {
		if _, err := greet(ctx, address); err == nil && d.isUp() {
			return nil
		}
		select {
		case <-tick.C:
		case <-d.ended:
			return fmt.Errorf("RethinkDB ended before it answered (%v): %s", d.cmd.ProcessState, d.output.tail())
		case <-deadline.C:
			return fmt.Errorf("RethinkDB does not answer on %s after %v: %s", address, devStartTime, d.output.tail())
		case <-ctx.Done():
			return fmt.Errorf("interrupted while RethinkDB was starting: %w", ctx.Err())
		}
	}
}

// isUp reports whether it was this process that answered, and notes that it did.
func (d *devRethinkDB) isUp() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answered = !d.stopping && strings.Contains(d.output.String(), "Server ready")
	return d.answered
}

// watch waits for the process's end, and tells of one that nobody wanted. It is
// not started again: the node tries on, and the operator sees to it.
func (d *devRethinkDB) watch() {
	_ = d.cmd.Wait() // its state says it
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answered && !d.stopping {
		d.log.Error("RethinkDB has ended and is not started again; the node goes on when it is back",
			"status", d.cmd.ProcessState.String(), "output", d.output.tail())
	}
	d.stopping = true
	close(d.ended)
}

// terminate asks a RethinkDB that was started to end, and does not wait.
func (d *devRethinkDB) terminate() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil || d.stopping {
		return
	}
	d.stopping = true
	if d.cmd.Process.Signal(syscall.SIGTERM) != nil {
		_ = d.cmd.Process.Kill() // some systems have no such signal
	}
}

// stop ends a RethinkDB that was started, and returns when it has ended.
func (d *devRethinkDB) stop() {
	d.terminate()
	if d.ended == nil {
		return
	}
	select {
	case <-d.ended:
	case <-time.After(devStopTime):
		d.log.Error("RethinkDB did not end in time and is killed; what it acknowledged is on disk", "after", devStopTime.String())
		_ = d.cmd.Process.Kill() // it may have ended just now
		<-d.ended
	}
	d.output.close()
}

// errNotRethinkDB is of something else that listens.
var errNotRethinkDB = errors.New("not RethinkDB")

// greet begins a connection as drivers do and returns the server's version.
func greet(ctx context.Context, address string) (version string, err error) {
	const (
		magic    = "\xc3\xbd\xc2\x34" // of protocol version 1.0
		greeting = 1 << 10            // more than a greeting has
	)
	ctx, cancel := context.WithTimeout(ctx, greetingTime)
	defer cancel()
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	// What fails from here on is something that listens and does not answer.
	_, _ = c.Write([]byte(magic))
	var text []byte
	for !bytes.HasSuffix(text, []byte{0}) && len(text) < greeting {
		part := make([]byte, greeting)
		n, err := c.Read(part)
		text = append(text, part[:n]...)
		if err != nil {
			break
		}
	}
	var welcome struct {
		Version string `json:"server_version"`
		Success bool   `json:"success"`
	}
	if json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &welcome) != nil || !welcome.Success {
		return "", errNotRethinkDB
	}
	return welcome.Version, nil
}

// output is a file that a process writes its output to. It is no pipe: one that
// nobody reads any more, since the node was killed, keeps RethinkDB from ever
// ending.
type output struct{ file *os.File }

func newOutput() (*output, error) {
	file, err := os.CreateTemp("", "rethinkdb-*.log")
	if err != nil {
		return nil, err
	}
	// It has no name from now on, so that nothing is left of it in any case;
	// some systems delete it with close only.
	_ = os.Remove(file.Name())
	return &output{file}, nil
}

func (o *output) close() {
	o.file.Close()
	_ = os.Remove(o.file.Name()) // it may be gone
}

// String is the end of what was said, "" when it cannot be read.
func (o *output) String() string {
	const most = 16 << 10
	info, err := o.file.Stat()
	if err != nil {
		return ""
	}
	// Positions are given, as reading must not move where is written.
	text, err := io.ReadAll(io.NewSectionReader(o.file, max(info.Size()-most, 0), most))
	if err != nil {
		return ""
	}
	return string(text)
}

// tail is its last lines as one.
func (o *output) tail() string {
	const most = 5
	lines := strings.Split(strings.TrimSpace(o.String()), "\n")
	lines = lines[max(len(lines)-most, 0):]
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, " / ")
}

var consoleLine = regexp.MustCompile(`administrative HTTP connections on port (\d+)`)

// console is where RethinkDB says its web console is.
func (o *output) console() string {
	found := consoleLine.FindStringSubmatch(o.String())
	if found == nil {
		return "none"
	}
	return "http://" + net.JoinHostPort(configs.DefaultHost, found[1]) + "/"
}
