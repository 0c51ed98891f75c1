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
	"github.com/couchledger/couchledger/statedb/rethinkdb/rethinktest"
)

// composition is what docker-compose.yml says, as far as it is tested.
type composition struct {
	Services map[string]service
	Volumes  map[string]any
}

type service struct {
	Image       string
	Build       string
	Profiles    []string
	Entrypoint  []string
	Command     string
	Environment map[string]string
	Ports       []string
	Volumes     []string
	HealthCheck struct{ Test []string }
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
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

// TestComposeByTheDocumentsNames: the server documents' services for RethinkDB
// and MongoDB are beside the others, which start without them.
func TestComposeByTheDocumentsNames(t *testing.T) {
	c := readCompose(t)
	if len(c.Services["couchdb"].Profiles)+len(c.Services["node"].Profiles) > 0 {
		t.Error("`docker compose up` does not start CouchDB and its node")
	}
	for name, want := range map[string]struct {
		image, backend, database string
		ports                    []string
		volume                   string
	}{
		"rdb":     {image: "rethinkdb:2.4", ports: []string{"127.0.0.1:58080:8080", "127.0.0.1:28015:28015"}, volume: "rdb:/data"},
		"mdb":     {image: "mongo:", ports: []string{"127.0.0.1:27017:27017"}, volume: "mdb:/data/db"},
		"bdb":     {image: "couchledger", backend: "rethinkdb", database: "rdb", ports: []string{"127.0.0.1::9984"}, volume: "bdb:/data"},
		"bdb-mdb": {image: "couchledger", backend: "mongodb", database: "mdb", ports: []string{"127.0.0.1::9984"}, volume: "bdb-mdb:/data"},
	} {
		s, ok := c.Services[name]
		if !ok {
			t.Errorf("there is no service %s", name)
			continue
		}
		if !strings.HasPrefix(s.Image, want.image) || !slices.Contains(s.Profiles, name) || !slices.Equal(s.Ports, want.ports) || !slices.Contains(s.Volumes, want.volume) {
			t.Errorf("%s: got image %q, profiles %q, ports %q, volumes %q", name, s.Image, s.Profiles, s.Ports, s.Volumes)
		}
		for _, mounted := range s.Volumes {
			volume, _, _ := strings.Cut(mounted, ":")
			if _, ok := c.Volumes[volume]; !ok {
				t.Errorf("%s: the volume %s is not declared", name, volume)
			}
		}
		if want.backend == "" {
			if len(s.HealthCheck.Test) == 0 {
				t.Errorf("%s has no health check", name)
			}
			continue
		}
		database := c.Services[want.database]
		if !slices.Contains(database.Profiles, name) {
			t.Errorf("%s is not started with %s", want.database, name)
		}
		if got := s.DependsOn[want.database].Condition; got != "service_healthy" || len(s.DependsOn) != 1 {
			t.Errorf("%s waits for %v", name, s.DependsOn)
		}
		if s.Build != "." || s.Command != "start" || s.Environment["BIGCHAINDB_DATABASE_BACKEND"] != want.backend ||
			s.Environment["BIGCHAINDB_DATABASE_HOST"] != want.database {
			t.Errorf("%s: got build %q, command %q, environment %q", name, s.Build, s.Command, s.Environment)
		}
		// Each has settings that the program knows, and a password only where
		// its database has it.
		for variable, value := range s.Environment {
			if strings.HasSuffix(variable, "_PASSWORD") && value != database.Environment["MONGO_INITDB_ROOT_PASSWORD"] ||
				strings.HasSuffix(variable, "_LOGIN") && value != database.Environment["MONGO_INITDB_ROOT_USERNAME"] {
				t.Errorf("%s: %s is not its database's", name, variable)
			}
		}
	}
	mongo := c.Services["mdb"]
	script := strings.Join(mongo.Entrypoint, " ")
	if !strings.Contains(script, "--replSet bigchain-rs ") || mongo.Environment["MONGO_INITDB_ROOT_PASSWORD"] != "${MONGODB_PASSWORD:-}" {
		t.Errorf("mdb: got entrypoint %q, environment %q", script, mongo.Environment)
	}
	// It does not run open to everybody for want of a password.
	cmd := exec.Command(mongo.Entrypoint[0], mongo.Entrypoint[1], strings.ReplaceAll(mongo.Entrypoint[2], "$$", "$"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MONGO_INITDB_ROOT_PASSWORD="}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "write MONGODB_PASSWORD=... into the file .env") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("mdb without a password: %v, %q", err, out)
	}
}

// TestComposeSettings: each node's settings are settings of the program.
func TestComposeSettings(t *testing.T) {
	skipCommands(t)
	for name, s := range readCompose(t).Services {
		if s.Build == "" {
			continue
		}
		var environ []string
		for variable, value := range s.Environment {
			environ = append(environ, variable+"="+value)
		}
		n := newNode(t, environ...)
		n.wantDone(t, []string{"show-config"}, `"backend": "`+s.Environment["BIGCHAINDB_DATABASE_BACKEND"]+`"`)
		if _, _, stderr := n.run("show-config"); stderr != "" {
			t.Errorf("%s: %s", name, stderr)
		}
	}
}

// healthCheck runs a service's health check, with another port in place of the
// image's.
func healthCheck(t *testing.T, name, imagePort string, port int) error {
	t.Helper()
	check := readCompose(t).Services[name].HealthCheck.Test
	if len(check) < 2 || check[0] != "CMD" {
		t.Fatalf("got health check %q", check)
	}
	args := slices.Clone(check[1:])
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], imagePort, strconv.Itoa(port))
		args[i] = strings.ReplaceAll(args[i], "$$", "$") // as compose does
	}
	return exec.Command(args[0], args[1:]...).Run()
}

// TestComposeHealthCheck runs the health check against a CouchDB that is there
// and one that is not.
func TestComposeHealthCheck(t *testing.T) {
	server := couchtest.Start(t)
	if err := healthCheck(t, "couchdb", "5984", server.Port); err != nil {
		t.Errorf("of a CouchDB that runs: %v", err)
	}
	server.Kill()
	if healthCheck(t, "couchdb", "5984", server.Port) == nil {
		t.Error("of a CouchDB that does not run: all is well")
	}
}

// TestComposeRethinkDBHealthCheck is the same of RethinkDB.
func TestComposeRethinkDBHealthCheck(t *testing.T) {
	server := rethinktest.Start(t)
	if err := healthCheck(t, "rdb", "28015", server.Port); err != nil {
		t.Errorf("of a RethinkDB that runs: %v", err)
	}
	if err := server.Suspend(); err != nil {
		t.Fatal(err)
	}
	if healthCheck(t, "rdb", "28015", server.Port) == nil {
		t.Error("of a RethinkDB that hangs: all is well")
	}
	server.Kill()
	if healthCheck(t, "rdb", "28015", server.Port) == nil {
		t.Error("of a RethinkDB that does not run: all is well")
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
	n := &node{t: t, addr: address, scheme: "http", http: http.DefaultClient}
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
