package handover

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Successor is the new server's side of an upgrade.
type Successor struct {
	ch     channel
	Schema int64 // of the database, as the old server knows it; 0: unknown
}

// Successor returns this process' part in an upgrade, or nil when it was
// started by other means.
func (u *Upgrader) Successor() (*Successor, error) {
	if !u.flip.HasParent() {
		return nil, nil
	}
	f, err := u.flip.File("handover")
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, errors.New("started by an upgrade that passed no channel")
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err := errors.Join(os.NewSyscallError("dup", err), f.Close()); err != nil {
		return nil, err
	}
	s := &Successor{ch: channel{fd}}
	m, err := s.ch.receive(readyTimeout)
	if err != nil {
		return nil, err
	}
	s.Schema = m.Schema
	return s, nil
}

// Refuse tells the old server why this one will not serve.
func (s *Successor) Refuse(reason string) { _ = s.ch.send(message{Type: typeRefuse, Reason: reason}) }

// Warm says that this server has proved itself and can begin.
func (s *Successor) Warm(version string, generation uint64) error {
	return s.ch.send(message{Type: typeWarm, PID: os.Getpid(), Program: version, Generation: generation})
}

// WaitFree follows the keeper until the old server lets go. orphan: it is gone
// without a word, and this is a start like any other.
func (s *Successor) WaitFree(keeper int, follow func() error) (orphan bool, err error) {
	for {
		poll := []unix.PollFd{{Fd: int32(s.ch.fd), Events: unix.POLLIN}, {Fd: int32(keeper), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return false, os.NewSyscallError("poll", err)
		}
		if poll[1].Revents != 0 {
			if err := follow(); err != nil {
				return false, err
			}
		}
		if poll[0].Revents != 0 {
			m, gone := s.ch.take()
			return gone != nil || m.Type != typeFree, nil //nolint:nilerr // an end without a word is the other answer
		}
	}
}

// Serving says that this server serves.
func (s *Successor) Serving(moved, dropped int, generation uint64) error {
	return s.ch.send(message{Type: typeServing, Moved: moved, Dropped: dropped, Generation: generation})
}

// Beat tells the old server all through the probation that this one lives, as
// long as alive says so.
func (s *Successor) Beat(ctx context.Context, alive func() bool) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		if alive() {
			if err := s.ch.send(message{Type: typeBeat}); err != nil && !errors.Is(err, unix.EAGAIN) {
				return // it has ended
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Gone is closed when the old server has ended: the probation is over.
func (s *Successor) Gone() <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			if _, err := s.ch.receive(time.Hour); err != nil && !errors.Is(err, errSilent) {
				return
			}
		}
	}()
	return gone
}
