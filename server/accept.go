package server

import (
	"errors"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// sessionEvents: edge-triggered, because a peek leaves half a frame in the
	// kernel and level-triggered epoll would report it for ever.
	sessionEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLPRI | 1<<31 // EPOLLET
	// acceptBurst bounds how long accepting keeps the others waiting.
	acceptBurst = 32
	// replacedSilence is how long a connection whose IMEI came back on another
	// one may be silent. A twin that still speaks is left alone.
	replacedSilence = 60 * time.Second
	// frameRate is the slowest pace at which a long frame may come in, bytes
	// a second, beyond the deadline of half a frame.
	frameRate = 256
)

// listen puts the device port into this loop's set.
func (l *loop) listen(ln *Listener) error {
	l.listener = ln
	return l.watch(ln.fd, unix.EPOLL_CTL_ADD, unix.EPOLLIN, slotListen, 0)
}

// accept takes connections one by one: each is with the keeper and in a set
// before the next. One that was accepted and not registered dies with the
// process.
func (l *loop) accept() {
	for range acceptBurst {
		if !l.s.cfg.Keeper.Ready() {
			l.turnDeaf()
			return
		}
		if l.s.admission.full(l.now) {
			l.s.count.waits.Add(1)
			l.turnDeaf()
			return
		}
		fd, sa, err := unix.Accept4(l.listener.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			continue
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINVAL):
			l.listenAgain()
			return
		default:
			// Descriptors or memory are short. The queue stays in the kernel;
			// the tick listens again.
			l.s.count.refused[refusedDescriptors].Add(1)
			l.s.log.Error("accept pauses for a moment", zap.Error(err))
			l.turnDeaf()
			return
		}
		l.s.count.accepted.Add(1)
		l.s.admission.accepted(l.now)
		l.s.fail("accepted")
		peer := addrPort(sa)
		if why, refused := l.refuses(peer.Addr()); refused {
			l.s.count.refused[why].Add(1)
			// A reset frees both sides at once; nothing was read from it.
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			_ = unix.Close(fd)
			continue
		}
		s := &Session{
			id: l.s.cfg.Generation<<40 | l.s.nextConn.Add(1), fd: fd, peer: peer, opened: l.now,
		}
		if l.s.trusted(peer.Addr()) {
			s.state.set(stateProxy)
		}
		s.heard.Store(l.s.cfg.Now().Unix())
		l.s.count.open.Add(1)
		s.home = l.s.leastLoaded()
		l.s.cfg.Keeper.Register(s.id, fd, s.blob())
		l.s.fail("registered")
		s.home.sessions.Add(1)
		if s.home == l {
			l.add(s)
		} else {
			s.home.post(s)
		}
	}
}

// turnDeaf takes the listener out of the set; the tick puts it back.
func (l *loop) turnDeaf() {
	l.deaf = true
	_ = l.watch(l.listener.fd, unix.EPOLL_CTL_DEL, 0, slotListen, 0)
	l.nextTick = min(l.nextTick, l.now+100)
}

// listenAgain replaces a listener that somebody shut down: the keeper, when its
// grace ended before this server came.
func (l *loop) listenAgain() {
	_ = l.watch(l.listener.fd, unix.EPOLL_CTL_DEL, 0, slotListen, 0)
	if err := l.listener.reopen(); err != nil {
		l.s.log.Error("the listener was shut down and cannot be opened again", zap.Error(err))
		l.s.breakdown(err)
		return
	}
	l.s.log.Warn("the listener was shut down: listening again")
	if l.s.cfg.Reopened != nil {
		l.s.cfg.Reopened()
	}
	if err := l.listen(l.listener); err != nil {
		l.s.breakdown(err)
	}
}

func (l *loop) refuses(from netip.Addr) (refusal, bool) {
	if st := l.s.stopped.Load(); st != nil && l.now-st.at >= stall.Milliseconds() {
		return refusedRoom, true
	}
	if l.s.count.open.Load() >= int64(l.s.cfg.Limits.Connections) {
		return refusedLimit, true
	}
	return l.s.refusesPeer(from, l.now)
}

