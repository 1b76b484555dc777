package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"gt06/protocol/device"
)

// load is a fleet on one goroutine and one epoll set: light enough to share a
// machine with the server it drives. It checks nothing but the number of
// answers; package fleet keeps ledgers.
type load struct {
	to      unix.SockaddrInet4
	ep      int
	conns   []tracker
	events  []unix.EpollEvent
	up      int       // logged in
	waits   []float32 // ms from each frame to its answer, while measuring
	logins  []float32 // ms from each connect to the login's answer
	frames  int64     // answered, logins not counted
	keep    bool      // note waits
	closed  bool      // each answer is followed by the next frame
	ended   int       // connections the server ended
	refused int
	now     time.Time // of the events at hand
}

// tracker is one device.
type tracker struct {
	fd     int
	up     bool
	frame  int         // number of the next
	part   int         // bytes of an answer that has not come in whole
	asked  []time.Time // when each frame without an answer was due
	dialed time.Time
}

const answerSize = 10

func newLoad(addr netip.AddrPort, devices int) (*load, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &load{
		to: unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}, ep: ep,
		conns: make([]tracker, devices), events: make([]unix.EpollEvent, 512),
	}, nil
}

func (l *load) close() {
	for i := range l.conns {
		if l.conns[i].fd > 0 {
			_ = unix.Close(l.conns[i].fd)
		}
	}
	_ = unix.Close(l.ep)
}

// dial begins a connection. Sources are spread over addresses, because one has
// too few ports for a storm after a storm.
func (l *load) dial(i int) error {
	c := &l.conns[i]
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	*c = tracker{fd: fd, frame: c.frame, asked: c.asked[:0], dialed: time.Now()}
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, byte(1 + i/50%4), byte(1 + i%50)}}); err != nil {
		return err
	}
	if err := unix.Connect(fd, &l.to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd), Pad: int32(i)})
}

// hangUp ends a connection and dials again.
func (l *load) again(i int) error {
	c := &l.conns[i]
	if c.up {
		l.up--
	}
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(c.fd)
	return l.dial(i)
}

// connect lets all devices in, at most inFlight at a time, and returns how long
// that took.
func (l *load) connect(inFlight int) (time.Duration, error) {
	begin := time.Now()
	limit := begin.Add(2 * time.Minute)
	for next := 0; l.up < len(l.conns); {
		for next < len(l.conns) && next-l.up < inFlight {
			if err := l.dial(next); err != nil {
				return 0, err
			}
			next++
		}
		if err := l.turn(100); err != nil {
			return 0, err
		}
		if time.Now().After(limit) {
			return 0, fmt.Errorf("%d of %d devices got in within two minutes; %d refused, %d ended", l.up, len(l.conns), l.refused, l.ended)
		}
	}
	return time.Since(begin), nil
}

// turn waits for events, at most ms, and handles them.
func (l *load) turn(ms int) error {
	n, err := unix.EpollWait(l.ep, l.events, ms)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	l.now = time.Now()
	for i := range max(n, 0) {
		if err := l.handle(int(l.events[i].Pad), l.events[i].Events); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) handle(i int, events uint32) error {
	c := &l.conns[i]
	if !c.up && events&unix.EPOLLOUT != 0 {
		if code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			l.refused++
			return l.again(i)
		}
		if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.fd), Pad: int32(i)}); err != nil {
			return err
		}
		return l.write(c, device.Build(device.Login, i, c.frame, l.now).Bytes, c.dialed)
	}
	var b [4096]byte
	n, err := unix.Read(c.fd, b[:])
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	if err != nil || n == 0 {
		l.ended++
		return l.again(i)
	}
	c.part += n
	for ; c.part >= answerSize && len(c.asked) > 0; c.part -= answerSize {
		wait := float32(l.now.Sub(c.asked[0]).Microseconds()) / 1000
		c.asked = append(c.asked[:0], c.asked[1:]...)
		if !c.up {
			c.up = true
			l.up++
			l.logins = append(l.logins, wait)
		} else {
			l.frames++
			if l.keep {
				l.waits = append(l.waits, wait)
			}
		}
		if l.closed {
			if err := l.send(i, l.now); err != nil {
				return err
			}
		}
	}
	return nil
}

// send writes the next frame of a device: nine locations, then a heartbeat.
func (l *load) send(i int, due time.Time) error {
	c := &l.conns[i]
	kind := device.Location
	if c.frame%10 == 9 {
		kind = device.Heartbeat
	}
	return l.write(c, device.Build(kind, i, c.frame, due).Bytes, due)
}

func (l *load) write(c *tracker, b []byte, due time.Time) error {
	c.frame++
	c.asked = append(c.asked, due)
	if n, err := unix.Write(c.fd, b); err == nil && n < len(b) {
		return fmt.Errorf("a frame of %d bytes was taken in part: the server does not read", len(b))
	}
	return nil // an end shows when reading
}

// saturate keeps one frame of each device on its way for a time; churn is the
// share of the devices that hang up and come again each second. It returns
// answers a second.
func (l *load) saturate(d time.Duration, churn float64) (perSecond float64, err error) {
	l.closed, l.keep = true, true
	l.waits, l.frames = l.waits[:0], 0
	begin := time.Now()
	for i := range l.conns {
		if err := l.send(i, begin); err != nil {
			return 0, err
		}
	}
	next, gone := 0, 0.0
	for end := begin.Add(d); time.Now().Before(end); {
		if err := l.turn(50); err != nil {
			return 0, err
		}
		for due := churn * float64(len(l.conns)) * time.Since(begin).Seconds(); gone+1 <= due; gone++ {
			if err := l.again(next % len(l.conns)); err != nil {
				return 0, err
			}
			next++
		}
	}
	perSecond = float64(l.frames) / time.Since(begin).Seconds()
	l.closed, l.keep = false, false
	return perSecond, l.drain()
}

// pace sends a number of frames a second whatever the server does, in portions
// of a millisecond, and counts each wait from the moment its portion was due.
func (l *load) pace(rate float64, d time.Duration) error {
	l.keep, l.waits, l.frames = true, l.waits[:0], 0
	begin := time.Now()
	sent := 0
	for at := begin; ; at = at.Add(time.Millisecond) {
		for left := time.Until(at); left > 0; left = time.Until(at) {
			if err := l.turn(int(left.Milliseconds()) + 1); err != nil {
				return err
			}
		}
		if at.Sub(begin) >= d {
			break
		}
		for due := rate * at.Sub(begin).Seconds(); float64(sent) < due; sent++ {
			if i := sent % len(l.conns); l.conns[i].up {
				if err := l.send(i, at); err != nil {
					return err
				}
			}
		}
		if err := l.turn(0); err != nil {
			return err
		}
	}
	l.keep = false
	return l.drain()
}

// drain waits for the answers that are owed.
func (l *load) drain() error {
	owed := func() (n int) {
		for i := range l.conns {
			n += len(l.conns[i].asked)
		}
		return n
	}
	for end := time.Now().Add(15 * time.Second); owed() > 0; {
		if err := l.turn(20); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d frames were not answered within 15 s", owed())
		}
	}
	return nil
}

// percentile of a list that it sorts, in the list's unit.
func percentile(list []float32, p float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return float64(list[min(len(list)-1, int(p*float64(len(list))))])
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(list))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}
