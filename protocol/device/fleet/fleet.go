// Package fleet dials a server with many simulated devices. The simulator, the
// benchmarks and the end-to-end tests share it.
package fleet

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gt06/protocol"
	"gt06/protocol/device"
)

// Options of a fleet.
type Options struct {
	Addr     string
	Devices  int
	Rate     float64       // frames a second and device; 0: only the login
	Duration time.Duration // of sending
	Settle   time.Duration // wait for the last answers [5 s]
	Arrival  float64       // connections a second at the start; 0: all at once
	Torn     float64       // share of frames written in two pieces
	Mix      []device.Kind // in turn [locations, heartbeats, an alarm, a time request]
	First    int           // number of the first device
	Seed     uint64
	Redial   time.Duration // pause before a device connects again [200 ms]
	Trace    bool          // keep every answer for Trace
	NoWait   bool          // do not wait for the answer to the login before sending on
}

// Result is what a fleet saw: the contract of `gt06ctl simulate --json`.
type Result struct {
	Sent       int64 `json:"sent"`
	Answered   int64 `json:"answered"`
	Lost       int64 `json:"lost"`
	Duplicated int64 `json:"duplicated"`
	OutOfOrder int64 `json:"out_of_order"`
	Reconnects int64 `json:"reconnects"`
	Refused    int64 `json:"refused"`
	Ack        Ack   `json:"ack_ms"`
}

// Ack are answer times in milliseconds.
type Ack struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Fleet runs devices and keeps their ledgers.
type Fleet struct {
	opt        Options
	ledgers    []*device.Ledger
	sent       atomic.Int64
	answered   atomic.Int64
	reconnects atomic.Int64
	refused    atomic.Int64
	enough     chan struct{} // closed by Finish
	finish     sync.Once
	finished   atomic.Int64 // when, Unix nanoseconds
	mu         sync.Mutex
	times      []float32 // milliseconds
	trace      []Answer
}

// Answer is one answer as a device saw it.
type Answer struct {
	At   time.Time // it came
	Took float32   // milliseconds since its frame was sent
}

// Trace returns all answers when Options.Trace is set; not before Run came
// back.
func (f *Fleet) Trace() []Answer { return f.trace }

// New prepares a fleet.
func New(opt Options) *Fleet {
	if opt.Settle == 0 {
		opt.Settle = 5 * time.Second
	}
	if opt.Redial == 0 {
		opt.Redial = 200 * time.Millisecond
	}
	if len(opt.Mix) == 0 {
		opt.Mix = []device.Kind{
			device.Location, device.Location, device.Heartbeat, device.LocationOld, device.Location4G, device.Location, device.Alarm, device.Location, device.TimeRequest, device.Cells,
		}
	}
	f := &Fleet{opt: opt, ledgers: make([]*device.Ledger, opt.Devices), enough: make(chan struct{})}
	for i := range f.ledgers {
		f.ledgers[i] = &device.Ledger{}
	}
	return f
}

// Ledgers returns the devices' ledgers; not before Run came back.
func (f *Fleet) Ledgers() []*device.Ledger { return f.ledgers }

// IMEIs names the devices.
func (f *Fleet) IMEIs() []string {
	list := make([]string, f.opt.Devices)
	for i := range list {
		list[i] = device.IMEI(f.opt.First + i).String()
	}
	return list
}

// Commands returns how often each command arrived, by the server's flag; not
// before Run came back.
func (f *Fleet) Commands() map[uint32]int {
	all := map[uint32]int{}
	for _, l := range f.ledgers {
		for flag, n := range l.Commands {
			all[flag] += n
		}
	}
	return all
}

// Finish ends the sending before its time: what is owed is still waited for, and
// Run comes back with what the devices saw.
func (f *Fleet) Finish() {
	f.finish.Do(func() {
		f.finished.Store(time.Now().UnixNano())
		close(f.enough)
	})
}

