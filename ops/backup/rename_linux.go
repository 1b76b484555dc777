package backup

import (
	"os"

	"golang.org/x/sys/unix"
)

// rename gives a file its name, unless that is taken.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	return os.NewSyscallError("renameat2", err)
}
