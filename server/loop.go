package server

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"gt06/protocol"
)

const (
	// chunk is how much one connection may bring into a batch: more than the
	// longest frame, so that no frame is ever too long to be seen whole.
	chunk = 72 << 10
	// arena is how much input a batch holds. Only what is used is resident.
	arena = 8 * chunk
	// stall is how long devices wait for durability before they are hung up:
	// at 5 s without an answer they would drop the link themselves, and after
	// three of those they reboot (PROTOCOL.md section 3).
	stall = 4 * time.Second
	// retry is how often a stopped loop looks whether it can go on.
	retry = 250 * time.Millisecond
	// period is how often deadlines are looked at.
	period = time.Second
	// impatience is how long half a frame may wait before a whole frame inside
	// it is believed instead: the header was junk.
	impatience = 2 * time.Second

	slotWake   = -1
	slotListen = -2
)

// loop is one core's epoll set and the batch of DESIGN.md section 2. All of it
// belongs to the goroutine in run, but inbox (mu) and the atomics.
type loop struct {
	s      *Server
	app    Appender
	ep     int
	wakeFD int

	slots  []*Session // by epoll slot
	free   []int32
	ready  []*Session            // of the batch being collected
	greedy []*Session            // of order
	again  []*Session            // must be looked at in the next batch
	owing  map[*Session]struct{} // need older records: answers the kernel did not take, held input
	down   map[*Session][]*downlink
	photos map[*Session]protocol.Photo // announced
	work   work

	listener *Listener // nil but in the first loop
	deaf     bool      // the listener is out of the set until the next tick
	now      int64     // milliseconds, of this round
	nextTick int64
	stalled  int64 // since when nothing can be made durable; 0: all is well
	retryAt  int64

	mu    sync.Mutex
	inbox []*Session
	asked []*downlink
	quit  bool

	paced  []*Session // brought more than their share
	pacedT int64      // when the first of them is read again

	review   atomic.Bool // look at every device again
	sessions atomic.Int64
	turned   atomic.Int64  // milliseconds: when it last looked for events
	inFlight atomic.Uint64 // log position of the oldest thing not settled; 0: none
}

func newLoop(s *Server, app Appender) (*loop, error) {
	l := &loop{s: s, app: app, ep: -1, wakeFD: -1, owing: map[*Session]struct{}{}, down: map[*Session][]*downlink{}, photos: map[*Session]protocol.Photo{}}
	var err error
	if l.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if l.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		l.close()
		return nil, err
	}
	if err := l.watch(l.wakeFD, unix.EPOLL_CTL_ADD, unix.EPOLLIN, slotWake, 0); err != nil {
		l.close()
		return nil, err
	}
	l.work.input = make([]byte, arena)
	return l, nil
}

func (l *loop) watch(fd, op int, events uint32, slot, check int32) error {
	return unix.EpollCtl(l.ep, op, fd, &unix.EpollEvent{Events: events, Fd: slot, Pad: check})
}

// close frees the descriptors of a loop that does not run.
func (l *loop) close() {
	for _, fd := range []int{l.ep, l.wakeFD} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	l.ep, l.wakeFD = -1, -1
}

// post hands a new connection to the loop, from any goroutine.
func (l *loop) post(s *Session) {
	l.mu.Lock()
	l.inbox = append(l.inbox, s)
	l.mu.Unlock()
	l.wake()
}

// stop asks run to end behind its batch.
func (l *loop) stop() {
	l.mu.Lock()
	l.quit = true
	l.mu.Unlock()
	l.wake()
}

