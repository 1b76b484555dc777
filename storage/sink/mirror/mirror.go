package mirror

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/event"
	"gt06/storage/sink"
)

// What becomes of a frame, or is found in the answers; a metric label.
const (
	Same        = "same"        // answered as ours
	Different   = "different"   // answered with other bytes
	Missing     = "missing"     // not answered; ours was
	Extra       = "extra"       // answered; ours was not, or it came too late
	Unsolicited = "unsolicited" // bytes that answer nothing: a command
	Silent      = "silent"      // neither answers
	HungUp      = "hung_up"     // the target closes the connection on it, twice
	Undelivered = "undelivered" // the target does not want its device
)

// results are all of them.
//
//nolint:gochecknoglobals // read-only table
var results = []string{Same, Different, Missing, Extra, Unsolicited, Silent, HungUp, Undelivered}

// Options of a Mirror. Zero values mean the defaults.
type Options struct {
	Name        string // of the sink
	Address     string // host:port
	Timeout     time.Duration
	Connections int // at most; whose device was silent for longest goes [5,000]
	Registerer  prometheus.Registerer
}

const (
	// patience is how long a target may be silent that has never answered anybody.
	patience = time.Minute
	// The pauses of a device that the target does not want.
	shortest = time.Second
	longest  = 5 * time.Minute
	// enough is how many answers of a kind of frame must be missing, and none
	// have come, before they are not waited for any more.
	enough = 3
)

// Mirror is a sink.Receiver.
type Mirror struct {
	opt     Options
	decoder protocol.Decoder
	began   time.Time
	counts  map[string]*atomic.Int64 // never changes
	frames  *prometheus.CounterVec
	open    atomic.Int64

	mu    sync.Mutex // guards what is below it; links' own fields belong to the one goroutine of their device
	links map[protocol.IMEI]*link
	turn  uint64    // counts batches
	good  []greeted // answered last, the newest at the end; at most two
	kinds [256]kind
	alive verdict

	key  string // of the batch that is being sent
	done []bool // which of its items are taken; each belongs to its device's goroutine
}

// kind is what is known of a type of frame.
type kind struct{ answered, missed int }

// greeted is a device whose login the target has answered.
type greeted struct {
	imei  protocol.IMEI
	login []byte
}

// verdict is what a probe of the target said.
type verdict struct {
	at time.Time
	ok bool
}

// Check says what is wrong with options, nil: nothing.
func Check(o Options) error {
	host, port, err := net.SplitHostPort(o.Address)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("address is %q: write HOST:PORT", o.Address)
	}
	return nil
}

// New prepares a mirror; nothing is dialed yet.
func New(o Options) (*Mirror, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Connections == 0 {
		o.Connections = 5000
	}
	m := &Mirror{opt: o, began: time.Now(), links: map[protocol.IMEI]*link{}, counts: map[string]*atomic.Int64{}}
	m.frames = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gt06_sink_mirror_frames_total", Help: "Frames a mirror was given and answers it got, by how the target's answers differ from ours.",
	}, []string{"sink", "result"})
	err := sink.Register(o.Registerer, &m.frames)
	for _, r := range results {
		m.counts[r] = &atomic.Int64{}
		m.frames.WithLabelValues(o.Name, r)
	}
	return m, err
}

// Counts implements sink.Counter.
func (m *Mirror) Counts() map[string]int64 {
	all := map[string]int64{"connections": m.open.Load()}
	for k, v := range m.counts {
		all[k] = v.Load()
	}
	return all
}

func (m *Mirror) count(result string) {
	m.counts[result].Add(1)
	m.frames.WithLabelValues(m.opt.Name, result).Inc()
}

