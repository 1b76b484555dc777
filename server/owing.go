package server

import (
	"go.uber.org/zap"
)

// lag is how far a session may hold the settled mark back, in the log's units,
// before what it needs is written down again.
const lag = 1 << 20

// hold takes half a frame out of the kernel. It belongs there, but the kernel
// frees the memory of a segment only when all of it is taken: a few bytes of a
// large segment can keep the window shut, and then their rest never comes. The
// bytes go into the log like all that is released, and stay in memory too.
func (l *loop) hold(s *Session, half []byte, end, peeked int) {
	l.record(s, half, end, Partial, 0)
	s.batch.held = half
	s.batch.input = peeked
}

// keep notes what is held after a batch.
func (l *loop) keep(s *Session) {
	switch {
	case len(s.batch.held) > 0:
		d := l.owes(s, l.inFlight.Load())
		d.held = append(d.held[:0], s.batch.held...)
	case s.owing != nil:
		s.owing.held = nil
		l.paid(s)
	}
}

// owes notes that records from pos on are needed to go on with s after a kill.
func (l *loop) owes(s *Session, pos uint64) *debt {
	if s.owing == nil {
		s.owing = &debt{pos: pos}
		l.owing[s] = struct{}{}
	}
	return s.owing
}

func (l *loop) paid(s *Session) {
	if len(s.unsent()) == 0 && len(s.held()) == 0 {
		s.owing = nil
		delete(l.owing, s)
	}
}

// oldest returns where the oldest record begins that is needed; 0: none is.
func (l *loop) oldest() (pos uint64) {
	for s := range l.owing {
		if pos == 0 || s.owing.pos < pos {
			pos = s.owing.pos
		}
	}
	return pos
}

// carry writes down again what sessions need of older records, so that one
// device that does not read cannot hold the settled mark for ever: its unsent
// answers and held input, and where both streams stand. A failure leaves the
// older records needed.
func (l *loop) carry(all bool) {
	w := &l.work
	start := l.app.End()
	w.reset(l.s.cfg.Now())
	var carried []*Session
	for s := range l.owing {
		if !all && start-s.owing.pos <= lag {
			continue
		}
		r := Record{
			Conn: s.id, InputEnd: s.in, AnswerEnd: s.out, ReceivedAt: w.now, Flags: Carry,
			Device: s.device.IMEI, UTCOffset: s.device.UTCOffset, Model: s.device.Model, Input: s.owing.held,
		}
		if len(s.owing.held) > 0 {
			r.Flags |= Partial
		}
		w.answers = append(w.answers, s.owing.unsent...)
		w.records = append(w.records, r)
		w.ends = append(w.ends, len(w.answers))
		carried = append(carried, s)
	}
	if len(carried) == 0 {
		return
	}
	end, err := l.app.Append(w.link())
	if err == nil {
		err = l.app.Sync(end, stall)
	}
	if err != nil {
		l.s.log.Warn("what devices have not taken is not written down again: a resume reads further back", zap.Error(err))
		return
	}
	for _, s := range carried {
		s.owing.pos = start
	}
	l.settle()
}
