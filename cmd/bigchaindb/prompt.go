package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
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

// confirm asks a yes-or-no question; everything but y and yes is no.
func (a *app) confirm(question string) (bool, error) {
	answer, err := a.ask(question)
	answer = strings.ToLower(answer)
	return answer == "y" || answer == "yes", err
}