// tooLate says whether there is no time left for what is owed.
func (f *Fleet) tooLate(end time.Time) bool {
	if at := f.finished.Load(); at > 0 && at < end.UnixNano() {
		end = time.Unix(0, at)
	}
	return time.Since(end) > f.opt.Settle
}

// Progress returns the frames sent and answers received so far.
func (f *Fleet) Progress() (sent, answered int64) { return f.sent.Load(), f.answered.Load() }

// Run lets the devices send for the duration, waits for what is owed, and
// returns what they saw.
func (f *Fleet) Run(ctx context.Context) Result {
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range f.opt.Devices {
		delay := time.Duration(0)
		if f.opt.Arrival > 0 {
			delay = time.Duration(float64(i) / f.opt.Arrival * float64(time.Second))
		}
		wg.Go(func() { f.drive(ctx, i, begin.Add(delay), begin.Add(f.opt.Duration)) })
	}
	wg.Wait()
	return f.result()
}

func (f *Fleet) result() Result {
	r := Result{Reconnects: f.reconnects.Load(), Refused: f.refused.Load()}
	for _, l := range f.ledgers {
		r.Sent += int64(l.Sent)
		r.Answered += int64(l.Answers)
		r.Lost += int64(l.Lost())
		r.Duplicated += int64(l.Duplicated + l.Strange)
		r.OutOfOrder += int64(l.OutOfOrder)
	}
	slices.Sort(f.times)
	at := func(p float64) float64 {
		if len(f.times) == 0 {
			return 0
		}
		return float64(f.times[min(len(f.times)-1, int(p*float64(len(f.times))))])
	}
	r.Ack = Ack{P50: at(.5), P99: at(.99), P999: at(.999), Max: at(1)}
	return r
}

// tracker is one device: it sends in a goroutine of its own and reads answers
// in another; mu guards what both touch.
type tracker struct {
	f      *Fleet
	n      int // device number
	ledger *device.Ledger
	rand   *rand.Rand
	mu     sync.Mutex
	times  []float32
	trace  []Answer
	login  bool
	gone   chan struct{} // the connection ended
	news   chan struct{} // an answer came
	next   int           // frame number
	resend []int
	built  map[int]device.Frame // frames that wait for an answer
}

func (f *Fleet) drive(ctx context.Context, i int, start, end time.Time) {
	n := f.opt.First + i
	t := &tracker{
		f: f, n: n, ledger: f.ledgers[i], rand: rand.New(rand.NewPCG(f.opt.Seed, uint64(n))),
		built: map[int]device.Frame{},
	}
	if !wait(ctx, time.Until(start)) {
		return
	}
	for first := true; ctx.Err() == nil; first = false {
		if !first {
			f.reconnects.Add(1)
			if !wait(ctx, f.opt.Redial+time.Duration(t.rand.Int64N(int64(f.opt.Redial)))) {
				break
			}
		}
		if t.connection(ctx, end) {
			break
		}
		if f.tooLate(end) {
			break
		}
	}
	f.mu.Lock()
	f.times = append(f.times, t.times...)
	f.trace = append(f.trace, t.trace...)
	f.mu.Unlock()
}

func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// connection dials, logs in and sends until the end or until the link breaks.
// It reports whether the device is done.
func (t *tracker) connection(ctx context.Context, end time.Time) (done bool) {
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, "tcp", t.f.opt.Addr)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
			t.f.refused.Add(1)
		}
		return false
	}
	t.gone, t.news, t.login = make(chan struct{}), make(chan struct{}, 1), false
	var reading sync.WaitGroup
	reading.Go(func() { t.read(c) })
	defer func() {
		_ = c.Close()
		reading.Wait()
		t.mu.Lock()
		t.resend = append(t.resend, t.ledger.Dropped()...)
		t.mu.Unlock()
	}()
	if !t.write(c, device.Build(device.Login, t.n, t.next, time.Now()), -1) {
		return false
	}
	t.next++
	if !t.await(ctx, func() bool { return t.login || t.f.opt.NoWait }, 10*time.Second) {
		return ctx.Err() != nil
	}
	for _, n := range t.resend {
		e := t.ledger.Entries[n]
		if e.Kind == device.Login { // this connection has its own
			t.ledger.Entries[n].Answered = e.Sent
			continue
		}
		f, ok := t.built[n]
		if ok && !t.write(c, f, n) {
			return false
		}
	}
	t.resend = nil
	if !t.send(ctx, c, end) {
		return ctx.Err() != nil
	}
	return t.await(ctx, func() bool { return t.ledger.Pending() == 0 }, t.f.opt.Settle) || ctx.Err() != nil
}

