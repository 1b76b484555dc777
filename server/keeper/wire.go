package keeper

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errTruncated: descriptors or bytes of a message did not arrive; a limit on
// descriptors is the usual cause.
var errTruncated = errors.New("gt06/keeper: message cut short (descriptor limit?)")

// errVersion: the other side speaks another version.
var errVersion = errors.New("gt06/keeper: another version of the messages")

// errEnd: the other side is gone.
var errEnd = errors.New("gt06/keeper: the other side ended")

// packet is one received message. Its slices are valid until the next.
type packet struct {
	typ     byte
	id      uint64
	payload []byte
	fds     []int
}

// wire is one end of a conversation.
type wire struct {
	fd  int
	in  []byte
	oob []byte
}

func newWire(fd int) *wire {
	return &wire{fd: fd, in: make([]byte, maxMessage), oob: make([]byte, unix.CmsgSpace(4*perMessage))}
}

// receive reads one message. EAGAIN is returned as it is. ECONNRESET only says
// that the other side ended with something unread; the kernel says it once, and
// before what that side sent last, which may be a connection to hold or a
// release.
func (w *wire) receive() (packet, error) {
	n, oobn, got, _, err := unix.Recvmsg(w.fd, w.in, w.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNRESET) {
		n, oobn, got, _, err = unix.Recvmsg(w.fd, w.in, w.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	}
	if err != nil {
		return packet{}, err
	}
	p := packet{fds: rights(w.oob[:oobn])}
	switch {
	case n == 0 && len(p.fds) == 0:
		return packet{}, errEnd
	case got&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0:
		p.close()
		return packet{}, errTruncated
	case n < head || w.in[0] != version:
		p.close()
		return packet{}, errVersion
	}
	p.typ, p.id, p.payload = w.in[1], le.Uint64(w.in[2:]), w.in[head:n]
	return p, nil
}

func rights(oob []byte) (fds []int) {
	if len(oob) == 0 {
		return nil
	}
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range list {
		if more, err := unix.ParseUnixRights(&list[i]); err == nil {
			fds = append(fds, more...)
		}
	}
	return fds
}

func (p *packet) close() {
	for _, fd := range p.fds {
		_ = unix.Close(fd)
	}
}

// send hands one message to the kernel or returns EAGAIN.
func send(fd int, b []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(fd, b, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ETOOMANYREFS): // as many are on their way as may be
			return unix.EAGAIN
		}
		return err
	}
}

// sendWithin waits for room in the queue, a bounded time.
func sendWithin(fd int, within time.Duration, b []byte, fds ...int) error {
	for end := time.Now().Add(within); ; {
		err := send(fd, b, fds...)
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(end) {
			return err
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if _, err := unix.Poll(poll, 5); err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
	}
}

// connect dials the keeper's socket and says which process listens there.
func connect(path string) (fd, pid int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, 0, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		_ = unix.Close(fd)
		return -1, 0, fmt.Errorf("keeper %s: %w", path, err)
	}
	if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
		pid = int(cred.Pid)
	}
	return fd, pid, nil
}
