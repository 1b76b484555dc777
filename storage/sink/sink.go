package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gt06/storage"
)

const (
	// batchRecords and batchBytes bound a batch: records, and bytes of devices in
	// it.
	batchRecords = 500
	batchBytes   = 128 << 10
	// linger is how long a batch that is not full waits for company: each one
	// costs an fdatasync on the disk that the devices wait for.
	linger = 50 * time.Millisecond
	// The waits of a sink whose receiver fails: doubled each time, with jitter.
	shortest = 100 * time.Millisecond
	longest  = 30 * time.Second
	// stuckAfter is how long a receiver may fail before that is an operator's
	// business.
	stuckAfter = 10 * time.Second
)

// Log is where the records come from.
type Log interface {
	// Durable returns the position before which records may be sent.
	Durable() storage.Position
	// Begin returns where the oldest segment of the log begins.
	Begin() storage.Position
	// Notify returns a channel that is closed when Durable moves.
	Notify() <-chan struct{}
	// Read returns a reader from a position.
	Read(from storage.Position) Reader
}

// Reader yields the log's records.
type Reader = storage.Reader

// Item is a record and where it ends in the log.
type Item struct {
	Record storage.Record
	End    storage.Position
}

// Batch is what is sent at once. It is the same after any kill.
type Batch struct {
	Items    []Item
	From, To storage.Position
	Key      string // names this batch of this data directory for good
	Taken    int    // how much of it the receiver has taken already; the receiver counts
}

// Receiver hands batches to somebody else.
type Receiver interface {
	// Send returns nil once all of the batch is taken for good. Otherwise it is
	// called again with the same batch. It returns soon after the context ends.
	Send(ctx context.Context, b *Batch) error
	Close() error
}

// Kind is what an error of a receiver means, as a metric label.
type Kind string

// The kinds of errors.
const (
	KindConnect  Kind = "connect"  // nobody is there, or hangs up
	KindTimeout  Kind = "timeout"  // no reply in time
	KindBusy     Kind = "busy"     // it says: later
	KindServer   Kind = "server"   // it failed itself
	KindRejected Kind = "rejected" // it does not want this, or us
	KindRedirect Kind = "redirect" // it sends us elsewhere: not followed
	KindCursor   Kind = "cursor"   // the mark cannot be kept
	KindLog      Kind = "log"      // the log cannot be read
	KindOther    Kind = "other"
)

