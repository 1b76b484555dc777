// Package server serves the devices: epoll loops, sessions, deadlines and the
// one batch in which input becomes durable and is answered (loop.go).
//
// One loop a core, no goroutine per connection. A loop owns its sessions; only
// the registry (one lock, never per frame), the counters and Session.heard are
// shared. Locks are never held together.
package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"gt06/protocol"
)

// ErrBroken marks an error of an Appender after which nothing can be made
// durable any more: Serve ends with it, so that a supervisor starts afresh.
var ErrBroken = errors.New("gt06/server: log is broken")

// Config is what a Server is made of.
type Config struct {
	Generation  uint64 // of this owner; the upper bits of its connection ids. Resume sets it again
	Loops       int    // 0: one a core
	Keeper      Keeper // nil: NoKeeper
	NewAppender func() Appender
	Directory   Directory
	Decoder     *protocol.Decoder
	Limits      Limits
	Proxies     []netip.Prefix // balancers: their connections begin with a PROXY header
	CheckDigit  bool           // refuse IMEIs whose check digit is wrong; many clones have such
	// Answers says whose habit answers follow, by type and the operator's model;
	// nil: Traccar's.
	Answers func(typ byte, model string) protocol.Policy
	// Observe sees each record of input and who sent it before it is durable,
	// while Watch asks for it. It must not keep its arguments.
	Observe    func(*Record, *protocol.Message, netip.AddrPort)
	Reopened   func()            // the listener's socket is another one
	Failpoint  func(name string) // tests: called between the steps of a batch; nil otherwise
	Now        func() time.Time
	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// Server owns the loops. Serve blocks; it ends with its context.
type Server struct {
	cfg      Config
	log      *zap.Logger
	registry *Registry
	loops    []*loop
	pace     pace

	admission *admission
	devices   troubles // of devices that came in
	refused   troubles // of those that did not
	count     counters
	delay     prometheus.Histogram
	start     time.Time
	nextConn  atomic.Uint64
	watching  atomic.Int32
	stopped   atomic.Pointer[stop] // why nothing is read; nil while all is well
	broken    chan error
	adopted   map[uint64]*Session // by id, until Resume
}

// stop is a time in which nothing can be made durable.
type stop struct {
	why string
	at  int64 // milliseconds on the server's clock
}

// New prepares a server; nothing is accepted before Serve.
func New(cfg Config) (*Server, error) {
	cfg.Limits.defaults()
	cfg.Loops = orDefault(cfg.Loops, runtime.GOMAXPROCS(0))
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Keeper == nil {
		cfg.Keeper = NoKeeper{}
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, start: cfg.Now(), broken: make(chan error, 1),
		pace: newPace(cfg.Limits.Frames), admission: newAdmission(&cfg.Limits),
		registry: newRegistry(cfg.Limits.UnknownDevices), adopted: map[uint64]*Session{},
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "gt06_ack_delay_seconds",
			Help:    "Time from the first look at the input of a batch until its last answer was sent, observed once a batch.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
	}
	for _, c := range []prometheus.Collector{s.delay, newCollector(s)} {
		if err := cfg.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	for i := range cfg.Loops {
		l, err := newLoop(s, cfg.NewAppender())
		if err != nil {
			for _, made := range s.loops[:i] {
				made.close()
			}
			return nil, err
		}
		s.loops = append(s.loops, l)
	}
	return s, nil
}

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// Serve accepts and serves until the context ends or the log breaks. Each loop
// ends behind a whole batch: what was read is durable and answered. What
// devices have not taken is written down again. The connections stay open: a
// successor takes them over, or Close ends them, or the process.
func (s *Server) Serve(ctx context.Context, ln *Listener) error {
	if err := s.loops[0].listen(ln); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, l := range s.loops {
		wg.Go(l.run)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-s.broken:
	}
	for _, l := range s.loops {
		l.stop()
	}
	wg.Wait()
	for _, l := range s.loops {
		l.end()
	}
	return err
}

// end leaves the loop as a successor wants it. It does not run any more.
func (l *loop) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.inbox { // accepted, and never in the set
		l.add(s)
	}
	l.inbox = nil
	for _, d := range l.asked {
		d.done <- ErrEnding
	}
	for s := range l.down {
		l.abandon(s, ErrEnding)
	}
	l.carry(true)
}

// Close ends all connections, behind Serve.
func (s *Server) Close(why CloseReason) {
	for _, l := range s.loops {
		for _, c := range l.slots {
			if c != nil {
				l.drop(c, why)
			}
		}
		l.close()
	}
}

// Abandon closes the descriptors of this process, behind Serve, and leaves the
// connections to the process that serves them now. The epoll sets go first, in
// one call each; the rest in portions, because the cores are the successor's.
func (s *Server) Abandon(ctx context.Context) {
	const portion, pause = 200, 5 * time.Millisecond
	for _, l := range s.loops {
		l.close()
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	n := 0
	for _, l := range s.loops {
		for _, c := range l.slots {
			if c == nil {
				continue
			}
			_ = unix.Close(c.fd)
			if n++; n%portion == 0 {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		}
	}
}

// Alive says whether every loop turns: a watchdog is fed with it. A loop that
// waits for the disk is alive for as long as devices wait for it.
func (s *Server) Alive() bool {
	const slack = 2 * period
	for _, l := range s.loops {
		if s.clock()-l.turned.Load() > (stall + slack).Milliseconds() {
			return false
		}
	}
	return true
}

// Watch switches the observer on; the function returned switches it off.
func (s *Server) Watch() (off func()) {
	s.watching.Add(1)
	return sync.OnceFunc(func() { s.watching.Add(-1) })
}

// Review looks again at every device that is connected: the Directory says
// something else. What is refused now is hung up, settings of others hold from
// the next frame on.
func (s *Server) Review() {
	s.registry.review(s.cfg.Directory)
	for _, l := range s.loops {
		l.review.Store(true)
		l.wake()
	}
}

// Registry returns the current connections by device.
func (s *Server) Registry() *Registry { return s.registry }

// Connections returns how many device connections are open.
func (s *Server) Connections() int { return int(s.count.open.Load()) }

// Accepted returns how many connections were accepted so far.
func (s *Server) Accepted() uint64 { return s.count.accepted.Load() }

// Stopped returns why nothing is read now, or "".
func (s *Server) Stopped() string {
	if st := s.stopped.Load(); st != nil {
		return st.why
	}
	return ""
}

// Settled returns the position before which all input is released and every
// answer was taken by the kernel (HANDOVER.md section 2, "Settled mark"). The
// end is read first: what a loop begins after that lies behind it.
func (s *Server) Settled() uint64 {
	mark := s.loops[0].app.End()
	for _, l := range s.loops {
		if p := l.inFlight.Load(); p != 0 {
			mark = min(mark, p)
		}
	}
	return mark
}

// clock returns milliseconds since the server began; it never jumps.
func (s *Server) clock() int64 { return s.cfg.Now().Sub(s.start).Milliseconds() }

// breakdown ends Serve with the first error it is given.
func (s *Server) breakdown(err error) {
	select {
	case s.broken <- err:
	default:
	}
}

func (s *Server) fail(name string) {
	if s.cfg.Failpoint != nil {
		s.cfg.Failpoint(name)
	}
}

// leastLoaded returns the loop with the fewest connections.
func (s *Server) leastLoaded() *loop {
	best := s.loops[0]
	for _, l := range s.loops[1:] {
		if l.sessions.Load() < best.sessions.Load() {
			best = l
		}
	}
	return best
}
