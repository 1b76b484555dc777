package control

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Peer returns who is at the other end.
func Peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, sockErr
}

// ownUser returns who is at the other end, and refuses everybody but root and
// the user the server runs as.
func ownUser(c *net.UnixConn) (uint32, error) {
	cred, err := Peer(c)
	if err != nil {
		return 0, err
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return 0, fmt.Errorf("user %d may not control this server", cred.Uid)
	}
	return cred.Uid, nil
}

// mine says whether a file belongs to the user of this process.
func mine(st os.FileInfo) bool {
	own, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(own.Uid) == os.Geteuid()
}
