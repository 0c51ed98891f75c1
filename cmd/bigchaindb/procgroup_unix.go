//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// ownProcessGroup keeps signals that the terminal sends to this program's
// process group, such as Ctrl-C's, from a process.
func ownProcessGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
