package spool

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// disk is what the log asks of the file system to change it. Tests put one in
// between that fails, or that loses at a power cut what was not synced.
type disk interface {
	create(path string) (*os.File, error) // a file that was not there
	writeAt(f *os.File, b []byte, at int64) error
	truncate(f *os.File, size int64) error
	allocate(f *os.File, from, to int64) error // blocks, without touching what is there
	sync(f *os.File) error
	syncData(f *os.File) error
	syncDir(dir string) error
	remove(path string) error
}

// files is the disk there is.
type files struct{}

func (files) create(path string) (*os.File, error) {
	return open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (files) writeAt(f *os.File, b []byte, at int64) error {
	_, err := f.WriteAt(b, at)
	return err
}

func (files) truncate(f *os.File, size int64) error { return f.Truncate(size) }

func (files) allocate(f *os.File, from, to int64) error {
	return again(func() error { return unix.Fallocate(int(f.Fd()), 0, from, to-from) })
}

func (files) sync(f *os.File) error { return f.Sync() }

func (files) syncData(f *os.File) error {
	return os.NewSyscallError("fdatasync", again(func() error { return unix.Fdatasync(int(f.Fd())) }))
}

func (files) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (files) remove(path string) error { return os.Remove(path) }

// again calls what a signal may interrupt.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
