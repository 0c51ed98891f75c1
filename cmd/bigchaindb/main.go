// Command bigchaindb controls a couchledger node: it writes its config file,
// makes its database and runs it.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
