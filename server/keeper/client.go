package keeper

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// patience is how long a message may wait for room in the keeper's queue
	// before the keeper counts as lost.
	patience = 200 * time.Millisecond
	// silence is how long the keeper may leave a question unanswered.
	silence = 2 * time.Second
	// beat is how often the link is looked at.
	beat = 250 * time.Millisecond
	// waiting is how long no device is accepted when the keeper is lost; then
	// the server serves without it.
	waiting = 2 * time.Second
	// portion is how many descriptors are registered again at a time, so that
	// the loops never wait long.
	portion = 64
)

// Event is a descriptor that is held, or a change of it.
type Event struct {
	Kind byte // Held, Updated or Dropped
	ID   uint64
	FD   int // of Held: the receiver's to close
	Blob []byte
}

// The kinds of events.
const (
	Held    = msgRegister
	Updated = msgUpdate
	Dropped = msgDrop
)

// Link is a server's conversation with its keeper. The loops tell it of each
// connection; when the keeper dies, hangs or is replaced it registers
// everything again. It never blocks a caller for longer than patience, and then
// once.
type Link struct {
	path string
	log  func(format string, args ...any)

	mu      sync.Mutex
	w       *wire // nil: lost
	table   map[uint64]entry
	mark    uint64
	command []byte
	serving bool
	asked   time.Time // when an unanswered question was put; zero: none

	pid  atomic.Int64
	held atomic.Int64
	lost atomic.Int64 // Unix nanoseconds since when; 0: it is there
	stop chan struct{}
	once sync.Once
	done sync.WaitGroup
}

// entry is what the keeper is to hold of one connection.
type entry struct {
	fd   int
	blob string
}

// New makes a link to the keeper at path that is not connected yet.
func New(path string, log func(format string, args ...any)) *Link {
	l := &Link{path: path, log: log, table: map[uint64]entry{}, stop: make(chan struct{})}
	l.lost.Store(1) // since long ago: nobody waits for it
	return l
}

// Connect dials the keeper.
func (l *Link) Connect() error {
	fd, pid, err := connect(l.path)
	if err != nil {
		return err
	}
	l.w = newWire(fd)
	l.pid.Store(int64(pid))
	l.lost.Store(0)
	return nil
}

// Fetch asks for all that is held and calls each with it. From then on the
// keeper sends changes: see Follow. It returns the settled mark.
func (l *Link) Fetch(each func(Event)) (mark uint64, err error) {
	if err := sendWithin(l.w.fd, silence, message(msgFetch, 0)); err != nil {
		return 0, fmt.Errorf("ask the keeper: %w", err)
	}
	return l.until(msgEnd, each)
}

// Sync returns when everything that anybody told the keeper before is known
// here, and the settled mark.
func (l *Link) Sync(each func(Event)) (mark uint64, err error) {
	if err := sendWithin(l.w.fd, silence, message(msgSync, 0)); err != nil {
		return 0, fmt.Errorf("ask the keeper: %w", err)
	}
	return l.until(msgSynced, each)
}

// until takes messages up to one of a type, and returns the mark it carries.
func (l *Link) until(typ byte, each func(Event)) (mark uint64, err error) {
	for {
		if err := l.Wait(silence); err != nil {
			return 0, err
		}
		p, err := l.w.receive()
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if p.typ == typ && len(p.payload) >= 8 {
			return le.Uint64(p.payload), nil
		}
		if err := l.apply(&p, each); err != nil {
			return 0, err
		}
	}
}

// FD returns the descriptor to poll while following changes.
func (l *Link) FD() int { return l.w.fd }

// Follow takes the changes that are there.
func (l *Link) Follow(each func(Event)) error {
	for {
		p, err := l.w.receive()
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.apply(&p, each); err != nil {
			return err
		}
	}
}

