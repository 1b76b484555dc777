// Package handover decides who serves. One process at a time reads, writes and
// accepts devices and writes the log: the one that holds the owner lock.
package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// OwnedError says which process holds a data directory.
type OwnedError struct {
	Dir string
	PID int // 0 when it could not be read
}

// Error implements error.
func (e *OwnedError) Error() string {
	return fmt.Sprintf("gt06/handover: data directory %s is in use by pid %d", e.Dir, e.PID)
}

// Owner is the lock: whoever holds it may read, write and accept devices and
// write the log; nobody else, ever. It is two locks (HANDOVER.md section 2):
// the gate says who may become owner, the owner lock who serves. The kernel
// lets go of both when the last thread of a process is gone.
type Owner struct {
	dir         string
	gate, owner *os.File
}

// gateVariable names the descriptor of a gate that is held over an exec.
const gateVariable = "GT06_GATE_FD"

// pause between two tries. Nobody ever blocks on a lock: a waiter would take
// it in the moment an upgrade passes it on.
const pause = time.Millisecond

// Acquire takes gate and owner lock, trying for as long as the wait, which
// covers a predecessor that is just ending. It returns an *OwnedError when
// another process keeps them.
func Acquire(ctx context.Context, dir string, wait time.Duration) (*Owner, error) {
	gate, err := inherited()
	if err != nil {
		return nil, err
	}
	return acquire(ctx, dir, wait, pause, func() (*Owner, error) { return try(dir, gate) })
}

// acquire tries to become owner, and says who is when that does not succeed.
func acquire(ctx context.Context, dir string, wait, every time.Duration, once func() (*Owner, error)) (o *Owner, err error) {
	err = again(ctx, wait, every, func() (err error) {
		o, err = once()
		return err
	})
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, &OwnedError{Dir: dir, PID: holder(dir)}
	}
	return o, err
}

// again tries until a lock that another process holds is free, for as long as
// the wait.
func again(ctx context.Context, wait, every time.Duration, once func() error) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := once()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// inherited returns the gate that the image before this one held, or nil.
func inherited() (*os.File, error) {
	v := os.Getenv(gateVariable)
	if v == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(v)
	if err != nil {
		return nil, fmt.Errorf("%s=%q is no descriptor", gateVariable, v)
	}
	if err := os.Unsetenv(gateVariable); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "gate"), nil
}

// try takes both locks once. A gate that is held already is kept.
func try(dir string, gate *os.File) (*Owner, error) {
	kept := gate != nil
	if !kept {
		var err error
		if gate, err = lock(filepath.Join(dir, "gate")); err != nil {
			return nil, err
		}
	}
	o, err := freed(dir)
	if err != nil {
		if !kept {
			_ = gate.Close()
		}
		return nil, err
	}
	o.gate = gate
	return o, nil
}

// freed takes the owner lock alone.
func freed(dir string) (*Owner, error) {
	owner, err := lock(filepath.Join(dir, "owner"))
	if err != nil {
		return nil, err
	}
	// Who serves, for the message of the next who tries.
	if err = owner.Truncate(0); err == nil {
		_, err = owner.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err != nil && !errors.Is(err, unix.ENOSPC) { // a full disk must not keep the devices out
		_ = owner.Close()
		return nil, fmt.Errorf("write pid into the owner lock: %w", err)
	}
	return &Owner{dir: dir, owner: owner}, nil
}

// AcquireFreed takes the owner lock without the gate: only the new server of
// an upgrade does that, when the old one, which holds the gate, said so.
func AcquireFreed(ctx context.Context, dir string, wait time.Duration) (*Owner, error) {
	return acquire(ctx, dir, wait, pause/5, func() (*Owner, error) { return freed(dir) })
}

// TakeGate keeps others from becoming owner, for an upgrade.
func (o *Owner) TakeGate(ctx context.Context, wait time.Duration) error {
	if o.gate != nil {
		return nil
	}
	err := again(ctx, wait, pause, func() (err error) {
		o.gate, err = lock(filepath.Join(o.dir, "gate"))
		return err
	})
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("another start or upgrade is under way: %w", err)
	}
	return err
}

// Free lets the owner lock go and keeps the gate: nothing of the log or of a
// device may be touched from now on.
func (o *Owner) Free() error {
	if o.owner == nil {
		return nil
	}
	owner := o.owner
	o.owner = nil
	return owner.Close()
}

func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// holder reads the pid that the owner wrote.
func holder(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "owner"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// Serving lets the gate go: from now on another process may try to become
// owner, and fails while this one lives.
func (o *Owner) Serving() error {
	if o.gate == nil {
		return nil
	}
	gate := o.gate
	o.gate = nil
	return gate.Close()
}

// Close gives the lock up. Nothing of the log or of a device may be touched
// afterwards.
func (o *Owner) Close() error { return errors.Join(o.Serving(), o.Free()) }
