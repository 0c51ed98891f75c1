package e2e

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/couchledger/couchledger/statedb/couchdb/couchtest"
)

// composition is what docker-compose.yml says, as far as it is tested.
type composition struct {
	Services map[string]struct {
		Image       string
		Build       string
		Entrypoint  []string
		Command     string
		Environment map[string]string
		Ports       []string
		Volumes     []string
		HealthCheck struct{ Test []string }
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	}
	Volumes map[string]any
}

func readCompose(t *testing.T) composition {
	t.Helper()
	text, err := os.ReadFile("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var c composition
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCompose: CouchDB keeps its data, is open to this machine alone, and the
// node waits until it is healthy.
func TestCompose(t *testing.T) {
	c := readCompose(t)
	couch, node := c.Services["couchdb"], c.Services["node"]
	for _, port := range couch.Ports {
		if !strings.HasPrefix(port, "127.0.0.1:") {
			t.Errorf("CouchDB is open to the network: %s", port)
		}
	}
	if !slices.Contains(couch.Ports, "127.0.0.1:5984:5984") || !slices.Contains(node.Ports, "9984:9984") {
		t.Errorf("got ports %v of CouchDB and %v of the node", couch.Ports, node.Ports)
	}
	if !strings.HasPrefix(couch.Image, "couchdb:3") || node.Build != "." || node.Command != "start" {
		t.Errorf("got image %q, build %q, command %q", couch.Image, node.Build, node.Command)
	}
	for _, mounted := range append(slices.Clone(couch.Volumes), node.Volumes...) {
		name, _, _ := strings.Cut(mounted, ":")
		if _, ok := c.Volumes[name]; !ok {
			t.Errorf("the volume of %s is not declared", mounted)
		}
	}
	if !slices.Contains(couch.Volumes, "couchdb:/opt/couchdb/data") || !slices.Contains(node.Volumes, "node:/data") {
		t.Errorf("got volumes %v and %v", couch.Volumes, node.Volumes)
	}
	if got := node.DependsOn["couchdb"].Condition; got != "service_healthy" {
		t.Errorf("the node waits for CouchDB: %q", got)
	}
	password := node.Environment["BIGCHAINDB_DATABASE_PASSWORD"]
	if password != couch.Environment["COUCHDB_PASSWORD"] || !strings.HasPrefix(password, "${COUCHDB_PASSWORD:?") {
		t.Errorf("got password %q, want one that has to be set", password)
	}
	if login := node.Environment["BIGCHAINDB_DATABASE_LOGIN"]; login == "" || login != couch.Environment["COUCHDB_USER"] {
		t.Errorf("got login %q", login)
	}
	if !strings.Contains(strings.Join(couch.Entrypoint, " "), "single_node = true") {
		t.Errorf("got entrypoint %q, want CouchDB to be set up as a single node", couch.Entrypoint)
	}
}

// TestComposeHealthCheck runs the health check against a CouchDB that is there
// and one that is not.
func TestComposeHealthCheck(t *testing.T) {
	check := readCompose(t).Services["couchdb"].HealthCheck.Test
	if len(check) < 2 || check[0] != "CMD" {
		t.Fatalf("got health check %q", check)
	}
	server := couchtest.Start(t)
	run := func() error {
		args := slices.Clone(check[1:])
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "5984", strconv.Itoa(server.Port))
		}
		return exec.Command(args[0], args[1:]...).Run()
	}
	if err := run(); err != nil {
		t.Errorf("of a CouchDB that runs: %v", err)
	}
	server.Kill()
	if run() == nil {
		t.Error("of a CouchDB that does not run: all is well")
	}
}

// image runs the program as a container of the Dockerfile's would: built by its
// line, as its user, with its environment.
type image struct {
	t       *testing.T
	program string
	data    string // what is /data in the container
	environ []string
	user    *syscall.Credential // nil when the test may not change it
}

