package server

import (
	"bytes"
	"fmt"
	"time"

	"gt06/protocol"
)

// maxBeforeLogin is how much input without a frame a connection may bring
// before a login: it speaks another protocol (RELIABILITY.md section 5, row
// 57). A login has 18 to 22 bytes.
const maxBeforeLogin = 1 << 10

// maxEarly is how many frames a connection may bring before its login. A device
// brings none.
const maxEarly = 16

// work is the memory of one batch, reused by the next.
type work struct {
	at      time.Time // when the batch began
	now     int64     // at in Unix microseconds
	input   []byte    // peeked bytes; records point into it until they are appended
	used    int
	answers []byte
	records []Record
	ends    []int            // of each record's answer in answers: it may move while it grows
	states  [1024]batchState // of the sessions in it
	links   []*Record
	framer  protocol.Framer
	msg     protocol.Message
	tally   tally
}

// tally counts a batch in plain numbers. Of the types only those in used are
// not zero.
type tally struct {
	in, out              [256]uint32
	used                 []byte
	rejected             [numRejections]uint32
	input, answers, junk uint64
}

// frame counts frames of a type.
func (t *tally) frame(typ byte, in, out uint32) {
	if t.in[typ] == 0 && t.out[typ] == 0 {
		t.used = append(t.used, typ)
	}
	t.in[typ] += in
	t.out[typ] += out
}

func (t *tally) reset() {
	for _, typ := range t.used {
		t.in[typ], t.out[typ] = 0, 0
	}
	t.used = t.used[:0]
	t.rejected = [numRejections]uint32{}
	t.input, t.answers, t.junk = 0, 0, 0
}

func (w *work) reset(at time.Time) {
	w.at, w.now = at, at.UnixMicro()
	w.used = 0
	w.answers = w.answers[:0]
	clear(w.records) // drop the models: they are strings of devices that may be gone
	w.records = w.records[:0]
	w.ends = w.ends[:0]
	w.tally.reset()
}

// link makes the records whole and returns them as the Appender wants them.
func (w *work) link() []*Record {
	w.links = w.links[:0]
	begin := 0
	for i := range w.records {
		r := &w.records[i]
		r.Answer = w.answers[begin:w.ends[i]]
		begin = w.ends[i]
		w.links = append(w.links, r)
	}
	return w.links
}

// answersOf returns the answers of one session in this batch: they lie side by
// side.
func (w *work) answersOf(s *Session) []byte {
	begin := 0
	if s.batch.first > 0 {
		begin = w.ends[s.batch.first-1]
	}
	return w.answers[begin : begin+s.batch.answer]
}

func (w *work) publish(c *counters) {
	t := &w.tally
	for _, typ := range t.used {
		c.in[typ].Add(uint64(t.in[typ]))
		c.out[typ].Add(uint64(t.out[typ]))
	}
	c.input.Add(t.input)
	c.answers.Add(t.answers)
	c.junk.Add(t.junk)
	for r, n := range t.rejected {
		if n > 0 {
			c.rejected[r].Add(uint64(n))
		}
	}
}

// cut takes frames and junk from b as far as they are whole and returns how
// many bytes that is. Each of them becomes a record: what is released is in
// the log.
func (l *loop) cut(s *Session, b []byte) (parsed int) {
	w := &l.work
	patient := l.patient(s)
	for parsed < len(b) && s.batch.close == closeNone {
		c := w.framer.Next(b[parsed:], patient)
		if c.Skip > 0 {
			if s.in == 0 && !s.state.has(stateFramed) && bytes.HasPrefix(b, []byte(proxySignature)) {
				s.batch.close = CloseProxy // of somebody who is no balancer of ours
				break
			}
			w.tally.junk += uint64(c.Skip)
			junk := b[parsed : parsed+c.Skip]
			l.record(s, junk, parsed+c.Skip, Junk, 0)
			parsed += c.Skip
			if l.watched() {
				protocol.Unknown(&w.msg, junk, "bytes of no frame")
				l.observe(s, nil)
			}
		}
		if c.Len == 0 {
			break
		}
		if !l.frame(s, b[parsed:parsed+c.Len], parsed+c.Len) {
			break
		}
		parsed += c.Len
	}
	if !s.state.has(stateFramed) && s.in+uint64(parsed) > maxBeforeLogin && s.batch.close == closeNone {
		s.batch.close = CloseNoLogin
	}
	return parsed
}

// patient says whether half a frame may still wait for its rest.
func (l *loop) patient(s *Session) bool {
	return !s.state.has(stateHalf) || l.now-s.since < impatience.Milliseconds()
}

