package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// memberHosts takes arguments of the form host:port, each once.
func memberHosts(args []string) ([]string, error) {
	for i, arg := range args {
		if err := checkHostPort(arg); err != nil {
			return nil, fmt.Errorf("%q is not host:port, such as server1.com:27017, 10.0.0.1:27017 or [::1]:27017: %w", arg, err)
		}
		if memberAt(args[:i], arg) >= 0 {
			return nil, fmt.Errorf("%q is given twice", arg)
		}
	}
	return args, nil
}

// checkHostPort says what is wrong with host:port: a host name, an IPv4 address
// or an IPv6 address in brackets, and a port.
func checkHostPort(text string) error {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		var address *net.AddrError
		if errors.As(err, &address) {
			return errors.New(address.Err)
		}
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("the port is a number from 1 to 65535, got %q", port)
	}
	if strings.HasPrefix(text, "[") {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() || ip.Zone() != "" {
			return errors.New("in brackets stands an IPv6 address without a zone, which means nothing to the other members")
		}
		return nil
	}
	return checkHostName(host)
}

// checkHostName takes host names and IPv4 addresses.
func checkHostName(host string) error {
	const (
		longestName  = 253
		longestLabel = 63
		allowed      = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
		digits       = "0123456789"
	)
	if len(host) > longestName {
		return fmt.Errorf("a host name has at most %d characters", longestName)
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, label := range labels {
		// Underscores are no letters of the Internet's names, but of containers'.
		if label == "" || len(label) > longestLabel || strings.Trim(label, allowed) != "" ||
			strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return errors.New("the host is a name of letters, digits, hyphens and dots, or an IP address")
		}
	}
	// No name ends in a number, so this is meant to be an address.
	if strings.Trim(labels[len(labels)-1], digits) == "" {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is4() {
			return errors.New("the host is no IPv4 address")
		}
	}
	return nil
}

// sameHost reports whether two texts are the same host:port, in whatever case
// or form of an IPv6 address.
func sameHost(a, b string) bool { return canonicalHost(a) == canonicalHost(b) }

func canonicalHost(text string) string {
	if address, err := netip.ParseAddrPort(text); err == nil {
		return address.String()
	}
	return strings.ToLower(text)
}