// Wait blocks until there is something to read.
func (l *Link) Wait(within time.Duration) error {
	for end := time.Now().Add(within); ; {
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("the keeper does not answer within %v", within)
		}
		poll := []unix.PollFd{{Fd: int32(l.w.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			return nil
		}
	}
}

func (l *Link) apply(p *packet, each func(Event)) error {
	switch p.typ {
	case msgBatch:
		rest := p.payload
		for i, fd := range p.fds {
			if len(rest) < 10 || len(rest) < 10+int(le.Uint16(rest[8:])) {
				p.fds = p.fds[i:]
				p.close()
				return errVersion
			}
			size := int(le.Uint16(rest[8:]))
			l.keep(each, Event{Kind: Held, ID: le.Uint64(rest), FD: fd, Blob: slices.Clone(rest[10 : 10+size])})
			rest = rest[10+size:]
		}
		return sendWithin(l.w.fd, silence, message(msgAck, 0))
	case msgRegister:
		if len(p.fds) != 1 {
			p.close()
			return errTruncated
		}
		l.keep(each, Event{Kind: Held, ID: p.id, FD: p.fds[0], Blob: slices.Clone(p.payload)})
	case msgUpdate:
		l.keep(each, Event{Kind: Updated, ID: p.id, Blob: slices.Clone(p.payload)})
	case msgDrop:
		l.keep(each, Event{Kind: Dropped, ID: p.id})
	default:
		p.close()
	}
	return nil
}

// keep notes an event in the table and passes it on.
func (l *Link) keep(each func(Event), e Event) {
	l.mu.Lock()
	switch e.Kind {
	case Held:
		l.table[e.ID] = entry{e.FD, string(e.Blob)}
	case Updated:
		if have, ok := l.table[e.ID]; ok {
			l.table[e.ID] = entry{have.fd, string(e.Blob)}
		}
	case Dropped:
		delete(l.table, e.ID)
	}
	l.mu.Unlock()
	each(e)
}

// Serve says that this server serves from now on, and keeps the link alive
// until Close. mark is the settled mark.
func (l *Link) Serve(mark uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark, l.serving = mark, true
	l.held.Store(int64(len(l.table)))
	l.tell(message(msgMark, mark))
	l.tell(message(msgServing, 0))
	l.done.Go(l.tend)
	if l.w == nil {
		return errors.New("no keeper answers")
	}
	return nil
}

// Command says how this server is started again. It is told apart from Serve,
// because a program that is on probation has not proved that it can be.
func (l *Link) Command(args, env []string) {
	payload := append([]byte(strconv.Itoa(len(args))), 0)
	for _, s := range slices.Concat(args, env) {
		payload = append(append(payload, s...), 0)
	}
	if len(payload) > maxMessage-head {
		l.log("the environment is too large for the keeper: it cannot start the server again")
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.command = payload
	l.tell(append(message(msgCommand, 0), payload...))
}

// Register lets the keeper hold a connection or, with the id Listener, the
// device port. The descriptor must stay open until Drop.
func (l *Link) Register(id uint64, fd int, blob []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := entry{fd, string(blob)}
	l.table[id] = e
	l.held.Store(int64(len(l.table)))
	l.register(id, e)
}

func (l *Link) register(id uint64, e entry) {
	l.tell(append(message(msgRegister, id), e.blob...), e.fd)
}

// Update replaces what is kept with a connection.
func (l *Link) Update(id uint64, blob []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.table[id]
	if !ok {
		return
	}
	e.blob = string(blob)
	l.table[id] = e
	l.tell(append(message(msgUpdate, id), blob...))
}

// Drop lets a connection go. It comes before the close of the descriptor.
func (l *Link) Drop(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.table, id)
	l.held.Store(int64(len(l.table)))
	l.tell(message(msgDrop, id))
}

// Mark moves the settled mark.
func (l *Link) Mark(pos uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if pos <= l.mark {
		return // the last word of a server that ends may be overtaken
	}
	l.mark = pos
	l.tell(message(msgMark, pos))
}

// Leave says that this server ends on purpose; what is held waits for the next.
func (l *Link) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell(message(msgLeave, 0))
}

// Release closes everything that is held: the port is free. A keeper that was
// given up because it was slow is told, too.
func (l *Link) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell(message(msgRelease, 0))
	if l.w != nil {
		return
	}
	fd, _, err := connect(l.path)
	if err != nil {
		return // there is none
	}
	defer unix.Close(fd) //nolint:errcheck // it has been told
	if err := sendWithin(fd, patience, message(msgRelease, 0)); err != nil {
		l.log("release: %v", err)
	}
}

// tell sends one message; a keeper that does not take it is lost. mu is held.
func (l *Link) tell(b []byte, fds ...int) {
	if l.w == nil {
		return
	}
	if err := sendWithin(l.w.fd, patience, b, fds...); err != nil {
		l.lose(err)
	}
}

