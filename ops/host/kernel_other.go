//go:build !linux

package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

// errNotLinux: only servers are worked on, and they run Linux. From elsewhere the
// account is worked on, and the server through ssh.
var errNotLinux = fmt.Errorf("this looks at a machine that runs gt06d, which takes Linux, not %s: --host USER@ADDRESS looks at it through ssh: %w", runtime.GOOS, errors.ErrUnsupported)

func usage(string) (Usage, error) { return Usage{}, errNotLinux }

func inodeOf(os.FileInfo) (inode, bool) { return inode{}, false }

// ReadClock asks the kernel, as timedatectl does.
func ReadClock() (Clock, error) { return Clock{}, errNotLinux }

func syncDisks() {}

func attributes(_ *exec.Cmd, as *credential, _ bool) error {
	if as != nil {
		return errNotLinux
	}
	return nil
}

func capable(uint) (bool, error) { return false, errNotLinux }
