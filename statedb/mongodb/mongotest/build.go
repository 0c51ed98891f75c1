package mongotest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// built remembers the program for the rest of the process.
var built = sync.OnceValues(build)

// build makes the program in the folder ferretdb, once for every version of it
// and of Go, and keeps it in the user's cache. Processes that want it at the
// same time wait for each other.
func build() (string, error) {
	_, here, _, ok := runtime.Caller(0)
	source := filepath.Join(filepath.Dir(here), "ferretdb")
	if _, err := os.Stat(source); !ok || err != nil {
		return "", fmt.Errorf("the source of the test server is not there: %s", source)
	}
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		hash.Write(data)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "couchledger")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	program := filepath.Join(folder, "ferretdb-"+hex.EncodeToString(hash.Sum(nil)[:8]))
	lock, err := os.OpenFile(program+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // and with it the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	unfinished := program + ".new"
	command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", unfinished, ".")
	command.Dir = source
	// A workspace, or flags of whoever runs the tests, are not of this module.
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, lastLine(string(output)))
	}
	return program, os.Rename(unfinished, program)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
