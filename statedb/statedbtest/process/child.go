package process

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Child is a server that is killed when the test's process ends, however it ends.
type Child struct {
	mu      sync.Mutex
	stdin   io.Closer // its end kills the server
	process *os.Process
	wrapper *exec.Cmd // nil while the server does not run
}

// script runs a program until the script's input ends.
const script = `"$0" "$@" </dev/null >>"$LOG" 2>&1 & pid=$!; echo $pid; read line; kill -9 $pid 2>/dev/null; wait $pid`

// Run starts the server. What it prints is appended to the file log.
func (c *Child) Run(log string, environ []string, program string, arguments ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	wrapper := exec.Command("sh", append([]string{"-c", script, program}, arguments...)...)
	wrapper.Env = append(append(os.Environ(), environ...), "LOG="+log)
	stdin, err := wrapper.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := wrapper.StdoutPipe()
	if err != nil {
		return err
	}
	if err := wrapper.Start(); err != nil {
		return err
	}
	c.stdin, c.wrapper = stdin, wrapper
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return fmt.Errorf("%s did not start: %w", program, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	c.process, err = os.FindProcess(pid)
	return err
}

// Kill ends the server at once, as a power cut would, and waits until it is gone.
func (c *Child) Kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrapper == nil {
		return
	}
	c.stdin.Close()
	_ = c.wrapper.Wait() // its status is that of a killed process
	c.wrapper = nil
}

// Suspend stops the server from doing anything: connections are accepted by
// the kernel and never answered. Resume lets it go on.
func (c *Child) Suspend() error { return Suspend(c.process) }

// Resume ends Suspend.
func (c *Child) Resume() error { return c.process.Signal(syscall.SIGCONT) }

// FreePorts finds ports of the loopback interface on which nobody listens.
func FreePorts(n int) (ports []int, err error) {
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
