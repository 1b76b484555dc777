package ops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gt06/ops/filelock"
)

// One change at a time, in two layers. The file lock keeps two processes of
// one machine apart and dies with its process. The cloud lock names the open
// change; it is taken when the change opens, lasts over processes and hosts,
// and is given back when the change is closed or abandoned, and by nothing
// else.

// Holder is who has the cloud lock.
type Holder struct {
	Change string `json:"change"`
	Host   string `json:"host"`
	Since  string `json:"since"` // RFC 3339 with nanoseconds: two hosts may have one name
}

// ErrHeld is what a CloudLock says when another one has it.
var ErrHeld = errors.New("gt06/ops: another change has the lock")

// CloudLock is one lock for an instance, taken by compare-and-swap.
type CloudLock interface {
	// Acquire takes the lock. When somebody has it, also the same holder, it
	// returns who and ErrHeld (wrapped or not).
	Acquire(ctx context.Context, h Holder) (Holder, error)
	// Release gives it back when the holder has it, else ErrHeld with who has.
	Release(ctx context.Context, h Holder) error
	// Holder returns who has it; the zero Holder when nobody has.
	Holder(ctx context.Context) (Holder, error)
}

// fileLock is the lock of a machine.
type fileLock struct{ f *os.File }

// lockFile takes the lock of this machine or refuses at once.
func lockFile(path string) (*fileLock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, permission(err)
	}
	err = filelock.Try(f)
	if errors.Is(err, filelock.ErrHeld) {
		who := make([]byte, 32)
		n, _ := f.ReadAt(who, 0)
		_ = f.Close()
		return nil, Fail(Busy, fmt.Errorf("another gt06ctl ops works here, pid %s", who[:n]), "wait for its end; one change at a time")
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprint(f, os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &fileLock{f}, nil
}

// unlock gives it back at once: a child between fork and exec still has the
// descriptor.
func (l *fileLock) unlock() {
	_ = filelock.Unlock(l.f)
	_ = l.f.Close()
}

func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return Fail(Denied, err, "run it with sudo")
	}
	return err
}