// add puts a session into the loop's table and set.
func (l *loop) add(s *Session) {
	if n := len(l.free); n > 0 {
		s.slot, l.free = l.free[n-1], l.free[:n-1]
		l.slots[s.slot] = s
	} else {
		s.slot = int32(len(l.slots))
		l.slots = append(l.slots, s)
	}
	if err := l.watch(s.fd, unix.EPOLL_CTL_ADD, sessionEvents, s.slot, int32(s.id)); err != nil {
		l.s.log.Error("watch a connection", zap.Error(err))
		l.drop(s, CloseInternal)
	}
}

// drop ends a connection. It is shut down first: a descriptor may have
// duplicates elsewhere that would hold the FIN back.
func (l *loop) drop(s *Session, why CloseReason) {
	l.s.count.closed[why].Add(1)
	if s.failed() && !why.ours() && !l.s.trusted(s.peer.Addr()) {
		l.s.admission.failed(s.peer.Addr(), l.now)
	}
	l.s.count.open.Add(-1)
	l.sessions.Add(-1)
	if s.loggedIn() {
		l.s.registry.leave(s.device.IMEI, s)
		l.leaves(s)
	}
	l.abandon(s, ErrOffline)
	l.s.cfg.Keeper.Drop(s.id)
	delete(l.owing, s)
	delete(l.photos, s)
	l.slots[s.slot] = nil
	l.free = append(l.free, s.slot)
	s.state.clear(stateAgain | statePaced) // it may still be in the lists
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
	_ = l.watch(s.fd, unix.EPOLL_CTL_DEL, 0, 0, 0)
	_ = unix.Close(s.fd)
	s.fd = -1
	if l.s.log.Core().Enabled(zap.DebugLevel) {
		l.s.log.Debug("connection ends", zap.Stringer("reason", why), zap.Stringer("remote", s.peer), zap.Stringer("imei", s.device.IMEI))
	}
}

// tick looks at the deadlines, once a period.
func (l *loop) tick() {
	l.nextTick = l.now + period.Milliseconds()
	if l.deaf {
		l.deaf = l.watch(l.listener.fd, unix.EPOLL_CTL_ADD, unix.EPOLLIN, slotListen, 0) != nil
	}
	if pos := l.oldest(); pos != 0 && l.stalled == 0 && l.app.End()-pos > lag {
		l.carry(false)
	}
	hangUp := l.stalled != 0 && l.now-l.stalled >= stall.Milliseconds()
	wall := l.s.cfg.Now().Unix()
	for _, s := range l.slots {
		switch {
		case s == nil || s.state.has(stateQueued):
		case hangUp:
			l.drop(s, CloseRoom)
		case l.stalled != 0: // nothing is read, so nobody is late
		default:
			if why := l.late(s, wall); why != closeNone {
				l.drop(s, why)
			}
		}
	}
}

// late returns which deadline the session has missed, and keeps half frames
// and displaced connections moving.
func (l *loop) late(s *Session, wall int64) CloseReason {
	limits := &l.s.cfg.Limits
	silent := time.Duration(wall-s.heard.Load()) * time.Second
	if s.heard.Load() == 0 { // taken over, and not heard by this process yet
		silent = time.Duration(l.now-s.opened) * time.Millisecond
	}
	waited := time.Duration(l.now-s.since) * time.Millisecond
	switch {
	case len(s.unsent()) > 0:
		if waited > limits.Write {
			return CloseWrite
		}
	case s.state.has(statePaced): // it is not read
	case !s.loggedIn() && time.Duration(l.now-s.opened)*time.Millisecond > limits.Login:
		return CloseLogin
	case s.state.has(stateHalf):
		if waited > limits.Frame && waited > limits.Frame+time.Duration(queued(s.fd)/frameRate)*time.Second {
			return CloseFrame
		}
		if waited > impatience {
			l.later(s)
		}
	case silent > limits.Idle:
		return CloseIdle
	}
	if s.state.has(stateVerified) && !s.current.Load() {
		if silent > replacedSilence {
			return CloseReplaced
		}
		l.s.registry.reclaim(s)
	}
	return closeNone
}
