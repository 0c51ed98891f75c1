package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/node/ledger"
)

const (
	nodesFlag = "nodes"
	// maxNodes is as many as one machine is asked to run.
	maxNodes = 100
	// testConfig is what the documents' scripts name the config file of a test
	// cluster's node, before its number.
	testConfig = "bcdb_conf"
)

// nodeOwn are the settings that must differ from node to node.
var nodeOwn = []string{"keypair.public", "keypair.private", "keyring", "server.bind", "state.path"}

// nodesArgs reads the arguments of configure --nodes N [BACKEND] DIR.
func (a *app) nodesArgs(args []string) (backend, folder string, err error) {
	backend = configs.CouchDB
	if len(args) == 2 {
		backend, args = args[0], args[1:]
	}
	switch {
	case len(args) != 1:
		return "", "", fmt.Errorf("configure --%s N takes the folder for the config files, and before it a backend if it is not %s", nodesFlag, configs.CouchDB)
	case a.nodes < 1 || a.nodes > maxNodes:
		return "", "", fmt.Errorf("--%s: expected a number of nodes from 1 to %d, got %d", nodesFlag, maxNodes, a.nodes)
	case a.config != "":
		return "", "", fmt.Errorf("--%s writes files of its own into the folder: leave -c out", nodesFlag)
	case backend == configs.Embedded && a.nodes > 1:
		servers := slices.DeleteFunc(slices.Clone(configs.Backends), func(b string) bool { return b == configs.Embedded })
		return "", "", fmt.Errorf("several nodes cannot share the embedded database: choose one of %s", strings.Join(servers, ", "))
	}
	return backend, args[0], knownBackend(backend)
}

// configureNodes writes the config files of a federation on one machine: each
// node has keys of its own, the others' in its keyring, and a port of its own from
// the default one on. All share one database.
func (a *app) configureNodes(backend, folder string) error {
	for _, path := range nodeOwn {
		name := configs.EnvName(path)
		if slices.ContainsFunc(a.environ, func(v string) bool { return strings.HasPrefix(v, name+"=") && v != name+"=" }) {
			return fmt.Errorf("%s is in the environment and would go before every node's file: unset it", name)
		}
	}
	files := make([]string, a.nodes)
	there := 0
	for i := range files {
		files[i] = filepath.Join(folder, testConfig+strconv.Itoa(i))
		if _, err := os.Lstat(files[i]); err == nil {
			there++
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("config file: %w", err)
		}
	}
	if there > 0 && !a.yes {
		replace, err := a.confirm(fmt.Sprintf("%d of the config files exist in `%s`, do you want to override them? (they are kept as .bak) [y/N]: ", there, folder))
		if err != nil {
			return err
		}
		if !replace {
			a.say("Nothing was written.")
			return nil
		}
	}
	all, err := a.nodesSettings(backend, files)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for i, settings := range all {
		if _, err := settings.Save(files[i], true); err != nil {
			return err
		}
		a.say("%s: %s on %s", files[i], settings.KeyPair.Public, settings.Server.Bind)
	}
	a.say("Ready to go! Start each node with `bigchaindb -c FILE start`.")
	return nil
}

// nodesSettings makes the settings of each node.
func (a *app) nodesSettings(backend string, files []string) ([]configs.Settings, error) {
	all := make([]configs.Settings, len(files))
	keys := make([]string, len(files))
	for i, file := range files {
		settings, warnings, err := configs.New(backend, file, a.environ)
		if i == 0 {
			a.warn(warnings)
		}
		if err != nil {
			return nil, err
		}
		pair := ledger.GenerateKeyPair()
		setKeyPair(&settings, pair)
		keys[i] = pair.Public
		host, port, err := net.SplitHostPort(settings.Server.Bind)
		if err != nil {
			return nil, err
		}
		first, err := strconv.Atoi(port)
		if err != nil {
			return nil, err
		}
		settings.Server.Bind = net.JoinHostPort(host, strconv.Itoa(first+i))
		all[i] = settings
	}
	for i := range all {
		all[i].Keyring = slices.Concat(keys[:i], keys[i+1:])
	}
	return all, nil
}
