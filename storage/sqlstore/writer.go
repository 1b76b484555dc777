package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/event"
)

const (
	// gather is how long a writer that keeps pace with many lets records come
	// together before the next transaction: each costs a sync of the database on
	// the disk that the devices' answers wait for, and a row of latest_positions
	// for each device in it. Many are those that come so fast that a transaction
	// had crowd of them without waiting.
	gather = 200 * time.Millisecond
	crowd  = 250
	// seenEvery is how exact devices.last_seen_at is: a device that speaks all
	// the time is written this often.
	seenEvery = 30 * time.Second
	// longest is the most a writer waits for a database that is away.
	longest = 30 * time.Second
)

// Log is where the records come from.
type Log interface {
	// Durable returns the position before which records may be stored.
	Durable() storage.Position
	// Notify returns a channel that is closed when Durable moves.
	Notify() <-chan struct{}
	// Read returns a reader from a position.
	Read(from storage.Position) Reader
	// Release says that records before a position are in the database.
	Release(storage.Position)
}

// Reader yields the log's records.
type Reader = storage.Reader

// WriterOptions of a Writer.
type WriterOptions struct {
	Log       Log
	Node      string // names the log in the database
	Epoch     int64  // the generation of the owner
	Decoder   *protocol.Decoder
	Failpoint func(name string) // tests
	Photos    Photos            // nil: photos stay in the log
	// Stored sees the rows of each transaction behind its commit. It must not
	// keep them, and it holds up the next one.
	Stored  func(*event.Rows)
	Confirm func() bool // whether a device that is registered now waits in quarantine; nil: none does
	Caps    Caps
	Batch   int // records of a transaction at most [24,000 in MariaDB, 8,000 in SQLite]
}

// Photos puts photos together; photo.Store is one.
type Photos interface {
	Add(imei protocol.IMEI, p *protocol.Photo, data []byte) (file string, err error)
}

// State is how the writer fares.
type State string

// The states.
const (
	StateOK     State = "ok"
	StateAway   State = "down"
	StateSchema State = "schema" // stopped until an operator mends tables or rights
	StateFenced State = "fenced"
)

// Status is a moment's view of the writer.
type Status struct {
	State     State
	LastError string
	Position  storage.Position // committed
	Begun     bool             // the cursor was read
	Begin     storage.Position // where it stood then
	Stored    int64            // records stored since
	Rows      int64            // rows they stood for
	Merged    int64            // rows that were there already
}

// Writer moves records from the log to the tables in batches; rows and cursor
// commit in one transaction. It belongs to one goroutine; Status may be asked
// by others.
type Writer struct {
	s        *Store
	log      Log
	node     string
	epoch    int64
	decoder  *protocol.Decoder
	failAt   func(string)
	photos   Photos
	load     *loader
	stored   func(*event.Rows)
	batch    int              // records of a transaction at most
	replace  bool             // rows that are there already are replaced: see Again
	position storage.Position // committed, as far as known
	moved    storage.Position // where the database says the cursor is
	reader   Reader
	coming   chan *batch // the next batch, while it is read ahead
	spare    *batch      // its memory is used again
	known    map[protocol.IMEI]device
	touched  map[protocol.IMEI]int64 // last_seen_at in the open transaction
	confirm  func() bool
	caps     caps
	forget   atomic.Bool // what is known of devices may have changed
	judges   judges
	judging  map[protocol.IMEI]*event.Judge // in the open transaction
	sql      []byte
	status   atomic.Pointer[Status]
	metrics  writerMetrics
}

type device struct {
	id      int64
	written int64 // last_seen_at in the database, Unix microseconds
}

type writerMetrics struct {
	rows, merged, quarantined, batches prometheus.Counter
	capped                             prometheus.Counter
	errors                             *prometheus.CounterVec
	seconds, size                      prometheus.Histogram
	maintained                         prometheus.Gauge
}

