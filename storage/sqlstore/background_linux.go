package sqlstore

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// courtesy is how much nicer than the rest of the process the writer is.
const courtesy = 5

// background has the kernel run this goroutine behind what devices wait for,
// until it ends: its thread is its own and ends with it. Where the kernel
// refuses, it runs as the others do.
func background() {
	runtime.LockOSThread()
	if raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil { // 20 less the nice value
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 20-raw+courtesy)
	}
}
