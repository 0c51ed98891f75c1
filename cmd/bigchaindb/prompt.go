package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
)

// ask writes a question to stderr, where it does not mix with results, and
// reads one line. The input's end is an error: nobody answered.
func (a *app) ask(question string) (string, error) {
	fmt.Fprint(a.stderr, question)
	line, err := a.stdin.ReadString('\n')
	line = strings.TrimSpace(line)
	switch {
	case err == nil:
		return line, nil
	case !errors.Is(err, io.EOF):
		fmt.Fprintln(a.stderr)
		return "", fmt.Errorf("the answer cannot be read: %w", err)
	case line != "": // the last line, without a line break
		fmt.Fprintln(a.stderr)
		return line, nil
	}
	fmt.Fprintln(a.stderr)
	return "", errors.New("the input ended before the question was answered; -y answers every question with its default")
}

// askSecret is ask, but a terminal does not show the answer.
func (a *app) askSecret(question string) (string, error) {
	if a.terminal == nil || a.stdin.Buffered() > 0 {
		return a.ask(question)
	}
	fmt.Fprint(a.stderr, question)
	line, err := readHidden(a.terminal)
	fmt.Fprintln(a.stderr)
	if err != nil {
		return "", fmt.Errorf("the answer cannot be read: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// readHidden reads a line from a terminal that does not show it meanwhile. An
// interrupt ends the program, and does not leave the terminal like that.
func readHidden(terminal *os.File) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			term.Restore(fd, before)
			os.Exit(exitFailure)
		case <-done:
		}
	}()
	line, err := term.ReadPassword(fd)
	signal.Stop(signals)
	close(done)
	return string(line), err
}

// confirm asks a yes-or-no question; everything but y and yes is no.
func (a *app) confirm(question string) (bool, error) {
	answer, err := a.ask(question)
	answer = strings.ToLower(answer)
	return answer == "y" || answer == "yes", err
}