// Error is why a batch was not taken.
type Error struct {
	Kind  Kind
	Err   error
	After time.Duration // the receiver asks to be left alone for so long
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Options of a Sink.
type Options struct {
	Name       string // a metric label
	Kind       string // what the receiver is, for status
	Node       string // of the data directory: makes the keys of batches its own
	Log        Log
	Start      storage.Position // where a sink begins that has never sent
	Cursor     Cursor
	Receiver   Receiver
	Failpoint  func(name string) // tests
	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// State is how a sink fares.
type State string

// The states.
const (
	StateOpening State = "opening" // another process sends still, or the cursor cannot be read
	StateOK      State = "ok"
	StateFailing State = "failing" // the receiver does not take what it is sent
	StateStuck   State = "stuck"   // and has not for longer than it may, or does not reply
	StateStopped State = "stopped" // no repetition helps: the cursor is damaged or newer
)

// Status is a moment's view of a sink.
type Status struct {
	Name, Kind string
	State      State
	Lag        int64         // records of the log not sent yet, as of the last second
	Oldest     time.Duration // age of the oldest of them that is being sent, 0: none is
	Sent       int64         // records taken since this process began
	Missed     uint64        // records that were gone from the log before they were sent, ever
	LastError  string
	Counts     map[string]int64 // what the receiver counts, by its own words; since this process began
}

// Counter is a Receiver that says more than that it took a batch.
type Counter interface {
	Counts() map[string]int64
}

// Sink moves records from the log to a receiver. It belongs to one goroutine;
// Status may be asked by others.
type Sink struct {
	opt     Options
	log     *zap.Logger
	mark    Mark
	reader  Reader
	batch   Batch
	full    bool      // the last batch
	began   time.Time // when it was collected
	alarmed bool      // the log says that the sink is stuck
	lag     atomic.Pointer[lag]
	metrics *metrics

	state   atomic.Pointer[Status] // without Lag and Oldest
	since   atomic.Int64           // Unix nanoseconds: failing since; 0: it is not
	pending atomic.Int64           // records in the batch
	oldest  atomic.Int64           // Unix microseconds, of the batch; 0: none
	asked   atomic.Int64           // Unix nanoseconds: the receiver was given the batch; 0: it has replied
}

// New prepares a sink; Run does the work.
func New(o Options) (*Sink, error) {
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	s := &Sink{opt: o, log: o.Logger.With(zap.String("sink", o.Name))}
	s.state.Store(&Status{Name: o.Name, Kind: o.Kind, State: StateOpening})
	var err error
	s.metrics, err = newMetrics(s, o.Registerer)
	return s, err
}

// Status returns how the sink fares.
func (s *Sink) Status() Status {
	st := *s.state.Load()
	if l := s.lag.Load(); l != nil {
		st.Lag = l.total() + s.pending.Load()
	}
	if at := s.oldest.Load(); at != 0 {
		st.Oldest = max(0, time.Since(time.UnixMicro(at)))
	}
	if c, ok := s.opt.Receiver.(Counter); ok {
		st.Counts = c.Counts()
	}
	since := func(at int64) time.Duration { return time.Since(time.Unix(0, at)) }
	if at := s.since.Load(); st.State == StateFailing && at != 0 && since(at) > stuckAfter {
		st.State = StateStuck
	}
	if at := s.asked.Load(); st.State == StateOK && at != 0 && since(at) > stuckAfter {
		st.State, st.LastError = StateStuck, fmt.Sprintf("no reply for %v", since(at).Truncate(time.Second))
	}
	return st
}

// Left returns how many durable records the receiver has not taken, counted now:
// Status counts once a second.
func (s *Sink) Left() int64 {
	l := s.lag.Load()
	if l == nil {
		return 0
	}
	const portion = 1000
	for more := true; more; {
		more, _ = l.look(s.opt.Log.Durable(), portion)
	}
	return l.total() + s.pending.Load()
}

func (s *Sink) say(change func(*Status)) {
	st := *s.state.Load()
	change(&st)
	s.state.Store(&st)
}

// Run sends until the context ends. It never gives up on a receiver; only a
// cursor that cannot be understood ends it.
func (s *Sink) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.retry(ctx, KindCursor, s.load); err != nil || ctx.Err() != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	counting := make(chan struct{})
	go func() { defer close(counting); s.lag.Load().run(ctx) }()
	defer func() { cancel(); <-counting }()
	for ctx.Err() == nil {
		if err := s.retry(ctx, KindLog, s.collect); err != nil {
			return err
		}
		if len(s.batch.Items) == 0 && s.mark.Sending <= s.mark.Sent {
			continue // the context ended
		}
		err := s.deliver(ctx)
		if errors.Is(err, ErrMoved) {
			err = s.retry(ctx, KindCursor, s.again)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deliver brings a batch to the receiver.
func (s *Sink) deliver(ctx context.Context) error {
	for _, step := range []struct {
		kind Kind
		do   func(context.Context) error
	}{{KindCursor, s.note}, {KindOther, s.send}, {KindCursor, s.taken}} {
		if err := s.retry(ctx, step.kind, step.do); err != nil {
			return err
		}
	}
	return nil
}

// again goes on where the cursor stands now.
func (s *Sink) again(ctx context.Context) error {
	m, err := s.opt.Cursor.Load(ctx)
	if err != nil {
		return err
	}
	s.log.Warn("the cursor is not where this process left it: an older copy of it was restored; going on from there",
		zap.Uint64("pos", uint64(m.Sent)), zap.Uint64("left", uint64(s.mark.Sent)))
	m.Missed = max(m.Missed, s.mark.Missed)
	s.mark = m
	s.pending.Store(0)
	s.forget()
	return nil
}

// retry repeats a step until it succeeds. It returns nil when the context ends,
// too, and an error that no repetition mends.
func (s *Sink) retry(ctx context.Context, kind Kind, step func(context.Context) error) error {
	wait := time.Duration(0)
	for ctx.Err() == nil {
		err := step(ctx)
		switch {
		case err == nil:
			s.well()
			return nil
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the sink ends: that is no fault
		case errors.Is(err, ErrMoved):
			return err
		case errors.Is(err, ErrVersion), errors.Is(err, ErrDamaged):
			s.say(func(st *Status) { st.State, st.LastError = StateStopped, err.Error() })
			s.log.Error("nothing is sent: the cursor is not understood; its file can be removed to begin anew", zap.Error(err))
			return err
		}
		after := s.failed(kind, err)
		if s.account() {
			_ = s.opt.Cursor.Save(ctx, s.mark, false) // with the next mark, else
		}
		wait = min(max(2*wait, shortest), longest)
		sleep(ctx, max(after, wait/2+rand.N(wait/2)))
	}
	return nil
}

// failed counts and says an error, and returns how long the receiver wants to
// be left alone.
func (s *Sink) failed(kind Kind, err error) (after time.Duration) {
	if e, ok := errors.AsType[*Error](err); ok {
		kind, after = e.Kind, min(e.After, 10*longest)
	}
	s.metrics.errors.WithLabelValues(s.opt.Name, string(kind)).Inc()
	switch {
	case s.since.CompareAndSwap(0, time.Now().UnixNano()):
		s.alarmed = false
		s.log.Warn("a sink cannot send: trying on", zap.String("kind", string(kind)), zap.Error(err))
	case !s.alarmed && time.Since(time.Unix(0, s.since.Load())) > stuckAfter:
		s.alarmed = true
		s.log.Error("a sink still cannot send: look at its receiver; what waits stays in the log as long as anything does", zap.String("kind", string(kind)), zap.Error(err))
	}
	s.say(func(st *Status) { st.State, st.LastError = StateFailing, err.Error() })
	return after
}

func (s *Sink) well() {
	if at := s.since.Swap(0); at != 0 {
		s.log.Info("a sink sends again", zap.Duration("took", time.Since(time.Unix(0, at))))
	}
	if st := s.state.Load(); st.State != StateOK {
		s.say(func(st *Status) { st.State, st.LastError = StateOK, "" })
	}
}

// load waits for the right to send and reads where the sink stands.
func (s *Sink) load(ctx context.Context) error {
	m, err := s.opt.Cursor.Load(ctx)
	if errors.Is(err, ErrNew) {
		m = Mark{Sent: s.opt.Start, Sending: s.opt.Start}
		err = s.opt.Cursor.Save(ctx, m, true)
	}
	if err != nil {
		return err
	}
	s.mark = m
	if s.opt.Log.Begin().Segment() > m.Sent.Segment() && m.Sent > 0 {
		s.log.Warn("the log begins behind what was sent last: if there was more in that segment it is gone, and not counted", zap.Uint64("pos", uint64(m.Sent)))
	}
	s.lag.Store(newLag(s.opt.Log, m.Sent))
	s.say(func(st *Status) { st.Missed = m.Missed })
	return nil
}

// collect makes the next batch, or waits for there to be one. A batch that was
// noted before is made again as it was.
func (s *Sink) collect(ctx context.Context) error {
	again := s.mark.Sending > s.mark.Sent
	if !again && !s.full {
		sleep(ctx, linger-time.Since(s.began))
	}
	for ctx.Err() == nil {
		notify := s.opt.Log.Notify()
		limit, records, size := s.opt.Log.Durable(), batchRecords, batchBytes
		if again {
			limit, records, size = min(limit, s.mark.Sending), 1<<30, 1<<30
		}
		if err := s.read(limit, records, size); err != nil {
			return err
		}
		if len(s.batch.Items) > 0 || again {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-notify:
		}
	}
	return nil
}

// read fills the batch with what is before limit.
func (s *Sink) read(limit storage.Position, records, size int) error {
	if s.reader == nil {
		s.reader = s.opt.Log.Read(s.mark.Sent)
	}
	s.began = time.Now()
	items := s.batch.Items[:0]
	defer func() {
		s.full = len(items) >= records || size <= 0
		s.batch = Batch{Items: items, From: s.mark.Sent, To: s.mark.Sent}
		if len(items) > 0 {
			s.batch.To = items[len(items)-1].End
			s.oldest.Store(items[0].Record.ReceivedAt)
		}
		s.batch.To = max(s.batch.To, s.mark.Sending)
		s.batch.Key = fmt.Sprintf("%s-%x-%x", s.opt.Node, uint64(s.batch.From), uint64(s.batch.To))
		s.pending.Store(int64(len(items)))
	}()
	var rec storage.Record
	for len(items) < records && size > 0 {
		end, err := s.reader.Next(limit, &rec)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			items = items[:0]
			s.forget()
			return err
		}
		s.pending.Add(1) // before it leaves the lag: it is in one of the two
		s.lag.Load().read(end)
		rec.Input, rec.Answer = append([]byte(nil), rec.Input...), append([]byte(nil), rec.Answer...)
		size -= len(rec.Input)
		items = append(items, Item{rec, end})
	}
	return nil
}

// forget reads on from the mark.
func (s *Sink) forget() {
	_ = s.reader.Close()
	s.reader = nil
	if l := s.lag.Load(); l != nil {
		l.restart(s.mark.Sent)
	}
}

// account takes over what the log has dropped unsent. It is kept with the next
// mark.
func (s *Sink) account() (missed bool) {
	l := s.lag.Load()
	if l == nil {
		return false
	}
	n := l.take()
	if n == 0 {
		return false
	}
	s.log.Error("records are gone from the log before they were sent: the receiver is away for longer than the log keeps (spool.retention, spool.max_bytes)",
		zap.Int64("records", n), zap.Uint64("pos", uint64(s.mark.Sent)))
	s.metrics.missed.WithLabelValues(s.opt.Name).Add(float64(n))
	s.mark.Missed += uint64(n)
	s.say(func(st *Status) { st.Missed = s.mark.Missed })
	return true
}

// note keeps what is about to be sent.
func (s *Sink) note(ctx context.Context) error {
	s.account()
	s.mark.Sending = s.batch.To
	if err := s.opt.Cursor.Save(ctx, s.mark, true); err != nil {
		return err
	}
	s.opt.Failpoint("sink.noted")
	return nil
}

func (s *Sink) send(ctx context.Context) error {
	begin := time.Now()
	s.asked.Store(begin.UnixNano())
	defer s.asked.Store(0)
	if err := s.opt.Receiver.Send(ctx, &s.batch); err != nil {
		return err
	}
	s.metrics.seconds.WithLabelValues(s.opt.Name).Observe(time.Since(begin).Seconds())
	s.opt.Failpoint("sink.sent")
	return nil
}

// taken keeps that the batch was taken. It need not be durable: after a power
// failure the batch is sent again under its key.
func (s *Sink) taken(ctx context.Context) error {
	m := s.mark
	m.Sent, m.Sending = s.batch.To, s.batch.To
	if err := s.opt.Cursor.Save(ctx, m, false); err != nil {
		return err
	}
	s.mark = m
	n := len(s.batch.Items)
	s.metrics.records.WithLabelValues(s.opt.Name).Add(float64(n))
	s.say(func(st *Status) { st.Sent += int64(n) })
	s.pending.Store(0)
	s.oldest.Store(0)
	return nil
}

func (s *Sink) close() error {
	s.leave()
	if s.reader != nil {
		_ = s.reader.Close()
	}
	return errors.Join(s.opt.Receiver.Close(), s.opt.Cursor.Close())
}

// leave accounts for what only this process still had, in memory or in a segment
// that is open and removed.
func (s *Sink) leave() {
	l, begin := s.lag.Load(), s.opt.Log.Begin()
	if l == nil || begin <= s.mark.Sent {
		return
	}
	l.gone(begin.Segment(), true)
	for i := range s.pending.Load() {
		if s.batch.Items[i].End < begin {
			l.miss()
		}
	}
	if s.account() {
		_ = s.opt.Cursor.Save(context.Background(), s.mark, false) // the next process says less, else
	}
}

// sleep waits, or until the context ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
