package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// openTerminal makes a pseudo-terminal: what is written to keyboard is typed,
// what the terminal shows is read from it.
func openTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	var number, unlock uint32
	for request, argument := range map[uintptr]*uint32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &unlock} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(unsafe.Pointer(argument))); errno != 0 {
			t.Skipf("there are no pseudo-terminals here: %v", errno)
		}
	}
	if terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Skipf("there are no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { terminal.Close() })
	return keyboard, terminal
}

// TestPasswordIsNotEchoed answers two questions on a terminal: what is typed
// shows for the first and not for the second.
func TestPasswordIsNotEchoed(t *testing.T) {
	keyboard, terminal := openTerminal(t)
	shown := &transcript{}
	go io.Copy(shown, keyboard)
	a := &app{stdin: bufio.NewReader(terminal), terminal: terminal, stderr: terminal}
	wait := func(text string) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for !strings.Contains(shown.String(), text) {
			if time.Now().After(deadline) {
				t.Fatalf("the terminal shows %q, never %q", shown, text)
			}
			time.Sleep(time.Millisecond)
		}
	}
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer)
	for _, step := range []struct {
		ask    func(string) (string, error)
		typed  string
		hidden bool
	}{{a.ask, "bob", false}, {a.askSecret, "hunter2", true}, {a.ask, "again", false}} {
		question := "Who for " + step.typed[:2] + "? "
		go func() {
			text, err := step.ask(question)
			answers <- answer{text, err}
		}()
		wait(question)
		if step.hidden {
			waitHidden(t, terminal)
		}
		if _, err := keyboard.WriteString(step.typed + "\n"); err != nil {
			t.Fatal(err)
		}
		if got := <-answers; got.err != nil || got.text != step.typed {
			t.Errorf("answered %q, %v, want %q", got.text, got.err, step.typed)
		}
		if !step.hidden {
			wait(step.typed)
		}
	}
	if strings.Contains(shown.String(), "hunter2") {
		t.Errorf("the terminal shows %q", shown)
	}
}

// waitHidden waits until the terminal does not echo: the question is there a
// little before.
func waitHidden(t *testing.T, terminal *os.File) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var state syscall.Termios
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, terminal.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&state))); errno != 0 {
			t.Fatal(errno)
		}
		if state.Lflag&syscall.ECHO == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the terminal goes on echoing")
		}
		time.Sleep(time.Millisecond)
	}
}