// Send implements sink.Receiver: each frame of the batch is answered, or counted
// as one that is not.
func (m *Mirror) Send(ctx context.Context, b *sink.Batch) error {
	if m.key != b.Key {
		m.key, m.done = b.Key, make([]bool, len(b.Items))
	}
	m.turn++
	devices := map[protocol.IMEI][]int{}
	for i := range b.Items {
		rec := &b.Items[i].Record
		if !m.done[i] && event.IsFrame(rec) && rec.Device != 0 {
			devices[rec.Device] = append(devices[rec.Device], i)
		}
	}
	m.makeRoom(devices)
	var wg sync.WaitGroup
	errs := make([]error, len(devices))
	n := 0
	for imei, items := range devices {
		l, slot := m.link(imei), n
		n++
		wg.Go(func() {
			for _, i := range items {
				if errs[slot] = m.exchange(ctx, l, &b.Items[i].Record); errs[slot] != nil {
					return
				}
				m.done[i] = true
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, err := range errs { // they are about the target: one says it all
		if err != nil {
			return err
		}
	}
	return nil
}

// link returns the connection of a device, open or not.
func (m *Mirror) link(imei protocol.IMEI) *link {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.links[imei]
	if l == nil {
		l = &link{imei: imei}
		m.links[imei] = l
	}
	l.turn = m.turn
	return l
}

// makeRoom closes the connections that were not used for longest, so that those
// of a batch fit.
func (m *Mirror) makeRoom(devices map[protocol.IMEI][]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := 0
	for imei := range devices {
		if m.links[imei] == nil {
			want++
		}
	}
	surplus := len(m.links) + want - m.opt.Connections
	if surplus <= 0 {
		return
	}
	var idle []*link
	for imei, l := range m.links {
		if devices[imei] == nil {
			idle = append(idle, l)
		}
	}
	slices.SortFunc(idle, func(a, b *link) int { return int(a.turn) - int(b.turn) })
	for _, l := range idle[:min(surplus, len(idle))] {
		m.hangUp(l)
		delete(m.links, l.imei)
	}
}

// exchange brings one frame to the target. An error means that the target is
// away, and that the frame must come again.
func (m *Mirror) exchange(ctx context.Context, l *link, rec *storage.Record) error {
	if time.Now().Before(l.refused) {
		m.count(Undelivered)
		return nil
	}
	var msg protocol.Message
	m.decoder.Decode(&msg, rec.Input, protocol.Session{IMEI: rec.Device, UTCOffset: rec.UTCOffset, Model: rec.Model})
	login := msg.Kind == protocol.KindLogin
	if rec.Conn != l.stream {
		m.hangUp(l) // the device has come anew
		l.stream = rec.Conn
	}
	if login {
		l.login = append([]byte(nil), rec.Input...)
	} else if l.login == nil {
		l.login = loginOf(rec)
	}
	for try := range 2 {
		if l.conn == nil {
			accepted, err := m.connect(ctx, l)
			if err != nil {
				return err
			}
			if !accepted {
				m.refuse(l)
				m.count(Undelivered)
				return nil
			}
			if login {
				m.compare(rec, l.greeting)
				return nil
			}
		}
		err := m.ask(ctx, l, rec, &msg)
		if err == nil {
			return nil
		}
		m.hangUp(l)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if try == 1 { // its login was answered a moment ago
			if errors.Is(err, errSilence) {
				m.missed(msg.Type)
				m.count(Missing)
			} else {
				m.count(HungUp)
			}
		}
	}
	return nil
}

// ask writes a frame and compares its answer.
func (m *Mirror) ask(ctx context.Context, l *link, rec *storage.Record, msg *protocol.Message) error {
	if err := l.write(ctx, rec.Input, m.opt.Timeout); err != nil {
		return err
	}
	l.remember(serialOf(rec.Input))
	wait := m.opt.Timeout
	if len(rec.Answer) == 0 || m.never(msg.Type) {
		wait = 0
	}
	for {
		got, err := l.read(ctx, rec.Answer, wait)
		switch {
		case errors.Is(err, errSilence) && wait > 0:
			return err
		case errors.Is(err, errSilence) && len(rec.Answer) == 0:
			m.count(Silent)
			return nil
		case errors.Is(err, errSilence):
			m.count(Missing)
			return nil
		case err != nil:
			return err
		case len(rec.Answer) > 0 && answers(got, rec.Answer):
			m.answered(msg.Type, l)
			m.compare(rec, got)
			return nil
		case l.known(serialOf(got)):
			m.count(Extra)
		default:
			m.count(Unsolicited)
		}
	}
}

// compare counts an answer.
func (m *Mirror) compare(rec *storage.Record, got []byte) {
	switch {
	case len(rec.Answer) == 0:
		m.count(Extra)
	case alike(got, rec.Answer):
		m.count(Same)
	default:
		m.count(Different)
	}
}

// connect dials and logs in. Not accepted: the target answers others, and not
// this device.
func (m *Mirror) connect(ctx context.Context, l *link) (accepted bool, err error) {
	if err := m.dial(ctx, l); err != nil {
		return false, &sink.Error{Kind: sink.KindConnect, Err: err}
	}
	l.greeting, err = m.greet(ctx, l)
	if err == nil {
		l.pause = 0
		m.answered(0, l)
		return true, nil
	}
	m.hangUp(l)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if m.answersOthers(ctx, l.imei) {
		return false, nil
	}
	return false, &sink.Error{Kind: sink.KindTimeout, Err: fmt.Errorf("%s answers no login: %w", m.opt.Address, err)}
}

func (m *Mirror) dial(ctx context.Context, l *link) error {
	d := net.Dialer{Timeout: m.opt.Timeout}
	c, err := d.DialContext(ctx, "tcp", m.opt.Address)
	if err != nil {
		return err
	}
	l.conn, l.rest = c, l.rest[:0]
	m.open.Add(1)
	return nil
}

// greet sends the login and returns its answer.
func (m *Mirror) greet(ctx context.Context, l *link) ([]byte, error) {
	if err := l.write(ctx, l.login, m.opt.Timeout); err != nil {
		return nil, err
	}
	l.remember(serialOf(l.login))
	return l.read(ctx, nil, m.opt.Timeout)
}

func (m *Mirror) hangUp(l *link) {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
		m.open.Add(-1)
	}
}

// refuse leaves a device alone for a while.
func (m *Mirror) refuse(l *link) {
	l.pause = min(max(2*l.pause, shortest), longest)
	l.refused = time.Now().Add(l.pause)
}

// answersOthers says whether the target answers logins at all: it asks with a
// device that was answered before.
func (m *Mirror) answersOthers(ctx context.Context, but protocol.IMEI) bool {
	m.mu.Lock()
	defer m.mu.Unlock() // one asks for all
	if time.Since(m.alive.at) < m.opt.Timeout {
		return m.alive.ok
	}
	i := slices.IndexFunc(m.good, func(g greeted) bool { return g.imei != but })
	if i < 0 {
		return time.Since(m.began) > patience+m.opt.Timeout
	}
	probe := &link{imei: m.good[i].imei, login: m.good[i].login}
	err := m.dial(ctx, probe)
	if err == nil {
		_, err = m.greet(ctx, probe)
		m.hangUp(probe)
	}
	m.alive = verdict{time.Now(), err == nil}
	return m.alive.ok
}

func (m *Mirror) answered(typ byte, l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kinds[typ].answered++
	const known = 2
	m.good = slices.DeleteFunc(m.good, func(g greeted) bool { return g.imei == l.imei })
	m.good = append(m.good, greeted{l.imei, l.login})
	m.good = m.good[max(0, len(m.good)-known):]
}

func (m *Mirror) missed(typ byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kinds[typ].missed++
}

// never says whether answers to a type of frame are not waited for.
func (m *Mirror) never(typ byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kinds[typ].answered == 0 && m.kinds[typ].missed >= enough
}

// Close implements sink.Receiver.
func (m *Mirror) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.links {
		m.hangUp(l)
	}
	return nil
}