// Writer prepares a writer; Run does the work.
func (s *Store) Writer(o WriterOptions) *Writer {
	w := &Writer{
		s: s, log: o.Log, node: o.Node, epoch: o.Epoch, decoder: o.Decoder, failAt: o.Failpoint, photos: o.Photos, stored: o.Stored,
		confirm: o.Confirm, caps: newCaps(o.Caps), known: map[protocol.IMEI]device{}, touched: map[protocol.IMEI]int64{}, load: &loader{},
		batch: cmp.Or(o.Batch, s.d.batch()),
	}
	w.status.Store(&Status{State: StateOK})
	counter := func(name, help string) prometheus.Counter {
		return register(s.opt.Registerer, prometheus.NewCounter(prometheus.CounterOpts{Name: "gt06_store_" + name, Help: help}))
	}
	w.metrics = writerMetrics{
		rows:        counter("frames_total", "Frames whose rows are in the database."),
		merged:      counter("merged_total", "Rows that were in the database already: devices sent them again."),
		quarantined: counter("quarantined_total", "Frames in quarantine: unknown, damaged or refused by the database."),
		capped:      counter("capped_total", "Rows left out because their device, or those without a name, had as many as they may; the log has their frames."),
		batches:     counter("batches_total", "Transactions committed."),
		errors:      register(s.opt.Registerer, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gt06_store_errors_total", Help: "Failed batches, by what the database's error means."}, []string{"kind"})),
		seconds: register(s.opt.Registerer, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gt06_store_flush_seconds", Help: "Time a batch took to commit.", Buckets: prometheus.ExponentialBuckets(.001, 2, 14),
		})),
		maintained: register(s.opt.Registerer, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gt06_store_maintained_timestamp_seconds", Help: "When partitions were made ahead and old rows dropped last, Unix time; when this process began, before that.",
		})),
		size: register(s.opt.Registerer, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gt06_store_batch_rows", Help: "Records one transaction stored.", Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		})),
	}
	w.metrics.maintained.SetToCurrentTime()
	for _, kind := range []string{"retry", "data", "away", "schema"} { // a rate wants to see the zero
		w.metrics.errors.WithLabelValues(kind)
	}
	return w
}

func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	if err := reg.Register(c); err != nil {
		if have, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
			if old, ok := have.ExistingCollector.(C); ok {
				return old
			}
		}
	}
	return c
}

func (w *Writer) fail(name string) {
	if w.failAt != nil {
		w.failAt(name)
	}
}

// Status returns how the writer fares.
func (w *Writer) Status() Status { return *w.status.Load() }

func (w *Writer) say(change func(*Status)) {
	st := *w.status.Load()
	change(&st)
	w.status.Store(&st)
}

// Run moves records until the context ends. It never gives up on a database:
// it backs off, and the log keeps what waits. Only ErrFenced ends it. The
// goroutine's thread runs behind all others for good.
func (w *Writer) Run(ctx context.Context) error {
	background()
	defer w.closeReader()
	wait := time.Duration(0)
	maintained := time.Time{}
	for ctx.Err() == nil {
		if now := w.s.opt.Now(); now.Sub(maintained) > time.Hour {
			if err := w.s.Maintain(ctx); err != nil && ctx.Err() == nil {
				w.s.log.Warn("make and drop partitions", zap.Error(w.s.classify(err)))
			} else if err == nil {
				w.metrics.maintained.SetToCurrentTime()
			}
			maintained = now
		}
		err := w.step(ctx)
		if err == nil {
			wait = 0
			continue
		}
		if errors.Is(err, ErrFenced) {
			w.say(func(s *Status) { s.State, s.LastError = StateFenced, err.Error() })
			w.s.log.Error("another server stores this log: this one stops storing", zap.Error(err))
			return err
		}
		wait = w.backOff(ctx, err, wait)
	}
	return nil
}

// Drain stores what is in the log now and returns. Where it ended is in the
// database: it can be called again after an error.
func (w *Writer) Drain(ctx context.Context) error {
	defer w.closeReader()
	for ctx.Err() == nil {
		n, _, err := w.one(ctx)
		switch {
		case errors.Is(err, errMoved):
			w.closeReader() // a commit went through whose reply was lost
		case err != nil:
			return w.s.classify(err)
		case n == 0:
			return nil
		}
	}
	return ctx.Err()
}

// step stores one batch, or waits for there to be one.
func (w *Writer) step(ctx context.Context) error {
	notify := w.log.Notify()
	n, took, err := w.one(ctx)
	switch {
	case err != nil:
		w.closeReader()
		return err
	case n == 0:
		select {
		case <-ctx.Done():
		case <-notify:
		}
		return nil
	}
	w.metrics.seconds.Observe(took.Seconds())
	if n >= crowd && n < w.batch {
		sleep(ctx, gather-took)
	}
	return nil
}

// one stores the next batch. It returns how many records that are and how long
// it took to store them; none are there to be stored when it is 0.
func (w *Writer) one(ctx context.Context) (n int, took time.Duration, err error) {
	if w.reader == nil {
		if err := w.resume(ctx); err != nil {
			return 0, 0, err
		}
	}
	b := w.next()
	defer w.done(b)
	if n = len(b.items); b.err != nil || n == 0 {
		return 0, 0, b.err
	}
	if n == w.batch {
		w.ahead()
	}
	begin := time.Now()
	err = w.store(ctx, b, b.items)
	return n, time.Since(begin), err
}

