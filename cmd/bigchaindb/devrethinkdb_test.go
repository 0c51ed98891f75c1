//go:build unix

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/couchledger/couchledger/configs"
)

func TestDevRethinkDBRefusals(t *testing.T) {
	const flag = " --dev-start-rethinkdb"
	rethink := []string{"BIGCHAINDB_DATABASE_BACKEND=rethinkdb"}
	for _, c := range []struct {
		environ []string
		want    string
	}{
		{nil, "--dev-start-rethinkdb is for the backend rethinkdb alone, and database.backend is embedded"},
		{[]string{"BIGCHAINDB_DATABASE_BACKEND=couchdb"}, "and database.backend is couchdb"},
		{append(rethink, "BIGCHAINDB_DATABASE_SSL=true"), "database.ssl is set"},
		{append(rethink, "BIGCHAINDB_DATABASE_HOST=db.example"), "database.host is db.example; set it to localhost"},
		{append(rethink, "BIGCHAINDB_DATABASE_HOST=192.0.2.1"), "database.host is 192.0.2.1; set it to localhost"},
		{append(rethink, "BIGCHAINDB_DATABASE_HOST=127.0.0.2"), "database.host is 127.0.0.2; set it to localhost"},
	} {
		u := newUser(t, c.environ...)
		for _, line := range []string{"start" + flag, flag + " start"} {
			if out := u.must(1, line, "", c.want); out != "" {
				t.Errorf("%s: stdout %q", line, out)
			}
		}
		if exists(u.file(".bigchaindb")) {
			t.Error("a config file was written")
		}
	}
	for _, host := range []string{"localhost", "LocalHost", "127.0.0.1", "::1"} {
		if err := checkDevRethinkDB(configs.Settings{File: "/c", Database: configs.Database{Backend: configs.RethinkDB, Host: host}}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	newUser(t).must(2, "show-config"+flag, "", "--dev-start-rethinkdb is an option of start")
}

// newDev gives a devRethinkDB with its log, and settings that put it on a free
// port. It is stopped with the test.
func newDev(t *testing.T) (*devRethinkDB, configs.Settings, *transcript) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	log := &transcript{}
	d := &devRethinkDB{log: slog.New(slog.NewTextHandler(log, nil))}
	t.Cleanup(d.stop)
	return d, configs.Settings{File: filepath.Join(t.TempDir(), "c"), Database: configs.Database{
		Backend: configs.RethinkDB, Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port,
	}}, log
}

func greets(t *testing.T, s configs.Settings) bool {
	version, err := greet(t.Context(), net.JoinHostPort(s.Database.Host, strconv.Itoa(s.Database.Port)))
	return err == nil && version != ""
}

// withProgram puts a program rethinkdb on PATH, which is that script.
func withProgram(t *testing.T, script string) {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, rethinkDBProgram), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder+":/usr/bin:/bin")
}

func TestDevRethinkDB(t *testing.T) {
	if _, err := exec.LookPath(rethinkDBProgram); err != nil {
		t.Skip("not tested: no rethinkdb on PATH")
	}
	d, s, first := newDev(t)
	if err := d.start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	folder := s.File + "-rethinkdb"
	if !greets(t, s) || !exists(filepath.Join(folder, "metadata")) {
		t.Fatal("it does not run, or not there")
	}
	said := first.String()
	for _, part := range []string{"started RethinkDB", "program=/", "port=" + strconv.Itoa(s.Database.Port), "console=http://localhost:", "folder=" + folder} {
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, part) {
			t.Errorf("the log says %q, want one line with %q", said, part)
		}
	}
	if group, err := syscall.Getpgid(d.cmd.Process.Pid); err != nil || group == syscall.Getpgrp() {
		t.Errorf("its process group is %d, %v: an interrupt at the terminal reaches it", group, err)
	}

	// Another one finds it and leaves it alone.
	second, _, log := newDev(t)
	if err := second.start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	second.terminate()
	second.stop()
	if said := log.String(); !greets(t, s) || !strings.Contains(said, "runs already") {
		t.Errorf("it was stopped by one that did not start it, which said %q", said)
	}

	// One on its folder fails, with RethinkDB's own words.
	third, other, _ := newDev(t)
	other.File = s.File
	err := third.start(t.Context(), other)
	mustSay(t, "a folder in use", err, "RethinkDB ended before it answered (exit status 1)", "already in use", folder)

	// Killed while the node runs: the log says so, and that is all.
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.ended:
	case <-time.After(devStopTime):
		t.Fatal("it does not end")
	}
	d.stop()
	if said := first.String(); !strings.Contains(said, "is not started again") || !strings.Contains(said, "signal: killed") {
		t.Errorf("the log says %q", said)
	}

	// Started again on its folder; stopped in order, without a word.
	d, again, log := newDev(t)
	again.File = s.File
	err = d.start(t.Context(), again)
	// A process that RethinkDB has beside itself holds the folder for a moment
	// after a kill.
	for deadline := time.Now().Add(devStopTime); err != nil && time.Now().Before(deadline); {
		err = d.start(t.Context(), again)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.stop()
	if greets(t, again) || !d.cmd.ProcessState.Success() || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("after stop: %v, the log says %q", d.cmd.ProcessState, log)
	}
}

func TestDevRethinkDBFaults(t *testing.T) {
	d, s, _ := newDev(t)
	t.Setenv("PATH", t.TempDir())
	mustSay(t, "no program", d.start(t.Context(), s), "there is no program rethinkdb on PATH")

	withProgram(t, "echo out; echo no room >&2; exit 3")
	mustSay(t, "early end", d.start(t.Context(), s), "ended before it answered (exit status 3): out / no room")

	d, s, _ = newDev(t)
	s.Database.Password = "hunter2"
	err := d.start(t.Context(), s)
	mustSay(t, "a password", err, "database.password is set")
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the password is in %v", err)
	}

	// Interrupted while it starts: it is ended, too.
	d, s, log := newDev(t)
	withProgram(t, "exec sleep 100")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.start(ctx, s); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if d.ended != nil {
		<-d.ended
	}
	if log.String() != "" {
		t.Errorf("the log says %q", log)
	}

	// Something else on the port.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n"))
			c.Close()
		}
	}()
	d, s, _ = newDev(t)
	s.Database.Port = listener.Addr().(*net.TCPAddr).Port
	mustSay(t, "another server", d.start(t.Context(), s), "is not RethinkDB; set database.port")
}
