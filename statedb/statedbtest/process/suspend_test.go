package process

import (
	"os/exec"
	"testing"
)

func TestSuspend(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Skipf("not tested: %v", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}()
	if err := Suspend(cmd.Process); err != nil {
		t.Fatal(err)
	}
	if !isStopped(cmd.Process.Pid) {
		t.Error("it runs")
	}
}
