package host

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What is asked of the kernel; the rest of the package reads files and runs
// programs.

func usage(path string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Usage{}, err
	}
	block := uint64(st.Frsize)
	return Usage{
		Path: path, Bytes: st.Blocks * block, Used: (st.Blocks - st.Bfree) * block, Available: st.Bavail * block,
		Files: st.Files, FilesFree: st.Ffree,
	}, nil
}

// inodeOf returns what is behind a FileInfo.
func inodeOf(info os.FileInfo) (inode, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, false
	}
	//nolint:unconvert // the widths differ between architectures
	return inode{file: file{uint64(st.Dev), st.Ino}, regular: info.Mode().IsRegular(), links: uint64(st.Nlink), bytes: st.Blocks * 512, uid: st.Uid}, true
}

// ReadClock asks the kernel, as timedatectl does.
func ReadClock() (Clock, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Clock{}, fmt.Errorf("clock: %w", err)
	}
	const timeError, unsynchronised = 5, 0x40 // TIME_ERROR, STA_UNSYNC of adjtimex(2)
	return Clock{
		Synchronised: state != timeError && t.Status&unsynchronised == 0,
		Error:        time.Duration(t.Maxerror) * time.Microsecond,
	}, nil
}

// syncDisks writes what is in the page cache.
func syncDisks() { unix.Sync() }

// attributes lets a program run as a user, nil: as this one, and end with us.
func attributes(cmd *exec.Cmd, as *credential, ours bool) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if ours {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if as != nil && int(as.Uid) != os.Geteuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.Uid, Gid: as.Gid, Groups: as.Groups}
	}
	return nil
}

// capable says whether this process has a capability of Linux, by number.
func capable(number uint) (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("capabilities: %w", err)
	}
	return data[number/32].Effective&(1<<(number%32)) != 0, nil
}
