package server

import (
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// TCP states as the kernel numbers them (include/net/tcp_states.h).
const (
	tcpTimeWait  = 6
	tcpClose     = 7
	tcpCloseWait = 8
	tcpLastAck   = 9
	tcpClosing   = 11
)

// streams says where both streams of a connection stand in the kernel.
type streams struct {
	consumed uint64 // input bytes that were taken
	written  uint64 // answer bytes that were given to the kernel
	closed   bool   // state CLOSE: whether a FIN is among the input cannot be known
}

// offsets asks the kernel. It reads until two readings agree: segments arrive
// meanwhile.
func offsets(fd int) (streams, error) {
	for {
		before, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return streams{}, os.NewSyscallError("getsockopt", err)
		}
		in, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
		if err != nil {
			return streams{}, os.NewSyscallError("ioctl", err)
		}
		out, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err != nil {
			return streams{}, os.NewSyscallError("ioctl", err)
		}
		after, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return streams{}, os.NewSyscallError("getsockopt", err)
		}
		if before.Bytes_received != after.Bytes_received || before.Bytes_acked != after.Bytes_acked || before.State != after.State {
			continue
		}
		received := after.Bytes_received
		switch after.State {
		case tcpCloseWait, tcpLastAck, tcpClosing, tcpTimeWait:
			received-- // the FIN counts as a byte
		case tcpClose:
			// Nobody can say whether there was one: the smaller, so that no byte
			// is passed over.
			if received > uint64(in) {
				received--
			}
		}
		return streams{consumed: received - uint64(in), written: after.Bytes_acked + uint64(out), closed: after.State == tcpClose}, nil
	}
}

// Adopt takes a connection over that another process accepted. It is watched
// from now on and served by Serve; until then nothing is read or written. An
// error leaves the descriptor to the caller.
func (s *Server) Adopt(id uint64, fd int, blob []byte) error {
	if p, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || p != unix.IPPROTO_TCP {
		return fmt.Errorf("connection %x is not TCP (protocol %d, %w): its counters mean something else", id, p, err)
	}
	c := &Session{id: id, fd: fd, opened: s.clock()}
	if err := c.setBlob(blob); err != nil {
		return fmt.Errorf("connection %x: %w", id, err)
	}
	c.state.set(stateUnplaced)
	c.state.set(stateFramed) // whoever speaks another protocol meets the deadline of the login
	c.home = s.leastLoaded()
	c.home.sessions.Add(1)
	s.count.open.Add(1)
	s.adopted[id] = c
	c.home.add(c)
	s.registry.adopt(c)
	return nil
}

// Amend replaces what is known of an adopted connection.
func (s *Server) Amend(id uint64, blob []byte) error {
	c := s.adopted[id]
	if c == nil {
		return nil
	}
	s.registry.leave(c.device.IMEI, c)
	if err := c.setBlob(blob); err != nil {
		return err
	}
	s.registry.adopt(c)
	return nil
}

// Forget lets an adopted connection go that its owner has closed.
func (s *Server) Forget(id uint64) {
	if c := s.adopted[id]; c != nil {
		delete(s.adopted, id)
		c.home.let(c)
	}
}

// let takes a session out of the loop and closes this process' descriptor;
// the connection itself lives while others hold it.
func (l *loop) let(s *Session) {
	l.s.registry.leave(s.device.IMEI, s)
	l.s.count.open.Add(-1)
	l.sessions.Add(-1)
	l.slots[s.slot] = nil
	l.free = append(l.free, s.slot)
	_ = l.watch(s.fd, unix.EPOLL_CTL_DEL, 0, 0, 0)
	_ = unix.Close(s.fd)
	s.fd = -1
}

// Resumed is what Resume did.
type Resumed struct {
	Connections int           // taken over
	Placed      int           // had records behind the settled mark
	Discarded   uint64        // input bytes that were recorded and not taken from the kernel
	Resent      uint64        // answer bytes that were recorded and not sent
	Dropped     int           // kernel and log contradict each other, or the connection ended
	Took        time.Duration // all of it
}

// tail is what the log holds of one connection behind the settled mark.
type tail struct {
	in, out uint64 // ends of both streams
	answers []byte // the last of the stream to the device
	held    []byte
	broken  bool // the records do not join
}

