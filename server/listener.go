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
	fd    int
	addr  netip.AddrPort
	asked string
}

// Listen opens the device port. It is made by plain socket(2), because Go's
// own listeners speak MPTCP, whose counters of bytes are not TCP's
// (HANDOVER.md section 2, "Sockets"). Options that accepted connections
// inherit are set here: an urgent byte stays in the stream, answers leave at
// once.
func Listen(addr string) (*Listener, error) {
	l := &Listener{fd: -1, asked: addr}
	if err := l.reopen(); err != nil {
		return nil, err
	}
	return l, nil
}

// Inherit makes a Listener of a descriptor that another process opened for
// addr. It returns an error when that is bound elsewhere or is not what Listen
// makes; the descriptor is the caller's then.
func Inherit(fd int, addr string) (*Listener, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", addr, err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	have, want := addrPort(bound), a.AddrPort()
	same := have.Addr() == want.Addr().Unmap() || have.Addr().IsUnspecified() && (a.IP == nil || want.Addr().IsUnspecified())
	if !same || a.Port != 0 && have.Port() != want.Port() {
		return nil, fmt.Errorf("the listener that was handed over is bound to %v, not to %s", have, addr)
	}
	for _, o := range []struct{ level, name, want int }{{unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP}, {unix.SOL_SOCKET, unix.SO_ACCEPTCONN, 1}, {unix.SOL_SOCKET, unix.SO_OOBINLINE, 1}} {
		if v, err := unix.GetsockoptInt(fd, o.level, o.name); err != nil || v != o.want {
			return nil, fmt.Errorf("the listener that was handed over is not ours: option %d is %d, %w", o.name, v, err)
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &Listener{fd: fd, addr: have, asked: addr}, nil
}

// reopen opens the socket, or another in its place when it was shut down.
func (l *Listener) reopen() error {
	addr := l.asked
	if l.addr.IsValid() {
		addr = l.addr.String() // the port that was chosen for port 0
	}
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return fmt.Errorf("resolve %q: %w", addr, err)
	}
	family, sa := sockaddr(a)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if errors.Is(err, unix.EAFNOSUPPORT) && a.IP == nil {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: a.Port} // a host without IPv6
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	}
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := listen(fd, family, sa); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("%w: %s", ErrInUse, addr)
		}
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	if l.fd >= 0 {
		_ = unix.Close(l.fd)
	}
	l.fd = fd
	if bound, err := unix.Getsockname(fd); err == nil {
		l.addr = addrPort(bound)
	}
	return nil
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

// FD returns the descriptor, for the keeper and the next server.
func (l *Listener) FD() int { return l.fd }

// Addr returns the address the listener is bound to.
func (l *Listener) Addr() netip.AddrPort { return l.addr }

// Close closes the listener.
func (l *Listener) Close() error {
	if l.fd < 0 {
		return nil
	}
	fd := l.fd
	l.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

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
