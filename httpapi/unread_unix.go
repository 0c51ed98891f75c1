//go:build unix

package httpapi

import (
	"net"
	"syscall"
)

// hasUnread reports whether a client has sent what the node has not read yet.
func hasUnread(conn net.Conn) bool {
	tcp := tcpOf(conn)
	if tcp == nil {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT) // -1 when there is nothing
	})
	return err == nil && n > 0
}