func newImage(t *testing.T) *image {
	t.Helper()
	watchSources()
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	find := func(pattern string) []string {
		found := regexp.MustCompile(`(?m)` + pattern).FindStringSubmatch(string(text))
		if found == nil {
			t.Fatalf("Dockerfile: nothing like %s", pattern)
		}
		return found
	}
	folder, err := os.MkdirTemp("", "image-") // not t.TempDir: only its owner gets in there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	im := &image{t: t, program: filepath.Join(folder, "bigchaindb"), data: filepath.Join(folder, "data")}
	if err := errors.Join(os.Chmod(folder, 0o755), os.Mkdir(im.data, 0o755)); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("sh", "-c", find(`^RUN (.*go build.*) -o `)[1]+" -o "+im.program+" ../cmd/bigchaindb")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	user := find(`^USER (\d+):(\d+)$`)
	uid, _ := strconv.Atoi(user[1])
	gid, _ := strconv.Atoi(user[2])
	if uid == 0 {
		t.Error("the node runs as root")
	}
	if os.Getuid() == 0 {
		im.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(im.data, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range regexp.MustCompile(`\b[A-Z_]+=\S+`).FindAllString(find(`^ENV ((?:.*\\\n)*.*)$`)[1], -1) {
		im.environ = append(im.environ, strings.Replace(line, "/data", im.data, 1))
	}
	return im
}

func (im *image) command(environ []string, args ...string) *exec.Cmd {
	cmd := exec.Command(im.program, args...)
	cmd.Dir = filepath.Dir(im.data)
	cmd.Env = append(slices.Clone(im.environ), environ...)
	if im.user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: im.user}
	}
	return cmd
}

// TestImage runs the server documents' `docker run` commands without Docker.
func TestImage(t *testing.T) {
	im := newImage(t)
	binary, err := elf.Open(im.program)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	for _, segment := range binary.Progs {
		if segment.Type == elf.PT_INTERP {
			t.Error("the binary is not static: an empty image cannot run it")
		}
	}
	file := filepath.Join(im.data, ".bigchaindb")
	for _, backend := range []string{"rethinkdb", "mongodb", "couchdb"} {
		out, err := im.command(nil, "-y", "configure", backend).CombinedOutput()
		for _, want := range []string{"Generating keypair\n", "Configuration written to " + file + "\n", "Ready to go!\n"} {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("configure %s: %v, %q, want %q", backend, err, out, want)
			}
		}
	}
	text, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(text, []byte(`"0.0.0.0:9984"`)) {
		t.Errorf("got config %s, %v, want the API on all interfaces", text, err)
	}

	server := couchtest.Start(t)
	address := freeAddress(t)
	var environ []string
	for name, value := range readCompose(t).Services["node"].Environment {
		environ = append(environ, name+"="+value)
	}
	environ = append(environ, "BIGCHAINDB_DATABASE_HOST="+server.Host, fmt.Sprintf("BIGCHAINDB_DATABASE_PORT=%d", server.Port),
		"BIGCHAINDB_DATABASE_LOGIN="+server.Login, "BIGCHAINDB_DATABASE_PASSWORD="+server.Password, "BIGCHAINDB_SERVER_BIND="+address)
	cmd := im.command(environ, "start")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		return <-ended
	}
	n := &node{t: t, addr: address, http: http.DefaultClient}
	defer func() {
		if err := stop(); err != nil || t.Failed() {
			t.Errorf("start: %v\n%s", err, &log)
		}
	}()
	eventually(t, "the node of the image is ready", func() (bool, string) {
		a, err := n.do(http.MethodGet, "/readyz", nil)
		return err == nil && a.status == http.StatusOK, fmt.Sprint(a, err)
	})
	resp, err := http.Get(server.URL() + "/bigchain_bigchain")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the ledger in CouchDB: %s", resp.Status)
	}
}

// TestImageForeignFolder: a mounted folder of root's, which Docker makes when
// there is none, is named in the error.
func TestImageForeignFolder(t *testing.T) {
	im := newImage(t)
	if im.user == nil {
		t.Skip("not tested: only root can give folders away")
	}
	if err := os.Chown(im.data, 0, 0); err != nil {
		t.Fatal(err)
	}
	out, err := im.command(nil, "-y", "configure", "couchdb").CombinedOutput()
	if err == nil || !strings.Contains(string(out), im.data) || !strings.Contains(string(out), "permission denied") {
		t.Errorf("got %v, %q", err, out)
	}
}
