package server

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the data path never block (MSG_DONTWAIT), so they go round the
// scheduler's bookkeeping of blocking calls, and they do not allocate, which
// unix.Recvfrom does for the address.

// peek copies input without taking it. n is 0 at the end of the stream.
func peek(fd int, b []byte) (n int, err error) {
	return recv(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
}

// release takes n bytes from the input and throws them away: they are in the
// log. It loops because the kernel stops at an urgent mark. The buffer is only
// a length to the kernel: MSG_TRUNC on TCP copies nothing.
func release(fd int, b []byte, n int) error {
	for n > 0 {
		m, err := recv(fd, b[:min(n, len(b))], unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		if err != nil {
			return err
		}
		if m == 0 {
			return unix.ECONNRESET
		}
		n -= m
	}
	return nil
}

func recv(fd int, b []byte, flags int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// send hands bytes to the kernel and returns how many it took; fewer than all
// is no error: the device does not read fast enough.
func send(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		rest := b[n:]
		m, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(rest))), uintptr(len(rest)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			n += int(m)
		case unix.EINTR:
		case unix.EAGAIN:
			return n, nil
		default:
			return n, errno
		}
	}
	return n, nil
}

// queued returns how many input bytes the kernel holds.
func queued(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// windowShut says whether the receive buffer is so full of memory that the
// kernel may not let the device send. It counts memory, not bytes: what is
// pinned by half a frame counts in whole.
func windowShut(fd int) bool {
	const soMemInfo, allocated, limit = 55, 0, 1
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, soMemInfo, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0 && info[allocated] > info[limit]/2
}