// resume asks the database where the log stands and reads on from there.
func (w *Writer) resume(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tx, err := w.s.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it says so
	have, err := w.lock(ctx, tx)
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	clear(w.known) // a restored database may have other ids
	w.position = storage.Position(have.Position)
	w.reader = w.log.Read(w.position)
	w.log.Release(w.position)
	w.say(func(s *Status) {
		s.State, s.LastError, s.Position = StateOK, "", w.position
		if !s.Begun {
			s.Begun, s.Begin = true, w.position
		}
	})
	return nil
}

// store commits items of a batch whose rows are built, and finds the one the
// database refuses by halving: it goes to quarantine, the others to their
// tables. Each half is a transaction with a cursor of its own, so a kill between
// two loses and doubles nothing.
func (w *Writer) store(ctx context.Context, b *batch, items []Item) error {
	const retries = 5
	w.caps.left = 0
	if w.forget.Swap(false) {
		clear(w.known)
	}
	end := items[len(items)-1].End
	var err error
	for try := range retries {
		clear(w.touched)
		var merged int64
		merged, err = w.commit(ctx, &b.rows, end)
		if err == nil {
			if w.load.strict > 0 {
				w.load.strict--
			}
			w.committed(b, items, merged)
			return nil
		}
		if errors.Is(err, errWarned) {
			continue // the strict way
		}
		if w.s.d.fault(err) != faultRetry || errors.Is(err, errMoved) {
			break
		}
		w.metrics.errors.WithLabelValues("retry").Inc()
		if !sleep(ctx, time.Duration(try+1)*20*time.Millisecond) {
			return ctx.Err()
		}
	}
	if errors.Is(err, errMoved) || errors.Is(err, ErrFenced) || w.s.d.fault(err) != faultData {
		return err
	}
	w.metrics.errors.WithLabelValues("data").Inc()
	if len(items) > 1 {
		w.settle() // photos belong to one goroutine
		half := len(items) / 2
		for _, part := range [][]Item{items[:half], items[half:]} {
			w.build(b, part)
			if err := w.store(ctx, b, part); err != nil {
				return err
			}
		}
		return nil
	}
	w.s.log.Warn("the database refuses a row: its frame goes to quarantine", zap.Error(err), zap.Stringer("imei", items[0].Record.Device))
	b.rows.Reset()
	b.rows.Frames++
	b.rows.Quarantine(&items[0].Record, items[0].End, "refused: "+err.Error())
	clear(w.touched)
	merged, err := w.commit(ctx, &b.rows, end)
	if err == nil {
		w.committed(b, items, merged)
	}
	return err
}

func (w *Writer) committed(b *batch, items []Item, merged int64) {
	w.position = items[len(items)-1].End
	w.metrics.batches.Inc()
	w.metrics.size.Observe(float64(len(items)))
	w.metrics.rows.Add(float64(b.rows.Frames))
	w.metrics.merged.Add(float64(merged))
	w.metrics.quarantined.Add(float64(len(b.rows.Quarantined)))
	if w.stored != nil {
		w.stored(&b.rows)
	}
	w.metrics.capped.Add(float64(w.caps.left))
	w.log.Release(w.position)
	w.say(func(s *Status) {
		s.State, s.LastError, s.Position = StateOK, "", w.position
		s.Stored += int64(len(items))
		s.Rows += int64(b.rows.Len())
		s.Merged += merged
	})
}

// learn keeps the ids and times of a committed transaction.
func (w *Writer) learn(ids map[protocol.IMEI]int64) {
	for imei, id := range ids {
		d := w.known[imei]
		d.id = id
		if at, ok := w.touched[imei]; ok {
			d.written = at
		}
		w.known[imei] = d
	}
}

// backOff says what is wrong and waits: longer each time, with jitter, so that
// many servers do not come back at once.
func (w *Writer) backOff(ctx context.Context, err error, last time.Duration) time.Duration {
	w.closeReader()
	if ctx.Err() != nil {
		return 0
	}
	if errors.Is(err, errMoved) {
		w.s.log.Warn("the cursor in the database is not where it was left: reading on from there", zap.Uint64("pos", uint64(w.moved)))
		return 0
	}
	state, reason := StateAway, "away"
	if w.s.d.fault(err) == faultSchema {
		state, reason = StateSchema, "schema"
	}
	text := w.s.classify(err).Error()
	if st := w.Status(); st.State != state || last == 0 {
		w.s.log.Error("cannot store: the log keeps what comes", zap.String("reason", reason), zap.String("error", text))
	}
	w.metrics.errors.WithLabelValues(reason).Inc()
	w.say(func(s *Status) { s.State, s.LastError = state, text })
	next := min(max(2*last, 100*time.Millisecond), longest)
	sleep(ctx, next/2+rand.N(next/2))
	return next
}

// Forget makes the writer read again what the table says of devices: somebody
// changed it.
func (w *Writer) Forget() { w.forget.Store(true) }

// sleep waits and reports whether the context is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
