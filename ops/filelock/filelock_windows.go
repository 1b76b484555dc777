package filelock

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// beyond is a byte far behind what is in such files: Windows lets nobody else
// read what is locked.
const beyond = 1 << 30

func place() *windows.Overlapped { return &windows.Overlapped{OffsetHigh: beyond} }

// Try takes the lock or returns ErrHeld at once.
func Try(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, place())
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrHeld
	}
	return os.NewSyscallError("LockFileEx", err)
}

// Unlock gives it back.
func Unlock(f *os.File) error {
	return os.NewSyscallError("UnlockFileEx", windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, place()))
}
