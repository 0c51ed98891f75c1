package main

import (
	"crypto/tls"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/httpapi/client"
)

// nodeAccess is how a command reaches a running node. The token is no flag: the
// process list shows flags.
type nodeAccess struct{ url, caCert string }

func (n *nodeAccess) flags(flags *pflag.FlagSet, urlUsage string) {
	flags.StringVar(&n.url, "url", "", urlUsage)
	flags.StringVar(&n.caCert, "ca-cert", "", "PEM `file` of the authorities that sign the node's certificate (default: the system's)")
}

// tlsConfig is nil without --ca-cert.
func (n nodeAccess) tlsConfig() (*tls.Config, error) {
	if n.caCert == "" {
		return nil, nil
	}
	pool, err := authorities("--ca-cert", n.caCert)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}

// apiToken is the token of the environment, "" for none.
func (a *app) apiToken() string {
	for _, variable := range a.environ {
		if token, ok := strings.CutPrefix(variable, configs.EnvToken+"="); ok {
			return strings.TrimSpace(token)
		}
	}
	return ""
}

// nodePatience is how long commands wait in all for a node that asks them to
// come again.
const nodePatience = time.Minute

// nodeClient is a client of the node whose requests may take so long each.
func (a *app) nodeClient(n nodeAccess, timeout time.Duration) (*client.Client, error) {
	security, err := n.tlsConfig()
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = security
	return client.New(n.url, client.WithHTTPClient(&http.Client{Timeout: timeout, Transport: transport}),
		client.WithToken(a.apiToken()), client.WithPatience(nodePatience))
}