func (t *tail) add(r *Record) {
	begin := r.AnswerEnd - uint64(len(r.Answer))
	switch {
	case begin > t.out:
		t.broken = true
	case r.AnswerEnd > t.out: // what is carried repeats older bytes
		t.answers = append(t.answers, r.Answer[t.out-begin:]...)
		t.out = r.AnswerEnd
	}
	t.in = r.InputEnd
	switch {
	case r.Flags&Partial != 0:
		t.held = append(t.held[:0], r.Input...)
	case len(r.Input) > 0:
		t.held = nil
	}
}

// Resume goes on where the owner before ended, whatever its end was: crash,
// restart, upgrade. records yields what the log holds from the settled mark on,
// made durable. generation is this owner's. It is called once, as the owner,
// before Serve.
func (s *Server) Resume(generation uint64, records func(each func(*Record)) error) (Resumed, error) {
	begin := time.Now()
	s.cfg.Generation = generation
	report := Resumed{Connections: len(s.adopted)}
	tails := map[uint64]*tail{}
	err := records(func(r *Record) {
		if s.adopted[r.Conn] == nil {
			return
		}
		t := tails[r.Conn]
		if t == nil {
			t = &tail{out: r.AnswerEnd - uint64(len(r.Answer))}
			tails[r.Conn] = t
		}
		t.add(r)
	})
	if err != nil {
		return report, fmt.Errorf("read the log: %w", err)
	}
	for id, t := range tails {
		c := s.adopted[id]
		report.Placed++
		if err := c.home.resume(c, t, &report); err != nil {
			report.Dropped++
			s.log.Error("a connection cannot be gone on with", zap.Error(err), zap.Stringer("imei", c.device.IMEI))
			c.home.drop(c, CloseContradiction)
			delete(s.adopted, id)
		}
	}
	s.adopted = nil
	for _, l := range s.loops {
		l.carry(true)
	}
	report.Took = time.Since(begin)
	return report, nil
}

// resume places one connection: input that is recorded is taken from the
// kernel, answers that are recorded are sent. Nothing is decoded or encoded
// again.
func (l *loop) resume(s *Session, t *tail, report *Resumed) error {
	at, err := offsets(s.fd)
	if err != nil {
		return err
	}
	l.s.fail("placing")
	switch {
	case t.broken:
		return errors.New("its records do not join")
	case at.consumed > t.in:
		return fmt.Errorf("%d bytes were taken from the kernel, %d are recorded", at.consumed, t.in)
	case at.written > t.out:
		return fmt.Errorf("%d bytes were sent, %d are recorded", at.written, t.out)
	case t.out-at.written > uint64(len(t.answers)):
		return fmt.Errorf("%d bytes are owed, %d are in the log", t.out-at.written, len(t.answers))
	}
	if n := t.in - at.consumed; n > 0 {
		if err := release(s.fd, l.work.input, int(n)); err != nil && !at.closed {
			return fmt.Errorf("take %d recorded bytes: %w", n, err)
		}
		report.Discarded += n
	}
	s.in, s.out = t.in, t.out
	s.state.clear(stateUnplaced)
	if len(t.held) > 0 {
		l.owes(s, l.app.End()).held = t.held
		l.later(s) // its rest may be here already, and the event was for less
	}
	if owed := t.out - at.written; owed > 0 {
		report.Resent += owed
		s.batch = new(batchState)
		l.now = l.s.clock()
		l.send(s, t.answers[uint64(len(t.answers))-owed:], l.app.End())
		if s.batch.close != closeNone && !at.closed {
			return fmt.Errorf("send %d recorded bytes: %v", owed, s.batch.close)
		}
		s.batch = nil
	}
	return nil
}

// place finds out where a connection stands that had no record behind the
// settled mark: all it was sent is taken, all it is owed was sent, so the
// kernel's counts are the truth.
func (l *loop) place(s *Session) bool {
	at, err := offsets(s.fd)
	if err != nil {
		s.batch.close = CloseReset
		return false
	}
	s.in, s.out = at.consumed, at.written
	s.state.clear(stateUnplaced)
	if s.in == 0 && (s.state.has(stateBehindProxy) || l.s.trusted(s.peer.Addr())) {
		s.state.set(stateProxy) // it comes first, and is there still
	}
	return true
}
