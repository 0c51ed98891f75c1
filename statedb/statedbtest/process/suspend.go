// Package process runs the servers of tests, and does to them what happens to servers.
package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Suspend stops a process as SIGSTOP does, and returns when all its threads
// stand still, which is a moment after the signal; where there is no /proc, at
// once.
func Suspend(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	const patience = 20 * time.Second
	for deadline := time.Now().Add(patience); !isStopped(p.Pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d does not stop within %v", p.Pid, patience)
		}
	}
	return nil
}

// isStopped reports whether every thread has stopped, as far as the system
// tells.
func isStopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is sound
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		// The state follows the name, which is in brackets.
		if err == nil && !strings.Contains(string(stat), ") T ") {
			return false
		}
	}
	return true
}