func (l *Link) lose(err error) {
	l.log("the keeper is lost: %v", err)
	_ = unix.Close(l.w.fd)
	l.w, l.asked = nil, time.Time{}
	l.lost.Store(time.Now().UnixNano())
}

// Ready says whether a device may be accepted: either the keeper takes it, or
// it has been away for so long that the server serves without it.
func (l *Link) Ready() bool {
	since := l.lost.Load()
	return since == 0 || time.Since(time.Unix(0, since)) > waiting
}

// State is the keeper as a server sees it.
type State struct {
	PID  int
	Held int
	Lost bool
}

// State returns it.
func (l *Link) State() State {
	return State{PID: int(l.pid.Load()), Held: int(l.held.Load()), Lost: l.lost.Load() != 0}
}

// tend is the goroutine that asks the keeper whether it lives, and looks for
// the next one when it does not.
func (l *Link) tend() {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		l.mu.Lock()
		if l.w != nil {
			l.ask()
		}
		gone := l.w == nil
		l.mu.Unlock()
		if gone {
			l.again()
		}
	}
}

// ask puts a question or looks for the answer to the last. mu is held.
func (l *Link) ask() {
	for {
		p, err := l.w.receive()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			l.lose(err)
			return
		}
		p.close()
		if p.typ == msgSynced {
			l.asked = time.Time{}
		}
	}
	switch {
	case l.asked.IsZero():
		l.asked = time.Now()
		l.tell(message(msgSync, 0))
	case time.Since(l.asked) > silence:
		l.lose(fmt.Errorf("no answer for %v", silence))
	}
}

// again registers everything with the keeper that is there now. Each portion
// is sent under the lock, so that no descriptor is closed while it is sent.
func (l *Link) again() {
	fd, pid, err := connect(l.path)
	if err != nil {
		return
	}
	begin := time.Now()
	l.mu.Lock()
	ids := slices.Collect(maps.Keys(l.table))
	l.mu.Unlock()
	fail := func(err error) {
		l.log("register again: %v", err)
		_ = unix.Close(fd)
	}
	if err := sendWithin(fd, patience, message(msgRenew, 0)); err != nil {
		fail(err)
		return
	}
	known := map[uint64]entry{}
	step := func(ids []uint64) error {
		for _, id := range ids {
			e, ok := l.table[id]
			if have, done := known[id]; !ok || done && have == e {
				continue
			}
			known[id] = e
			if err := sendWithin(fd, patience, append(message(msgRegister, id), e.blob...), e.fd); err != nil {
				return err
			}
		}
		return nil
	}
	for part := range slices.Chunk(ids, portion) {
		l.mu.Lock()
		err := step(part)
		l.mu.Unlock()
		if err != nil {
			fail(err)
			return
		}
	}
	// One that hangs takes messages, too: its answer is asked for.
	if err := answered(fd); err != nil {
		fail(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// What came and went meanwhile: both are few.
	if err := step(slices.Collect(maps.Keys(l.table))); err != nil {
		fail(err)
		return
	}
	l.w = newWire(fd)
	for id := range known {
		if _, ok := l.table[id]; !ok {
			l.tell(message(msgDrop, id))
		}
	}
	l.tell(message(msgMark, l.mark))
	if l.command != nil {
		l.tell(append(message(msgCommand, 0), l.command...))
	}
	l.tell(message(msgServing, 0))
	if l.w == nil {
		return
	}
	l.pid.Store(int64(pid))
	l.lost.Store(0)
	l.log("the keeper is back: %d descriptors registered in %v", len(l.table), time.Since(begin).Round(time.Millisecond))
}

// answered asks a keeper whether it has taken everything so far.
func answered(fd int) error {
	if err := sendWithin(fd, patience, message(msgSync, 0)); err != nil {
		return err
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for end := time.Now().Add(silence); time.Now().Before(end); {
		n, err := unix.Poll(poll, int(beat.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			p, err := newWire(fd).receive()
			p.close()
			return err
		}
	}
	return fmt.Errorf("no answer for %v", silence)
}

// Close ends the conversation. What is held stays held.
func (l *Link) Close() error {
	l.once.Do(func() { close(l.stop) })
	l.done.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w == nil {
		return nil
	}
	err := unix.Close(l.w.fd)
	l.w = nil
	return os.NewSyscallError("close", err)
}
