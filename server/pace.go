package server

import "gt06/protocol"

// pace is how fast a connection is read: a leaky bucket of one number, when
// the last of what it has brought would have been due, in microseconds on the
// server's clock.
type pace struct {
	each  int64 // microseconds a record; 0: no limit
	burst int64 // how far ahead a connection may be
}

const (
	// surge is how many seconds' worth a connection may bring at once.
	surge = 4
	// memory is how much more than that is remembered of a device, microseconds:
	// the longest that one waits for what others brought in its name.
	memory = 1e6
	// look is how much of a connection's input one batch takes: fifty frames or
	// a hundred. A frame that is longer is seen whole (chunk).
	look = 2 << 10
	// firstLook is that before a login: how much may follow it is not known yet.
	firstLook = 1 << 10
	// full is how many records a batch has at most, give or take a look: how
	// long it takes is how long everybody waits.
	full = 2048
	// few is how many records a connection may bring at once before others come
	// first.
	few = 64
	// rest is how many records those who come behind others bring into a batch
	// together, give or take a look: a millisecond's.
	rest = 128

	// unit is how many bytes count as a record, too: a long frame is not cheaper
	// than many short ones.
	unit = 256
	// grain is how exactly a paced connection is read again, milliseconds.
	grain = 20
)

func newPace(frames int) pace {
	if frames < 0 {
		return pace{}
	}
	return pace{each: 1e6 / int64(frames), burst: surge * 1e6}
}

// ahead says whether others come first: a connection of which no device has
// spoken yet, or one that brought more than a device has to say.
func (l *loop) ahead(s *Session) bool {
	return !s.state.has(stateVerified) || s.due-l.now*1000 > few*l.s.pace.each
}

// order puts those who brought much behind the others, and returns where they
// begin.
func (l *loop) order() (behind int) {
	first := l.ready[:0]
	for _, s := range l.ready {
		if l.ahead(s) {
			l.greedy = append(l.greedy, s)
		} else {
			first = append(first, s)
		}
	}
	behind = len(first)
	l.ready = append(first, l.greedy...)
	clear(l.greedy)
	l.greedy = l.greedy[:0]
	return behind
}

// arrives gives a connection what its device has left of its surge, and takes
// that away from the next one: who connects again and again does not get it
// again and again.
func (l *loop) arrives(s *Session, imei protocol.IMEI) {
	p := &l.s.pace
	if p.each == 0 {
		return
	}
	now := l.now * 1000
	s.due = max(s.due, min(now+p.burst+memory, l.s.admission.owes(uint64(imei), (now+p.burst)/1000)*1000))
}

// leaves notes what a device has brought ahead of its time.
func (l *loop) leaves(s *Session) {
	if s.due > l.now*1000 {
		l.s.admission.owes(uint64(s.device.IMEI), s.due/1000)
	}
}

// spend counts what a connection brought. When that is more than its share it
// is not read until it is due again: its bytes wait in the kernel, none is
// dropped.
func (l *loop) spend(s *Session) {
	p := &l.s.pace
	now := l.now * 1000
	s.due = max(s.due, now) + int64(s.batch.records+s.batch.input/unit)*p.each
	if s.due-now <= p.burst || p.each == 0 {
		return
	}
	s.state.set(statePaced)
	l.s.count.paced.Add(1)
	if at := max((s.due-p.burst)/1000, l.now+grain); len(l.paced) == 0 || at < l.pacedT {
		l.pacedT = at
	}
	l.paced = append(l.paced, s)
}

// unpace puts those into the next batch that are due.
func (l *loop) unpace() {
	if len(l.paced) == 0 || l.now < l.pacedT {
		return
	}
	burst := l.s.pace.burst
	kept := l.paced[:0]
	first := int64(0)
	for _, s := range l.paced {
		at := (s.due - burst) / 1000
		switch {
		case !s.state.has(statePaced): // gone
		case at > l.now:
			kept = append(kept, s)
			if first == 0 || at < first {
				first = at
			}
		default:
			s.state.clear(statePaced)
			l.queue(s)
		}
	}
	clear(l.paced[len(kept):])
	l.paced, l.pacedT = kept, max(first, l.now+grain)
}
