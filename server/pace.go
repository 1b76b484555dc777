package server

// pace is how fast a connection is read: a leaky bucket of one number, when
// the last of what it has brought would have been due, in microseconds on the
// server's clock.
type pace struct {
	each  int64 // microseconds a record; 0: no limit
	burst int64 // how far ahead a connection may be
}

const (
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
	return pace{each: 1e6 / int64(frames), burst: storm * 1e6}
}

// spend counts what a connection brought. When that is more than its share it
// is not read until it is due again: its bytes wait in the kernel, none is
// dropped.
func (l *loop) spend(s *Session, bytes int) {
	p := &l.s.pace
	now := l.now * 1000
	s.due = max(s.due, now) + int64(s.batch.records+bytes/unit)*p.each
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
