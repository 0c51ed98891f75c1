//go:build !unix

package httpapi

import "net"

// hasUnread reports whether a client has sent what the node has not read yet;
// false where nobody knows.
func hasUnread(net.Conn) bool { return false }