// frame decodes and answers one frame. end is where it ends in the batch's
// input of this session. It reports false when the frame is a login that is
// refused: that stays in the kernel, because a refusal must cost less than what
// it refuses.
func (l *loop) frame(s *Session, frame []byte, end int) bool {
	w := &l.work
	m := &w.msg
	s.state.set(stateFramed)
	panicked := !l.decode(m, frame, s.device)
	switch {
	case m.Kind == protocol.KindLogin:
		if why := l.login(s, m); why != closeNone {
			s.batch.close = why
			if why != CloseIMEI { // which names nobody: only the frame can tell
				l.s.trouble(&l.s.refused, m.IMEI, TroubleKind(why.String()), s, "")
				if l.watched() {
					l.s.cfg.Observe(&Record{Conn: s.id, ReceivedAt: w.now, Input: frame}, m, s.peer)
				}
				return false
			}
		}
	case s.loggedIn() && m.CRCOK:
		s.batch.frames++
	case !s.loggedIn():
		if s.early++; s.early > maxEarly && s.batch.close == closeNone {
			s.batch.close = CloseNoLogin
		}
	}
	if m.Kind == protocol.KindPhoto {
		l.photo(s, &m.Photo)
	}
	before := len(w.answers)
	if s.loggedIn() && s.batch.close != CloseIMEI {
		w.answers = protocol.AppendAnswerBy(l.policy(m.Type, s.device.Model), w.answers, m, frame, w.at)
	}
	answered := uint32(0)
	if len(w.answers) > before {
		answered = 1
	}
	w.tally.frame(m.Type, 1, answered)
	switch {
	case panicked:
		w.tally.rejected[rejectedPanic]++
	case !s.loggedIn():
		w.tally.rejected[rejectedEarly]++
	case m.Has&protocol.HasCRC != 0 && !m.CRCOK:
		w.tally.rejected[rejectedCRC]++
	case m.Kind == protocol.KindUnknown:
		w.tally.rejected[rejectedUnknown]++
	case m.Error != "":
		w.tally.rejected[rejectedDamaged]++
	}
	l.record(s, frame, end, 0, len(w.answers)-before)
	if l.watched() {
		l.observe(s, w.answers[before:])
	}
	return true
}

func (l *loop) watched() bool { return l.s.cfg.Observe != nil && l.s.watching.Load() > 0 }

// observe shows the last record of the batch.
func (l *loop) observe(s *Session, answer []byte) {
	seen := l.work.records[len(l.work.records)-1]
	seen.Answer = answer
	l.s.cfg.Observe(&seen, &l.work.msg, s.peer)
}

func (l *loop) policy(typ byte, model string) protocol.Policy {
	if l.s.cfg.Answers == nil {
		return protocol.AnswerTraccar
	}
	return l.s.cfg.Answers(typ, model)
}

// photo remembers how large an announced photo is, for the requests of its
// parts.
func (l *loop) photo(s *Session, p *protocol.Photo) {
	if p.Len == 0 {
		l.photos[s] = *p
	} else if known := l.photos[s]; known.ID == p.ID && p.Total == 0 {
		p.Total = known.Total
	}
}

// decode never lets one frame take the others down: a panic is counted, and
// the frame kept and answered as an unknown one.
func (l *loop) decode(m *protocol.Message, frame []byte, session protocol.Session) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			ok = false
			protocol.Unknown(m, frame, fmt.Sprintf("decoder: %v", p))
		}
	}()
	l.s.cfg.Decoder.Decode(m, frame, session)
	return true
}

// login makes the connection that of a device, or returns why not. What the
// operator has said of it outranks what the device says.
func (l *loop) login(s *Session, m *protocol.Message) CloseReason {
	if !m.IMEI.Valid() {
		if s.loggedIn() {
			return closeNone // damaged: it is the device that it was
		}
		return CloseIMEI
	}
	if !m.IMEI.LuhnOK() {
		l.s.count.badDigit.Add(1)
		if l.s.cfg.CheckDigit {
			return CloseIMEI
		}
	}
	if s.loggedIn() && s.device.IMEI != m.IMEI {
		return CloseIMEIChanged
	}
	settings, known := l.s.cfg.Directory.Device(m.IMEI)
	if settings.Refuse != closeNone {
		return settings.Refuse
	}
	if !known {
		fresh, room := l.s.registry.admit(m.IMEI, l.s.cfg.Directory.Len())
		switch {
		case !room:
			return CloseUnknownMax
		case fresh && !l.s.admission.stranger(s.peer.Addr(), l.now):
			l.s.registry.forget(m.IMEI)
			return CloseAddressMax
		}
	}
	if !s.loggedIn() {
		if l.s.admission.flaps(uint64(m.IMEI), l.now) {
			l.s.count.flaps.Add(1)
			s.state.set(stateFlapping)
			l.s.trouble(&l.s.devices, m.IMEI, TroubleFlapping, s, "")
		}
		l.arrives(s, m.IMEI)
	}
	offset := m.UTCOffset
	if settings.UTCOffset != nil {
		offset = *settings.UTCOffset
	}
	s.device = protocol.Session{IMEI: m.IMEI, UTCOffset: offset, Model: settings.Model}
	s.batch.login = true
	return closeNone
}

// reviewAll asks the Directory again about every device of the loop.
func (l *loop) reviewAll() {
	for _, s := range l.slots {
		if s == nil || !s.loggedIn() || s.state.has(stateQueued) {
			continue
		}
		settings, _ := l.s.cfg.Directory.Device(s.device.IMEI)
		if settings.Refuse != closeNone {
			l.s.trouble(&l.s.devices, s.device.IMEI, TroubleKind(settings.Refuse.String()), s, "")
			l.drop(s, settings.Refuse)
			continue
		}
		now := s.device
		now.Model = settings.Model
		if settings.UTCOffset != nil { // else the device's own, of its next login
			now.UTCOffset = *settings.UTCOffset
		}
		if now != s.device {
			s.device = now
			l.s.cfg.Keeper.Update(s.id, s.blob())
		}
	}
}

// record adds one to the batch; its answer is the last n bytes of answers.
func (l *loop) record(s *Session, input []byte, end int, flags Flags, n int) {
	w := &l.work
	s.batch.answer += n
	s.batch.records++
	w.records = append(w.records, Record{
		Conn: s.id, InputEnd: s.in - uint64(len(s.held())) + uint64(end), AnswerEnd: s.out + uint64(s.batch.answer),
		ReceivedAt: w.now, Flags: flags, Device: s.device.IMEI, UTCOffset: s.device.UTCOffset, Model: s.device.Model,
		Input: input,
	})
	w.ends = append(w.ends, len(w.answers))
	w.tally.input += uint64(len(input))
	w.tally.answers += uint64(n)
}
