package server

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ErrInUse is returned by Listen when another socket holds the address.
var ErrInUse = errors.New("gt06/server: address in use")

// backlog is how many connections the kernel completes before they are
// accepted: a reconnect storm arrives faster than it is served.
const backlog = 4096

// sendBuffer is how many unread answer bytes the kernel keeps for a device:
// thousands of answers. Left to itself it grows to megabytes, for a client
// that never reads as well.
const sendBuffer = 32 << 10

// Listener is the device port. It owns its descriptor.
type Listener struct {
	fd   int
	addr netip.AddrPort
}

// Listen opens the device port. It is made by plain socket(2), because Go's
// own listeners speak MPTCP, whose counters of bytes are not TCP's
// (HANDOVER.md section 2, "Sockets"). Options that accepted connections
// inherit are set here: an urgent byte stays in the stream, answers leave at
// once.
func Listen(addr string) (*Listener, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", addr, err)
	}
	family, sa := sockaddr(a)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if errors.Is(err, unix.EAFNOSUPPORT) && a.IP == nil {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: a.Port} // a host without IPv6
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := listen(fd, family, sa); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("%w: %s", ErrInUse, addr)
		}
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	l := &Listener{fd: fd}
	if bound, err := unix.Getsockname(fd); err == nil {
		l.addr = addrPort(bound)
	}
	return l, nil
}

func listen(fd, family int, sa unix.Sockaddr) error {
	options := []struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer},
	}
	if family == unix.AF_INET6 {
		options = append(options, struct{ level, name, value int }{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

// Addr returns the address the listener is bound to.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Close closes the listener.
func (l *Listener) Close() error { return os.NewSyscallError("close", unix.Close(l.fd)) }

func sockaddr(a *net.TCPAddr) (family int, sa unix.Sockaddr) {
	if ip4 := a.IP.To4(); ip4 != nil {
		sa4 := &unix.SockaddrInet4{Port: a.Port}
		copy(sa4.Addr[:], ip4)
		return unix.AF_INET, sa4
	}
	sa6 := &unix.SockaddrInet6{Port: a.Port}
	copy(sa6.Addr[:], a.IP.To16())
	return unix.AF_INET6, sa6
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
