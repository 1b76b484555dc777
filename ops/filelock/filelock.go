// Package filelock is a lock on an open file that goes with the process, however
// it ends.
package filelock

import "errors"

// ErrHeld means that another process has the lock.
var ErrHeld = errors.New("gt06/filelock: another process holds it")