func (l *loop) wake() {
	_, _ = unix.Write(l.wakeFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (l *loop) run() {
	events := make([]unix.EpollEvent, 512)
	for {
		n, err := unix.EpollWait(l.ep, events, l.patience())
		if err != nil && !errors.Is(err, unix.EINTR) {
			l.s.log.Error("wait for events", zap.Error(err))
			l.s.breakdown(err)
			return
		}
		l.now = l.s.clock()
		l.turned.Store(l.now)
		if l.collect(events[:max(n, 0)]) {
			return
		}
		if l.stalled == 0 || l.now >= l.retryAt {
			l.batch()
		} else {
			l.postpone()
		}
		if l.now >= l.nextTick {
			l.tick()
		}
		if l.review.Swap(false) {
			l.reviewAll()
		}
	}
}

// patience returns how long to wait for events, in milliseconds.
func (l *loop) patience() int {
	until := l.nextTick
	if l.stalled != 0 {
		until = min(until, l.retryAt)
	} else if len(l.again) > 0 {
		return 0
	}
	if len(l.paced) > 0 {
		until = min(until, l.pacedT)
	}
	return int(max(0, until-l.s.clock()))
}

// collect turns events into the list of sessions the next batch looks at. It
// reports whether the loop shall end.
func (l *loop) collect(events []unix.EpollEvent) (quit bool) {
	for _, s := range l.again {
		if s.state.take(stateAgain) {
			l.queue(s)
		}
	}
	l.again = l.again[:0]
	l.unpace()
	for i := range events {
		e := &events[i]
		switch e.Fd {
		case slotListen:
			l.accept()
		case slotWake:
			var b [8]byte
			_, _ = unix.Read(l.wakeFD, b[:])
		default:
			// A slot may have been given away since the kernel queued the event.
			s := l.slots[e.Fd]
			if s == nil || int32(s.id) != e.Pad {
				continue
			}
			if e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
				s.state.set(stateHangUp)
			}
			if e.Events&unix.EPOLLPRI != 0 {
				s.state.set(stateUrgent)
			}
			l.queue(s)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.inbox {
		l.add(s)
	}
	l.inbox = l.inbox[:0]
	for _, d := range l.asked {
		l.deliver(d)
	}
	l.asked = l.asked[:0]
	return l.quit
}

func (l *loop) queue(s *Session) {
	if !s.state.has(stateQueued) {
		s.state.set(stateQueued)
		l.ready = append(l.ready, s)
	}
}

// leave takes a session out of the batch that is being collected or done, and
// returns what it did to it.
func (l *loop) leave(s *Session) *batchState {
	b := s.batch
	s.batch = nil
	s.state.clear(stateQueued)
	return b
}

// later looks at the session again in the next batch: edge-triggered epoll
// will not say again what it has said.
func (l *loop) later(s *Session) {
	if !s.state.has(stateAgain) {
		s.state.set(stateAgain)
		l.again = append(l.again, s)
	}
}

// batch is the whole data path, in the only allowed order. Each step may be
// repeated after a kill, none reordered (DESIGN.md section 2).
func (l *loop) batch() {
	if err := l.app.Room(); err != nil {
		l.halt(err)
		return
	}
	if len(l.ready) == 0 {
		l.resumed()
		return
	}
	w := &l.work
	start := l.app.End()
	l.inFlight.Store(start)

	l.intake() // peek, frame, decode
	l.s.fail("framed")
	l.declare() // who logged in, to the keeper
	l.s.fail("declared")

	if len(w.records) > 0 {
		end, err := l.app.Append(w.link())
		if err != nil {
			l.undo()
			l.halt(err)
			return
		}
		l.s.fail("appended")

		l.release()
		l.s.fail("released")

		if err := l.app.Sync(end, stall); err != nil {
			l.unanswered()
			l.halt(err)
			return
		}
		l.s.fail("synced")

		l.answer(start)
		l.s.fail("answered")
	}
	l.resumed()
	l.finish()
}

// intake peeks every ready session and cuts, decodes and answers its frames in
// memory. Sessions there is no room for wait for the next batch; there is always
// some for those who come behind others, for new connections are among them.
func (l *loop) intake() {
	w := &l.work
	w.reset(l.s.cfg.Now())
	behind := l.order()
	records, sessions := full, len(w.states)-rest
	in := l.ready[:0]
	for i, s := range l.ready {
		if i == behind {
			records, sessions = len(w.records)+rest, len(w.states)
		}
		if len(w.input)-w.used < chunk || len(w.records) >= records || len(in) >= sessions {
			l.leave(s)
			l.later(s)
			continue
		}
		s.batch = &w.states[len(in)]
		*s.batch = batchState{device: s.device, first: len(w.records)}
		in = append(in, s)
		if s.state.has(stateUnplaced) && !l.place(s) || len(s.unsent()) > 0 && !l.flush(s) {
			continue
		}
		if len(l.down) > 0 {
			l.command(s)
		}
		if !s.state.has(statePaced) {
			l.read(s)
		}
	}
	clear(l.ready[len(in):])
	l.ready = in
}

// read peeks one connection and adds its frames to the batch.
func (l *loop) read(s *Session) {
	w := &l.work
	held := copy(w.input[w.used:], s.held())
	most := min(held+look, chunk)
	switch {
	case s.state.take(stateLong):
		most = chunk
	case !s.loggedIn():
		most = firstLook
	}
	buf := w.input[w.used+held : w.used+most]
	n, err := peek(s.fd, buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
		if held == 0 || !s.state.has(stateHalf) || l.patient(s) {
			return
		}
	case err != nil:
		s.batch.close = CloseReset
		return
	case n == 0:
		s.batch.close = CloseEOF
		return
	default:
		s.heard.Store(w.at.Unix())
	}
	l.s.fail("peeked")
	if s.state.has(stateProxy) {
		l.proxied(s, buf[:n])
		return
	}
	b := w.input[w.used : w.used+held+n]
	parsed := l.cut(s, b)
	w.used += len(b)
	s.batch.input = max(0, parsed-held)
	s.batch.held = b[min(parsed, held):held]

	switch {
	case n == len(buf) && s.batch.input > 0: // and not half of a frame
		l.later(s)
		s.state.clear(stateHalf)
		return
	case n == len(buf) && most < chunk:
		l.later(s)
		s.state.set(stateLong)
	case s.state.has(stateUrgent) && l.beyondMark(s, n, s.batch.input):
		return
	case s.state.has(stateHangUp) && s.batch.close == closeNone && !s.state.has(stateAgain):
		s.batch.close = CloseEOF // half a frame stays behind; a peek would show it for ever
	}
	if parsed == len(b) {
		s.state.clear(stateHalf)
		return
	}
	if !s.state.has(stateHalf) || parsed > 0 {
		s.since = l.now
		s.state.set(stateHalf)
	}
	if !s.loggedIn() && len(b)-parsed > maxBeforeLogin && s.batch.close == closeNone {
		s.batch.close = CloseNoLogin
	}
	if !s.state.has(stateAgain) && s.batch.close == closeNone && n > s.batch.input && windowShut(s.fd) {
		l.hold(s, b[parsed:], len(b), n)
	}
}

// beyondMark deals with urgent data: the kernel ends each peek at its mark, so
// what lies behind needs another look, and half a frame before the mark can
// never become whole.
func (l *loop) beyondMark(s *Session, peeked, parsed int) (done bool) {
	have := queued(s.fd)
	if have <= peeked {
		return false
	}
	l.later(s)
	if parsed > 0 {
		return true
	}
	n, _ := peek(s.fd, l.work.input[l.work.used:l.work.used+chunk])
	if n < min(have, chunk) {
		s.batch.close = CloseUrgent
	}
	return true
}

// release takes the parsed input from the kernel: its records are written.
func (l *loop) release() {
	for _, s := range l.ready {
		if s.batch.records == 0 {
			continue
		}
		s.in += uint64(s.batch.input)
		s.out += uint64(s.batch.answer)
		l.keep(s)
		if s.batch.input == 0 {
			continue
		}
		l.spend(s)
		if err := release(s.fd, l.work.input, s.batch.input); err != nil && s.batch.close == closeNone {
			s.batch.close = CloseReset
		}
	}
}

// answer sends what the records hold, and only now.
func (l *loop) answer(start uint64) {
	w := &l.work
	for _, s := range l.ready {
		if s.batch.answer > 0 {
			l.send(s, w.answersOf(s), start)
		}
	}
	l.commanded()
	w.publish(&l.s.count)
	l.s.delay.Observe(l.s.cfg.Now().Sub(w.at).Seconds())
}

// send gives bytes to the kernel; what it does not take waits for EPOLLOUT.
func (l *loop) send(s *Session, b []byte, pos uint64) {
	n, err := send(s.fd, b)
	if err != nil {
		if s.batch.close == closeNone || s.batch.close == CloseEOF {
			s.batch.close = CloseReset
		}
		return
	}
	if n == len(b) {
		return
	}
	d := l.owes(s, pos)
	d.unsent = append(d.unsent, b[n:]...)
	s.since = l.now
	l.interest(s, true)
}

// flush sends what waits and reports whether nothing waits any more.
func (l *loop) flush(s *Session) bool {
	d := s.owing
	n, err := send(s.fd, d.unsent)
	if err != nil {
		s.batch.close = CloseReset
		return false
	}
	if n > 0 {
		s.since = l.now
	}
	d.unsent = append(d.unsent[:0], d.unsent[n:]...)
	if len(d.unsent) > 0 {
		return false
	}
	d.unsent = nil
	s.state.clear(stateHalf) // its clock starts again
	l.interest(s, false)
	l.paid(s)
	return true
}

func (l *loop) interest(s *Session, writing bool) {
	events := uint32(sessionEvents)
	if writing {
		events |= unix.EPOLLOUT
	}
	if err := l.watch(s.fd, unix.EPOLL_CTL_MOD, events, s.slot, int32(s.id)); err != nil {
		l.s.log.Error("change events of a connection", zap.Error(err))
		s.batch.close = CloseInternal
	}
}

// finish ends the batch: registers who proved itself, closes who is to close.
func (l *loop) finish() {
	for _, s := range l.ready {
		b := l.leave(s)
		switch {
		case b.frames == 0:
		case !s.state.has(stateVerified):
			s.state.set(stateVerified)
			l.register(s)
			l.s.admission.proved(s.peer.Addr(), l.now)
			l.s.cfg.Keeper.Update(s.id, s.blob())
		case !s.current.Load() && !s.state.has(stateTwin):
			l.twin(s)
		}
		if why := b.close; why != closeNone && (len(s.unsent()) == 0 || why != CloseEOF) {
			l.drop(s, why)
		}
	}
	clear(l.ready)
	l.ready = l.ready[:0]
	l.settle()
}

// settle publishes where the oldest record begins that is still needed.
func (l *loop) settle() { l.inFlight.Store(l.oldest()) }

func (l *loop) register(s *Session) {
	if old := l.s.registry.enter(s); old != nil && l.work.at.Unix()-old.heard.Load() < int64(replacedSilence/time.Second) {
		l.s.count.twins.Add(1)
	}
}

// twin notes a device that speaks on a connection although a newer one took
// its place.
func (l *loop) twin(s *Session) {
	if now := l.s.registry.current(s.device.IMEI); now != nil && now != s {
		s.state.set(stateTwin)
		l.s.trouble(&l.s.devices, s.device.IMEI, TroubleTwin, s, now.peer.String())
	}
}

// undo forgets a batch of which nothing was written: the input is still in the
// kernel and will be read again.
func (l *loop) undo() {
	for _, s := range l.ready {
		s.device = s.batch.device
		s.state.clear(stateHalf)
	}
	l.postpone()
	l.settle()
}

// unanswered closes the connections of a batch that is written but not known
// to be durable: an answer now could be false, and a device whose link breaks
// sends again.
func (l *loop) unanswered() {
	for _, s := range l.ready {
		if l.leave(s).records > 0 {
			l.drop(s, CloseRoom)
		} else {
			l.later(s)
		}
	}
	l.ready = l.ready[:0]
	l.settle()
}

// halt stops reading because nothing can be made durable.
func (l *loop) halt(err error) {
	if errors.Is(err, ErrBroken) {
		l.s.breakdown(err)
	}
	l.postpone()
	l.retryAt = l.now + retry.Milliseconds()
	if l.stalled != 0 {
		return
	}
	l.stalled = l.now
	if l.s.stopped.CompareAndSwap(nil, &stop{why: err.Error(), at: l.now}) {
		l.s.log.Error("nothing can be made durable: reading stops, devices are hung up in 4 s", zap.Error(err))
	}
}

// postpone leaves all that is ready to a later batch.
func (l *loop) postpone() {
	for _, s := range l.ready {
		l.leave(s)
		l.later(s)
	}
	l.ready = l.ready[:0]
}

// resumed ends a halt: a batch went through.
func (l *loop) resumed() {
	if l.stalled == 0 {
		return
	}
	l.stalled = 0
	if l.s.stopped.Swap(nil) != nil {
		l.s.log.Info("durable again: reading goes on")
	}
}
