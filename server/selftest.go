package server

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrCounters means that this kernel does not count bytes as a resume needs it.
var ErrCounters = errors.New("gt06/server: the kernel's counters of bytes are not to be trusted")

// SelfTest proves on the loopback that this kernel says where a stream stands,
// in each state a connection can be in. Without that nothing can be resumed.
// It takes a millisecond.
func SelfTest() error { return selfTest(offsets) }

// selfTest takes what is asked, so that a test can make it lie.
func selfTest(ask func(fd int) (streams, error)) error {
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	defer ln.Close() //nolint:errcheck // it did its part
	p, err := pair(ln)
	if err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	defer p.close()
	protocol, err := unix.GetsockoptInt(p.server, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || protocol != unix.IPPROTO_TCP {
		return fmt.Errorf("%w: a connection has protocol %d, %w", ErrCounters, protocol, err)
	}
	var in, out uint64
	expect := func(state string) error {
		got, err := ask(p.server)
		if err != nil {
			return fmt.Errorf("self-test, %s: %w", state, err)
		}
		if got.consumed != in || got.written != out {
			return fmt.Errorf("%w: %s: %d bytes were taken and %d sent, the kernel says %d and %d", ErrCounters, state, in, out, got.consumed, got.written)
		}
		return nil
	}
	buf := make([]byte, 4096)
	steps := []struct {
		state string
		do    func() error
	}{
		{"a new connection", func() error { return nil }},
		{"input waits", func() error { return p.deviceSends(buf[:1000]) }},
		{"input was peeked", func() error { _, err := peek(p.server, buf); return err }},
		{"part of it was taken", func() error { in += 400; return release(p.server, buf, 400) }},
		{"an answer was sent", func() error { out += 700; return p.serverSends(buf[:700]) }},
		{"the answer was read", func() error { return p.deviceReads(buf[:700]) }},
		{"an urgent byte came", func() error { return p.deviceSendsUrgent() }},
		{"all of it was taken", func() error { in += 601; return release(p.server, buf, 601) }},
		{"the device ended its side with input waiting", func() error {
			return errors.Join(p.deviceSends(buf[:50]), unix.Shutdown(p.device, unix.SHUT_WR), p.settled())
		}},
		{"it was taken behind the end", func() error { in += 50; return release(p.server, buf, 50) }},
		{"an answer was sent behind the end", func() error { out += 30; return p.serverSends(buf[:30]) }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("self-test, %s: %w", s.state, err)
		}
		if err := expect(s.state); err != nil {
			return err
		}
	}
	return nil
}

// loopback is one connection with both of its ends.
type loopback struct{ device, server int }

func pair(ln *Listener) (p loopback, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return p, os.NewSyscallError("socket", err)
	}
	p = loopback{device: fd, server: -1}
	addr := ln.Addr().Addr().As4()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(ln.Addr().Port()), Addr: addr}); err != nil {
		p.close()
		return p, os.NewSyscallError("connect", err)
	}
	poll := []unix.PollFd{{Fd: int32(ln.fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(poll, 1000); err != nil && !errors.Is(err, unix.EINTR) {
		p.close()
		return p, os.NewSyscallError("poll", err)
	}
	if p.server, _, err = unix.Accept4(ln.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC); err != nil {
		p.close()
		return p, os.NewSyscallError("accept", err)
	}
	return p, nil
}

func (p loopback) close() {
	_ = unix.Close(p.device)
	if p.server >= 0 {
		_ = unix.Close(p.server)
	}
}

// waitFor polls an end for events.
func waitFor(fd int, events int16) error {
	poll := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(poll, 1000)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n == 0:
			return errors.New("the loopback does not deliver within a second")
		default:
			return nil
		}
	}
}

func (p loopback) deviceSends(b []byte) error {
	_, err := unix.Write(p.device, b)
	return errors.Join(err, waitFor(p.server, unix.POLLIN))
}

func (p loopback) deviceSendsUrgent() error {
	return errors.Join(unix.Send(p.device, []byte{1}, unix.MSG_OOB), waitFor(p.server, unix.POLLPRI))
}

func (p loopback) serverSends(b []byte) error {
	n, err := send(p.server, b)
	if err == nil && n != len(b) {
		err = fmt.Errorf("%d of %d bytes were taken", n, len(b))
	}
	return err
}

func (p loopback) deviceReads(b []byte) error {
	for n := 0; n < len(b); {
		m, err := unix.Read(p.device, b[n:])
		if err != nil {
			return err
		}
		n += m
	}
	return nil
}

// settled waits for the end of the device's side.
func (p loopback) settled() error { return waitFor(p.server, unix.POLLRDHUP) }