// send keeps the rate: what is late is sent at once, so that a stalled server
// meets the load that waited (open loop).
func (t *tracker) send(ctx context.Context, c net.Conn, end time.Time) bool {
	if t.f.opt.Rate <= 0 {
		timer := time.NewTimer(time.Until(end))
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		case <-t.f.enough:
		}
		return true
	}
	every := time.Duration(float64(time.Second) / t.f.opt.Rate)
	due := time.Now().Add(time.Duration(t.rand.Int64N(int64(every) + 1)))
	for due.Before(end) {
		timer := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-t.gone:
			timer.Stop()
			return false
		case <-t.f.enough:
			timer.Stop()
			return true
		case <-timer.C:
		}
		// A device's clock has seconds: two fixes of one second differ in place.
		f := device.Build(t.f.opt.Mix[(t.next+t.n)%len(t.f.opt.Mix)], t.n, t.next, due)
		t.next++
		if !t.write(c, f, -1) {
			return false
		}
		due = due.Add(every)
	}
	return true
}

// write sends one frame, sometimes torn in two, and enters it into the ledger
// before the last byte leaves: the answer may be faster than the return.
func (t *tracker) write(c net.Conn, f device.Frame, again int) bool {
	b := f.Bytes
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	if t.rand.Float64() < t.f.opt.Torn {
		cut := 1 + t.rand.IntN(len(b)-1)
		if _, err := c.Write(b[:cut]); err != nil {
			return false
		}
		b = b[cut:]
	}
	t.mu.Lock()
	n := t.ledger.Wrote(t.n, &f, time.Now(), again)
	if f.Kind.Answered() {
		t.built[n] = f
	}
	t.mu.Unlock()
	t.f.sent.Add(1)
	_, err := c.Write(b)
	return err == nil
}

// await waits for a condition that an answer may bring about.
func (t *tracker) await(ctx context.Context, ok func() bool, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		t.mu.Lock()
		good := ok()
		t.mu.Unlock()
		if good {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-t.gone:
			t.mu.Lock()
			good := ok()
			t.mu.Unlock()
			return good
		case <-timer.C:
			return false
		case <-t.news:
		}
	}
}

// read takes answers until the connection ends.
func (t *tracker) read(c net.Conn) {
	defer close(t.gone)
	var framer protocol.Framer
	buf := make([]byte, 512)
	have := 0
	for {
		n, err := c.Read(buf[have:])
		have += n
		at := time.Now()
		taken := 0
		for taken < have {
			cut := framer.Next(buf[taken:have], true)
			if cut.Len == 0 {
				break
			}
			t.answer(buf[taken+cut.Skip:taken+cut.Skip+cut.Len], at)
			taken += cut.Skip + cut.Len
		}
		have = copy(buf, buf[taken:have])
		if err != nil {
			return
		}
	}
}

func (t *tracker) answer(b []byte, at time.Time) {
	t.mu.Lock()
	n, took, ok := t.ledger.Answer(b, at)
	if ok {
		delete(t.built, n)
		t.times = append(t.times, float32(took.Seconds()*1000))
		if t.f.opt.Trace {
			t.trace = append(t.trace, Answer{at, float32(took.Seconds() * 1000)})
		}
		if b[3] == device.Login.Type() {
			t.login = true
		}
	}
	t.mu.Unlock()
	if b[3] != 0x80 {
		t.f.answered.Add(1)
	}
	select {
	case t.news <- struct{}{}:
	default:
	}
}
